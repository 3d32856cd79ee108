# SPDX-License-Identifier: MIT
"""Addresses on the wire: RTM_NEWADDR, RTM_DELADDR and the dump of them.

It must not know which addresses are wanted, nor which flags are anybody's intention.
"""

from __future__ import annotations

import struct

from linxd.netlink.text import address_bytes, address_text
from linxd.netlink.wire import (
    AF_UNSPEC,
    FOREVER,
    IFA_ADDRESS,
    IFA_BROADCAST,
    IFA_CACHEINFO,
    IFA_FLAGS,
    IFA_LABEL,
    IFA_LOCAL,
    IFA_PROTO,
    IFA_RT_PRIORITY,
    WireError,
    attr_map,
    attr_str,
    attr_u8,
    attr_u32,
    pack_attr,
    text_of,
)
from linxd.records import NamedTuple


class AddrMsg(NamedTuple):
    """An address. ``peer`` is the other end's where it differs, and ``prefixlen`` is then the peer's.
    ``flags`` are all 32 bits of IFA_FLAGS. Lifetimes are seconds left, FOREVER without an end."""

    family: int
    ifindex: int
    address: str
    prefixlen: int
    peer: str | None = None
    scope: int = 0
    flags: int = 0
    label: str | None = None
    broadcast: str | None = None
    metric: int = 0
    proto: int = 0
    valid_lft: int = FOREVER
    preferred_lft: int = FOREVER


_IFADDRMSG = struct.Struct("=4BI")
_U32 = struct.Struct("=I")
_CACHEINFO = struct.Struct("=4I")
_new = tuple.__new__


def decode_addr(buf: bytes, start: int, end: int) -> AddrMsg:
    """The address in the payload ``buf[start:end]`` of RTM_NEWADDR or RTM_DELADDR. Raises WireError."""
    try:
        family, prefixlen, flags, scope, ifindex = _IFADDRMSG.unpack_from(buf, start)
        found = attr_map(buf, start + 8, end)
        get = found.get
        address = get(IFA_ADDRESS)
        local = get(IFA_LOCAL, address)
        if local is None:
            raise WireError("an address message without an address")
        peer = None if address is None or address == local else address_text(address)
        wide = get(IFA_FLAGS)
        if wide is not None:
            flags = _U32.unpack(wide)[0]
        label = get(IFA_LABEL)
        broadcast = get(IFA_BROADCAST)
        metric = get(IFA_RT_PRIORITY)
        proto = get(IFA_PROTO)
        lifetimes = get(IFA_CACHEINFO)
        preferred, valid, _, _ = (
            (FOREVER, FOREVER, 0, 0) if lifetimes is None else _CACHEINFO.unpack(lifetimes)
        )
        return _new(
            AddrMsg,
            (
                family,
                ifindex,
                address_text(local),
                prefixlen,
                peer,
                scope,
                flags,
                None if label is None else text_of(label),
                None if broadcast is None else address_text(broadcast),
                0 if metric is None else _U32.unpack(metric)[0],
                0 if proto is None else proto[0],
                valid,
                preferred,
            ),
        )
    except (struct.error, IndexError) as error:
        raise WireError(f"address: {error}") from None


def encode_addr(
    *,
    family: int,
    ifindex: int,
    address: str,
    prefixlen: int,
    peer: str | None = None,
    scope: int = 0,
    flags: int = 0,
    label: str | None = None,
    broadcast: str | None = None,
    metric: int = 0,
    proto: int = 0,
    valid_lft: int = FOREVER,
    preferred_lft: int = FOREVER,
) -> bytes:
    """The payload of RTM_NEWADDR or RTM_DELADDR, from the fields of `AddrMsg` (0 and None are left out).
    Raises OSError, ValueError or struct.error for values that can't be written."""
    local = address_bytes(address)
    payload = (
        _IFADDRMSG.pack(family, prefixlen, flags & 0xFF, scope, ifindex)
        + pack_attr(IFA_LOCAL, local)
        + pack_attr(IFA_ADDRESS, local if peer is None else address_bytes(peer))
    )
    if flags:
        payload += attr_u32(IFA_FLAGS, flags)
    if label is not None:
        payload += attr_str(IFA_LABEL, label)
    if broadcast is not None:
        payload += pack_attr(IFA_BROADCAST, address_bytes(broadcast))
    if metric:
        payload += attr_u32(IFA_RT_PRIORITY, metric)
    if proto:
        payload += attr_u8(IFA_PROTO, proto)
    if valid_lft != FOREVER or preferred_lft != FOREVER:
        payload += pack_attr(IFA_CACHEINFO, _CACHEINFO.pack(preferred_lft, valid_lft, 0, 0))
    return payload


def query_addrs(family: int = AF_UNSPEC, *, ifindex: int = 0) -> bytes:
    """The payload of a strict RTM_GETADDR dump, which the kernel filters by family and link unless 0."""
    return _IFADDRMSG.pack(family, 0, 0, 0, ifindex)
