# SPDX-License-Identifier: MIT
"""Where every key and value of a TOML text stands, since tomllib does not tell.

The scanner runs over text that tomllib has accepted, so it checks nothing; it must not know what any key
means."""

from __future__ import annotations

import re
import tomllib

from linxd.records import dataclass, field

# No possessive quantifiers: before 3.11.5 those around a group match wrongly. Nothing here backtracks on
# text that tomllib has accepted.
_SKIP = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'")
_LONG = re.compile(r'"""(?:[^"\\]+|\\.|"(?!""))*"{3,5}|' + r"'''(?:[^']+|'(?!''))*'{3,5}", re.DOTALL)
_DATE_AND_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:[0-9:.Zz+-]+")
_PLAIN = re.compile(r"[^\s,\]}#]+")


@dataclass(slots=True)
class Spot:
    """Offsets into the text: of the key (of the header that opened a table) and of its value.

    An element of an array has its own offset as ``key``; a table opened by a header has the header's as
    ``value``."""

    key: int
    value: int
    children: dict[str | int, Spot] = field(default_factory=dict)
    of_tables: bool = False
    """An array of tables: a header below it means its last element."""


def spots(text: str) -> Spot:
    """The tree of positions of ``text``, which tomllib must have accepted. Keys and indices are
    tomllib's."""
    return _Scanner(text).document()


class _Scanner:
    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def document(self) -> Spot:
        root = current = Spot(0, 0)
        while True:
            self._skip()
            if self.at >= len(self.text):
                return root
            if self.text[self.at] == "[":
                current = self._header(root)
            else:
                self._pair(current)

    def _skip(self) -> None:
        match = _SKIP.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def _header(self, root: Spot) -> Spot:
        start = self.at
        of_tables = self.text.startswith("[[", start)
        self.at += 2 if of_tables else 1
        keys = self._dotted_key()
        self.at += 2 if of_tables else 1
        table = _descend(root, keys[:-1])
        name, offset = keys[-1]
        spot = table.children.get(name)
        if spot is None:
            spot = table.children[name] = Spot(offset, start)
        elif not spot.of_tables:
            # [a.b] made `a` on the way; its own header is the better place to point at.
            spot.key, spot.value = offset, start
        if of_tables:
            spot.of_tables = True
            element = spot.children[len(spot.children)] = Spot(offset, start)
            return element
        return spot

    def _pair(self, table: Spot) -> None:
        keys = self._dotted_key()
        self.at += 1  # the equals sign
        self._skip()
        name, offset = keys[-1]
        _descend(table, keys[:-1]).children[name] = self._value(offset)

    def _dotted_key(self) -> list[tuple[str, int]]:
        """The members of a key with their offsets; leaves ``at`` on what ends it (``=`` or ``]``)."""
        keys: list[tuple[str, int]] = []
        while True:
            self._skip()
            start = self.at
            match = _BARE.match(self.text, start) or _QUOTED.match(self.text, start)
            if match is None:
                raise ValueError(f"no key at offset {start}")
            self.at = match.end()
            keys.append((_key(match.group()), start))
            self._skip()
            if not self.text.startswith(".", self.at):
                return keys
            self.at += 1

    def _value(self, key: int | None = None) -> Spot:
        start = self.at
        spot = Spot(start if key is None else key, start)
        match self.text[start]:
            case "[":
                self._array(spot)
            case "{":
                self._inline_table(spot)
            case "'" | '"':
                self._token(_LONG if self.text.startswith(self.text[start] * 3, start) else _QUOTED)
            case _:
                self._token(_DATE_AND_TIME if _DATE_AND_TIME.match(self.text, start) else _PLAIN)
        return spot

    def _token(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise ValueError(f"no value at offset {self.at}")
        self.at = match.end()

    def _array(self, spot: Spot) -> None:
        self.at += 1
        while True:
            self._skip()
            if self.text[self.at] == "]":
                self.at += 1
                return
            if self.text[self.at] == ",":
                self.at += 1
                continue
            spot.children[len(spot.children)] = self._value()

    def _inline_table(self, spot: Spot) -> None:
        self.at += 1
        while True:
            self._skip()
            if self.text[self.at] == "}":
                self.at += 1
                return
            if self.text[self.at] == ",":
                self.at += 1
                continue
            self._pair(spot)


def _key(token: str) -> str:
    if token[0] == "'":
        return token[1:-1]
    if token[0] != '"':
        return token
    if "\\" not in token:
        return token[1:-1]
    # Escapes are tomllib's business, so that both sides always mean the same key.
    value = tomllib.loads(f"key = {token}")["key"]
    assert isinstance(value, str)
    return value


def _descend(spot: Spot, keys: list[tuple[str, int]]) -> Spot:
    for name, offset in keys:
        child = spot.children.get(name)
        if child is None:
            child = spot.children[name] = Spot(offset, offset)
        spot = child.children[len(child.children) - 1] if child.of_tables else child
    return spot


def depth(value: object) -> int:
    """How deeply tables and arrays are nested in what tomllib returned; 0 for a scalar."""
    deepest = 0
    waiting: list[tuple[object, int]] = [(value, 0)]
    while waiting:
        item, level = waiting.pop()
        inside = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        if inside:
            level += 1
            deepest = max(deepest, level)
            waiting += [(child, level) for child in inside if isinstance(child, (dict, list))]
    return deepest
