# SPDX-License-Identifier: MIT
"""Ids of namespaces on the wire: RTM_GETNSID and RTM_NEWNSID (net/core/net_namespace.c).

It must not know what any namespace is for.
"""

from __future__ import annotations

import struct

from linxd.netlink.wire import attr_map, attr_s32, attr_u32

NETNSA_NSID, NETNSA_FD = 1, 3
NOT_ASSIGNED = -1
_RTGENMSG = bytes(4)


def encode_nsid(fd: int, *, give: bool = False) -> bytes:
    """The payload that asks for the id which the namespace ``fd`` has in that of the socket; with ``give``
    that of RTM_NEWNSID, which gives it one of the kernel's choice."""
    return _RTGENMSG + attr_u32(NETNSA_FD, fd) + (attr_s32(NETNSA_NSID, NOT_ASSIGNED) if give else b"")


def decode_nsid(buf: bytes, start: int, end: int) -> int:
    """The id, `NOT_ASSIGNED` when it has none."""
    payload = attr_map(buf, start + 4, end).get(NETNSA_NSID)
    if payload is None:
        return NOT_ASSIGNED
    number: int = struct.unpack("=i", payload)[0]
    return number
