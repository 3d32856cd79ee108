# SPDX-License-Identifier: MIT
"""Connected routes: with an address the kernel makes one for the network behind its link, and keeps no eye
on it.

``ip route flush table main`` takes them along, and every gateway with them, while the address stays. Each
counts as an attribute of its address. Pure bookkeeping: knows no socket.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from socket import inet_ntop, inet_pton

from linxd.netlink import rt, wire
from linxd.netlink.rt import AddrMsg, RouteMsg
from linxd.patch import Key
from linxd.records import NamedTuple
from linxd.sources.rtnl.kind import IFF_LOOPBACK, IFF_UP
from linxd.sources.rtnl.model import ADDRESS_FLAGS, AF_INET, AF_INET6, Address
from linxd.sources.rtnl.table import LinkTable

RTPROT_KERNEL = 2
RT_SCOPE_LINK = 253
RT_TABLE_MAIN = 254
IFA_F_SECONDARY = 0x01
"""IPv4: another address of the same network came first, and has the route. IPv6: a temporary one."""
IFLA_VRF_TABLE = 1
ATTRIBUTE = "connected route"


class Place(NamedTuple):
    """Where a connected route belongs. ``network`` is written as in `RouteMsg.dst`."""

    family: int
    table: int
    ifindex: int
    network: str


@functools.lru_cache(maxsize=8192)
def network(address: str, prefixlen: int) -> str:
    """The network of an address, as the kernel's routes have it."""
    family = AF_INET6 if ":" in address else AF_INET
    packed = inet_pton(family, address)
    bits = 8 * len(packed)
    mask = ((1 << prefixlen) - 1) << (bits - prefixlen)
    masked = int.from_bytes(packed, "big") & mask
    return f"{inet_ntop(family, masked.to_bytes(len(packed), 'big'))}/{prefixlen}"


def expected(msg: AddrMsg, links: LinkTable) -> Place | None:
    """Where the kernel has put the connected route of an address (net/ipv4/fib_frontend.c fib_add_ifaddr,
    net/ipv6/addrconf.c inet6_addr_add); None when it makes none."""
    link = links.by_index.get(msg.ifindex)
    if link is None or link.flags & IFF_LOOPBACK or not link.flags & IFF_UP:
        return None
    if msg.flags & (ADDRESS_FLAGS["noprefixroute"] | IFA_F_SECONDARY):
        return None
    if msg.family == AF_INET6 and msg.peer is not None:
        # Which of the two ends has a route depends on whether the address was changed since it came.
        return None
    if msg.family == AF_INET and msg.prefixlen == 32 and msg.peer is None:
        return None
    there = network(msg.peer or msg.address, msg.prefixlen)
    if msg.family == AF_INET and there.startswith("0."):
        return None
    table = _table(link.master, links)
    return None if table is None else Place(msg.family, table, msg.ifindex, there)


def of_route(msg: RouteMsg) -> Place:
    """The place of a route."""
    return Place(msg.family, msg.table, msg.oif, msg.dst)


def behind(msg: RouteMsg, networks: Mapping[str, Sequence[Key]]) -> Sequence[Key]:
    """Those of the declared addresses of a link, by their networks, whose connected route this may be."""
    if msg.protocol != RTPROT_KERNEL or msg.type != 1 or msg.gateway is not None:
        return ()
    return networks.get(msg.dst, ())


def network_of(address: Address) -> str:
    """The network that a declared address stands for: of one with a peer, the peer's."""
    return network(address.peer or address.address, address.prefixlen)


def restored(want: Address, place: Place) -> tuple[int, int, bytes]:
    """The request that puts an IPv4 one back as the kernel made it. (IPv6's come back with a change of their
    address.)"""
    payload = rt.encode_route(
        family=AF_INET,
        dst=place.network,
        table=place.table,
        protocol=RTPROT_KERNEL,
        scope=RT_SCOPE_LINK,
        oif=place.ifindex,
        prefsrc=want.address,
        metric=want.metric,
    )
    # Appended, as by the kernel: another link may be connected to the same network.
    return wire.RTM_NEWROUTE, wire.NLM_F_CREATE | wire.NLM_F_APPEND, payload


def _table(master: int, links: LinkTable) -> int | None:
    """The table of a link's connected routes: main, or that of the VRF that it is in."""
    above = links.by_index.get(master) if master else None
    if above is None or above.kind != "vrf":
        return RT_TABLE_MAIN
    found = wire.attr_map(above.info_data, 0, len(above.info_data))
    value = found.get(IFLA_VRF_TABLE)
    return None if value is None else int.from_bytes(value, sys.byteorder)
