# SPDX-License-Identifier: MIT
"""The present state of a namespace as something to declare: what somebody made, not what the kernel makes by
itself or a lease brought. It writes nothing and keeps nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping

from linxd.netlink import rt, wire
from linxd.netlink.errors import NetlinkError
from linxd.netlink.rt import AddrMsg, LinkMsg, NeighMsg, RouteMsg, RuleMsg
from linxd.netlink.socket import Requests
from linxd.netlink.wire import FOREVER
from linxd.patch import Key
from linxd.sources.rtnl.addresses import MANAGED_FLAGS
from linxd.sources.rtnl.attributes import KINDS, Kind
from linxd.sources.rtnl.info import decode_info, decode_port, encode_info, encode_veth_peer, parent_in
from linxd.sources.rtnl.kind import IFF_LOOPBACK, IFF_UP
from linxd.sources.rtnl.links import common_value, info_kind
from linxd.sources.rtnl.model import (
    AF_INET,
    AF_INET6,
    SCOPES,
    Address,
    Desired,
    Link,
    LinkRef,
    Neighbour,
    Nexthop,
    Peer,
    Route,
    Rule,
    Value,
)
from linxd.sources.rtnl.neighbours import NTF_PROXY, NTF_ROUTER, NUD_PERMANENT
from linxd.sources.rtnl.routes import LOCAL_TABLE, RTNH_F_ONLINK
from linxd.sources.rtnl.rules import KERNEL_PRIORITIES, as_rule
from linxd.sources.rtnl.table import LinkTable

NOBODYS = frozenset({1, 2, 9, 16})
"""Protocols redirect, kernel, ra and dhcp: not for anyone to declare."""
KINDS_BY_WORD = {info_kind(name): kind for name, kind in KINDS.items()}
TELLING = ("mtu", "txqueuelen", "alias", "altnames", "group", "arp", "multicast", "promisc", "allmulticast")
"""Common attributes worth declaring when they are not what a new link has. A MAC is mostly random: left
out."""

# Common attributes worth declaring when they are not what a new link has. A MAC is mostly random: left out.
USUAL: Mapping[str, Value] = {
    "mtu": 1500, "txqueuelen": 1000, "alias": "", "altnames": (), "group": 0, "arp": True, "multicast": True,
    "promisc": False, "allmulticast": False,
}  # fmt: skip
USUAL_PORT: Mapping[str, Value] = {
    "hairpin": False, "isolated": False, "cost": 2, "guard": False, "learning": True, "root_block": False,
    "fastleave": False, "flood": True, "neigh_suppress": False,
}  # fmt: skip
"""What ports of a bridge have at first (net/bridge/br_if.c new_nbp), a cost of 2 being that of 10 Gbit/s."""

IDENTIFYING = ("id", "mode", "dstport")
"""Options that are always told: what a link is, rather than how it is set."""

Defaults = Callable[[Kind, Mapping[str, Value]], LinkMsg | None]
"""Gives a new link of a kind (with the options it can't be without), to know defaults by. None: can't be
told."""


def capture(requests: Requests, defaults: Defaults = lambda kind, required: None) -> Desired:
    """What is in the namespace of ``requests``. Options of links that ``defaults`` can't speak for are left
    out, but for those that a link of the kind can't be without. Raises NetlinkError."""
    table = LinkTable(rt.decode_link(*at) for at in requests.dump_all(wire.RTM_GETLINK, rt.query_links()))
    links = _links(table, defaults)
    addresses: dict[Key, Address] = {}
    routes: dict[Key, Route] = {}
    rules: dict[Key, Rule] = {}
    for family in (AF_INET, AF_INET6):
        for at in _dump(requests, wire.RTM_GETADDR, rt.query_addrs(family)):
            address = _address(rt.decode_addr(*at), table)
            if address is not None:
                addresses[address.key] = address
                links.setdefault(address.link, Link(address.link))
        for at in _dump(requests, wire.RTM_GETROUTE, rt.query_routes(family)):
            route = _route(rt.decode_route(*at), table)
            if route is not None:
                routes.setdefault(route.key, route)
        for at in _dump(requests, wire.RTM_GETRULE, rt.query_rules(family)):
            rule = _rule(rt.decode_rule(*at))
            if rule is not None:
                rules.setdefault(rule.key, rule)
    neighbours: dict[Key, Neighbour] = {}
    for proxy in (False, True):
        for at in _dump(requests, wire.RTM_GETNEIGH, rt.query_neighs(proxy=proxy)):
            neighbour = _neighbour(rt.decode_neigh(*at), table)
            if neighbour is not None:
                neighbours[neighbour.key] = neighbour
    return Desired(links, addresses, routes, rules, neighbours)


def _dump(requests: Requests, kind: int, payload: bytes) -> Iterable[tuple[bytes, int, int]]:
    try:
        return requests.dump_all(kind, payload)
    except NetlinkError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):  # a kernel without it has none
            return []
        raise


