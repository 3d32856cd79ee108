# SPDX-License-Identifier: MIT
"""Every field survives the wire, and no bytes whatever make a decoder do anything but refuse."""

from __future__ import annotations

import contextlib
import inspect
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linxd.netlink.rt import (
    AddrMsg,
    LinkMsg,
    NeighMsg,
    Nexthop,
    RouteMsg,
    RuleMsg,
    decode_addr,
    decode_link,
    decode_neigh,
    decode_route,
    decode_rule,
    encode_addr,
    encode_link,
    encode_neigh,
    encode_plain_route,
    encode_route,
    encode_rule,
    packed_destination,
    packed_prefix,
    route_key,
)
from linxd.netlink.wire import (
    AF_BRIDGE,
    AF_INET,
    AF_INET6,
    IFLA_ALLMULTI,
    IFLA_ALT_IFNAME,
    IFLA_MAX_MTU,
    IFLA_MIN_MTU,
    IFLA_OPERSTATE,
    IFLA_PERM_ADDRESS,
    IFLA_PROMISCUITY,
    IFLA_PROP_LIST,
    IFLA_PROTINFO,
    RTA_CACHEINFO,
    RTA_DST,
    WireError,
    attr_str,
    attr_u8,
    attr_u32,
    nested,
    pack_attr,
)

U8, U16, U32 = st.integers(0, 255), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
SOME32 = st.integers(1, 0xFFFFFFFF)
INDEX = st.integers(0, 0x7FFFFFFF)
NAME = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=15)
MAC = st.binary(min_size=6, max_size=6).map(lambda packed: packed.hex(":"))
FAMILY = st.sampled_from([AF_INET, AF_INET6])


def addresses(family: int) -> st.SearchStrategy[str]:
    size = 4 if family == AF_INET else 16
    return st.binary(min_size=size, max_size=size).map(lambda packed: socket.inet_ntop(family, packed))


