# SPDX-License-Identifier: MIT
"""All rulesets of a scope as one text, with what they include put in place, and the way back to the user's
lines.

It knows where files may be read from, and of nft's syntax no more than comments, strings and ``include``.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence

from linxd.records import dataclass, field
from linxd.sources.netfilter.faults import RulesetError, RulesetFault
from linxd.sources.netfilter.model import Ruleset

DEPTH = 16
"""Files that include each other, as deep as nft goes (MAX_INCLUDE_DEPTH in include/parser.h)."""
MOST = 1000
"""Inclusions in all."""
LARGEST = 64 << 20
"""Bytes of a file that is read at all."""
_TOKEN = re.compile(r'#[^\n]*|"[^"\n]*"?|\\\n|\n|[{};]|[^\s{};"#]+')

Read = Callable[[str], str]
"""Reads a file that is included. Raises OSError or ValueError (what is wrong with it, in words)."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a line of the one text comes from: its line there, and how far it was moved to the left."""

    file: str
    line: int
    column: int = 0


@dataclass(slots=True)
class Flat:
    """The one text. ``origins``: one for each of its lines."""

    text: str = ""
    origins: list[Origin] = field(default_factory=list)

    def place(self, line: int, column: int = 1) -> tuple[str, int, int]:
        """File, line and column (from 1) of a place in the text (from 1)."""
        if not self.origins:
            return "", 0, 0
        origin = self.origins[min(max(line, 1), len(self.origins)) - 1]
        return origin.file, origin.line, origin.column + column


def read_trusted(path: str) -> str:
    """A file's text, if it belongs to root or to us and nobody else may write it. Raises OSError,
    ValueError."""
    # A pipe would be waited for, and some devices never end.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(descriptor, encoding="utf-8") as file:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode):
            raise ValueError("is not a regular file")
        if seen.st_size > LARGEST:
            raise ValueError(f"has {seen.st_size} bytes, want at most {LARGEST}")
        if seen.st_uid not in (0, os.geteuid()):
            raise ValueError(f"belongs to user {seen.st_uid}")
        if seen.st_mode & 0o022:
            raise ValueError(f"has mode {seen.st_mode & 0o7777:04o}: its group or everybody can write to it")
        return file.read()


def flatten(rulesets: Sequence[Ruleset], roots: Sequence[str], read: Read = read_trusted) -> Flat:
    """Put everything together, in order. Raises RulesetError."""
    work = _Flattening([os.path.realpath(root) for root in roots], read)
    for ruleset in rulesets:
        work.add(ruleset.text, ruleset.file, ruleset.line, ruleset.base, 0)
    if work.faults:
        raise RulesetError(work.faults)
    return Flat("".join(work.parts), work.origins)


@dataclass(slots=True)
class _Flattening:
    roots: list[str]
    read: Read
    parts: list[str] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    faults: list[RulesetFault] = field(default_factory=list)
    includes: int = 0

    def add(self, text: str, file: str, line: int, base: str, depth: int) -> None:
        if "include" not in text:
            self._lines(text, 0, len(text), file, line)
            return
        begun = 0
        fresh = True
        """At the beginning of a statement, where alone `include` is a word of nft's."""
        tokens = list(_TOKEN.finditer(text))
        for number, match in enumerate(tokens):
            token = match.group()
            if token.startswith("#") or token == "\\\n":
                continue
            if token in ("\n", ";", "{", "}"):
                fresh = True
                continue
            if fresh and token == "include" and number + 1 < len(tokens):
                name = tokens[number + 1]
                if name.group().startswith('"'):
                    self._lines(text, begun, match.start(), file, line)
                    at = line + text.count("\n", 0, match.start())
                    column = match.start() - text.rfind("\n", 0, match.start())
                    self._include(name.group().strip('"'), file, at, column, base, depth)
                    begun = name.end()
            fresh = False
        self._lines(text, begun, len(text), file, line)

    def _lines(self, text: str, start: int, end: int, file: str, line: int) -> None:
        """Take over a part of a file, ending with its own end of line."""
        if start >= end:
            return
        number = line + text.count("\n", 0, start)
        column = start - (text.rfind("\n", 0, start) + 1)
        for piece in text[start:end].split("\n"):
            self.parts.append(piece + "\n")
            self.origins.append(Origin(file, number, column))
            number, column = number + 1, 0

    def _include(self, name: str, file: str, line: int, column: int, base: str, depth: int) -> None:
        def fault(message: str, hint: str = "") -> None:
            self.faults.append(RulesetFault(file, line, column, f'include "{name}": {message}', hint=hint))

        if depth >= DEPTH:
            fault(f"more than {DEPTH} files include each other")
            return
        self.includes += 1
        if self.includes > MOST:
            # Said once: files that include all files, themselves too, do so without end.
            if self.includes == MOST + 1:
                fault(f"more than {MOST} times something is included")
            return
        path = os.path.normpath(os.path.join(base, name))
        several = any(sign in name for sign in "*?[")
        for found in _matching(path) if several else [path]:
            real = os.path.realpath(found)
            if not any(real == root or real.startswith(root.rstrip("/") + "/") for root in self.roots):
                fault(f"{real} is outside {' and '.join(self.roots) or 'what may be included'}")
                continue
            if os.path.isdir(real):
                fault(f"{real} is a directory", f'write include "{name.rstrip("/")}/*.nft"')
                continue
            try:
                text = self.read(found)
            except UnicodeDecodeError:
                fault(f"{found} is not UTF-8")
            except ValueError as error:
                fault(f"{found} {error}")
            except OSError as error:
                fault(f"{found}: {error.strerror}")
            else:
                self.add(text, found, 1, os.path.dirname(found), depth + 1)


def _matching(pattern: str) -> list[str]:
    import glob  # few include several files at once

    return sorted(glob.glob(pattern))
