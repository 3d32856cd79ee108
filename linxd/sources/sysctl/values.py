# SPDX-License-Identifier: MIT
"""When two values of a sysctl mean the same, and how one is shown. Pure text; it knows no key but the secret
ones."""

from __future__ import annotations

import re

from linxd.sources.sysctl.model import Path

_NUMBER = re.compile(r"-?[0-9]+")
_HEXADECIMAL = re.compile(r"(-?)0[xX]([0-9a-fA-F]+)")
_RANGES = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")
_SECRET = ("stable_secret", "tcp_fastopen_key")


def same(have: str, want: str) -> bool:
    """Whether the kernel's text means what was asked for.

    White space only separates, numbers count as numbers (hexadecimal ones too), lists of ports as sets.
    ``010`` is no number: the kernel reads it as 8, and its answer tells people so.
    """
    if have == want:
        return True
    if len(have) == len(want) == 1 and have.isalnum():
        return False  # two of those that most keys hold
    ours, theirs = have.split(), want.split()
    return len(ours) == len(theirs) and all(map(_same_word, ours, theirs))


def _same_word(have: str, want: str) -> bool:
    if have == want:
        return True
    number = _number(want)
    if number is not None:
        return number == _number(have)
    if _RANGES.fullmatch(want) and _RANGES.fullmatch(have) and ("," in want or "-" in want):
        return _ranges(want) == _ranges(have)
    return False


def _number(word: str) -> int | None:
    if _NUMBER.fullmatch(word):
        plain = word.lstrip("-")
        return int(word) if plain == "0" or plain[0] != "0" else None
    found = _HEXADECIMAL.fullmatch(word)
    return None if found is None else int(found[1] + found[2], 16)


def _ranges(word: str) -> list[tuple[int, int]]:
    """Ports of ip_local_reserved_ports and the like, as ascending ranges that don't touch."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(_bounds(part) for part in word.split(",")):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _bounds(part: str) -> tuple[int, int]:
    first, _, last = part.partition("-")
    return int(first), int(last or first)


def is_secret(path: Path) -> bool:
    """Whether the value must not be told."""
    return path[-1] in _SECRET


def shown(path: Path, value: str) -> str:
    """The value for people: on one line, lists with single blanks, a secret as such."""
    if is_secret(path) and value:
        return "(secret)"
    return " ".join(value.split()) if "\t" in value or "\n" in value else value