def prefixes(family: int, *, least: int = 0) -> st.SearchStrategy[str]:
    bits = 32 if family == AF_INET else 128

    def masked(number: int, length: int) -> str:
        packed = (number >> (bits - length) << (bits - length)).to_bytes(bits // 8, "big")
        return f"{socket.inet_ntop(family, packed)}/{length}"

    return st.builds(masked, st.integers(0, (1 << bits) - 1), st.integers(least, bits))


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


SPAN16 = st.tuples(U16, U16)
ENCAP = st.sampled_from([(0, b""), (1, attr_u32(1, 16)), (5, b"")])


def nexthops(family: int) -> st.SearchStrategy[Nexthop]:
    gateways = addresses(family) if family == AF_INET6 else addresses(AF_INET) | addresses(AF_INET6)
    return st.builds(
        lambda oif, gateway, weight, flags, flow, encap: Nexthop(oif, gateway, weight, flags, flow, *encap),
        INDEX,
        maybe(gateways),
        st.integers(1, 256),
        U8,
        U32,
        ENCAP,
    )


METRICS = st.dictionaries(st.integers(1, 15), U32, max_size=5).flatmap(
    lambda numbers: st.sampled_from(
        [tuple(sorted(numbers.items())), (*sorted(numbers.items()), (16, "cubic"))]
    )
)


def routes(family: int) -> st.SearchStrategy[RouteMsg]:
    return st.builds(
        lambda encap, **fields: RouteMsg(**fields, encap_type=encap[0], encap=encap[1]),
        ENCAP,
        family=st.just(family),
        dst=prefixes(family),
        src=maybe(prefixes(family, least=1)),
        tos=U8,
        table=SOME32,
        protocol=U8,
        scope=U8,
        type=U8,
        flags=U32,
        oif=INDEX,
        gateway=maybe(addresses(AF_INET) | addresses(AF_INET6)),
        prefsrc=maybe(addresses(family)),
        metric=U32,
        metrics=METRICS,
        nexthops=st.lists(nexthops(family), max_size=3).map(tuple),
        pref=maybe(st.sampled_from([0, 1, 3])),
        flow=U32,
        nhid=U32,
        expires=U32,
    )


def default_form(route: RouteMsg) -> RouteMsg:
    """A destination of length 0 can't carry an address."""
    if not route.dst.endswith("/0"):
        return route
    return route._replace(dst="::/0" if route.family == AF_INET6 else "0.0.0.0/0")


@given(FAMILY.flatmap(routes))
def test_routes(route: RouteMsg) -> None:
    payload = encode_route(**route._asdict())
    assert decode_route(payload, 0, len(payload)) == default_form(route)
    buf = b"\xee" * 20 + payload + b"\xee" * 9  # its neighbours in a datagram are none of its business
    assert decode_route(buf, 20, 20 + len(payload)) == default_form(route)


@given(FAMILY.flatmap(routes))
def test_the_key_of_a_route_is_that_of_the_whole_route(route: RouteMsg) -> None:
    payload = encode_route(**route._asdict())
    whole = default_form(route)
    key = (whole.family, whole.table, whole.dst, whole.tos, whole.metric)
    assert route_key(payload, 0, len(payload)) == (key if whole.src is None else (*key, whole.src))


@given(FAMILY.flatmap(routes))
def test_the_destination_of_a_route_is_found_without_decoding(route: RouteMsg) -> None:
    route = default_form(route)
    payload = encode_route(**route._asdict())
    found = packed_destination(payload, 0)
    assert found == (b"" if route.dst.endswith("/0") else packed_prefix(route.dst))


@pytest.mark.parametrize(("clock", "seconds"), [(0, 0), (1, 1), (100, 1), (101, 2), (-1, -1), (-250, -3)])
def test_expiry_of_an_ipv6_route_is_told_in_clock_ticks(clock: int, seconds: int) -> None:
    cacheinfo = bytes(8) + clock.to_bytes(4, "little", signed=True) + bytes(20)
    payload = encode_route(family=AF_INET6, dst="2001:db8::/32") + pack_attr(RTA_CACHEINFO, cacheinfo)
    assert decode_route(payload, 0, len(payload)).expires == seconds


def test_a_known_attribute_of_the_wrong_length_is_refused() -> None:
    payload = encode_route(family=AF_INET, dst="0.0.0.0/0") + pack_attr(RTA_DST, b"\x0a\0\0")
    for decode in (decode_route, route_key):
        with pytest.raises(WireError):
            decode(payload, 0, len(payload))


def addrs(family: int) -> st.SearchStrategy[AddrMsg]:
    return st.builds(
        AddrMsg,
        family=st.just(family),
        ifindex=INDEX,
        address=addresses(family),
        peer=maybe(addresses(family)),
        prefixlen=st.integers(0, 32 if family == AF_INET else 128),
        scope=U8,
        flags=U32,
        label=maybe(NAME),
        broadcast=maybe(addresses(family)),
        metric=U32,
        proto=U8,
        valid_lft=U32,
        preferred_lft=U32,
    )


@given(FAMILY.flatmap(addrs))
def test_addresses(addr: AddrMsg) -> None:
    payload = encode_addr(**addr._asdict())
    wanted = addr._replace(peer=None) if addr.peer == addr.address else addr
    assert decode_addr(payload, 0, len(payload)) == wanted


def test_an_address_message_without_an_address_is_refused() -> None:
    with pytest.raises(WireError):
        decode_addr(bytes(8), 0, 8)


def rules(family: int) -> st.SearchStrategy[RuleMsg]:
    return st.builds(
        RuleMsg,
        family=st.just(family),
        priority=U32,
        src=maybe(prefixes(family)),
        dst=maybe(prefixes(family)),
        tos=U8,
        iifname=maybe(NAME),
        oifname=maybe(NAME),
        fwmark=U32,
        fwmask=U32,
        table=U32,
        action=U8,
        goto=maybe(U32),
        flags=U32,
        suppress_prefixlength=maybe(st.integers(0, 128)),
        suppress_ifgroup=maybe(st.integers(0, 1 << 30)),
        tun_id=maybe(st.integers(0, (1 << 64) - 1)),
        l3mdev=st.booleans(),
        uidrange=maybe(st.tuples(U32, U32)),
        ipproto=maybe(U8),
        sport=maybe(SPAN16),
        dport=maybe(SPAN16),
        protocol=U8,
        flow=U32,
        dscp=maybe(U8),
        dscp_mask=maybe(st.integers(0, 0x3E)),
        flowlabel=maybe(U32),
        flowlabel_mask=maybe(U32),
        sport_mask=maybe(st.integers(0, 0xFFFE)),
        dport_mask=maybe(st.integers(0, 0xFFFE)),
    )


@given(FAMILY.flatmap(rules))
def test_rules(rule: RuleMsg) -> None:
    payload = encode_rule(**rule._asdict())
    assert decode_rule(payload, 0, len(payload)) == rule


def neighs(family: int) -> st.SearchStrategy[NeighMsg]:
    return st.builds(
        NeighMsg,
        family=st.just(family),
        ifindex=INDEX,
        address=maybe(addresses(family)),
        lladdr=maybe(MAC),
        state=U16,
        flags=U8,
        ext_flags=U32,
        protocol=U8,
        type=U8,
    )


@given(FAMILY.flatmap(neighs))
def test_neighbours(neigh: NeighMsg) -> None:
    payload = encode_neigh(**neigh._asdict())
    assert decode_neigh(payload, 0, len(payload)) == neigh


WRITTEN = {
    "ifindex": INDEX,
    "type": U16.map(lambda number: number & 0x7FFF),
    "flags": U32,
    "name": NAME,
    "kind": maybe(NAME),
    "info_data": st.sampled_from([b"", attr_u32(3, 7)]),
    "slave_kind": maybe(NAME),
    "slave_data": st.sampled_from([b"", attr_u8(5, 1)]),
    "mtu": U32,
    "mac": maybe(MAC),
    "broadcast": maybe(MAC),
    "txqlen": U32,
    "master": INDEX,
    "link": INDEX,
    "link_netnsid": maybe(INDEX),
    "alias": st.sampled_from(["", "uplink to rack 7"]),
    "group": U32,
    "addrgenmode": maybe(st.integers(0, 3)),
    "num_tx_queues": U32,
    "num_rx_queues": U32,
    "gso_max_size": U32,
    "gso_max_segs": U32,
    "gro_max_size": U32,
    "gso_ipv4_max_size": U32,
    "gro_ipv4_max_size": U32,
    "proto_down": st.booleans(),
}
READ_ONLY: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], bytes]]] = {
    "operstate": (U8, lambda value: attr_u8(IFLA_OPERSTATE, value)),
    "promiscuity": (U32, lambda value: attr_u32(IFLA_PROMISCUITY, value)),
    "allmulti": (U32, lambda value: attr_u32(IFLA_ALLMULTI, value)),
    "minmtu": (U32, lambda value: attr_u32(IFLA_MIN_MTU, value)),
    "maxmtu": (U32, lambda value: attr_u32(IFLA_MAX_MTU, value)),
    "permaddr": (MAC, lambda value: pack_attr(IFLA_PERM_ADDRESS, bytes.fromhex(value.replace(":", "")))),
    "protinfo": (st.just(attr_u8(1, 3)), lambda value: nested(IFLA_PROTINFO, value)),
    "altnames": (
        st.lists(NAME, max_size=3).map(tuple),
        lambda value: nested(IFLA_PROP_LIST, *(attr_str(IFLA_ALT_IFNAME, name) for name in value)),
    ),
}


