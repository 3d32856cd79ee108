# SPDX-License-Identifier: MIT
"""Routes on the wire: RTM_NEWROUTE, RTM_DELROUTE and the dump of them.

Decoding is the hottest path there is (about 1.5 µs a route). It must not know which routes are wanted.
"""

from __future__ import annotations

import functools
import struct
import sys
from socket import inet_ntop
from typing import TypeAlias

from linxd.netlink.text import address_bytes, address_text, prefix_bytes
from linxd.netlink.wire import (
    AF_INET,
    AF_INET6,
    NLA_F_NESTED,
    NLA_TYPE_MASK,
    RTA_CACHEINFO,
    RTA_DST,
    RTA_ENCAP,
    RTA_ENCAP_TYPE,
    RTA_EXPIRES,
    RTA_FLOW,
    RTA_GATEWAY,
    RTA_METRICS,
    RTA_MULTIPATH,
    RTA_NH_ID,
    RTA_OIF,
    RTA_PREF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTA_SRC,
    RTA_TABLE,
    RTA_VIA,
    RTAX_CC_ALGO,
    WireError,
    attr_str,
    attr_u8,
    attr_u16,
    attr_u32,
    attrs,
    check_tail,
    head,
    nested,
    pack_attr,
    text_of,
)
from linxd.records import NamedTuple


class Nexthop(NamedTuple):
    """One way of a multipath route. ``weight`` counts from 1 (the wire's rtnh_hops + 1), ``gateway`` may
    be of the other family, ``encap`` is the raw payload of RTA_ENCAP."""

    oif: int = 0
    gateway: str | None = None
    weight: int = 1
    flags: int = 0
    flow: int = 0
    encap_type: int = 0
    encap: bytes = b""


Metrics: TypeAlias = tuple[tuple[int, int | str], ...]
"""(RTAX_* number, value) in ascending order; the congestion control's value is its name."""


class RouteMsg(NamedTuple):
    """A route. ``dst`` and ``src`` are "A/LEN" always, ``table`` is RTA_TABLE's, ``gateway`` is of the
    other family when it came as RTA_VIA. ``pref`` is None for IPv4. ``expires``: seconds left, away from
    zero, 0 = for ever."""

    family: int
    dst: str
    src: str | None = None
    tos: int = 0
    table: int = 254
    protocol: int = 0
    scope: int = 0
    type: int = 1
    flags: int = 0
    oif: int = 0
    gateway: str | None = None
    prefsrc: str | None = None
    metric: int = 0
    metrics: Metrics = ()
    nexthops: tuple[Nexthop, ...] = ()
    pref: int | None = None
    flow: int = 0
    encap_type: int = 0
    encap: bytes = b""
    nhid: int = 0
    expires: int = 0


RouteKey: TypeAlias = tuple[int, int, str, int, int] | tuple[int, int, str, int, int, str]
"""(family, table, dst, tos, metric), and src where an IPv6 route has one."""

_RTMSG = struct.Struct("=8BI")
_RTNH = struct.Struct("=HBBi")
_NLA = struct.Struct("=HH")
_HEAD_U32 = struct.Struct("=II")
_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")
_S32 = struct.Struct("=i")

