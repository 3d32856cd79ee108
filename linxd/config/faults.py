# SPDX-License-Identifier: MIT
"""What is wrong with a file, told so that a person can mend it: place, key, what was found, what was
expected.

It knows no key of linxd's and reads no file.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from linxd.records import dataclass

Path: TypeAlias = tuple[str | int, ...]
"""Keys and indices (from 0) from the top of a file down."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Severity(enum.StrEnum):
    """An error refuses the file; a warning is said and the file holds."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. Line and column count from 1, the column in characters; both are 0 where the fault is a
    whole file's. ``path`` is the key as TOML spells it, "" for a whole file. ``hint`` is what to do about
    it, or ""."""

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        place += ": " if place else ""
        text = place + ("warning: " if self.severity is Severity.WARNING else "")
        text += (f"{self.path}: " if self.path else "") + self.message
        return f"{text} ({self.hint})" if self.hint else text

    def as_dict(self) -> dict[str, str | int]:
        """For JSON output."""
        return {
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "path": self.path,
            "message": self.message,
            "hint": self.hint,
            "severity": str(self.severity),
        }


class ConfigError(Exception):
    """A configuration that does not load, with all its faults, warnings among them, in the order of the
    files."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))

    @property
    def errors(self) -> tuple[Fault, ...]:
        """The faults without the warnings."""
        return tuple(fault for fault in self.faults if fault.severity is Severity.ERROR)


class Undeclared(ConfigError):  # noqa: N818 - reads as what happened
    """There is no file for this scope, or it is masked: nothing is declared, which is not the same as
    empty."""


class Wrong(ValueError):  # noqa: N818 - reads as what happened
    """A value is not what its key wants. ``want`` completes the sentence "is X, want …"; ``hint`` helps."""

    def __init__(self, want: str, hint: str = "") -> None:
        super().__init__(want)
        self.want = want
        self.hint = hint


class Refused(ValueError):  # noqa: N818 - reads as what happened
    """A value is well-formed and yet can't be: ``message`` stands by itself."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def dotted(path: Path) -> str:
    """``link."eth0.100".addresses[1]``: a key path as TOML would spell it."""
    text = ""
    for member in path:
        if isinstance(member, int):
            text += f"[{member}]"
            continue
        text += ("." if text else "") + key_word(member)
    return text


def key_word(key: str) -> str:
    """A key bare where TOML allows it, else quoted."""
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def found(value: object) -> str:
    """A value as a message shows it: scalars as TOML spells them, what is long cut, tables and arrays
    named."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            text = json.dumps(value, ensure_ascii=False)
            return text if len(text) <= 60 else text[:56] + '…"'
        case int() | float():
            text = str(value) if isinstance(value, float) or abs(value) < 1 << 128 else hex(value)
            return text if len(text) <= 60 else text[:56] + "…"
        case dict():
            return "a table"
        case list():
            return "an array"
    if type(value).__module__ == "datetime":  # not imported for that: a daemon needs none
        return f"the date {value}"
    return type(value).__name__


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, or None."""
    # difflib is needed only when something is wrong already: keep it out of a daemon that starts well.
    import difflib

    near = difflib.get_close_matches(word.lower(), tuple(known), n=1, cutoff=0.6)
    return near[0] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint, or "" when nothing known is near."""
    near = closest(word, known)
    return f'did you mean "{near}"?' if near is not None else ""


def one_of(words: Sequence[str]) -> str:
    """``"keep" or "remove"``."""
    quoted = [f'"{word}"' for word in words]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " or " + quoted[-1]
