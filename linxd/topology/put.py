# SPDX-License-Identifier: MIT
"""From what was seen to the picture: which link is whose, what hangs where, and how it stands.

A pure function; what it is given may have been read at different moments, and need not fit together.
"""

from __future__ import annotations

from collections.abc import Mapping

from linxd.netlink.rt import AddrMsg, LinkMsg
from linxd.netlink.wire import AF_INET6, WireError
from linxd.records import dataclass, field, replace
from linxd.sources.rtnl.attributes import KINDS
from linxd.sources.rtnl.info import decode_info, parent_in
from linxd.sources.rtnl.links import info_kind
from linxd.sources.rtnl.model import Desired, Link
from linxd.topology.picture import PAIRED, Edge, Node, Picture, Relation, ScopeSign, natural, place_order
from linxd.topology.seen import HOST, Place, Scope, Seen

IFF_UP, IFF_LOOPBACK, IFF_LOWER_UP = 0x1, 0x8, 0x10000
IF_OPER_DORMANT = 5
TELLING = ("id", "mode")
"""Options that tell a link from others of its kind."""
_KINDS = {info_kind(name): kind for name, kind in KINDS.items()}
_TYPES = {1: "ethernet", 32: "infiniband", 772: "loopback", 65534: "no header"}
"""ARPHRD_* of links without a kind of their own (include/uapi/linux/if_arp.h)."""
_SCOPE_LINK = 253

_Spot = tuple[str, int]
"""A link that was seen: its place and its index there."""


def put_together(seen: Seen) -> Picture:
    """The picture of all that was seen."""
    work = _Work(seen)
    for place in seen.places:
        work.take(place)
    for scope in seen.scopes:
        work.claim(scope)
    for place in seen.places:
        work.join(place)
    for scope in seen.scopes:
        work.join_declared(scope)
    return work.picture()