# -- links --------------------------------------------------------------------------------------------------


def _links(table: LinkTable, defaults: Defaults) -> dict[str, Link]:
    found: dict[str, Link] = {}
    for msg in sorted(table.by_index.values(), key=lambda link: link.ifindex):
        if msg.flags & IFF_LOOPBACK:
            if msg.flags & IFF_UP:
                found[msg.name] = Link(msg.name, up=True)
            continue
        found[msg.name] = _link(msg, table, defaults)
    return found


def _link(msg: LinkMsg, table: LinkTable, defaults: Defaults) -> Link:
    kind = KINDS_BY_WORD.get(msg.kind or "")
    peer: Peer | None = None
    if kind is not None and kind.peer:
        other = table.by_index.get(msg.link) if msg.link_netnsid is None else None
        if other is not None and msg.ifindex < other.ifindex:
            peer = Peer(other.name, up=bool(other.flags & IFF_UP))
        else:
            kind = None  # the other end, here or elsewhere, makes it
    if kind is not None and msg.link_netnsid is not None:
        kind = None  # its parent is in another namespace, under a name that can't be known here
    options: dict[str, Value] = {}
    parent: LinkRef | None = None
    fresh: LinkMsg | None = None
    if kind is not None and not kind.peer:
        index = parent_in(kind.name, msg.info_data) if kind.parent_number else msg.link
        if index and index in table.by_index and kind.needs_parent is not False:
            parent = LinkRef(table.name(index))
        present = decode_info(kind.name, msg.info_data, tuple(kind.attributes), table.name)
        if kind.name == "vxlan":
            present.pop("group", None)
        required = {
            name: value for name, value in present.items() if name in kind.required or name in IDENTIFYING
        }
        fresh = defaults(kind, required)
        usual = (
            {}
            if fresh is None
            else decode_info(kind.name, fresh.info_data, tuple(kind.attributes), table.name)
        )
        options = {
            name: value
            for name, value in present.items()
            if name in required or (fresh is not None and value != usual.get(name) and not _unset(value))
        }
    attributes = {
        name: value
        for name in USUAL
        if (value := common_value(msg, name)) is not None and value != _usual(msg, fresh, name)
    }
    master = table.by_index.get(msg.master)
    port: dict[str, Value] = {}
    if master is not None and msg.slave_kind in KINDS_BY_WORD:
        named = KINDS_BY_WORD[msg.slave_kind or ""]
        telling = tuple(USUAL_PORT.keys() & named.ports.keys())
        present = decode_port(named.name, msg.slave_data, telling, table.name)
        port = {name: value for name, value in present.items() if value != USUAL_PORT[name]}
    return Link(
        msg.name,
        None if kind is None else kind.name,
        bool(msg.flags & IFF_UP),
        None if master is None else master.name,
        parent,
        peer,
        attributes,
        options,
        port,
    )


def _unset(value: Value) -> bool:
    return value in ("", (), "0.0.0.0", "::")


def _usual(msg: LinkMsg, fresh: LinkMsg | None, name: str) -> Value | None:
    """What a new link has: read off one where there is one, else what most have."""
    if fresh is not None:
        return common_value(fresh, name)
    return USUAL[name]


def fresh_links(scratch: Requests) -> Defaults:
    """Defaults by making a link of each kind in a namespace made for it; ``scratch`` is open there."""
    known: dict[str, LinkMsg | None] = {}

    def fresh(kind: Kind, required: Mapping[str, Value]) -> LinkMsg | None:
        if kind.name not in known:
            known[kind.name] = _make(scratch, kind, required)
        return known[kind.name]

    return fresh