@given(
    st.fixed_dictionaries(WRITTEN), st.fixed_dictionaries({name: s for name, (s, _) in READ_ONLY.items()})
)
def test_links(written: dict[str, Any], read_only: dict[str, Any]) -> None:
    payload = encode_link(**written) + b"".join(
        READ_ONLY[name][1](value) for name, value in read_only.items()
    )
    assert decode_link(payload, 0, len(payload)) == LinkMsg(family=0, **written, **read_only)


def test_every_field_of_a_link_is_either_written_or_read_only() -> None:
    assert {"family", *WRITTEN, *READ_ONLY} == set(LinkMsg._fields)


def test_a_bridges_word_about_a_port_is_told_apart_from_the_link_itself() -> None:
    payload = encode_link(family=AF_BRIDGE, ifindex=7, name="v0") + nested(IFLA_PROTINFO, attr_u8(1, 3))
    link = decode_link(payload, 0, len(payload))
    assert (link.family, link.ifindex, link.protinfo) == (AF_BRIDGE, 7, attr_u8(1, 3))


DECODERS = [decode_link, decode_addr, decode_route, route_key, decode_rule, decode_neigh]
WELL_FORMED = [
    encode_route(
        family=AF_INET,
        dst="10.0.0.0/24",
        gateway="fd00::1",
        oif=3,
        metrics=((2, 1400), (16, "cubic")),
        prefsrc="10.0.0.1",
        nexthops=(Nexthop(3, "10.0.0.1", 2), Nexthop(4, "fd00::1", 1, 0, 0, 1, attr_u32(1, 1))),
    ),
    encode_route(
        family=AF_INET6, dst="fd00::/64", src="fd01::/64", gateway="fd00::1", oif=3, metric=9, pref=1
    )
    + pack_attr(RTA_CACHEINFO, bytes(32)),
    encode_addr(
        family=AF_INET6,
        ifindex=3,
        address="fd00::1",
        peer="fd00::2",
        prefixlen=64,
        flags=2,
        label="x",
        proto=76,
        metric=4,
        valid_lft=5,
    ),
    encode_rule(
        family=AF_INET,
        priority=5,
        src="10.0.0.0/8",
        iifname="v0",
        fwmark=1,
        fwmask=255,
        uidrange=(1, 2),
        sport=(1, 2),
        tun_id=5,
        dscp=4,
        l3mdev=True,
        table=1000,
    ),
    encode_neigh(
        family=AF_INET, ifindex=3, address="10.0.0.9", lladdr="02:00:00:00:00:09", ext_flags=1, protocol=76
    ),
    encode_link(
        ifindex=3,
        name="v0",
        kind="veth",
        info_data=attr_u32(1, 1),
        mtu=1500,
        mac="02:00:00:00:00:09",
        addrgenmode=1,
        alias="x",
        link_netnsid=3,
        slave_kind="bridge",
        slave_data=attr_u8(1, 1),
    ),
]