@dataclass
class _Work:
    seen: Seen
    nodes: dict[str, Node] = field(default_factory=dict)
    spots: dict[_Spot, str] = field(default_factory=dict)
    """Ids of links that were seen."""
    messages: dict[str, LinkMsg] = field(default_factory=dict)
    named: dict[tuple[str, str], str] = field(default_factory=dict)
    """Ids by place and name."""
    edges: dict[tuple[str, Relation], Edge] = field(default_factory=dict)
    places: dict[str, Place] = field(init=False)

    def __post_init__(self) -> None:
        self.places = {place.name: place for place in self.seen.places}

    # -- nodes ----------------------------------------------------------------------------------------------

    def take(self, place: Place) -> None:
        """The links of a place, all of them foreign for now."""
        addresses: dict[int, list[str]] = {}
        for one in place.addresses:
            if not _by_itself(one):
                addresses.setdefault(one.ifindex, []).append(_address(one))
        for msg in sorted(place.links, key=lambda msg: msg.ifindex):
            node = Node(
                self._fresh(place.name, msg.name, msg.ifindex),
                place.name,
                msg.name,
                kind=_kind(msg),
                link=_link(msg),
                addresses=tuple(addresses.get(msg.ifindex, ())),
            )
            self.nodes[node.id] = node
            self.messages[node.id] = msg
            self.spots[place.name, msg.ifindex] = node.id
            self.named.setdefault((place.name, msg.name), node.id)

    def _fresh(self, place: str, name: str, ifindex: int) -> str:
        """An id. No name of a link has a slash in it, but two of them may be shown alike."""
        wanted = f"{place}/{name}"
        return wanted if wanted not in self.nodes else f"{wanted}/{ifindex}"

    def claim(self, scope: Scope) -> None:
        """What a scope declares is its own, and it may not be there."""
        known = scope.place in self.places
        desired = scope.desired or Desired()
        addresses: dict[str, list[str]] = {}
        for address in desired.addresses.values():
            addresses.setdefault(address.link, []).append(f"{address.address}/{address.prefixlen}")
        for name, link in desired.links.items():
            here = self.named.get((scope.place, name))
            if here is None:
                here = self._absent(
                    scope.place,
                    name,
                    link.kind or "",
                    "missing" if known else "not seen",
                    addresses.get(name),
                )
            self._own(here, scope, name)
            end = self._declared_end(scope, link, here, known=known)
            if end is not None:
                self._own(end, scope, name)
        for name in scope.owned or ():
            left = self.named.get((scope.place, name))
            if left is not None and self.nodes[left].scope is None:
                self._own(left, scope, name, otherwise="undeclared")

    def _own(self, id: str, scope: Scope, declared: str, *, otherwise: str = "") -> None:
        kept = scope.links.get(declared)
        self.nodes[id] = replace(
            self.nodes[id],
            scope=scope.name,
            state=kept.state if kept is not None else otherwise or scope.usual,
            why=kept.why if kept is not None else "",
            owned=None if scope.owned is None else declared in scope.owned,
        )

    def _declared_end(self, scope: Scope, link: Link, here: str, *, known: bool) -> str | None:
        """The other end of a declared veth, made up if need be."""
        if link.peer is None:
            return None
        place = link.peer.scope or scope.place
        if here in self.messages:
            seen = self._seen_end(here)
            if seen is not None and self.nodes[seen].place == place:
                return seen
        named = self.named.get((place, link.peer.name))
        if named is None:
            gone = "missing" if place in self.places else "not seen"
            return self._absent(place, link.peer.name, link.kind or "", gone)
        # A link of that name is somebody else's if ours is not there. Where nobody could look, it is ours.
        ours = not known and named in self.messages and self.messages[named].kind == link.kind
        return named if ours else None

    def _absent(
        self, place: str, name: str, kind: str, link: str, addresses: list[str] | None = None
    ) -> str:
        shown = tuple(addresses or ()) if link == "not seen" else ()
        node = Node(f"{place}/{name}", place, name, kind=kind, link=link, addresses=shown)
        self.nodes[node.id] = node
        self.named[place, name] = node.id
        return node.id

    # -- edges ----------------------------------------------------------------------------------------------

    def _other(self, id: str) -> tuple[str | None, str]:
        """What a link's IFLA_LINK, or its kind's own word for that, names: the id, and how to call it where
        it is out of the picture."""
        msg, here = self.messages[id], self.nodes[id].place
        index = msg.link or _parent_in(msg)
        if not index or (index == msg.ifindex and msg.link_netnsid is None):
            return None, ""
        if msg.link_netnsid is None:
            found = self.spots.get((here, index))
            return found, "" if found else f"if{index}"
        place = self.places[here].namespaces.get(msg.link_netnsid)
        found = None if place is None else self.spots.get((place, index))
        if found is not None:
            return found, ""
        where = "another namespace" if msg.link_netnsid < 0 else f"namespace {msg.link_netnsid}"
        return None, f"if{index} in {where if place is None else f'namespace {place}'}"

    def _seen_end(self, id: str) -> str | None:
        """The other end of a cable: the link that names this one in turn."""
        if self.messages[id].kind not in PAIRED:
            return None
        other, _ = self._other(id)
        if other is None or self.messages[other].kind != self.messages[id].kind:
            return None
        return other if self.messages[other].link == self.messages[id].ifindex else None

    def join(self, place: Place) -> None:
        """What the links of a place say that they belong to."""
        for msg in place.links:
            id = self.spots[place.name, msg.ifindex]
            master = self.spots.get((place.name, msg.master)) if msg.master else None
            if master is not None:
                self._edge(id, master, Relation.PORT)
            if msg.kind in PAIRED:
                other = self._seen_end(id)
                if other is None:
                    self._elsewhere(id)
                elif self._upper(other) <= self._upper(id):
                    self._edge(id, other, Relation.PAIR)
            else:
                other, _ = self._other(id)
                if other is None:
                    self._elsewhere(id)
                else:
                    self._edge(id, other, Relation.STACKED)

    def _elsewhere(self, id: str) -> None:
        self.nodes[id] = replace(self.nodes[id], elsewhere=self._other(id)[1])

    def _edge(self, below: str, above: str, relation: Relation) -> None:
        if below != above:
            self.edges.setdefault((below, relation), Edge(below, above, relation))

    def _upper(self, id: str) -> tuple[object, ...]:
        """Of two ends the lesser is the upper one: the host's, that which is a port, the first by place and
        name."""
        node, msg = self.nodes[id], self.messages[id]
        return node.place != HOST, not msg.master, place_order(node.place), natural(node.name), msg.ifindex

    def join_declared(self, scope: Scope) -> None:
        """What links that nobody has seen would belong to."""
        for name, link in (scope.desired or Desired()).links.items():
            id = self.named.get((scope.place, name))
            if id is None:
                continue
            if id not in self.messages:
                if link.master:
                    self._edge_to(id, scope.place, link.master, Relation.PORT)
                if link.parent is not None:
                    self._edge_to(id, link.parent.scope or scope.place, link.parent.name, Relation.STACKED)
            if link.peer is None:
                continue
            end = self.named.get((link.peer.scope or scope.place, link.peer.name))
            if end is None or self.nodes[end].scope != scope.name:
                continue
            if id not in self.messages:
                self._edge(id, end, Relation.PAIR)
                self.nodes[end] = replace(self.nodes[end], elsewhere="")
            if end not in self.messages and link.peer.master:
                self._edge_to(end, self.nodes[end].place, link.peer.master, Relation.PORT)

    def _edge_to(self, below: str, place: str, name: str, relation: Relation) -> None:
        above = self.named.get((place, name))
        if above is not None:
            self._edge(below, above, relation)

    # -- all of it ------------------------------------------------------------------------------------------

    def picture(self) -> Picture:
        """What has come of it. A loopback that nobody declares is left out: each namespace has one."""
        left_out = {
            id for id, msg in self.messages.items()
            if msg.flags & IFF_LOOPBACK and self.nodes[id].scope is None
        }  # fmt: skip
        nodes = sorted(
            (node for id, node in self.nodes.items() if id not in left_out),
            key=lambda node: (place_order(node.place), natural(node.name), node.id),
        )
        edges = [e for e in self.edges.values() if e.below not in left_out and e.above not in left_out]
        order = {node.id: number for number, node in enumerate(nodes)}
        hung = _hung(edges, order)
        return Picture(
            nodes=tuple(nodes),
            edges=tuple(
                replace(edge, hangs=hung.get(edge.below) == edge)
                for edge in sorted(
                    edges, key=lambda edge: (order[edge.below], order[edge.above], edge.relation)
                )
            ),
            scopes=tuple(
                ScopeSign(scope.name, scope.state, scope.running)
                for scope in sorted(self.seen.scopes, key=lambda scope: place_order(scope.name))
            ),
            notes=self.seen.notes,
        )


