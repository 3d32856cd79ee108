# SPDX-License-Identifier: MIT
"""A large ruleset in several texts that load one after the other and come to the same.

nft sends a text as one message, and where it may not raise its send buffer (SO_SNDBUFFORCE wants
CAP_NET_ADMIN of the initial user namespace) 208 KiB are the end of it. Parts are left out by blanks, so that
lines and columns in nft's messages stay what they are. It must not know how a text is loaded.
"""

from __future__ import annotations

from linxd.records import dataclass
from linxd.sources.netfilter.syntax import HEADS, Outline, Statement

Span = tuple[int, int]
"""Offsets: from, to."""


@dataclass(frozen=True, slots=True)
class _Item:
    """Something that can be loaded later, and the spans of what has to stand round it then."""

    span: Span
    frame: tuple[Span, ...] = ()
    group: int = -1
    """Items of different groups do not stand in one text."""
    hides: tuple[Span, ...] = ()
    """Definitions that are not to stand there whole."""

    rule: bool = False

    @property
    def size(self) -> int:
        """Bytes of its messages, by experience rather more than less."""
        length = self.span[1] - self.span[0]
        return 100 + 5 * length if self.rule else 20 + 2 * length


class Pieces:
    """A text in pieces that are loaded in order and together make what the text makes: first all that has a
    name, then rules, then elements (which nft would read again for each piece with rules). A text that also
    takes things away again, or counts on an order, is one
    piece."""

    def __init__(self, text: Outline) -> None:
        self._text = text
        work = _Items(text)
        self._items = [] if work.whole else [*work.rules, *work.elements]
        self._later = sorted(work.later)
        self._definitions = _definitions(text)
        self._taken = self._next = -1
        self.size = sum(item.size for item in self._items)
        """Bytes of messages that all of it comes to, by estimate."""

    @property
    def empty(self) -> bool:
        """Whether all has been loaded."""
        return self._taken >= len(self._items)

    def take(self, budget: int) -> str:
        """The next piece, of at most ``budget`` bytes by estimate (or a single thing that is longer). What
        was taken last comes again, in smaller pieces, unless it is `done`."""
        if self._taken < 0:
            self._next = 0
            return _without(self._text.text, self._later) if self._items else self._text.text
        group: list[_Item] = []
        size = 0
        for item in self._items[self._taken :]:
            # one list at a time: another set's elements may lean on the same variable
            if group and (size + item.size > budget or item.group != group[-1].group):
                break
            group.append(item)
            size += item.size
        self._next = self._taken + len(group)
        keep = {span for item in group for span in (item.span, *item.frame)}
        hidden = {span for item in group for span in item.hides}
        return _only(self._text.text, sorted(keep | (self._definitions - hidden)))

    def done(self) -> None:
        """What was taken last has been loaded; without a `take`, the whole text."""
        self._taken = self._next if self._next >= 0 else len(self._items)
        if not self._items:
            self._taken = 0


