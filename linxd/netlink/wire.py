# SPDX-License-Identifier: MIT
"""Netlink framing: messages in a datagram, attributes in a message, and the numbers both are made of.

Pure functions over bytes. It must not know sockets, nor what any attribute means.
"""

from __future__ import annotations

import struct

from linxd.records import NamedTuple

# --- protocols and socket options (include/uapi/linux/netlink.h) ----------------------------------
NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
NETLINK_LISTEN_ALL_NSID = 8
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12

# --- message header -------------------------------------------------------------------------------
NLMSG_HDRLEN = 16
NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_OVERRUN = 4
NLMSG_MIN_TYPE = 16
"""Types below are netlink's own control messages."""

NLM_F_REQUEST = 0x01
NLM_F_MULTI = 0x02
NLM_F_ACK = 0x04
NLM_F_ECHO = 0x08
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP_FILTERED = 0x20
NLM_F_DUMP = 0x300
# of a request that makes something
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
# of an ack
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200

NLMSGERR_ATTR_MSG = 1
NLMSGERR_ATTR_OFFS = 2
NLMSGERR_ATTR_MISS_TYPE = 5
NLMSGERR_ATTR_MISS_NEST = 6

# --- attribute header -----------------------------------------------------------------------------
NLA_HDRLEN = 4
NLA_F_NESTED = 0x8000
NLA_F_NET_BYTEORDER = 0x4000
NLA_TYPE_MASK = 0x3FFF

# --- rtnetlink message types and groups (include/uapi/linux/rtnetlink.h) --------------------------
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTM_NEWNETCONF, RTM_DELNETCONF, RTM_GETNETCONF = 80, 81, 82
RTM_NEWNSID, RTM_DELNSID, RTM_GETNSID = 88, 89, 90
RTM_NEWLINKPROP, RTM_DELLINKPROP, RTM_GETLINKPROP = 108, 109, 110

RTNLGRP_LINK = 1
RTNLGRP_NEIGH = 3
RTNLGRP_IPV4_IFADDR = 5
RTNLGRP_IPV4_ROUTE = 7
RTNLGRP_IPV4_RULE = 8
RTNLGRP_IPV6_IFADDR = 9
RTNLGRP_IPV6_ROUTE = 11
RTNLGRP_IPV6_IFINFO = 12
RTNLGRP_IPV6_RULE = 19
RTNLGRP_IPV4_NETCONF = 24
RTNLGRP_IPV6_NETCONF = 25
RTNLGRP_NSID = 28

NFNLGRP_NFTABLES = 7
"""Group of the nftables events, on a NETLINK_NETFILTER socket."""

AF_UNSPEC, AF_INET, AF_BRIDGE, AF_INET6 = 0, 2, 7, 10

# --- links (include/uapi/linux/if_link.h) ---------------------------------------------------------
IFLA_ADDRESS, IFLA_BROADCAST, IFLA_IFNAME, IFLA_MTU, IFLA_LINK = 1, 2, 3, 4, 5
IFLA_MASTER, IFLA_PROTINFO, IFLA_TXQLEN, IFLA_OPERSTATE = 10, 12, 13, 16
IFLA_LINKINFO, IFLA_NET_NS_PID, IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_GROUP = 18, 19, 20, 26, 27
IFLA_NET_NS_FD, IFLA_EXT_MASK, IFLA_PROMISCUITY = 28, 29, 30
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES, IFLA_LINK_NETNSID, IFLA_PROTO_DOWN = 31, 32, 37, 39
IFLA_GSO_MAX_SEGS, IFLA_GSO_MAX_SIZE, IFLA_MIN_MTU, IFLA_MAX_MTU = 40, 41, 50, 51
IFLA_PROP_LIST, IFLA_ALT_IFNAME, IFLA_PERM_ADDRESS = 52, 53, 54
IFLA_GRO_MAX_SIZE, IFLA_ALLMULTI, IFLA_GSO_IPV4_MAX_SIZE, IFLA_GRO_IPV4_MAX_SIZE = 58, 61, 63, 64

IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_INET6_ADDR_GEN_MODE = 8
VETH_INFO_PEER = 1
RTEXT_FILTER_SKIP_STATS = 1 << 3
IFF_UP = 1

# --- addresses (include/uapi/linux/if_addr.h) -----------------------------------------------------
IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_BROADCAST = 1, 2, 3, 4
IFA_CACHEINFO, IFA_FLAGS, IFA_RT_PRIORITY, IFA_PROTO = 6, 8, 9, 11
FOREVER = 0xFFFFFFFF
"""A lifetime that does not end (INFINITY_LIFE_TIME)."""

# --- routes (include/uapi/linux/rtnetlink.h) ------------------------------------------------------
RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 2, 4, 5, 6, 7
RTA_METRICS, RTA_MULTIPATH, RTA_FLOW, RTA_CACHEINFO, RTA_TABLE = 8, 9, 11, 12, 15
RTA_VIA, RTA_PREF, RTA_ENCAP_TYPE, RTA_ENCAP, RTA_EXPIRES, RTA_NH_ID = 18, 20, 21, 22, 23, 30
RTAX_CC_ALGO = 16

# --- rules (include/uapi/linux/fib_rules.h) -------------------------------------------------------
FRA_DST, FRA_SRC, FRA_IIFNAME, FRA_GOTO, FRA_PRIORITY = 1, 2, 3, 4, 6
FRA_FWMARK, FRA_FLOW, FRA_TUN_ID, FRA_SUPPRESS_IFGROUP, FRA_SUPPRESS_PREFIXLEN = 10, 11, 12, 13, 14
FRA_TABLE, FRA_FWMASK, FRA_OIFNAME, FRA_L3MDEV, FRA_UID_RANGE = 15, 16, 17, 19, 20
FRA_PROTOCOL, FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE, FRA_DSCP = 21, 22, 23, 24, 25
FRA_FLOWLABEL, FRA_FLOWLABEL_MASK, FRA_SPORT_MASK, FRA_DPORT_MASK, FRA_DSCP_MASK = 26, 27, 28, 29, 30

# --- neighbours (include/uapi/linux/neighbour.h) --------------------------------------------------
NDA_DST, NDA_LLADDR, NDA_IFINDEX, NDA_PROTOCOL, NDA_FLAGS_EXT = 1, 2, 8, 12, 15
NTF_PROXY = 0x08


class WireError(ValueError):
    """The bytes are not a well-formed message or attribute."""


class Message(NamedTuple):
    """One message of a datagram: ``buf[start:end]`` is its payload. ``pid`` is nlmsg_pid: the port id of the
    writer whose request caused an event, as far as the kernel tells. ``nsid`` is the id of the namespace it
    happened in, None for the socket's own."""

    type: int
    flags: int
    seq: int
    pid: int
    nsid: int | None
    buf: bytes
    start: int
    end: int


HEADER = struct.Struct("=IHHII")
_NLA = struct.Struct("=HH")
_HEAD = struct.Struct("=I")
_U8 = struct.Struct("=HHB3x")
_U16 = struct.Struct("=HHH2x")
_U32 = struct.Struct("=HHI")
_S32 = struct.Struct("=HHi")
_U64 = struct.Struct("=HHQ")
_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")
_new = tuple.__new__


def message(type: int, flags: int, seq: int, payload: bytes) -> bytes:
    """One whole message, padded to the next multiple of four so that others can follow it in a datagram."""
    size = len(payload)
    return HEADER.pack(NLMSG_HDRLEN + size, type, flags, seq, 0) + payload + _PAD[size & 3]


def messages(buf: bytes, nsid: int | None = None) -> list[Message]:
    """All messages of a datagram, control messages included. Raises WireError."""
    found: list[Message] = []
    offset = 0
    size = len(buf)
    while offset + NLMSG_HDRLEN <= size:
        length, type_, flags, seq, pid = HEADER.unpack_from(buf, offset)
        end = offset + length
        if length < NLMSG_HDRLEN or end > size:
            raise WireError(
                f"message at offset {offset}: length is {length}, {size - offset} bytes are left"
            )
        # NamedTuple's own constructor costs twice as much
        found.append(_new(Message, (type_, flags, seq, pid, nsid, buf, offset + NLMSG_HDRLEN, end)))
        offset = (end + 3) & ~3
    if offset < size:
        raise WireError(f"{size - offset} bytes are left after the last message")
    return found