def _hung(edges: list[Edge], order: Mapping[str, int]) -> dict[str, Edge]:
    """The edge by which each link hangs. To be a port says most, then to be stacked on something; the other
    end of a cable that hangs by itself is referred to. A ring is cut where it comes first."""
    rank = {Relation.PORT: 0, Relation.STACKED: 1, Relation.PAIR: 2}
    hung: dict[str, Edge] = {}
    for edge in sorted(edges, key=lambda edge: (rank[edge.relation], order[edge.below], order[edge.above])):
        hung.setdefault(edge.below, edge)
    settled: set[str] = set()
    for start in sorted(order, key=order.__getitem__):
        way: list[str] = []
        at: str | None = start
        while at is not None and at not in settled and at not in way:
            way.append(at)
            at = hung[at].above if at in hung else None
        if at is not None and at in way:
            ring = way[way.index(at) :]
            del hung[min(ring, key=order.__getitem__)]
        settled.update(way)
    return hung


# -- words --------------------------------------------------------------------------------------------------


def _kind(msg: LinkMsg) -> str:
    if msg.kind is None:
        return _TYPES.get(msg.type, "")
    registered = _KINDS.get(msg.kind)
    if registered is None:
        return msg.kind
    try:
        options = decode_info(registered.name, msg.info_data, TELLING, str)
        shown = [registered.attributes[name].show(value) for name, value in options.items()]
    except (WireError, ValueError, IndexError):
        shown = []
    return " ".join([msg.kind, *shown])


def _parent_in(msg: LinkMsg) -> int:
    registered = _KINDS.get(msg.kind or "")
    try:
        return 0 if registered is None else parent_in(registered.name, msg.info_data)
    except WireError:
        return 0


def _link(msg: LinkMsg) -> str:
    if not msg.flags & IFF_UP:
        return "down"
    if not msg.flags & IFF_LOWER_UP:
        return "no carrier"
    return "dormant" if msg.operstate == IF_OPER_DORMANT else "up"


def _address(msg: AddrMsg) -> str:
    return f"{msg.address} peer {msg.peer}/{msg.prefixlen}" if msg.peer else f"{msg.address}/{msg.prefixlen}"


def _by_itself(msg: AddrMsg) -> bool:
    """Whether it is one of those that every link has that knows IPv6."""
    return msg.family == AF_INET6 and msg.scope == _SCOPE_LINK