class _Items:
    """What can be loaded later."""

    def __init__(self, text: Outline) -> None:
        self.text = text
        self.whole = False
        self.elements: list[_Item] = []
        self.rules: list[_Item] = []
        self.later: list[Span] = []
        """What the first text goes without."""
        self._defined = {
            one.words[1]: one
            for one in text.statements
            if one.words[:1] == ("define",) and len(one.words) > 1
        }
        for top in text.statements:
            self._top(top)

    def _top(self, top: Statement) -> None:
        if top.words[:1] and top.words[0] in _TAKING:
            self.whole = True
        elif top.head == "table" and top.body is not None:
            for part in top.body:
                if part.body is not None and part.head == "chain":
                    self._chain(top, part)
                elif part.body is not None and part.head in ("set", "map"):
                    self._set(top, part)
        elif top.head in ("rule", "element"):
            rule = top.head == "rule"
            item = _Item(_span(self.text, top), group=-1 if rule else top.first, rule=rule)
            (self.rules if rule else self.elements).append(item)
            self.later.append(item.span)
            if {"handle", "index", "position"} & set(top.words):
                self.whole = True

    def _chain(self, top: Statement, part: Statement) -> None:
        frame = (*_table(self.text, top), *_frame(self.text, part))
        for one in part.body or ():
            if one.words and one.words[0] in HEADS | {"define", "redefine"}:
                continue
            item = _Item(_span(self.text, one), frame, rule=True)
            self.rules.append(item)
            self.later.append(item.span)

    def _set(self, top: Statement, part: Statement) -> None:
        """A set's other statements are the frame of its elements: nft has to know it again."""
        text = self.text
        heads = [_span(text, one) for one in part.body or () if one.words[:1] != ("elements",)]
        for one in part.body or ():
            if one.words[:1] != ("elements",):
                continue
            frame: list[Span] = [*_table(text, top), *_frame(text, part), *heads]
            outer = one
            hides: tuple[Span, ...] = ()
            if not _braces(text, one):
                # elements = $name: the list stands in the variable
                source = self._defined.get(text.tokens[one.last - 1].text.removeprefix("$"))
                if source is None or not _braces(text, source):
                    continue
                frame.append(_span(text, one))
                outer, hides = source, (_span(text, source),)
            braces = _braces(text, outer)
            opens, closes = braces[0], braces[-1]
            begin, end = _span(text, outer)
            frame += [(begin, text.tokens[opens].end), (text.tokens[closes].at, end)]
            if any(text.tokens[at].text == "*" for at in range(opens, closes)):
                # nft 1.0.6 crashes when it adds elements to an interval set that has a catch-all one
                continue
            self.elements += _list_items(text, opens, closes, tuple(frame), hides)
            self.later.append(_span(text, one))


_TAKING = frozenset(("flush", "delete", "destroy", "rename", "replace", "reset"))


def _braces(text: Outline, one: Statement) -> list[int]:
    return [at for at in range(one.first, one.last) if text.tokens[at].text in "{}"]


def _list_items(
    text: Outline, opens: int, closes: int, frame: tuple[Span, ...], hides: tuple[Span, ...]
) -> list[_Item]:
    """What stands between two braces, cut at the commas."""
    found: list[_Item] = []
    first: int | None = None
    depth = 0
    for at in range(opens + 1, closes + 1):
        word = text.tokens[at].text
        depth += (word == "{") - (word == "}")
        ends = at == closes or (word == "," and depth == 0)
        if ends and first is not None:
            span = (text.tokens[first].at, text.tokens[at].at + (word == ","))
            found.append(_Item(span, frame, opens, hides))
            first = None
        elif not ends and first is None and word != "\n":
            first = at
    return found


def _definitions(text: Outline) -> set[Span]:
    """What a variable stands for has to be known in every text."""
    return {_span(text, one) for one in text.walk() if one.words[:1] in (("define",), ("redefine",))}


def _table(text: Outline, top: Statement) -> tuple[Span, ...]:
    """A table's frame, with its flags: to name it without them takes them away."""
    flags = (one for one in top.body or () if one.words[:1] == ("flags",))
    return (*_frame(text, top), *(_span(text, one) for one in flags))


def _frame(text: Outline, statement: Statement) -> tuple[Span, Span]:
    """``table inet filter {`` and its ``}``."""
    opens, closes = text.tokens[statement.opens], text.tokens[statement.closes]
    return (text.start(statement), opens.end), (closes.at, closes.end)


def _span(text: Outline, statement: Statement) -> Span:
    """A statement with the semicolon behind it, which other statements on its line count on."""
    tokens = text.tokens
    ends = statement.last < len(tokens) and tokens[statement.last].text == ";"
    return text.start(statement), tokens[statement.last].end if ends else text.end(statement)


def _without(text: str, spans: list[Span]) -> str:
    out: list[str] = []
    at = 0
    for start, stop in spans:
        if start > at:
            out.append(text[at:start])
        out.append(_blank(text[max(start, at) : stop]))
        at = max(at, stop)
    return _trimmed("".join(out) + text[at:])


def _only(text: str, spans: list[Span]) -> str:
    out: list[str] = []
    at = 0
    for start, stop in spans:
        if start > at:
            out.append(_blank(text[at:start]))
        out.append(text[max(start, at) : stop])
        at = max(at, stop)
    return "".join(out) + "\n" * text.count("\n", at)


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip(" ") for line in text.split("\n"))


def _blank(text: str) -> str:
    """As many lines, and what comes next at its column."""
    lines = text.count("\n")
    return "\n" * lines + " " * (len(text) - text.rfind("\n") - 1)
