# SPDX-License-Identifier: MIT
"""What a declaration may not say, however well nft understands it, and where it says so.

A declaration makes tables and touches no other; it must mean the same in every namespace. It must not know
how a text is compiled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from linxd.sources.netfilter.faults import RulesetFault
from linxd.sources.netfilter.flatten import Flat
from linxd.sources.netfilter.names import FAMILIES
from linxd.sources.netfilter.state import TableId
from linxd.sources.netfilter.syntax import FAMILY_NAMES, Outline, Statement

_UNMAKING = frozenset(("flush", "delete", "destroy", "rename"))
_ASKING = frozenset(("list", "monitor", "describe", "export", "import", "get", "reset"))
INDEX_HINT = "interface indices change and mean another link elsewhere: use iifname, oifname"
_INDEX_WORDS = frozenset(("iif", "oif", "sdif"))


def refused(flat: Flat, text: Outline, declared: Collection[TableId] | None = None) -> list[RulesetFault]:
    """Faults of a text. ``declared``: the tables that it makes, once that is known."""
    return list(_commands(flat, text, declared))


def _commands(flat: Flat, text: Outline, declared: Collection[TableId] | None) -> Iterator[RulesetFault]:
    for one in text.statements:
        word = one.words[0] if one.words else ""
        if word in _ASKING:
            yield fault_at(flat, text, text.start(one), f'"{word}" declares nothing')
        elif word in _UNMAKING:
            yield from _unmaking(flat, text, one, declared)
        elif one.head == "table":
            for inner in one.body or ():
                if inner.words[:1] == ("flags",) and {"owner", "persist"} & set(_flags(text, inner)):
                    message = "a table that belongs to one process can't be declared"
                    hint = "without the flag linxd guards it against everybody"
                    yield fault_at(flat, text, text.start(inner), message, hint)


def _flags(text: Outline, statement: Statement) -> list[str]:
    return [token.text for token in text.tokens[statement.first : statement.last]]


def _unmaking(
    flat: Flat, text: Outline, one: Statement, declared: Collection[TableId] | None
) -> Iterator[RulesetFault]:
    verb, *rest = one.words
    if rest[:1] == ["ruleset"]:
        hint = "leave it out: linxd brings its own tables to what is declared, and leaves others alone"
        yield fault_at(flat, text, text.start(one), f"{verb} ruleset would touch every other table", hint)
        return
    named = rest[2:] if rest[:1] == ["ct"] else rest[1:]
    family = named[0] if named[:1] and named[0] in FAMILY_NAMES else ""
    named = named[1:] if family else named
    if not named or named[0].startswith(("$", "@", "handle")):
        yield fault_at(flat, text, text.start(one), f"{verb} must name its table")
        return
    where = (FAMILIES[family or "ip"], named[0].strip('"'))
    if declared is not None and where not in declared:
        message = f"{verb} touches table {family or 'ip'} {where[1]}, which is not declared here"
        yield fault_at(flat, text, text.start(one), message)


def index_places(text: Outline) -> Iterator[int]:
    """Offsets of words that compare an interface index. In ``fib saddr . iif oif`` they do not: there they
    say what the route is looked up by, and what is asked about it."""
    tokens = text.tokens
    at = 0
    while at < len(tokens):
        word = tokens[at].text
        if word == "fib":
            at += 2
            while at + 1 < len(tokens) and tokens[at].text == ".":
                at += 2
        elif word in _INDEX_WORDS and not _is_name(tokens[at - 1].text if at else ""):
            yield tokens[at].at
        at += 1


def _is_name(before: str) -> bool:
    return before in ("table", "chain", "set", "map", "jump", "goto", "define", "=", "comment")


def fault_at(flat: Flat, text: Outline, at: int, message: str, hint: str = "") -> RulesetFault:
    """A fault at an offset of the one text."""
    line = text.line_of(at)
    start = text.lines[line]
    file, number, column = flat.place(line + 1, at - start + 1)
    end = text.lines[line + 1] if line + 1 < len(text.lines) else len(text.text)
    return RulesetFault(
        file, number, column, message, text.place_words(at), text.text[start:end].rstrip(), hint
    )