_TABLE, _PRIORITY, _OIF, _FLOW = (
    head(RTA_TABLE, 4),
    head(RTA_PRIORITY, 4),
    head(RTA_OIF, 4),
    head(RTA_FLOW, 4),
)
_DST4, _DST6, _SRC4, _SRC6 = head(RTA_DST, 4), head(RTA_DST, 16), head(RTA_SRC, 4), head(RTA_SRC, 16)
_GATEWAY4, _GATEWAY6 = head(RTA_GATEWAY, 4), head(RTA_GATEWAY, 16)
_PREFSRC4, _PREFSRC6 = head(RTA_PREFSRC, 4), head(RTA_PREFSRC, 16)
_TABLE_HEAD, _DST4_HEAD, _DST6_HEAD = (_U32.pack(one) for one in (_TABLE, _DST4, _DST6))
_CACHEINFO, _PREF, _NH_ID = head(RTA_CACHEINFO, 32), head(RTA_PREF, 1), head(RTA_NH_ID, 4)
_EXPIRES, _ENCAP_TYPE = head(RTA_EXPIRES, 4), head(RTA_ENCAP_TYPE, 2)
_FIXED = frozenset(
    (RTA_TABLE, RTA_PRIORITY, RTA_OIF, RTA_FLOW, RTA_DST, RTA_SRC, RTA_GATEWAY, RTA_PREFSRC,
     RTA_CACHEINFO, RTA_PREF, RTA_NH_ID, RTA_EXPIRES, RTA_ENCAP_TYPE)
)  # fmt: skip
"""Types that were recognised by `head` if their length were right."""
_KEY = frozenset((RTA_TABLE, RTA_PRIORITY, RTA_DST, RTA_SRC))
_SKIP8 = frozenset((_OIF, _GATEWAY4, _PREFSRC4, _PREF, _FLOW, _NH_ID))
_USER_HZ = 100
_PLAIN4 = struct.Struct("=8BI HHI HH4s HH4s")
_PLAIN6 = struct.Struct("=8BI HHI HH16s HHI HH16s")
_QUERY = struct.Struct("=8BI HH4s")
_RTM_F_LOOKUP_TABLE, _RTM_F_FIB_MATCH = 0x1000, 0x2000
_LOW_FLAGS = 8 if sys.byteorder == "little" else 11
"""Where struct rtmsg has the lowest eight of its flags."""
_CARRIER = 0x01 | 0x10
"""RTNH_F_DEAD and RTNH_F_LINKDOWN."""
_TAIL6 = pack_attr(RTA_CACHEINFO, bytes(32)) + attr_u8(RTA_PREF, 0)
_gateway_bytes = functools.lru_cache(maxsize=256)(address_bytes)
_new = tuple.__new__


def decode_route(buf: bytes, start: int, end: int) -> RouteMsg:
    """The route in the payload ``buf[start:end]`` of RTM_NEWROUTE or RTM_DELROUTE. Raises WireError."""
    try:
        family, dst_len, src_len, tos, table, protocol, scope, type_, flags = _RTMSG.unpack_from(buf, start)
        dst = src = gateway = prefsrc = pref = None
        oif = metric = flow = encap_type = nhid = expires = 0
        encap = b""
        metrics: Metrics = ()
        nexthops: tuple[Nexthop, ...] = ()
        at = start + 12
        # every attribute but an empty one has eight bytes at least
        while at + 8 <= end:
            header, value = _HEAD_U32.unpack_from(buf, at)
            if header == _TABLE:
                table = value
                at += 8
            elif header == _DST4:
                dst = f"{inet_ntop(AF_INET, buf[at + 4 : at + 8])}/{dst_len}"
                at += 8
            elif header == _PRIORITY:
                metric = value
                at += 8
            elif header == _GATEWAY4:
                gateway = inet_ntop(AF_INET, buf[at + 4 : at + 8])
                at += 8
            elif header == _OIF:
                oif = value
                at += 8
            elif header == _DST6:
                dst = f"{inet_ntop(AF_INET6, buf[at + 4 : at + 20])}/{dst_len}"
                at += 20
            elif header == _GATEWAY6:
                gateway = inet_ntop(AF_INET6, buf[at + 4 : at + 20])
                at += 20
            elif header == _CACHEINFO:
                clock = _S32.unpack_from(buf, at + 12)[0]
                if clock:
                    expires = (clock + _USER_HZ - 1) // _USER_HZ if clock > 0 else clock // _USER_HZ
                at += 36
            elif header == _PREF:
                pref = buf[at + 4]
                at += 8
            elif header == _PREFSRC4:
                prefsrc = inet_ntop(AF_INET, buf[at + 4 : at + 8])
                at += 8
            elif header == _PREFSRC6:
                prefsrc = inet_ntop(AF_INET6, buf[at + 4 : at + 20])
                at += 20
            else:
                size, kind = _NLA.unpack_from(buf, at)
                if size < 4 or at + size > end:
                    raise WireError(f"route attribute {kind}: length is {size}, {end - at} bytes are left")
                kind &= NLA_TYPE_MASK
                stop = at + size
                if kind == RTA_MULTIPATH:
                    nexthops = _nexthops(buf, at + 4, stop)
                elif kind == RTA_METRICS:
                    metrics = _metrics(buf, at + 4, stop)
                elif kind == RTA_VIA:
                    gateway = _via(buf[at + 4 : stop])
                elif kind == RTA_ENCAP:
                    encap = buf[at + 4 : stop]
                elif header == _ENCAP_TYPE:
                    encap_type = _U16.unpack_from(buf, at + 4)[0]
                elif header == _FLOW:
                    flow = value
                elif header == _NH_ID:
                    nhid = value
                elif header == _EXPIRES:
                    expires = value
                elif header in (_SRC6, _SRC4):
                    src = f"{address_text(buf[at + 4 : stop])}/{src_len}"
                elif kind in _FIXED:
                    raise WireError(f"route attribute {kind}: {size - 4} bytes")
                at = end if stop == end else (stop + 3) & ~3
        if at != end:
            check_tail(buf, at, end)
    except (struct.error, ValueError, IndexError) as error:
        raise error if isinstance(error, WireError) else WireError(f"route: {error}") from None
    if dst is None:
        dst = "::/0" if family == AF_INET6 else "0.0.0.0/0"
    # NamedTuple's own constructor costs twice as much
    return _new(
        RouteMsg,
        (family, dst, src, tos, table, protocol, scope, type_, flags, oif, gateway, prefsrc, metric, metrics,
         nexthops, pref, flow, encap_type, encap, nhid, expires),
    )  # fmt: skip