@pytest.mark.parametrize("decode", DECODERS)
@given(data=st.data())
def test_mutated_messages_are_decoded_or_refused(
    decode: Callable[[bytes, int, int], object], data: st.DataObject
) -> None:
    buf = bytearray(data.draw(st.sampled_from(WELL_FORMED)))
    for _ in range(data.draw(st.integers(1, 4))):
        buf[data.draw(st.integers(0, len(buf) - 1))] = data.draw(U8)
    end = data.draw(st.integers(0, len(buf) + 8))
    start = data.draw(st.sampled_from([0, 0, 0, 4, 100, 1000]))
    with contextlib.suppress(WireError):
        decode(bytes(buf), start, end)


@pytest.mark.parametrize("decode", DECODERS)
@given(buf=st.binary(max_size=120))
def test_arbitrary_bytes_are_decoded_or_refused(
    decode: Callable[[bytes, int, int], object], buf: bytes
) -> None:
    with contextlib.suppress(WireError):
        decode(buf, 0, len(buf))


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("whole", WELL_FORMED)
def test_every_truncation_is_decoded_or_refused(
    decode: Callable[[bytes, int, int], object], whole: bytes
) -> None:
    for end in range(len(whole)):
        with contextlib.suppress(WireError):
            decode(whole, 0, end)


@given(FAMILY.flatmap(routes))
def test_a_plain_route_is_written_as_any_other(route: RouteMsg) -> None:
    fields = {name: getattr(route, name) for name in inspect.signature(encode_plain_route).parameters}
    assert encode_plain_route(**fields) == encode_route(**fields)
