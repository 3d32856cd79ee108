# SPDX-License-Identifier: MIT
"""Objects of nftables as a patch names them: what they are called, and how nft would write them.

Each carries the kernel's form of itself, so that what is planned is what is sent. It must not know how to
send.
"""

from __future__ import annotations

from typing import TypeAlias

from linxd.digest import blake2b
from linxd.patch import Key
from linxd.records import dataclass
from linxd.sources.netfilter.names import OBJECT_WORDS, family_word
from linxd.sources.netfilter.state import Chain, Flowtable, Object, Rule, Set, Table, TableId
from linxd.sources.netfilter.words import element_words


def table_key(where: TableId) -> Key:
    """The unit of ownership."""
    return ("table", family_word(where[0]), where[1])


def _key(kind: str, where: TableId, *rest: str | int) -> Key:
    return (kind, family_word(where[0]), where[1], *rest)


@dataclass(frozen=True, slots=True)
class TableThing:
    """A table with everything in it. ``mark``: make it bear linxd's mark."""

    table: Table
    mark: bool = False

    @property
    def where(self) -> TableId:
        return self.table.id

    @property
    def key(self) -> Key:
        return table_key(self.table.id)

    def words(self) -> str:
        return self.table.words


@dataclass(frozen=True, slots=True)
class ChainThing:
    """A chain with its rules. ``texts``: the rules as nft writes them, where known."""

    where: TableId
    chain: Chain

    @property
    def key(self) -> Key:
        return _key("chain", self.where, self.chain.name)

    def words(self) -> str:
        return f"{family_word(self.where[0])} {self.where[1]} {self.chain.name}"


@dataclass(frozen=True, slots=True)
class RuleThing:
    """A rule in its chain. ``place`` counts from 1 in the declared chain; "" text: nobody knows how nft
    writes it.

    ``stray``: it is not declared. ``before``: handle of the rule that it is to stand before, 0 for the end.
    """

    where: TableId
    chain: str
    rule: Rule
    place: int = 0
    text: str = ""
    stray: str = ""
    before: int = 0

    @property
    def key(self) -> Key:
        # A stray rule is known by its content: whoever puts it back again and again does not keep its
        # handle.
        return _key("rule", self.where, self.chain, self.stray or self.place)

    def words(self) -> str:
        text = self.text or f"handle {self.rule.handle} (not declared)"
        return f"{family_word(self.where[0])} {self.where[1]} {self.chain} {text}"


@dataclass(frozen=True, slots=True)
class SetThing:
    """A set or map with its elements."""

    where: TableId
    set: Set

    @property
    def key(self) -> Key:
        return _key("set", self.where, self.set.name)

    def words(self) -> str:
        return f"{family_word(self.where[0])} {self.where[1]} {self.set.name}"


@dataclass(frozen=True, slots=True)
class ElementsThing:
    """Elements of one set that are missing, or not declared: one of them, or many at once."""

    where: TableId
    set: Set
    identities: tuple[bytes, ...]

    @property
    def key(self) -> Key:
        if len(self.identities) == 1:
            return _key("element", self.where, self.set.name, element_words(self.set, self.identities[0]))
        return _key("element", self.where, self.set.name, f"{len(self.identities)} elements")

    def words(self) -> str:
        shown = [element_words(self.set, identity) for identity in self.identities[:SHOWN]]
        more = len(self.identities) - len(shown)
        if more:
            shown.append(f"… {more} more")
        return f"{family_word(self.where[0])} {self.where[1]} {self.set.name} {{ {', '.join(shown)} }}"


SHOWN = 8
"""Elements that one line names."""


@dataclass(frozen=True, slots=True)
class ObjectThing:
    """A counter, quota, limit, ct helper … with a name."""

    where: TableId
    object: Object

    @property
    def key(self) -> Key:
        return _key(OBJECT_WORDS.get(self.object.kind, "object"), self.where, self.object.name)

    def words(self) -> str:
        return f"{family_word(self.where[0])} {self.where[1]} {self.object.name}"


@dataclass(frozen=True, slots=True)
class FlowtableThing:
    """A flowtable."""

    where: TableId
    flowtable: Flowtable

    @property
    def key(self) -> Key:
        return _key("flowtable", self.where, self.flowtable.name)

    def words(self) -> str:
        return f"{family_word(self.where[0])} {self.where[1]} {self.flowtable.name}"


Thing: TypeAlias = (
    TableThing | ChainThing | RuleThing | SetThing | ElementsThing | ObjectThing | FlowtableThing
)


def form(thing: Thing | None) -> str:
    """A short hash of what a thing is, whatever its handle: equal forms have equal hashes."""
    if thing is None:
        return ""
    content: object
    if isinstance(thing, TableThing):
        content = thing.table.flags
    elif isinstance(thing, ChainThing):
        content = (thing.chain.fixed, thing.chain.hook, thing.chain.policy)
    elif isinstance(thing, RuleThing):
        content = thing.rule.canon
    elif isinstance(thing, SetThing):
        content = thing.set.attrs
    elif isinstance(thing, ElementsThing):
        content = [(one, thing.set.elements.get(one)) for one in thing.identities]
    elif isinstance(thing, ObjectThing):
        content = (thing.object.canon, thing.object.userdata)
    else:
        content = (thing.flowtable.hook, thing.flowtable.flags)
    return blake2b(repr(content).encode(), digest_size=8).hexdigest()
