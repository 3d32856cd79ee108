# SPDX-License-Identifier: MIT
"""The outline of a ruleset's text: where statements and blocks begin and end, and nothing about what they
mean.

nft alone understands rulesets. This knows strings, comments, braces and separators: enough to find a line
again, to see which commands a text gives, and to leave parts of it out.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

from linxd.records import NamedTuple, dataclass, field

_TOKEN = re.compile(r'#[^\n]*|"[^"\n]*"?|\\\n|\n|[{};=,]|[^\s{};=,"#]+')
_new = tuple.__new__
_BLOCKS = frozenset(
    ("chain", "set", "map", "flowtable", "counter", "quota", "limit", "ct", "secmark", "synproxy", "tunnel")
)
_MAKING = frozenset(("add", "create", "insert", "replace"))
HEADS = frozenset(("type", "policy", "comment", "flags", "device", "devices"))
"""First words of what stands in a chain and is no rule."""


class Token(NamedTuple):
    """A word, a string with its quotes, a separator or a brace, at an offset."""

    text: str
    at: int

    @property
    def end(self) -> int:
        return self.at + len(self.text)


@dataclass(slots=True)
class Statement:
    """``tokens[first:last]`` of the text, without the separator that ends it. ``body``: the statements in
    its braces, where these hold statements; ``opens`` and ``closes`` are the tokens of the braces then."""

    first: int
    last: int
    words: tuple[str, ...]
    body: list[Statement] | None = None
    opens: int = 0
    closes: int = 0
    level: int = 0

    @property
    def head(self) -> str:
        """The first word that is not ``add`` or the like."""
        return next((word for word in self.words if word not in _MAKING), "")


@dataclass(slots=True)
class Outline:
    """A text in tokens and statements."""

    text: str
    tokens: list[Token]
    statements: list[Statement] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    """Offset of each line."""

    def line_of(self, at: int) -> int:
        """Number of the line (from 0) of an offset."""
        return bisect_right(self.lines, at) - 1

    def within(self, at: int) -> list[Statement]:
        """The statements that an offset stands in, outermost first."""
        found: list[Statement] = []
        level = self.statements
        while True:
            inner = next((one for one in level if self.start(one) <= at <= self.end(one)), None)
            if inner is None:
                return found
            found.append(inner)
            level = inner.body or []

    def start(self, statement: Statement) -> int:
        """Offset of a statement's first character."""
        return self.tokens[statement.first].at

    def end(self, statement: Statement) -> int:
        """Offset behind its last one."""
        return self.tokens[statement.last - 1].end

    def walk(self) -> Iterator[Statement]:
        """Every statement, outer ones before what is in them."""
        stack = self.statements[::-1]
        while stack:
            one = stack.pop()
            yield one
            stack += (one.body or [])[::-1]

    def place_words(self, at: int) -> str:
        """``chain input of table inet filter``: where an offset stands, "" outside of everything."""
        inside = [one for one in self.within(at) if one.words]
        if not inside:
            return ""
        top = [word for word in inside[0].words if word not in _MAKING]
        if inside[0].body is not None and top[:1] == ["table"]:
            table = " ".join(top[1:3])
            if len(inside) > 1 and inside[1].body is not None:
                return f"{' '.join(_named(inside[1]))} of table {table}"
            return f"table {table}"
        if top[:1] in (["rule"], ["chain"], ["element"], ["set"], ["map"]) and len(top) >= 3:
            family = top[1:2] if top[1] in FAMILY_NAMES else []
            rest = top[1 + len(family) :]
            if len(rest) >= 2:
                kind = {"rule": "chain", "element": "set"}.get(top[0], top[0])
                return f"{kind} {rest[1]} of table {' '.join([*family, rest[0]])}"
        return ""


FAMILY_NAMES = frozenset(("ip", "ip6", "inet", "arp", "bridge", "netdev"))


def _named(statement: Statement) -> list[str]:
    words = [word for word in statement.words if word not in _MAKING]
    return words[:3] if words[:1] == ["ct"] else words[:2]


def outline(text: str) -> Outline:
    """Read a text. Never fails: what is no ruleset has an odd outline, and nft says what is wrong with
    it."""
    tokens = [
        _new(Token, (word, match.start()))
        for match in _TOKEN.finditer(text)
        if (word := match[0])[0] not in "#\\" or (word[0] == "\\" and word != "\\\n")
    ]
    lines = [0, *(match.end() for match in re.finditer("\n", text))]
    found = Outline(text, tokens, lines=lines)
    reader = _Reader(tokens)
    at = 0
    while at < len(tokens):
        # a brace that closes nothing ends nothing either
        at = reader.statements(at, 0, found.statements)
        at += 1
    return found


_WORDS = 8


class _Reader:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens

    def statements(self, at: int, level: int, into: list[Statement]) -> int:
        """Read until the brace that closes the block; returns its index."""
        tokens = self._tokens
        while at < len(tokens):
            text = tokens[at].text
            if text in ("\n", ";"):
                at += 1
            elif text == "}":
                return at
            else:
                at = self._statement(at, level, into)
        return at

    def _statement(self, at: int, level: int, into: list[Statement]) -> int:
        tokens = self._tokens
        one = Statement(at, at, (), level=level)
        into.append(one)
        words: list[str] = []
        while at < len(tokens):
            text = tokens[at].text
            if text in ("\n", ";", "}"):
                break
            if text == "{":
                one.words = tuple(words)
                if one.body is None and self._holds_statements(one, level):
                    one.body, one.opens = [], at
                    at = self.statements(at + 1, level + 1, one.body)
                    one.closes = min(at, len(tokens) - 1)
                else:
                    at = self._skip(at)
            elif len(words) < _WORDS:
                words.append(text)
            at += 1
        one.words = tuple(words)
        one.last = min(at, len(tokens))
        return at

    def _holds_statements(self, one: Statement, level: int) -> bool:
        if level == 0:
            return one.head == "table" or (one.words[:1] != ("define",) and one.head in _BLOCKS)
        return level == 1 and one.head in _BLOCKS

    def _skip(self, at: int) -> int:
        """Index of the brace that closes the one at ``at``."""
        depth = 0
        tokens = self._tokens
        while at < len(tokens):
            text = tokens[at].text
            depth += (text == "{") - (text == "}")
            if depth == 0:
                return at
            at += 1
        return at
