# SPDX-License-Identifier: MIT
"""What the objects of one scope say of each other: loops, names that nobody has, gateways out of reach.

A link that is not declared may still come to be, so its absence is no fault. Knows no other scope and no
kernel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from linxd.config.document import Node
from linxd.config.faults import closest, found
from linxd.config.inet import BITS, link_local, masked
from linxd.config.links import Declared
from linxd.config.reader import Entries, Reader
from linxd.sources.rtnl.attributes import KINDS
from linxd.sources.rtnl.model import (
    ADDRESS_FLAGS,
    AF_INET,
    AF_INET6,
    ROUTE_TYPES,
    Address,
    Link,
    Neighbour,
    Nexthop,
    Route,
)

MOST_LOOKED_UP = 20
"""Names that are compared with the declared ones: comparing all with all is no longer cheap for
thousands."""
IPV6_MINIMUM_MTU = 1280
"""RFC 8200, section 5."""


def check(
    reader: Reader, declared: Declared, routes: Entries[Route], neighbours: Entries[Neighbour], *, host: bool
) -> None:
    """Add the faults and warnings to the reader's. ``host``: links that nobody declared are usual there."""
    links = {name: link for name, (link, _) in declared.links.items()}
    nodes = {name: node for name, (_, node) in declared.links.items()}
    _names(reader, declared, links, nodes)
    _loops(reader, links, nodes)
    addresses = declared.addresses.items()
    _addresses(reader, addresses, links)
    known = set(links) | {
        link.peer.name for link in links.values() if link.peer is not None and not link.peer.scope
    }
    _devices(reader, routes, neighbours, known)
    _prefsrc(reader, routes, [item for item, _ in addresses])
    _gateways(reader, routes, [item for item, _ in addresses], links, host=host)


# --- links -------------------------------------------------------------------------------------------------


def _names(reader: Reader, declared: Declared, links: Mapping[str, Link], nodes: Mapping[str, Node]) -> None:
    ends: dict[tuple[str, str], str] = {}
    for name, link in links.items():
        table = nodes[name].table()
        if link.master is not None and link.master in links:
            _check_master(reader, table["master"], name, links[link.master])
        if link.peer is None:
            continue
        peer = table["peer"].table()
        end = (link.peer.scope, link.peer.name)
        if end in ends:
            reader.error(peer["name"], f"link {ends[end]} has the same other end")
        ends.setdefault(end, name)
        if link.peer.scope:
            continue
        other = links.get(link.peer.name)
        if other is not None:
            _check_other_end(reader, nodes[other.name], name, link, other)
        if link.peer.master is not None and link.peer.master in links:
            _check_master(reader, peer["master"], link.peer.name, links[link.peer.master])


def _check_master(reader: Reader, node: Node, name: str, master: Link) -> None:
    if master.name == name:
        reader.error(node, "a link can't be its own master")
    elif master.kind is not None and not KINDS[master.kind].master:
        reader.error(node, f"{master.name} is of kind {found(master.kind)}, which takes no ports")


def _check_other_end(reader: Reader, node: Node, name: str, link: Link, other: Link) -> None:
    """A link declared by itself that is also the other end of a pair: it is made as the peer, and has the
    rest here."""
    assert link.peer is not None
    table = node.table()
    if other.kind is not None:
        reader.error(table["kind"], f"it is made as the other end of {name}", "leave kind out", at_key=True)
    if "up" in table and other.up != link.peer.up:
        reader.error(table["up"], f"peer of {name} says otherwise", at_key=True)
    if other.master is not None and link.peer.master is not None and other.master != link.peer.master:
        reader.error(table["master"], f"peer of {name} says {found(link.peer.master)}", at_key=True)
    for key, said in (("mtu", link.peer.mtu), ("mac", link.peer.mac)):
        if said is not None and other.attributes.get(key, said) != said:
            reader.error(table[key], f"peer of {name} says {found(said)}", at_key=True)


def _loops(reader: Reader, links: Mapping[str, Link], nodes: Mapping[str, Node]) -> None:
    """Chains of masters and of parents must end."""
    for key in ("parent", "master"):
        above: dict[str, str] = {}
        for name, link in links.items():
            if key == "master" and link.master:
                above[name] = link.master
            elif key == "parent" and link.parent is not None and not link.parent.scope:
                above[name] = link.parent.name
            if key == "master" and link.peer is not None and not link.peer.scope and link.peer.master:
                above.setdefault(link.peer.name, link.peer.master)
        for circle in _circles(above):
            if len(circle) < 2:
                continue
            at = next((name for name in circle if name in nodes and key in nodes[name].table()), None)
            if at is not None:
                chain = " -> ".join((*circle, circle[0]))
                reader.error(nodes[at].table()[key], f"the chain of {key}s never ends: {chain}")


def _circles(above: Mapping[str, str]) -> Iterator[list[str]]:
    done: set[str] = set()
    for start in above:
        trail: dict[str, int] = {}
        at: str | None = start
        while at is not None and at not in done and at not in trail:
            trail[at] = len(trail)
            at = above.get(at)
        if at in trail:
            yield list(trail)[trail[at] :]
        done.update(trail)


# --- addresses ---------------------------------------------------------------------------------------------


