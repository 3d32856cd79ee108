# SPDX-License-Identifier: MIT
"""The ``addresses`` of a link. Knows nothing of routes or of the link's other keys."""

from __future__ import annotations

from collections.abc import Mapping

from linxd.config.document import Node
from linxd.config.faults import Wrong, found
from linxd.config.inet import ADDRESS, BITS, INTERFACE_ADDRESS, Prefix, canonical, link_local, masked
from linxd.config.names import Names
from linxd.config.objects import ON_CONFLICT, take_of
from linxd.config.reader import ABSENT, Entries, Field, Reader, where_of
from linxd.config.values import BOOLEAN, U32, Type, integer, named
from linxd.sources.rtnl.model import ADDRESS_FLAGS, AF_INET, AF_INET6, SCOPES, Address

V6_ONLY = ("home", "mngtmpaddr", "nodad")
"""Flags that ip-address(8) sets on IPv6 addresses alone."""


def _broadcast(value: object, names: Names) -> str:
    if value == "+":
        return "+"
    known = canonical(value) if isinstance(value, str) else None
    if known is None or known[0] != AF_INET:
        raise Wrong('an IPv4 address, or "+" for the last one of the network')
    return known[1]


def _label(value: object, names: Names) -> str:
    if not isinstance(value, str) or not 1 <= len(value.encode()) <= 15 or any(c.isspace() for c in value):
        raise Wrong("a label of 1 to 15 bytes without blanks, such as eth0:1")
    return value


FIELDS: Mapping[str, Field] = {
    "address": Field(INTERFACE_ADDRESS, "the address with its length: 10.0.0.5/24", required=True),
    "peer": Field(INTERFACE_ADDRESS, "the address of the other end of a point-to-point link"),
    "label": Field(
        Type(_label, {"type": "string", "minLength": 1, "maxLength": 15}), "label of an IPv4 address"
    ),
    "broadcast": Field(
        Type(_broadcast, {"anyOf": [{"const": "+"}, ADDRESS.schema]}),
        'broadcast address of an IPv4 network; "+" is its last address',
    ),
    "scope": Field(
        named("rt_scopes", 0, 255, what="a scope"),
        "where the address is valid: global, site, link, host or a number",
    ),
    "metric": Field(integer(1, U32), "metric of the route that the kernel makes for the address' network"),
    "nodad": Field(BOOLEAN, "no duplicate address detection (IPv6)"),
    "noprefixroute": Field(BOOLEAN, "the kernel makes no route for the address' network"),
    "home": Field(BOOLEAN, "a mobile node's home address (IPv6)"),
    "mngtmpaddr": Field(BOOLEAN, "the kernel makes temporary addresses from this one (IPv6)"),
    "autojoin": Field(BOOLEAN, "join the group that this multicast address names"),
    "on-conflict": ON_CONFLICT,
    "absent": ABSENT,
}


def read_addresses(reader: Reader, link: str, node: Node, into: Entries[Address]) -> None:
    """All entries of one link's array, strings and tables alike."""
    if not isinstance(node.value, list):
        hint = f"write [{found(node.plain())}]" if isinstance(node.value, str) else ""
        reader.error(node, f"is {found(node.plain())}, want an array of addresses", hint)
        return
    for item in node.value:
        _read(reader, link, item, into)