def route_key(buf: bytes, start: int, end: int) -> RouteKey:
    """What identifies the route, at about half the price of `decode_route`. Raises WireError, though what
    comes after the last part of the key need not have been looked at."""
    try:
        family, dst_len, src_len, tos, table, _, _, _, _ = _RTMSG.unpack_from(buf, start)
        dst = src = None
        metric = 0
        tabled = False
        at = start + 12
        while at + 8 <= end:
            header, value = _HEAD_U32.unpack_from(buf, at)
            if header == _TABLE:
                table = value
                tabled = True
                at += 8
            elif header == _DST4:
                dst = f"{inet_ntop(AF_INET, buf[at + 4 : at + 8])}/{dst_len}"
                at += 8
            elif header == _PRIORITY:
                metric = value
                at += 8
                if tabled and dst is not None and not src_len:
                    return family, table, dst, tos, metric
            elif header == _DST6:
                dst = f"{inet_ntop(AF_INET6, buf[at + 4 : at + 20])}/{dst_len}"
                at += 20
            elif header in _SKIP8:
                at += 8
            else:
                size, kind = _NLA.unpack_from(buf, at)
                stop = at + size
                if size < 4 or stop > end:
                    raise WireError(f"route attribute {kind}: length is {size}, {end - at} bytes are left")
                if header in (_SRC6, _SRC4):
                    src = f"{address_text(buf[at + 4 : stop])}/{src_len}"
                elif kind & NLA_TYPE_MASK in _KEY:
                    raise WireError(f"route attribute {kind}: {size - 4} bytes")
                at = end if stop == end else (stop + 3) & ~3
        if at != end:
            check_tail(buf, at, end)
    except (struct.error, ValueError) as error:
        raise error if isinstance(error, WireError) else WireError(f"route: {error}") from None
    if dst is None:
        dst = "::/0" if family == AF_INET6 else "0.0.0.0/0"
    return (family, table, dst, tos, metric) if src is None else (family, table, dst, tos, metric, src)


def packed_prefix(prefix: str) -> bytes:
    """``A/LEN`` in the form of `packed_destination`."""
    packed, length = prefix_bytes(prefix)
    return bytes((length,)) + packed


def packed_destination(buf: bytes, start: int) -> bytes:
    """Length and address of a route's destination without any decoding, at a tenth of the price of
    `route_key`; b"" where the message does not have it in its usual place, as that of a default route."""
    length = buf[start + 1]
    if not length or not buf.startswith(_TABLE_HEAD, start + 12):
        return b""
    if buf.startswith(_DST4_HEAD, start + 20):
        return buf[start + 1 : start + 2] + buf[start + 24 : start + 28]
    if buf.startswith(_DST6_HEAD, start + 20):
        return buf[start + 1 : start + 2] + buf[start + 24 : start + 40]
    return b""


def _via(payload: bytes) -> str:
    """struct rtvia: a family, then the address."""
    return address_text(payload[2:])


def _metrics(buf: bytes, start: int, end: int) -> Metrics:
    return tuple(
        sorted(
            (kind, text_of(payload) if kind == RTAX_CC_ALGO else _U32.unpack(payload)[0])
            for kind, payload in attrs(buf, start, end)
        )
    )


