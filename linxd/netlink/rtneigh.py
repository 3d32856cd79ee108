# SPDX-License-Identifier: MIT
"""Neighbours on the wire: RTM_NEWNEIGH, RTM_DELNEIGH, the dump of them and the look at one.

Bridge forwarding entries (family AF_BRIDGE) come as the same messages; it must not know which of them
matter.
"""

from __future__ import annotations

import struct

from linxd.netlink.text import address_bytes, address_text, mac_bytes, mac_text
from linxd.netlink.wire import (
    AF_INET,
    AF_INET6,
    AF_UNSPEC,
    NDA_DST,
    NDA_FLAGS_EXT,
    NDA_IFINDEX,
    NDA_LLADDR,
    NDA_PROTOCOL,
    NTF_PROXY,
    WireError,
    attr_map,
    attr_u8,
    attr_u32,
    pack_attr,
)
from linxd.records import NamedTuple


class NeighMsg(NamedTuple):
    """A neighbour. ``state`` is NUD_*, ``flags`` NTF_* (a proxy entry has NTF_PROXY), ``ext_flags``
    NTF_EXT_*."""

    family: int
    ifindex: int
    address: str | None
    lladdr: str | None = None
    state: int = 0
    flags: int = 0
    ext_flags: int = 0
    protocol: int = 0
    type: int = 0


_NDMSG = struct.Struct("=B3xIHBB")
_U32 = struct.Struct("=I")
_new = tuple.__new__


def decode_neigh(buf: bytes, start: int, end: int) -> NeighMsg:
    """The neighbour in the payload ``buf[start:end]`` of RTM_NEWNEIGH or RTM_DELNEIGH. Raises WireError."""
    try:
        family, ifindex, state, flags, type_ = _NDMSG.unpack_from(buf, start)
        get = attr_map(buf, start + 12, end).get
        address = get(NDA_DST)
        lladdr = get(NDA_LLADDR)
        ext_flags = get(NDA_FLAGS_EXT)
        protocol = get(NDA_PROTOCOL)
        return _new(
            NeighMsg,
            (
                family,
                ifindex,
                None if address is None else address_text(address),
                None if lladdr is None else mac_text(lladdr),
                state,
                flags,
                0 if ext_flags is None else _U32.unpack(ext_flags)[0],
                0 if protocol is None else protocol[0],
                type_,
            ),
        )
    except (struct.error, IndexError) as error:
        raise WireError(f"neighbour: {error}") from None


def encode_neigh(
    *,
    family: int,
    ifindex: int,
    address: str | None,
    lladdr: str | None = None,
    state: int = 0,
    flags: int = 0,
    ext_flags: int = 0,
    protocol: int = 0,
    type: int = 0,
) -> bytes:
    """The payload of RTM_NEWNEIGH or RTM_DELNEIGH, from the fields of `NeighMsg` (0 and None are left out).
    Raises OSError, ValueError or struct.error for values that can't be written."""
    payload = _NDMSG.pack(family, ifindex, state, flags, type)
    if address is not None:
        payload += pack_attr(NDA_DST, address_bytes(address))
    if lladdr is not None:
        payload += pack_attr(NDA_LLADDR, mac_bytes(lladdr))
    if ext_flags:
        payload += attr_u32(NDA_FLAGS_EXT, ext_flags)
    if protocol:
        payload += attr_u8(NDA_PROTOCOL, protocol)
    return payload


def query_neighs(family: int = AF_UNSPEC, *, ifindex: int = 0, proxy: bool = False) -> bytes:
    """The payload of a strict RTM_GETNEIGH dump, filtered by link unless 0: either the neighbour table
    or, with ``proxy``, the proxy entries; the kernel does not mix them."""
    payload = _NDMSG.pack(family, 0, 0, NTF_PROXY if proxy else 0, 0)
    return payload + attr_u32(NDA_IFINDEX, ifindex) if ifindex else payload


def query_neigh(ifindex: int, address: str, *, proxy: bool = False) -> bytes:
    """The payload of an RTM_GETNEIGH request for one neighbour."""
    family = AF_INET6 if ":" in address else AF_INET
    return _NDMSG.pack(family, ifindex, 0, NTF_PROXY if proxy else 0, 0) + pack_attr(
        NDA_DST, address_bytes(address)
    )