def _read(reader: Reader, link: str, node: Node, into: Entries[Address]) -> None:
    before = reader.errors
    if isinstance(node.value, dict):
        values = reader.fields(node, FIELDS)
        at = node.table().get("address", node)
    else:
        address = reader.value(node, INTERFACE_ADDRESS)
        values = {} if address is None else {"address": address}
        at = node
    local: Prefix | None = values.get("address")
    if local is None or reader.errors != before:
        return
    peer: Prefix | None = values.get("peer")
    length = _length(reader, at, local, peer, node)
    if length is None:
        return
    key = (link, local.address, length)
    shown = f"{local.address}/{length} on {link}"
    if values.get("absent"):
        into.add(key, None, node, shown=shown)
        return
    if local.address in ("0.0.0.0", "::"):
        reader.error(at, f"{local.address} is no address a link can have")
    label = _v4_only(reader, node, "label", values.get("label"), local.family)
    broadcast = _v4_only(reader, node, "broadcast", values.get("broadcast"), local.family)
    if broadcast == "+":
        broadcast = _last(reader, node, local.address, length)
    item = Address(
        link=link,
        family=local.family,
        address=local.address,
        prefixlen=length,
        peer=None if peer is None else peer.address,
        label=None if label == link else label,
        broadcast=broadcast,
        scope=_scope(reader, node, local, values.get("scope")),
        metric=values.get("metric", 0),
        flags=_flags(reader, node, values, local.family),
        take=take_of(values),
        where=where_of(node),
    )
    if reader.errors == before:
        into.add(key, item, node, shown=shown)


def _length(reader: Reader, at: Node, local: Prefix, peer: Prefix | None, node: Node) -> int | None:
    """The length. With a peer the kernel has one for both, and it may be written with either."""
    if peer is not None and peer.family != local.family:
        reader.error(node.table()["peer"], "is of another family than address")
        return None
    if peer is not None and (peer.given or local.given):
        # Without a length it is one host, as ip-address(8) reads it.
        if local.given and local.length != peer.length:
            message = (
                f"has length {peer.length} where address has {local.length}: the kernel keeps one for both"
            )
            reader.error(node.table()["peer"], message)
            return None
        return peer.length
    if not local.given:
        likely = 24 if local.family == AF_INET else 64
        want = "an address with its length such as 10.0.0.5/24 or fd00::5/64"
        hint = f'for example "{local.address}/{likely}"; one host is /{BITS[local.family]}'
        reader.error(at, f'is "{local.address}", want {want}', hint)
        return None
    return local.length


def _v4_only(reader: Reader, node: Node, key: str, value: str | None, family: int) -> str | None:
    if value is not None and family != AF_INET:
        reader.error(node.table()[key], "IPv6 addresses have none", at_key=True)
        return None
    return value


def _last(reader: Reader, node: Node, address: str, length: int) -> str | None:
    if length > 30:
        reader.error(node.table()["broadcast"], f"a /{length} has no broadcast address")
        return None
    first = masked(AF_INET, address, length).split(".")
    number = int.from_bytes(bytes(int(octet) for octet in first), "big") | ((1 << (32 - length)) - 1)
    return ".".join(str(octet) for octet in number.to_bytes(4, "big"))


def _flags(reader: Reader, node: Node, values: Mapping[str, object], family: int) -> int:
    flags = 0
    for name, bit in ADDRESS_FLAGS.items():
        if values.get(name):
            flags |= bit
            if name in V6_ONLY and family != AF_INET6:
                reader.error(node.table()[name], "is for IPv6 addresses", at_key=True)
    return flags


def derived_scope(family: int, address: str) -> int:
    """The scope of an address for which none is said: iproute2's default_scope for IPv4, and for IPv6 the
    one that the kernel reads out of the address itself whatever is said (net/ipv6/addrconf_core.c)."""
    if family == AF_INET:
        return SCOPES["host"] if address.startswith("127.") else SCOPES["global"]
    if address == "::1":
        return SCOPES["host"]
    if link_local(address):
        return SCOPES["link"]
    if address[:3] in ("fec", "fed", "fee", "fef") and len(address.partition(":")[0]) == 4:
        return SCOPES["site"]
    return SCOPES["global"]


def _scope(reader: Reader, node: Node, local: Prefix, said: int | None) -> int:
    derived = derived_scope(local.family, local.address)
    if said is None:
        return derived
    if local.family == AF_INET6 and said != derived:
        words = {number: word for word, number in SCOPES.items()}
        message = f"the kernel reads the scope of an IPv6 address out of the address: {words[derived]} here"
        reader.error(node.table()["scope"], message, "leave it out")
    return said