def _nexthops(buf: bytes, start: int, end: int) -> tuple[Nexthop, ...]:
    """A row of struct rtnexthop, each with attributes of its own."""
    found: list[Nexthop] = []
    while start + 8 <= end:
        size, flags, hops, oif = _RTNH.unpack_from(buf, start)
        stop = start + size
        if size < 8 or stop > end:
            raise WireError(f"nexthop: length is {size}, {end - start} bytes are left")
        gateway = None
        flow = encap_type = 0
        encap = b""
        for kind, payload in attrs(buf, start + 8, stop):
            if kind == RTA_GATEWAY:
                gateway = address_text(payload)
            elif kind == RTA_VIA:
                gateway = _via(payload)
            elif kind == RTA_FLOW:
                flow = _U32.unpack(payload)[0]
            elif kind == RTA_ENCAP_TYPE:
                encap_type = _U16.unpack(payload)[0]
            elif kind == RTA_ENCAP:
                encap = payload
        found.append(Nexthop(oif, gateway, hops + 1, flags, flow, encap_type, encap))
        start = end if stop == end else (stop + 3) & ~3
    if start != end:
        raise WireError(f"{end - start} bytes are left after the last nexthop")
    return tuple(found)


def _pack_gateway(family: int, gateway: str) -> bytes:
    """RTA_GATEWAY, or RTA_VIA when the gateway is of the other family."""
    other = AF_INET6 if ":" in gateway else AF_INET
    if other == family:
        return pack_attr(RTA_GATEWAY, address_bytes(gateway))
    return pack_attr(RTA_VIA, _U16.pack(other) + address_bytes(gateway))


def _pack_encap(encap_type: int, encap: bytes) -> bytes:
    return attr_u16(RTA_ENCAP_TYPE, encap_type) + pack_attr(RTA_ENCAP | NLA_F_NESTED, encap)


def _pack_nexthop(family: int, hop: Nexthop) -> bytes:
    body = b"" if hop.gateway is None else _pack_gateway(family, hop.gateway)
    if hop.flow:
        body += attr_u32(RTA_FLOW, hop.flow)
    if hop.encap_type:
        body += _pack_encap(hop.encap_type, hop.encap)
    return _RTNH.pack(8 + len(body), hop.flags, hop.weight - 1, hop.oif) + body


def encode_route(
    *,
    family: int,
    dst: str,
    src: str | None = None,
    tos: int = 0,
    table: int = 254,
    protocol: int = 0,
    scope: int = 0,
    type: int = 1,
    flags: int = 0,
    oif: int = 0,
    gateway: str | None = None,
    prefsrc: str | None = None,
    metric: int = 0,
    metrics: Metrics = (),
    nexthops: tuple[Nexthop, ...] = (),
    pref: int | None = None,
    flow: int = 0,
    encap_type: int = 0,
    encap: bytes = b"",
    nhid: int = 0,
    expires: int = 0,
) -> bytes:
    """The payload of RTM_NEWROUTE or RTM_DELROUTE, from the fields of `RouteMsg` (0, None and () are left
    out). For a delete, type, scope and protocol 0 and a metric of 0 match any (IPv4: fib_table_delete;
    scope 255 there). Raises OSError, ValueError or struct.error for values that can't be written."""
    packed, dst_len = prefix_bytes(dst)
    parts = [b""]
    if dst_len:
        parts.append(pack_attr(RTA_DST, packed))
    src_len = 0
    if src is not None:
        packed, src_len = prefix_bytes(src)
        parts.append(pack_attr(RTA_SRC, packed))
    parts[0] = _RTMSG.pack(
        family, dst_len, src_len, tos, table if table < 256 else 0, protocol, scope, type, flags
    ) + attr_u32(RTA_TABLE, table)
    if metric:
        parts.append(attr_u32(RTA_PRIORITY, metric))
    if gateway is not None:
        parts.append(_pack_gateway(family, gateway))
    if oif:
        parts.append(attr_u32(RTA_OIF, oif))
    if prefsrc is not None:
        parts.append(pack_attr(RTA_PREFSRC, address_bytes(prefsrc)))
    if metrics:
        packs = (
            attr_str(kind, value) if isinstance(value, str) else attr_u32(kind, value)
            for kind, value in metrics
        )
        parts.append(nested(RTA_METRICS, *packs))
    if nexthops:
        parts.append(nested(RTA_MULTIPATH, *(_pack_nexthop(family, hop) for hop in nexthops)))
    if pref is not None:
        parts.append(attr_u8(RTA_PREF, pref))
    if flow:
        parts.append(attr_u32(RTA_FLOW, flow))
    if encap_type:
        parts.append(_pack_encap(encap_type, encap))
    if nhid:
        parts.append(attr_u32(RTA_NH_ID, nhid))
    if expires:
        parts.append(attr_u32(RTA_EXPIRES, expires))
    return b"".join(parts)


