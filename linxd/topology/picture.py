# SPDX-License-Identifier: MIT
"""The picture: links as nodes, what hangs where as edges, in an order that does not change by itself.

Values, and the questions that every drawing asks of them; it must not know where they come from.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterator

from linxd.records import dataclass, field, replace
from linxd.topology.seen import HOST

PAIRED = frozenset({"veth", "netkit", "vxcan"})
"""Kinds of which there are always two; IFLA_LINK is the other one then, and not a parent."""


class Relation(enum.StrEnum):
    """How one link belongs to another."""

    PORT = "port"
    """of a bridge, a bond, a vrf …"""
    STACKED = "stacked"
    """a vlan, macvlan, tunnel … on its parent"""
    PAIR = "pair"
    """two ends of one cable"""


@dataclass(frozen=True, slots=True)
class Node:
    """A link. ``place``: the scope in whose namespace it is, ``host`` for the host's.

    ``kind``: the kernel's word and what tells it from its like (``vlan 5``). ``link``: ``up``, ``down``,
    ``no carrier``, ``dormant``; ``missing`` when it is declared and not there, ``not seen`` when it is
    declared where nobody could look. ``scope``: whose declaration it is kept by, None for a foreign link;
    ``state`` and ``why``: how that stands. ``owned``: whether linxd made it or took it over, None where that
    can't be known. ``elsewhere``: the link that it hangs on, where that is out of the picture.
    """

    id: str
    place: str
    name: str
    kind: str = ""
    link: str = "up"
    scope: str | None = None
    state: str = ""
    why: str = ""
    owned: bool | None = None
    addresses: tuple[str, ...] = ()
    elsewhere: str = ""

    @property
    def foreign(self) -> bool:
        """Nobody declares it."""
        return self.scope is None

    @property
    def well(self) -> bool:
        """Nothing is known to be wrong with it."""
        return self.link != "missing" and self.state in ("", "done", "unknown")

    def called(self, place: str) -> str:
        """Its name, with its place in front for those who look from another one."""
        return self.name if self.place == place else f"{self.place}:{self.name}"


@dataclass(frozen=True, slots=True)
class Edge:
    """``below`` is a port of, is stacked on, or is the other end of ``above``; ids of nodes. ``hangs``: it
    is drawn there; each node hangs on one other at most, and never on itself by any way round."""

    below: str
    above: str
    relation: Relation
    hangs: bool = True


@dataclass(frozen=True, slots=True)
class ScopeSign:
    """A scope and how it is as a whole, in a word."""

    name: str
    state: str
    running: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """All of it. ``nodes``: by place, the host's first, then by name. ``notes``: what is missing from the
    picture, and why."""

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()
    scopes: tuple[ScopeSign, ...] = ()
    notes: tuple[str, ...] = ()
    _by_id: dict[str, Node] = field(default_factory=dict, init=False, repr=False, compare=False)
    _below: dict[str, list[Node]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _hanging: dict[str, Edge] = field(default_factory=dict, init=False, repr=False, compare=False)
    _besides: dict[str, list[Edge]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _within: dict[str, list[Node]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _signs: dict[str, ScopeSign] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._by_id.update((node.id, node) for node in self.nodes)
        self._signs.update((sign.name, sign) for sign in self.scopes)
        for edge in self.edges:
            if edge.hangs:
                self._hanging[edge.below] = edge
                continue
            self._besides.setdefault(edge.below, []).append(edge)
            if edge.relation is Relation.PAIR:
                self._besides.setdefault(edge.above, []).append(edge)
        for node in self.nodes:
            self._within.setdefault(node.place, []).append(node)
            if node.id in self._hanging:
                self._below.setdefault(self._hanging[node.id].above, []).append(node)

    def node(self, id: str) -> Node:
        """A link by its id. Raises KeyError."""
        return self._by_id[id]

    def below(self, node: Node) -> list[Node]:
        """What hangs on a node, in order."""
        return self._below.get(node.id, [])

    def above(self, node: Node) -> Edge | None:
        """By what a node hangs on another."""
        return self._hanging.get(node.id)

    def besides(self, node: Node) -> list[tuple[Relation, Node]]:
        """What else it belongs to, where that is not drawn: its other end, its parent."""
        return [
            (edge.relation, self._by_id[edge.above if edge.below == node.id else edge.below])
            for edge in self._besides.get(node.id, ())
        ]

    def within(self, place: str) -> list[Node]:
        """The links of a place."""
        return self._within.get(place, [])

    def roots(self, place: str) -> list[Node]:
        """The links of a place that hang on nothing."""
        return [node for node in self.within(place) if node.id not in self._hanging]

    def places(self) -> list[str]:
        """The places with links in them, and the scopes without any; the host's is first."""
        return sorted(self._within.keys() | self._signs.keys(), key=place_order)

    def sign(self, scope: str) -> ScopeSign | None:
        """How a scope is."""
        return self._signs.get(scope)

    def part(self, names: Collection[str]) -> Picture:
        """The part that belongs to these scopes: their links, those that they keep in other places, the
        other ends of all cables, and all that these hang on, up to the last."""
        on: dict[str, list[str]] = {}
        for edge in self.edges:
            on.setdefault(edge.below, []).append(edge.above)
            if edge.relation is Relation.PAIR:
                on.setdefault(edge.above, []).append(edge.below)
        wanted: set[str] = set()
        left = [node.id for node in self.nodes if node.place in names or node.scope in names]
        while left:
            one = left.pop()
            if one not in wanted:
                wanted.add(one)
                left += on.get(one, ())
        mentioned = set(names)
        for node in self.nodes:
            if node.id in wanted:
                mentioned |= {node.place, node.scope or HOST}
        return replace(
            self,
            nodes=tuple(node for node in self.nodes if node.id in wanted),
            edges=tuple(edge for edge in self.edges if edge.below in wanted and edge.above in wanted),
            scopes=tuple(sign for sign in self.scopes if sign.name in mentioned),
        )


def place_order(place: str) -> tuple[bool, list[tuple[int, str]]]:
    """The host first, then as people count."""
    return place != HOST, natural(place)


_NUMBER = re.compile(r"([0-9]{1,18})")


def natural(name: str) -> list[tuple[int, str]]:
    """A key by which eth2 comes before eth10."""
    return list(_pieces(name))


def _pieces(name: str) -> Iterator[tuple[int, str]]:
    for number, piece in enumerate(_NUMBER.split(name)):
        yield (int(piece), piece) if number % 2 else (-1, piece)