def _make(scratch: Requests, kind: Kind, required: Mapping[str, Value]) -> LinkMsg | None:
    flags = wire.NLM_F_CREATE | wire.NLM_F_EXCL
    name = f"x-{kind.name}"[:15]
    parent = 0
    try:
        if kind.needs_parent:
            data = encode_veth_peer("x-other")
            scratch.request(
                wire.RTM_NEWLINK, flags, rt.encode_link(name="x-parent", kind="veth", info_data=data)
            )
        if kind.needs_parent:
            replies = scratch.request(wire.RTM_GETLINK, 0, rt.query_link(name="x-parent"))
            parent = rt.decode_link(replies[0].buf, replies[0].start, replies[0].end).ifindex
        data = encode_info(kind.name, required, lambda name: 0)
        payload = rt.encode_link(name=name, kind=info_kind(kind.name), info_data=data, link=parent or None)
        scratch.request(wire.RTM_NEWLINK, flags, payload)
        replies = scratch.request(wire.RTM_GETLINK, 0, rt.query_link(name=name))
        msg = rt.decode_link(replies[0].buf, replies[0].start, replies[0].end)
        scratch.request(wire.RTM_DELLINK, 0, rt.encode_link(ifindex=msg.ifindex))
        return msg
    except NetlinkError:
        return None


# -- what stands on them ------------------------------------------------------------------------------------


def _address(msg: AddrMsg, table: LinkTable) -> Address | None:
    link = table.by_index.get(msg.ifindex)
    if link is None or msg.valid_lft != FOREVER or msg.proto in (1, 2, 3):
        return None
    if link.flags & IFF_LOOPBACK and msg.scope == SCOPES["host"]:
        return None
    if msg.family == AF_INET6 and msg.scope == SCOPES["link"]:
        return None  # the kernel's own fe80::/64
    label = None if msg.label in (None, link.name) else msg.label
    return Address(
        link.name, msg.family, msg.address, msg.prefixlen, msg.peer, label, msg.broadcast, msg.scope,
        msg.metric, msg.flags & MANAGED_FLAGS,
    )  # fmt: skip


def _route(msg: RouteMsg, table: LinkTable) -> Route | None:
    if (
        msg.protocol in NOBODYS
        or msg.table == LOCAL_TABLE
        or msg.src is not None
        or msg.nhid
        or msg.encap_type
    ):
        return None
    if msg.type in (3, 4, 5):  # broadcast, anycast, multicast: the kernel's
        return None
    # What carries nothing needs no device: IPv6 shows lo.
    dev = table.name(msg.oif) if msg.oif and msg.type not in (6, 7, 8, 9) else None
    return Route(
        msg.family,
        msg.dst,
        msg.table,
        msg.tos if msg.family == AF_INET else 0,
        msg.metric,
        msg.type,
        msg.gateway,
        None if msg.nexthops else dev,
        bool(msg.flags & RTNH_F_ONLINK) and not msg.nexthops,
        msg.prefsrc,
        msg.scope if msg.family == AF_INET else None,
        msg.pref or None,
        msg.metrics,
        tuple(
            Nexthop(hop.gateway, table.name(hop.oif), hop.weight, bool(hop.flags & RTNH_F_ONLINK))
            for hop in msg.nexthops
        ),
    )


def _rule(msg: RuleMsg) -> Rule | None:
    if msg.protocol == 2 or (msg.priority or 0) in KERNEL_PRIORITIES:
        return None
    return as_rule(msg)


def _neighbour(msg: NeighMsg, table: LinkTable) -> Neighbour | None:
    proxy = bool(msg.flags & NTF_PROXY)
    if msg.family not in (AF_INET, AF_INET6) or msg.address is None or msg.ifindex not in table.by_index:
        return None
    if not proxy and not msg.state & NUD_PERMANENT:
        return None
    return Neighbour(
        table.name(msg.ifindex), msg.family, msg.address, None if proxy else msg.lladdr, proxy,
        bool(msg.flags & NTF_ROUTER),
    )  # fmt: skip
