# SPDX-License-Identifier: MIT
"""What stands in nftables tables, as the kernel's own bytes with the run-time fields told apart.

Both sides of a comparison are of these types: the scratch namespace's tables and the real ones. It must not
know where they were read, nor what becomes of a difference.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from linxd.records import dataclass, field
from linxd.sources.netfilter.names import (
    NFPROTO_NETDEV,
    NFT_CHAIN_BASE,
    NFT_CHAIN_BINDING,
    NFT_SET_ANONYMOUS,
    NFT_SET_CONCAT,
    NFT_SET_EVAL,
    NFT_SET_INTERVAL,
    NFT_SET_TIMEOUT,
    family_word,
)

TableId: TypeAlias = tuple[int, str]
"""Family (NFPROTO_*) and name."""
Ref: TypeAlias = tuple[str, str]
"""What something leans on: ("chain", name), ("set", name), ("flowtable", name), ("counter", name) …"""
Elements: TypeAlias = dict[bytes, bytes]
"""Elements of a set: identity (its key, or both ends of its interval) to its form without run-time fields,
which is also the form that can be sent. Plain dictionaries of bytes, because there may be 100,000 of
them."""


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a base chain or a flowtable hangs. ``devices``: sorted names, the kernel's "eth*" for a
    prefix."""

    number: int
    priority: int
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Set:
    """A set or a map. ``attrs``: everything that defines it, by attribute type, as the kernel dumps it.

    ``fresh``: elements whose form when they are made is another than the one compared (a counter that begins
    with a number). ``temporary``: identities of elements that have a timeout. ``refs``: what elements lean
    on.
    """

    name: str
    handle: int
    flags: int
    attrs: tuple[tuple[int, bytes], ...]
    elements: Elements = field(default_factory=dict)
    fresh: Mapping[bytes, bytes] = field(default_factory=dict)
    temporary: frozenset[bytes] = frozenset()
    refs: Mapping[bytes, Ref] = field(default_factory=dict)

    @property
    def anonymous(self) -> bool:
        """It belongs to one rule and has no name of its own."""
        return bool(self.flags & NFT_SET_ANONYMOUS)

    @property
    def paired(self) -> bool:
        """An interval is two elements in the kernel: its first key, and the first one after it."""
        return bool(self.flags & NFT_SET_INTERVAL) and not self.flags & NFT_SET_CONCAT

    @property
    def fed(self) -> bool:
        """Its elements are run-time state by its nature: packets, or others, fill it."""
        return bool(self.flags & (NFT_SET_EVAL | NFT_SET_TIMEOUT)) and not self.elements


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule. ``canon``: its content, comparable across namespaces: expressions without run-time fields,
    with what belongs to it alone by content, and user data. ``wire``: its expressions as they were dumped.

    ``inner``: anonymous sets and chains that belong to it, by the names that ``wire`` has for them.
    """

    handle: int
    canon: bytes
    wire: bytes
    userdata: bytes = b""
    refs: frozenset[Ref] = frozenset()
    inner: tuple[Set | Chain, ...] = ()
    flags: int = 0
    """RULE_XT, RULE_INDEX."""


RULE_XT = 1
"""It holds expressions of iptables-nft, which nothing but iptables-nft can write."""
RULE_INDEX = 2
"""It compares an interface index."""


class Followed(list[Rule]):
    """The rules of a chain that is followed event by event, to be changed by `drop` and `put` alone. Their
    handles lie beside them in one piece: to go through hundreds of objects for one of them takes a tenth of
    a heal."""

    __slots__ = ("_handles",)

    def __init__(self, rules: Iterable[Rule]) -> None:
        super().__init__(rules)
        self._handles = array("Q", [rule.handle for rule in self])

    def place(self, handle: int) -> int | None:
        """Where the rule of this handle stands."""
        try:
            return self._handles.index(handle)
        except ValueError:
            return None

    def drop(self, place: int) -> Rule:
        """Take a rule out."""
        del self._handles[place]
        return self.pop(place)

    def put(self, place: int, rule: Rule) -> None:
        """Put a rule in, before the one that stands there."""
        self._handles.insert(place, rule.handle)
        self.insert(place, rule)


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain. ``type`` "" and no ``hook``: a regular one."""

    name: str
    handle: int
    type: str = ""
    hook: Hook | None = None
    policy: int | None = None
    flags: int = 0
    userdata: bytes = b""
    rules: Sequence[Rule] = ()

    @property
    def bound(self) -> bool:
        """It belongs to one rule: ``jump { … }``."""
        return bool(self.flags & NFT_CHAIN_BINDING)

    @property
    def fixed(self) -> tuple[object, ...]:
        """What the kernel can't change in place, devices aside."""
        hook = self.hook
        place = None if hook is None else (hook.number, hook.priority)
        return (self.type, place, self.flags & ~NFT_CHAIN_BASE, self.userdata)


@dataclass(frozen=True, slots=True)
class Object:
    """A named counter, quota, limit, ct helper … ``canon``: its definition without run-time fields."""

    name: str
    kind: int
    handle: int
    canon: bytes
    wire: bytes
    userdata: bytes = b""


@dataclass(frozen=True, slots=True)
class Flowtable:
    """A flowtable."""

    name: str
    handle: int
    hook: Hook
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """A whole table. ``marked``: its user data bears linxd's mark. ``owner``: port id of the process that
    alone may change it (flag ``owner``), 0 for none. ``objects`` are known by (kind, name)."""

    family: int
    name: str
    handle: int
    flags: int = 0
    userdata: bytes = b""
    marked: bool = False
    owner: int = 0
    chains: Mapping[str, Chain] = field(default_factory=dict)
    sets: Mapping[str, Set] = field(default_factory=dict)
    objects: Mapping[tuple[int, str], Object] = field(default_factory=dict)
    flowtables: Mapping[str, Flowtable] = field(default_factory=dict)

    @property
    def id(self) -> TableId:
        return (self.family, self.name)

    @property
    def words(self) -> str:
        """``inet filter``."""
        return f"{family_word(self.family)} {self.name}"

    @property
    def xt(self) -> bool:
        """It holds expressions of iptables-nft."""
        return any(rule.flags & RULE_XT for chain in self.chains.values() for rule in chain.rules)

    @property
    def devices(self) -> frozenset[str]:
        """Links that its chains and flowtables hang on."""
        return frozenset(name for hook in self.hooks() for name in hook.devices)

    def hooks(self) -> Iterator[Hook]:
        """Where its chains and flowtables hang."""
        for chain in self.chains.values():
            if chain.hook is not None:
                yield chain.hook
        for flowtable in self.flowtables.values():
            yield flowtable.hook

    @property
    def count(self) -> int:
        """Objects in it, itself included, elements not."""
        rules = sum(len(chain.rules) for chain in self.chains.values())
        return 1 + len(self.chains) + rules + len(self.sets) + len(self.objects) + len(self.flowtables)

    @property
    def size(self) -> int:
        """Roughly how much there is to compare or to send, in rules and elements."""
        elements = sum(len(each.elements) for each in self.sets.values())
        return self.count + elements

    @property
    def device_bound(self) -> bool:
        """What it holds can vanish with a link, without a word and without a new generation."""
        return self.family == NFPROTO_NETDEV or bool(self.devices)
