# SPDX-License-Identifier: MIT
"""TOML files as trees whose every node knows where it stands, and how several files become one.

Merging is by key, whatever the keys mean: entries of an array of tables are only put one after the other,
and who replaces whom is decided where their identity is known."""

from __future__ import annotations

import bisect
import re
import tomllib
from collections.abc import Mapping
from datetime import date, time
from typing import Any, TypeAlias

from linxd.config.faults import ConfigError, Fault, Path, dotted
from linxd.config.positions import Spot, depth, spots
from linxd.sources.rtnl.model import Where

DEEPEST = 32
"""Levels of nesting that are read at all; the deepest that means something is 6."""

Scalar: TypeAlias = str | int | float | bool | date | time


class Source:
    """One text: its name in messages, and lazily the positions in it.

    ``text`` None is desired state that came from elsewhere than a file: everything is said to stand at 1:1.
    ``layer``: its number in the order in which files are merged.
    """

    __slots__ = ("_lines", "_root", "layer", "name", "text")

    def __init__(self, name: str, text: str | None, *, layer: int = 0) -> None:
        self.name = name
        self.text = text
        self.layer = layer
        self._root: Spot | None = None
        self._lines: list[int] | None = None

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset."""
        if self.text is None:
            return 1, 1
        if self._lines is None:
            self._lines = [0] + [match.end() for match in re.finditer("\n", self.text)]
        line = bisect.bisect_right(self._lines, offset)
        return line, offset - self._lines[line - 1] + 1

    def spot(self, path: Path) -> Spot:
        """The spot of a path, or of the nearest thing above it that has one."""
        if self._root is None:
            self._root = Spot(0, 0) if self.text is None else spots(self.text)
        spot = self._root
        for member in path:
            below = spot.children.get(member)
            if below is None:
                break
            spot = below
        return spot


class Standing:
    """Where a value stands, or its key (`linxd.sources.rtnl.model.Where`): found out when somebody asks, for
    the text has to be scanned for that."""

    __slots__ = ("_at_key", "_path", "_source")

    def __init__(self, source: Source, path: Path, *, at_key: bool) -> None:
        self._source = source
        self._path = path
        self._at_key = at_key

    @property
    def file(self) -> str:
        return self._source.name

    @property
    def line(self) -> int:
        return self._place()[0]

    @property
    def column(self) -> int:
        return self._place()[1]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def _place(self) -> tuple[int, int]:
        spot = self._source.spot(self._path)
        return self._source.place(spot.key if self._at_key else spot.value)


class Node:
    """A value with its key and its source. Tables hold nodes by key, arrays hold them in order."""

    __slots__ = ("key", "parent", "source", "value")

    def __init__(
        self,
        value: dict[str, Node] | list[Node] | Scalar,
        source: Source,
        parent: Node | None = None,
        key: str | int = "",
    ) -> None:
        self.value = value
        self.source = source
        self.parent = parent
        self.key = key

    @property
    def path(self) -> Path:
        """Keys and indices from the top of its own file."""
        members: list[str | int] = []
        node: Node = self
        while node.parent is not None:
            members.append(node.key)
            node = node.parent
        return tuple(reversed(members))

    @property
    def where(self) -> Where:
        """Where the value stands: for a table opened by a header, the header."""
        return Standing(self.source, self.path, at_key=False)

    @property
    def key_where(self) -> Where:
        """Where its key stands."""
        return Standing(self.source, self.path, at_key=True)

    @property
    def text_line(self) -> int:
        """The line on which the content of a string begins: a newline right after ``\"\"\"`` does not
        count."""
        where, text = self.where, self.source.text
        if text is None:
            return where.line
        opening = text[self.source.spot(self.path).value :][:5].replace("\r\n", "\n")
        return where.line + (opening[:4] in ('"""\n', "'''\n"))

    def table(self) -> dict[str, Node]:
        """Its nodes by key; empty unless it is a table."""
        return self.value if isinstance(self.value, dict) else {}

    def plain(self) -> Any:
        """The value as tomllib would give it."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def grow(value: Any, source: Source, parent: Node | None = None, key: str | int = "") -> Node:
    """The tree of what tomllib returned (or of any dictionary of that shape)."""
    node = Node(value, source, parent, key)
    if isinstance(value, (str, int)):
        return node  # nearly all: to ask whether it is a mapping takes longer
    if isinstance(value, Mapping):
        node.value = {name: grow(item, source, node, name) for name, item in value.items()}
    elif isinstance(value, (list, tuple)):
        node.value = [grow(item, source, node, index) for index, item in enumerate(value)]
    return node


def parse(name: str, text: str, *, layer: int = 0) -> Node:
    """One file's tree. Raises `ConfigError` with the place where tomllib stumbled."""
    try:
        raw = tomllib.loads(text)
        levels = depth(raw)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax(name, text, str(error))]) from None
    except RecursionError:
        levels = DEEPEST + 1
    except ValueError as error:
        # Python refuses to read an integer of thousands of digits; tomllib passes that on as it is.
        number = re.search(r"[0-9_]{1000,}", text)
        line, column = Source(name, text).place(number.start() if number else 0)
        raise ConfigError([Fault(name, line, column, "", f"not TOML: {error}")]) from None
    if levels > DEEPEST:
        raise ConfigError([Fault(name, 1, 1, "", f"tables and arrays are nested more than {DEEPEST} deep")])
    return grow(raw, Source(name, text, layer=layer))


_AT = re.compile(
    r"^(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$", re.DOTALL
)


def _syntax(name: str, text: str, said: str) -> Fault:
    match = _AT.match(said)
    what = match["what"] if match else said
    if match and match["line"]:
        line, column = int(match["line"]), int(match["column"])
    else:
        line, column = Source(name, text).place(len(text.rstrip()))
    hint = "it begins with a byte order mark: save it without" if text.startswith("\ufeff") else ""
    return Fault(name, line, column, "", f"not TOML: {what[:1].lower()}{what[1:]}", hint)


def merge(earlier: Node, later: Node) -> Node:
    """Both as one: tables key by key, arrays of tables one after the other, anything else as ``later`` says.

    ``addresses`` are appended too, though they may be written as strings. Positions stay those of the file
    that each value comes from."""
    if isinstance(earlier.value, dict) and isinstance(later.value, dict):
        both = dict(earlier.value)
        for key, node in later.value.items():
            both[key] = merge(both[key], node) if key in both else node
        return Node(both, later.source, later.parent, later.key)
    if isinstance(earlier.value, list) and isinstance(later.value, list) and _appended(earlier, later):
        return Node(earlier.value + later.value, later.source, later.parent, later.key)
    return later


def _appended(earlier: Node, later: Node) -> bool:
    if later.key == "addresses":
        return True
    items = [item for node in (earlier, later) if isinstance(node.value, list) for item in node.value]
    return bool(items) and all(isinstance(item.value, dict) for item in items)


def spell(node: Node) -> str:
    """The key path of a node, as messages show it."""
    return dotted(node.path)