def _addresses(reader: Reader, addresses: Iterable[tuple[Address, Node]], links: Mapping[str, Link]) -> None:
    seen: dict[str, Address] = {}
    small: set[str] = set()
    for item, node in addresses:
        before = seen.setdefault(item.address, item)
        if before.link != item.link and not link_local(item.address):
            reader.warning(
                node,
                f"{item.address} is on {before.link} too",
                f"line {before.where.line}" if before.where else "",
            )
        link = links.get(item.link)
        mtu = link.attributes.get("mtu") if link is not None else None
        if (
            item.family == AF_INET6
            and isinstance(mtu, int)
            and mtu < IPV6_MINIMUM_MTU
            and item.link not in small
        ):
            small.add(item.link)
            message = (
                f"{item.link} has mtu {mtu}, and below {IPV6_MINIMUM_MTU} the kernel takes IPv6 off a link"
            )
            reader.warning(node, message)


# --- routes and neighbours ---------------------------------------------------------------------------------


def _ways(route: Route) -> tuple[Nexthop, ...]:
    return route.nexthops or (Nexthop(route.via, route.dev, 1, route.onlink),)


def _devices(
    reader: Reader, routes: Entries[Route], neighbours: Entries[Neighbour], known: set[str]
) -> None:
    """A device that nobody declares is pending until it comes; one that looks like a slip is worth a
    word."""
    looked_up: dict[str, str | None] = {}

    def look(name: str, node: Node) -> None:
        if name in known or not known or "dev" not in node.table():
            return
        if name not in looked_up and len(looked_up) >= MOST_LOOKED_UP:
            return
        if name not in looked_up:
            near = closest(name, known)
            # eth0 and eth1 are near and mean different things: only a slip of the same shape counts.
            looked_up[name] = near if near is not None and not _numbered_alike(name, near) else None
        if (meant := looked_up[name]) is not None:
            reader.warning(
                node.table()["dev"], f"no link {found(name)} is declared", f'did you mean "{meant}"?'
            )

    for route, node in routes.items():
        if route.dev is not None and "dev" in node.table():
            look(route.dev, node)
        hops = node.table().get("nexthops")
        if hops is not None and isinstance(hops.value, list):
            for hop in hops.value:
                dev = hop.table().get("dev")
                if dev is not None and isinstance(dev.value, str):
                    look(dev.value, hop)
    for neighbour, node in neighbours.items():
        look(neighbour.dev, node)


def _numbered_alike(name: str, other: str) -> bool:
    stem, other_stem = name.rstrip("0123456789"), other.rstrip("0123456789")
    return stem == other_stem or name == "lo"


def _prefsrc(reader: Reader, routes: Entries[Route], addresses: Iterable[Address]) -> None:
    declared: dict[int, set[str]] = defaultdict(set)
    for item in addresses:
        declared[item.family].add(item.address)
    for route, node in routes.items():
        if route.prefsrc is None or not declared[route.family] or route.prefsrc in declared[route.family]:
            continue
        key = "src" if "src" in node.table() else "prefsrc"
        reader.warning(
            node.table()[key],
            f"no declared link has the address {route.prefsrc}",
            "the kernel wants it there first",
        )


class _Reach:
    """Networks that are directly on a link, found by length."""

    __slots__ = ("_by_length",)

    def __init__(self) -> None:
        self._by_length: dict[int, set[str]] = defaultdict(set)

    def add(self, address: str, length: int) -> None:
        """A network, by any address in it."""
        family = AF_INET6 if ":" in address else AF_INET
        self._by_length[length].add(masked(family, address, length))

    def covers(self, address: str) -> bool:
        """Whether one of the networks has this address."""
        family = AF_INET6 if ":" in address else AF_INET
        return any(
            masked(family, address, length) in networks for length, networks in self._by_length.items()
        )


def _gateways(
    reader: Reader,
    routes: Entries[Route],
    addresses: Iterable[Address],
    links: Mapping[str, Link],
    *,
    host: bool,
) -> None:
    """Gateways that nothing declared reaches, where everything that could is declared.

    With ``dev`` that is a declared link with addresses of the gateway's family; without, any declared link,
    and then only where no other links are to be expected."""
    on_link: dict[tuple[int, str], _Reach] = defaultdict(_Reach)
    anywhere: dict[int, _Reach] = defaultdict(_Reach)
    for item in addresses:
        # Without a route of the kernel's only the address itself is there.
        bits = BITS[item.family] if item.flags & ADDRESS_FLAGS["noprefixroute"] else item.prefixlen
        for reach in (on_link[item.family, item.link], anywhere[item.family]):
            reach.add(item.peer or item.address, bits)
    told = set(on_link)
    for route, _ in routes.items():
        if (
            route.type == ROUTE_TYPES["unicast"]
            and not route.nexthops
            and route.via is None
            and route.dev is not None
        ):
            network, _, length = route.to.partition("/")
            for reach in (on_link[route.family, route.dev], anywhere[route.family]):
                reach.add(network, int(length))
    known: dict[tuple[str, str | None], bool] = {}
    for route, node in routes.items():
        for way in _ways(route):
            if way.via is None or way.onlink or link_local(way.via):
                continue
            family = AF_INET6 if ":" in way.via else route.family
            if way.dev is not None and ((family, way.dev) not in told or way.dev not in links):
                continue
            if way.dev is None and (host or all(one != family for one, _ in told)):
                continue
            reach = on_link[family, way.dev] if way.dev is not None else anywhere[family]
            if (way.via, way.dev) not in known:
                known[way.via, way.dev] = reach.covers(way.via)
            if not known[way.via, way.dev]:
                at = node.table().get("via") or node.table().get("nexthops") or node
                on = f" on {way.dev}" if way.dev is not None else ""
                message = f"no declared address or route{on} reaches {way.via}"
                reader.warning(
                    at, message, "the kernel refuses a gateway out of reach, unless onlink = true"
                )
