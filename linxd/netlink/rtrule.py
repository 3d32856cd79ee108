# SPDX-License-Identifier: MIT
"""Policy rules on the wire: RTM_NEWRULE, RTM_DELRULE and the dump of them.

It must not know which rules are wanted, nor which of their fields make up an identity.
"""

from __future__ import annotations

import struct

from linxd.netlink.text import address_text, prefix_bytes
from linxd.netlink.wire import (
    AF_UNSPEC,
    FRA_DPORT_MASK,
    FRA_DPORT_RANGE,
    FRA_DSCP,
    FRA_DSCP_MASK,
    FRA_DST,
    FRA_FLOW,
    FRA_FLOWLABEL,
    FRA_FLOWLABEL_MASK,
    FRA_FWMARK,
    FRA_FWMASK,
    FRA_GOTO,
    FRA_IIFNAME,
    FRA_IP_PROTO,
    FRA_L3MDEV,
    FRA_OIFNAME,
    FRA_PRIORITY,
    FRA_PROTOCOL,
    FRA_SPORT_MASK,
    FRA_SPORT_RANGE,
    FRA_SRC,
    FRA_SUPPRESS_IFGROUP,
    FRA_SUPPRESS_PREFIXLEN,
    FRA_TABLE,
    FRA_TUN_ID,
    FRA_UID_RANGE,
    WireError,
    attr_map,
    attr_str,
    attr_u8,
    attr_u16,
    attr_u32,
    pack_attr,
    text_of,
)
from linxd.records import NamedTuple


class RuleMsg(NamedTuple):
    """A policy rule. None is "not given", as opposed to 0. ``src`` and ``dst`` are "A/LEN"; ``action`` is
    FR_ACT_*, ``goto`` its target; a full mask of ports or DSCP is None; ``flow`` are realms; ranges are
    (first, last), inclusive."""

    family: int
    priority: int | None = None
    src: str | None = None
    dst: str | None = None
    tos: int = 0
    iifname: str | None = None
    oifname: str | None = None
    fwmark: int = 0
    fwmask: int = 0
    table: int = 0
    action: int = 1
    goto: int | None = None
    flags: int = 0
    suppress_prefixlength: int | None = None
    suppress_ifgroup: int | None = None
    tun_id: int | None = None
    l3mdev: bool = False
    uidrange: tuple[int, int] | None = None
    ipproto: int | None = None
    sport: tuple[int, int] | None = None
    dport: tuple[int, int] | None = None
    protocol: int = 0
    flow: int = 0
    dscp: int | None = None
    dscp_mask: int | None = None
    flowlabel: int | None = None
    flowlabel_mask: int | None = None
    sport_mask: int | None = None
    dport_mask: int | None = None


_HDR = struct.Struct("=5B2xBI")
_U8 = struct.Struct("=B")
_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")
_BE32 = struct.Struct(">I")
_BE64 = struct.Struct(">Q")
_PORTS = struct.Struct("=HH")
_UIDS = struct.Struct("=II")
_NONE = 0xFFFFFFFF
"""The kernel's "no suppressing"."""


def decode_rule(buf: bytes, start: int, end: int) -> RuleMsg:
    """The rule in the payload ``buf[start:end]`` of RTM_NEWRULE or RTM_DELRULE. ``priority`` is never
    None here. Raises WireError."""
    try:
        family, dst_len, src_len, tos, table, action, flags = _HDR.unpack_from(buf, start)
        found = attr_map(buf, start + 12, end)

        def number(kind: int, form: struct.Struct = _U32) -> int | None:
            payload = found.get(kind)
            return None if payload is None else int(form.unpack(payload)[0])

        def mask(kind: int, form: struct.Struct, full: int) -> int | None:
            # since Linux 6.15 the kernel adds the full one to what was given without any
            value = number(kind, form)
            return None if value == full else value

        def span(kind: int, form: struct.Struct) -> tuple[int, int] | None:
            payload = found.get(kind)
            if payload is None:
                return None
            first, last = form.unpack(payload)
            return first, last

        def prefix(kind: int, length: int) -> str | None:
            payload = found.get(kind)
            return None if payload is None else f"{address_text(payload)}/{length}"

        def text(kind: int) -> str | None:
            payload = found.get(kind)
            return None if payload is None else text_of(payload)

        wide_table = number(FRA_TABLE)
        suppress = number(FRA_SUPPRESS_PREFIXLEN)
        group = number(FRA_SUPPRESS_IFGROUP)
        return RuleMsg(
            family=family,
            priority=number(FRA_PRIORITY) or 0,
            src=prefix(FRA_SRC, src_len),
            dst=prefix(FRA_DST, dst_len),
            tos=tos,
            iifname=text(FRA_IIFNAME),
            oifname=text(FRA_OIFNAME),
            fwmark=number(FRA_FWMARK) or 0,
            fwmask=number(FRA_FWMASK) or 0,
            table=table if wide_table is None else wide_table,
            action=action,
            goto=number(FRA_GOTO),
            flags=flags,
            suppress_prefixlength=None if suppress == _NONE else suppress,
            suppress_ifgroup=None if group == _NONE else group,
            tun_id=number(FRA_TUN_ID, _BE64),
            l3mdev=bool(number(FRA_L3MDEV, _U8)),
            uidrange=span(FRA_UID_RANGE, _UIDS),
            ipproto=number(FRA_IP_PROTO, _U8),
            sport=span(FRA_SPORT_RANGE, _PORTS),
            dport=span(FRA_DPORT_RANGE, _PORTS),
            protocol=number(FRA_PROTOCOL, _U8) or 0,
            flow=number(FRA_FLOW) or 0,
            dscp=number(FRA_DSCP, _U8),
            dscp_mask=mask(FRA_DSCP_MASK, _U8, 0x3F),
            flowlabel=number(FRA_FLOWLABEL, _BE32),
            flowlabel_mask=number(FRA_FLOWLABEL_MASK, _BE32),
            sport_mask=mask(FRA_SPORT_MASK, _U16, 0xFFFF),
            dport_mask=mask(FRA_DPORT_MASK, _U16, 0xFFFF),
        )
    except struct.error as error:
        raise WireError(f"rule: {error}") from None


