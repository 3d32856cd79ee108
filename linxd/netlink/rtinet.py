# SPDX-License-Identifier: MIT
"""What an IPv4 link does with the other addresses of a subnet when their first one goes: the setting
promote_secondaries, in messages about links.

It must not know when that matters.
"""

from __future__ import annotations

import struct
import sys

from linxd.netlink.wire import AF_INET, AF_UNSPEC, attr_u32, attrs, nested

IFLA_AF_SPEC = 26
IFLA_INET_CONF = 1
PROMOTE_SECONDARIES = 20
"""IPV4_DEVCONF_PROMOTE_SECONDARIES (include/uapi/linux/ip.h)."""

_IFINFOMSG = struct.Struct("=BxHiII")


def decode_promote(buf: bytes, start: int, end: int) -> bool | None:
    """Whether the link of an RTM_NEWLINK payload keeps them; None when it has no IPv4. Raises WireError."""
    for kind, spec in attrs(buf, start + _IFINFOMSG.size, end):
        if kind == IFLA_AF_SPEC:
            for family, conf in attrs(spec, 0, len(spec)):
                for inner, values in attrs(conf, 0, len(conf)) if family == AF_INET else ():
                    if inner == IFLA_INET_CONF and len(values) >= 4 * PROMOTE_SECONDARIES:
                        at = 4 * (PROMOTE_SECONDARIES - 1)
                        return bool(int.from_bytes(values[at : at + 4], sys.byteorder))
    return None


def encode_promote(ifindex: int, *, promote: bool) -> bytes:
    """The payload of the RTM_SETLINK that sets it."""
    value = nested(IFLA_INET_CONF, attr_u32(PROMOTE_SECONDARIES, int(promote)))
    return _IFINFOMSG.pack(AF_UNSPEC, 0, ifindex, 0, 0) + nested(IFLA_AF_SPEC, nested(AF_INET, value))