def encode_plain_route(
    family: int,
    dst: str,
    tos: int,
    table: int,
    protocol: int,
    scope: int,
    type: int,
    flags: int,
    oif: int,
    gateway: str | None,
    metric: int,
) -> bytes:
    """As `encode_route`, at a third of its price for a route by one gateway."""
    packed, dst_len = prefix_bytes(dst)
    if gateway is not None and dst_len:
        via = _gateway_bytes(gateway)
        low = table if table < 256 else 0
        payload = b""
        if family == AF_INET and not metric and len(via) == 4:
            payload = _PLAIN4.pack(
                family, dst_len, 0, tos, low, protocol, scope, type, flags,
                8, RTA_TABLE, table, 8, RTA_DST, packed, 8, RTA_GATEWAY, via,
            )  # fmt: skip
        elif family == AF_INET6 and metric and len(via) == 16:
            payload = _PLAIN6.pack(
                family, dst_len, 0, tos, low, protocol, scope, type, flags,
                8, RTA_TABLE, table, 20, RTA_DST, packed, 8, RTA_PRIORITY, metric, 20, RTA_GATEWAY, via,
            )  # fmt: skip
        if payload:
            return payload + attr_u32(RTA_OIF, oif) if oif else payload
    return encode_route(
        family=family, dst=dst, tos=tos, table=table, protocol=protocol, scope=scope, type=type, flags=flags,
        oif=oif, gateway=gateway, metric=metric,
    )  # fmt: skip


def as_dumped(payload: bytes) -> bytes:
    """What a dump says of a route that a request with this payload made, if the kernel has nothing to add:
    the very same, and for IPv6 what every route has there (net/ipv4/fib_semantics.c fib_dump_info,
    net/ipv6/route.c rt6_fill_node). Where it has, or has another order, a dump says something else."""
    return payload + _TAIL6 if payload[0] == AF_INET6 else payload


def without_carrier(payload: bytes) -> bytes:
    """A route as it is without the word on whether its link has a carrier: that comes and goes by itself."""
    flags = payload[_LOW_FLAGS]
    if flags & _CARRIER:
        flags &= ~_CARRIER
        return b"%b%c%b" % (payload[:_LOW_FLAGS], flags, payload[_LOW_FLAGS + 1 :])
    return payload


def without_link(buf: bytes, start: int, end: int) -> bytes:
    """A route in a dump as it is without the link it goes through, in the form of `as_dumped`: where the
    sender left that to the kernel, which tells it after all that it was asked for. b"" where it is not
    so."""
    tail = len(_TAIL6) if buf[start] == AF_INET6 else 0
    at = end - tail - 8
    if at < start + 12 or _HEAD_U32.unpack_from(buf, at)[0] != _OIF:
        return b""
    return buf[start:at] + buf[end - tail : end]


def query_routes(family: int, *, table: int = 0, protocol: int = 0, oif: int = 0, type: int = 0) -> bytes:
    """The payload of a strict RTM_GETROUTE dump, which the kernel filters by what is not 0.

    Filtered by a table that does not exist, a dump of one family fails with ENOENT.
    """
    payload = _RTMSG.pack(family, 0, 0, 0, 0, protocol, 0, type, 0)
    if table:
        payload += attr_u32(RTA_TABLE, table)
    if oif:
        payload += attr_u32(RTA_OIF, oif)
    return payload


def query_route(destination: bytes, *, oif: int = 0) -> bytes:
    """The payload of RTM_GETROUTE that asks for the route to an IPv4 address, four bytes, as it stands in
    its table (RTM_F_FIB_MATCH; without RTM_F_LOOKUP_TABLE each is said to stand in main), through a link
    where ``oif`` is one."""
    flags = _RTM_F_LOOKUP_TABLE | _RTM_F_FIB_MATCH
    payload = _QUERY.pack(AF_INET, 32, 0, 0, 0, 0, 0, 0, flags, 8, RTA_DST, destination)
    return payload + attr_u32(RTA_OIF, oif) if oif else payload