def pack_attr(type: int, payload: bytes) -> bytes:
    """One attribute, padded. Raises WireError when the payload is longer than an attribute can be."""
    size = len(payload)
    if size > 0xFFFF - NLA_HDRLEN:
        raise WireError(f"attribute {type & NLA_TYPE_MASK}: {size} bytes do not fit")
    return _NLA.pack(NLA_HDRLEN + size, type) + payload + _PAD[size & 3]


def nested(type: int, *attrs: bytes) -> bytes:
    """An attribute that holds attributes, flagged as such."""
    return pack_attr(type | NLA_F_NESTED, b"".join(attrs))


def head(type: int, size: int) -> int:
    """The header of an attribute with ``size`` bytes of payload, read as one number: comparing with it
    checks type and length in one go, which is what decoding in bulk does for the common ones."""
    number: int = _HEAD.unpack(_NLA.pack(NLA_HDRLEN + size, type))[0]
    return number


def attr_u8(type: int, value: int) -> bytes:
    """An attribute of one byte. This and its likes raise struct.error when the value does not fit."""
    return _U8.pack(5, type, value)


def attr_u16(type: int, value: int) -> bytes:
    """An attribute of 16 bits in the machine's byte order."""
    return _U16.pack(6, type, value)


def attr_u32(type: int, value: int) -> bytes:
    """An attribute of 32 bits in the machine's byte order."""
    return _U32.pack(8, type, value)


def attr_s32(type: int, value: int) -> bytes:
    """An attribute of 32 bits with a sign, such as a namespace id."""
    return _S32.pack(8, type, value)


def attr_u64(type: int, value: int) -> bytes:
    """An attribute of 64 bits in the machine's byte order."""
    return _U64.pack(12, type, value)


def attr_str(type: int, text: str) -> bytes:
    """A NUL-terminated string."""
    return pack_attr(type, text.encode() + b"\0")


def text_of(payload: bytes) -> str:
    """The text of a string attribute. Names are bytes to the kernel: what is not UTF-8 shows as
    ``\\xff``, so that the result can always be printed, logged and sent on."""
    return payload.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def attrs(buf: bytes, start: int, end: int) -> list[tuple[int, bytes]]:
    """(type, payload) of each attribute in ``buf[start:end]`` in order, the flag bits of the type masked
    off. Raises WireError."""
    found: list[tuple[int, bytes]] = []
    if end > len(buf):
        raise WireError(f"attributes end at {end}, the buffer at {len(buf)}")
    unpack = _NLA.unpack_from
    while start + NLA_HDRLEN <= end:
        size, type_ = unpack(buf, start)
        stop = start + size
        if size < NLA_HDRLEN or stop > end:
            raise WireError(
                f"attribute {type_ & NLA_TYPE_MASK}: length is {size}, {end - start} bytes are left"
            )
        found.append((type_ & NLA_TYPE_MASK, buf[start + NLA_HDRLEN : stop]))
        start = (stop + 3) & ~3
    if start < end:
        raise WireError(f"{end - start} bytes are left after the last attribute")
    return found


def attr_map(buf: bytes, start: int, end: int) -> dict[int, bytes]:
    """The attributes in ``buf[start:end]`` by type; of several of one type the last one, as in the kernel.
    Raises WireError."""
    return dict(attrs(buf, start, end))


def check_tail(buf: bytes, at: int, end: int) -> None:
    """For loops of their own over attributes that stop at less than eight bytes: what is left must be an
    empty attribute. Raises WireError."""
    if end - at != NLA_HDRLEN or _NLA.unpack_from(buf, at)[0] != NLA_HDRLEN:
        raise WireError(f"{end - at} bytes are left after the last attribute")