def encode_rule(
    *,
    family: int,
    priority: int | None = None,
    src: str | None = None,
    dst: str | None = None,
    tos: int = 0,
    iifname: str | None = None,
    oifname: str | None = None,
    fwmark: int = 0,
    fwmask: int = 0,
    table: int = 0,
    action: int = 1,
    goto: int | None = None,
    flags: int = 0,
    suppress_prefixlength: int | None = None,
    suppress_ifgroup: int | None = None,
    tun_id: int | None = None,
    l3mdev: bool = False,
    uidrange: tuple[int, int] | None = None,
    ipproto: int | None = None,
    sport: tuple[int, int] | None = None,
    dport: tuple[int, int] | None = None,
    protocol: int = 0,
    flow: int = 0,
    dscp: int | None = None,
    dscp_mask: int | None = None,
    flowlabel: int | None = None,
    flowlabel_mask: int | None = None,
    sport_mask: int | None = None,
    dport_mask: int | None = None,
) -> bytes:
    """The payload of RTM_NEWRULE or RTM_DELRULE, from the fields of `RuleMsg` (0 and None are left out, a
    priority of 0 is not). Raises OSError, ValueError or struct.error for values that can't be written."""
    parts = [b""]
    add = parts.append
    dst_len = src_len = 0
    if dst is not None:
        packed, dst_len = prefix_bytes(dst)
        add(pack_attr(FRA_DST, packed))
    if src is not None:
        packed, src_len = prefix_bytes(src)
        add(pack_attr(FRA_SRC, packed))
    parts[0] = _HDR.pack(family, dst_len, src_len, tos, table if table < 256 else 0, action, flags)
    for kind, name in ((FRA_IIFNAME, iifname), (FRA_OIFNAME, oifname)):
        if name is not None:
            add(attr_str(kind, name))
    if fwmark or fwmask:
        add(attr_u32(FRA_FWMARK, fwmark) + attr_u32(FRA_FWMASK, fwmask))
    if l3mdev:
        add(attr_u8(FRA_L3MDEV, 1))
    for kind, value, pack in (
        (FRA_PRIORITY, priority, attr_u32),
        (FRA_TABLE, table or None, attr_u32),
        (FRA_GOTO, goto, attr_u32),
        (FRA_SUPPRESS_PREFIXLEN, suppress_prefixlength, attr_u32),
        (FRA_SUPPRESS_IFGROUP, suppress_ifgroup, attr_u32),
        (FRA_FLOW, flow or None, attr_u32),
        (FRA_IP_PROTO, ipproto, attr_u8),
        (FRA_PROTOCOL, protocol or None, attr_u8),
        (FRA_DSCP, dscp, attr_u8),
        (FRA_DSCP_MASK, dscp_mask, attr_u8),
        (FRA_SPORT_MASK, sport_mask, attr_u16),
        (FRA_DPORT_MASK, dport_mask, attr_u16),
    ):
        if value is not None:
            add(pack(kind, value))
    for kind, value, form in (
        (FRA_TUN_ID, tun_id, _BE64),
        (FRA_FLOWLABEL, flowlabel, _BE32),
        (FRA_FLOWLABEL_MASK, flowlabel_mask, _BE32),
    ):
        if value is not None:
            add(pack_attr(kind, form.pack(value)))
    for kind, span, form in (
        (FRA_UID_RANGE, uidrange, _UIDS),
        (FRA_SPORT_RANGE, sport, _PORTS),
        (FRA_DPORT_RANGE, dport, _PORTS),
    ):
        if span is not None:
            add(pack_attr(kind, form.pack(*span)))
    return b"".join(parts)


def query_rules(family: int = AF_UNSPEC) -> bytes:
    """The payload of a strict RTM_GETRULE dump; family is the only filter there is."""
    return _HDR.pack(family, 0, 0, 0, 0, 0, 0)
