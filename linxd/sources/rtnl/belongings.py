# SPDX-License-Identifier: MIT
"""What others have put on a link, kept while it is made anew: addresses, neighbours, routes through it,
ports.

Our own come back by themselves. It decides nothing about the link.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from linxd.netlink import rt, wire
from linxd.netlink.errors import NetlinkError
from linxd.netlink.rt import AddrMsg, NeighMsg, RouteMsg
from linxd.netlink.socket import Requests
from linxd.patch import Key
from linxd.records import dataclass, field
from linxd.sources.rtnl import addresses, neighbours, routes
from linxd.sources.rtnl.kind import Message
from linxd.sources.rtnl.model import AF_INET, AF_INET6, SCOPES
from linxd.sources.rtnl.table import LinkTable

_FLAGS = 0x716
"""IFA_F_* that somebody asked for: optimistic, nodad, home, mngtmpaddr, noprefixroute, autojoin."""
_KERNELS_OWN = frozenset({1, 2, 9})
"""Protocols of routes that come by themselves: redirect, kernel, ra."""
_BY_KERNEL = frozenset({1, 2, 3})
"""Address protocols that do: lo, ra, link-local."""


@dataclass(slots=True)
class Belongings:
    """Foreign objects of one link, as they were."""

    ifindex: int
    ports: list[int] = field(default_factory=list)
    addresses: list[AddrMsg] = field(default_factory=list)
    neighbours: list[NeighMsg] = field(default_factory=list)
    routes: list[RouteMsg] = field(default_factory=list)

    def messages(self, ifindex: int) -> list[Message]:
        """The requests that put them on the link that took its place."""
        made = wire.NLM_F_CREATE | wire.NLM_F_EXCL
        found: list[Message] = [
            (wire.RTM_NEWLINK, 0, rt.encode_link(ifindex=port, master=ifindex)) for port in self.ports
        ]
        for address in self.addresses:
            fields = {**address._asdict(), "ifindex": ifindex, "flags": address.flags & _FLAGS}
            found.append((wire.RTM_NEWADDR, made, rt.encode_addr(**fields)))
        for neighbour in self.neighbours:
            payload = rt.encode_neigh(**{**neighbour._asdict(), "ifindex": ifindex})
            found.append((wire.RTM_NEWNEIGH, made, payload))
        for route in self.routes:
            hops = tuple(
                hop._replace(oif=ifindex) if hop.oif == self.ifindex else hop for hop in route.nexthops
            )
            oif = ifindex if route.oif == self.ifindex else route.oif
            flags = route.flags & routes.RTNH_F_ONLINK
            fields = {**route._asdict(), "oif": oif, "nexthops": hops, "flags": flags}
            found.append((wire.RTM_NEWROUTE, made, rt.encode_route(**fields)))
        return found


def look(requests: Requests, ifindex: int, links: LinkTable, ours: Callable[[Key], bool]) -> Belongings:
    """What of others there is on a link. ``ours``: whether an object is declared or owned. Raises
    NetlinkError."""
    found = Belongings(ifindex)
    index = struct.pack("=i", ifindex)
    for name in (link.name for link in links.by_index.values() if link.master == ifindex):
        if not ours(("link", name)):
            port = links.index(name)
            found.ports += [] if port is None else [port]
    for family in (AF_INET, AF_INET6):
        for buf, start, end in _dump(
            requests, wire.RTM_GETADDR, rt.query_addrs(family=family, ifindex=ifindex)
        ):
            address = rt.decode_addr(buf, start, end)
            by_itself = address.proto in _BY_KERNEL or (
                family == AF_INET6 and address.scope == SCOPES["link"] and not address.flags & _FLAGS
            )
            if not by_itself and not ours(addresses.key_of(address, links)):
                found.addresses.append(address)
        # The kernel's filter by device passes over routes with several ways.
        for buf, start, end in _dump(requests, wire.RTM_GETROUTE, rt.query_routes(family)):
            if index not in buf[start:end]:
                continue
            route = rt.decode_route(buf, start, end)
            if route.oif != ifindex and all(hop.oif != ifindex for hop in route.nexthops):
                continue
            if route.protocol in _KERNELS_OWN or route.table == routes.LOCAL_TABLE or route.flags & 0x200:
                continue
            if not ours(routes.key_of(route)):
                found.routes.append(route)
    for proxy in (False, True):
        for buf, start, end in _dump(
            requests, wire.RTM_GETNEIGH, rt.query_neighs(ifindex=ifindex, proxy=proxy)
        ):
            neighbour = rt.decode_neigh(buf, start, end)
            lasting = proxy or neighbour.state & neighbours.NUD_PERMANENT
            if neighbour.family not in (AF_INET, AF_INET6) or not lasting or neighbour.address is None:
                continue
            if neighbour.ifindex == ifindex and not ours(neighbours.key_of(neighbour, links)):
                found.neighbours.append(neighbour)
    return found


def _dump(requests: Requests, kind: int, payload: bytes) -> list[tuple[bytes, int, int]]:
    try:
        return [(buf, start, end) for buf, bounds in requests.dump(kind, payload) for start, end in bounds]
    except NetlinkError:
        return []  # a family that this kernel has not, a link that went
