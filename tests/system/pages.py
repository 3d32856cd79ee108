# SPDX-License-Identifier: MIT
"""The pages under docs/ as what a reader would type: files to write, commands, and what is to be seen below
them.

It knows the few marks that the pages use, and nothing of what they say:

- a block `console` has commands behind `# ` (root) or `$ ` (anybody), each with what it prints below it. `…`
  stands for anything in a line; alone on a line, for any lines.
- a block of any other sort whose first line is a comment with a path (`# /etc/linxd/x.toml`) is that file.
- `<!-- prepare` … `-->` has commands for what the reader has already.
- `<!-- not run: why -->` stands before a block that can't be run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Command:
    """A command, and what is to be seen (None: whatever it prints)."""

    line: int
    text: str
    shown: str | None
    root: bool = True


@dataclass(frozen=True, slots=True)
class File:
    """A file that is to be written."""

    line: int
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A block that is not run, and why."""

    line: int
    why: str


Step = Command | File | Skipped
_FENCE = re.compile(r"^```(\w*)$")
_PATH = re.compile(r"^(?:#|//) (/\S+)$")


def steps(text: str) -> Iterator[Step]:
    """What a page has its reader do, in order. Raises ValueError for a block that has no end."""
    lines = text.split("\n")
    at = 0
    why: str | None = None
    while at < len(lines):
        line = lines[at]
        at += 1
        if found := re.fullmatch(r"<!-- not run: (.+) -->", line):
            why = found[1]
        elif line == "<!-- prepare":
            start, at = at, _end(lines, at, "-->")
            yield from _commands(lines[start : at - 1], start + 1, shown=False)
        elif opened := _FENCE.match(line):
            start, at = at, _end(lines, at, "```")
            block = lines[start : at - 1]
            path = _PATH.match(block[0]) if block else None
            if opened[1] == "console":
                if why is not None:
                    yield Skipped(start, why)
                else:
                    yield from _commands(block, start + 1, shown=True)
            elif path:
                yield File(start, path[1], "\n".join(block) + "\n")
            why = None


def _end(lines: list[str], at: int, end: str) -> int:
    """The line after that which ends a block."""
    try:
        return lines.index(end, at) + 1
    except ValueError:
        raise ValueError(f"line {at}: nothing ends this block") from None


def _commands(block: list[str], number: int, *, shown: bool) -> Iterator[Command]:
    at = 0
    while at < len(block):
        start, line = at, block[at]
        if not line.startswith(("# ", "$ ")):
            raise ValueError(f"line {number + at}: output without a command")
        words = [line[2:]]
        at += 1
        while words[-1].endswith("\\"):
            words.append(block[at])
            at += 1
        output = []
        while at < len(block) and not block[at].startswith(("# ", "$ ")):
            output.append(block[at])
            at += 1
        yield Command(
            number + start,
            "\n".join(words),
            "\n".join(output).strip() if shown else None,
            root=line.startswith("#"),
        )


# What differs each time: who it was (the kernel does not always tell in time), how long it took, when.
_VARIES = (
    (re.compile(r" \((?:[\w ]+ )?by [^()]+(?:\([^()]*\))?\)"), ""),
    (re.compile(r"\b\d+(?:\.\d+)? (?:µs|ms|s|min)\b"), "TIME"),
    (re.compile(r"\b[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d\b"), "WHEN"),
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r" $", re.M), ""),
)


def _same(text: str) -> str:
    for pattern, instead in _VARIES:
        text = pattern.sub(instead, text)
    return text.strip()


def matches(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed."""
    if not shown:
        return not printed.strip()
    pattern = ""
    for line in _same(shown).split("\n"):
        if line == "…":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*?".join(re.escape(part) for part in line.split("…")) + r"\n"
    return re.fullmatch(pattern, _same(printed) + "\n" if printed.strip() else "") is not None
