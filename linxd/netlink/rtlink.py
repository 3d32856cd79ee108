# SPDX-License-Identifier: MIT
"""Links on the wire: RTM_NEWLINK, RTM_SETLINK, RTM_DELLINK, RTM_NEWLINKPROP, the dump of links and the
look at one.

What a kind of link has of its own stays raw (``info_data``); it must not know kinds, nor which links are
wanted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from linxd.netlink.text import mac_bytes, mac_text
from linxd.netlink.wire import (
    AF_INET6,
    AF_UNSPEC,
    IFLA_ADDRESS,
    IFLA_AF_SPEC,
    IFLA_ALLMULTI,
    IFLA_ALT_IFNAME,
    IFLA_BROADCAST,
    IFLA_EXT_MASK,
    IFLA_GRO_IPV4_MAX_SIZE,
    IFLA_GRO_MAX_SIZE,
    IFLA_GROUP,
    IFLA_GSO_IPV4_MAX_SIZE,
    IFLA_GSO_MAX_SEGS,
    IFLA_GSO_MAX_SIZE,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_INET6_ADDR_GEN_MODE,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_INFO_SLAVE_DATA,
    IFLA_INFO_SLAVE_KIND,
    IFLA_LINK,
    IFLA_LINK_NETNSID,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MAX_MTU,
    IFLA_MIN_MTU,
    IFLA_MTU,
    IFLA_NET_NS_FD,
    IFLA_NUM_RX_QUEUES,
    IFLA_NUM_TX_QUEUES,
    IFLA_OPERSTATE,
    IFLA_PERM_ADDRESS,
    IFLA_PROMISCUITY,
    IFLA_PROP_LIST,
    IFLA_PROTINFO,
    IFLA_PROTO_DOWN,
    IFLA_TXQLEN,
    NLA_F_NESTED,
    RTEXT_FILTER_SKIP_STATS,
    WireError,
    attr_map,
    attr_s32,
    attr_str,
    attr_u8,
    attr_u32,
    attrs,
    nested,
    pack_attr,
    text_of,
)
from linxd.records import NamedTuple


class LinkMsg(NamedTuple):
    """A link. ``type`` is ARPHRD_*, ``flags`` IFF_*; ``master`` and ``link`` (the parent, or the other
    end of a veth) are indices, 0 for none; with ``link_netnsid`` set, ``link`` counts in that namespace.

    ``family`` is not always 0. AF_BRIDGE tells about a bridge port: RTM_DELLINK then means that it left
    its bridge, *not* that the link went. AF_INET6 tells about its IPv6 side. Both carry ``protinfo`` and
    leave most fields out.
    """

    family: int
    ifindex: int
    name: str
    kind: str | None = None
    type: int = 1
    flags: int = 0
    mtu: int = 0
    mac: str | None = None
    broadcast: str | None = None
    permaddr: str | None = None
    txqlen: int = 0
    master: int = 0
    link: int = 0
    link_netnsid: int | None = None
    altnames: tuple[str, ...] = ()
    alias: str = ""
    group: int = 0
    operstate: int = 0
    promiscuity: int = 0
    allmulti: int = 0
    addrgenmode: int | None = None
    slave_kind: str | None = None
    info_data: bytes = b""
    slave_data: bytes = b""
    protinfo: bytes = b""
    minmtu: int = 0
    maxmtu: int = 0
    num_tx_queues: int = 0
    num_rx_queues: int = 0
    gso_max_size: int = 0
    gso_max_segs: int = 0
    gro_max_size: int = 0
    gso_ipv4_max_size: int = 0
    gro_ipv4_max_size: int = 0
    proto_down: bool = False


_IFINFOMSG = struct.Struct("=BxHiII")
_U32 = struct.Struct("=I")
_S32 = struct.Struct("=i")
_ZERO = bytes(4)
_new = tuple.__new__


def decode_link(buf: bytes, start: int, end: int) -> LinkMsg:
    """The link in the payload ``buf[start:end]`` of RTM_NEWLINK or RTM_DELLINK. Raises WireError."""
    try:
        family, type_, ifindex, flags, _ = _IFINFOMSG.unpack_from(buf, start)
        get = attr_map(buf, start + 16, end).get
        u32 = _U32.unpack
        kind = slave_kind = None
        info_data = slave_data = b""
        info = get(IFLA_LINKINFO)
        if info is not None:
            for sort, payload in attrs(info, 0, len(info)):
                if sort == IFLA_INFO_KIND:
                    kind = text_of(payload)
                elif sort == IFLA_INFO_DATA:
                    info_data = payload
                elif sort == IFLA_INFO_SLAVE_KIND:
                    slave_kind = text_of(payload)
                elif sort == IFLA_INFO_SLAVE_DATA:
                    slave_data = payload
        mac, broadcast, permaddr = get(IFLA_ADDRESS), get(IFLA_BROADCAST), get(IFLA_PERM_ADDRESS)
        props = get(IFLA_PROP_LIST)
        families = get(IFLA_AF_SPEC)
        netnsid = get(IFLA_LINK_NETNSID)
        return _new(
            LinkMsg,
            (
                family,
                ifindex,
                text_of(get(IFLA_IFNAME, b"")),
                kind,
                type_,
                flags,
                u32(get(IFLA_MTU, _ZERO))[0],
                None if mac is None else mac_text(mac),
                None if broadcast is None else mac_text(broadcast),
                None if permaddr is None else mac_text(permaddr),
                u32(get(IFLA_TXQLEN, _ZERO))[0],
                u32(get(IFLA_MASTER, _ZERO))[0],
                u32(get(IFLA_LINK, _ZERO))[0],
                None if netnsid is None else _S32.unpack(netnsid)[0],
                () if props is None else _altnames(props),
                text_of(get(IFLA_IFALIAS, b"")),
                u32(get(IFLA_GROUP, _ZERO))[0],
                get(IFLA_OPERSTATE, _ZERO)[0],
                u32(get(IFLA_PROMISCUITY, _ZERO))[0],
                u32(get(IFLA_ALLMULTI, _ZERO))[0],
                # AF_BRIDGE puts its VLANs into the same attribute
                None if families is None or family != AF_UNSPEC else _addrgenmode(families),
                slave_kind,
                info_data,
                slave_data,
                get(IFLA_PROTINFO, b""),
                u32(get(IFLA_MIN_MTU, _ZERO))[0],
                u32(get(IFLA_MAX_MTU, _ZERO))[0],
                u32(get(IFLA_NUM_TX_QUEUES, _ZERO))[0],
                u32(get(IFLA_NUM_RX_QUEUES, _ZERO))[0],
                u32(get(IFLA_GSO_MAX_SIZE, _ZERO))[0],
                u32(get(IFLA_GSO_MAX_SEGS, _ZERO))[0],
                u32(get(IFLA_GRO_MAX_SIZE, _ZERO))[0],
                u32(get(IFLA_GSO_IPV4_MAX_SIZE, _ZERO))[0],
                u32(get(IFLA_GRO_IPV4_MAX_SIZE, _ZERO))[0],
                get(IFLA_PROTO_DOWN, _ZERO)[0] != 0,
            ),
        )
    except (struct.error, IndexError) as error:
        raise WireError(f"link: {error}") from None


def _altnames(props: bytes) -> tuple[str, ...]:
    return tuple(
        text_of(payload) for kind, payload in attrs(props, 0, len(props)) if kind == IFLA_ALT_IFNAME
    )


def _addrgenmode(families: bytes) -> int | None:
    inet6 = attr_map(families, 0, len(families)).get(AF_INET6)
    mode = None if inet6 is None else attr_map(inet6, 0, len(inet6)).get(IFLA_INET6_ADDR_GEN_MODE)
    return None if mode is None else mode[0]


def encode_link(
    *,
    family: int = AF_UNSPEC,
    ifindex: int = 0,
    type: int = 0,
    flags: int = 0,
    change: int = 0,
    name: str | None = None,
    kind: str | None = None,
    info_data: bytes = b"",
    slave_kind: str | None = None,
    slave_data: bytes = b"",
    mtu: int | None = None,
    mac: str | None = None,
    broadcast: str | None = None,
    txqlen: int | None = None,
    master: int | None = None,
    link: int | None = None,
    link_netnsid: int | None = None,
    netns_fd: int | None = None,
    alias: str | None = None,
    group: int | None = None,
    addrgenmode: int | None = None,
    num_tx_queues: int | None = None,
    num_rx_queues: int | None = None,
    gso_max_size: int | None = None,
    gso_max_segs: int | None = None,
    gro_max_size: int | None = None,
    gso_ipv4_max_size: int | None = None,
    gro_ipv4_max_size: int | None = None,
    proto_down: bool | None = None,
) -> bytes:
    """The payload of RTM_NEWLINK, RTM_SETLINK or RTM_DELLINK; None leaves a field out, ``master`` 0 is
    "in none".

    ``ifindex`` of a link that is being made is the index it shall have. ``change`` masks the ``flags``
    that are meant. ``info_data`` and ``slave_data`` are attributes, ready made. The link is made in, or
    moved to, the namespace that ``netns_fd`` is open on. The payload also is what VETH_INFO_PEER holds.
    Raises ValueError or struct.error for values that can't be written.
    """
    parts = [_IFINFOMSG.pack(family, type, ifindex, flags, change)]
    add = parts.append
    if name is not None:
        add(attr_str(IFLA_IFNAME, name))
    for sort, number in (
        (IFLA_MTU, mtu),
        (IFLA_TXQLEN, txqlen),
        (IFLA_MASTER, master),
        (IFLA_LINK, link),
        (IFLA_NET_NS_FD, netns_fd),
        (IFLA_GROUP, group),
        (IFLA_NUM_TX_QUEUES, num_tx_queues),
        (IFLA_NUM_RX_QUEUES, num_rx_queues),
        (IFLA_GSO_MAX_SIZE, gso_max_size),
        (IFLA_GSO_MAX_SEGS, gso_max_segs),
        (IFLA_GRO_MAX_SIZE, gro_max_size),
        (IFLA_GSO_IPV4_MAX_SIZE, gso_ipv4_max_size),
        (IFLA_GRO_IPV4_MAX_SIZE, gro_ipv4_max_size),
    ):
        if number is not None:
            add(attr_u32(sort, number))
    if mac is not None:
        add(pack_attr(IFLA_ADDRESS, mac_bytes(mac)))
    if broadcast is not None:
        add(pack_attr(IFLA_BROADCAST, mac_bytes(broadcast)))
    if link_netnsid is not None:
        add(attr_s32(IFLA_LINK_NETNSID, link_netnsid))
    if alias is not None:
        # without the NUL, which would become part of it; empty takes it away
        add(pack_attr(IFLA_IFALIAS, alias.encode()))
    if proto_down is not None:
        add(attr_u8(IFLA_PROTO_DOWN, int(proto_down)))
    if addrgenmode is not None:
        add(nested(IFLA_AF_SPEC, nested(AF_INET6, attr_u8(IFLA_INET6_ADDR_GEN_MODE, addrgenmode))))
    info: list[bytes] = []
    if kind is not None:
        info.append(attr_str(IFLA_INFO_KIND, kind))
    if info_data:
        info.append(pack_attr(IFLA_INFO_DATA | NLA_F_NESTED, info_data))
    if slave_kind is not None:
        info.append(attr_str(IFLA_INFO_SLAVE_KIND, slave_kind))
    if slave_data:
        info.append(pack_attr(IFLA_INFO_SLAVE_DATA | NLA_F_NESTED, slave_data))
    if info:
        add(nested(IFLA_LINKINFO, *info))
    return b"".join(parts)


def encode_altnames(ifindex: int, altnames: Iterable[str]) -> bytes:
    """The payload of RTM_NEWLINKPROP or RTM_DELLINKPROP. The kernel stops at the first name it refuses."""
    names = [attr_str(IFLA_ALT_IFNAME, name) for name in altnames]
    return _IFINFOMSG.pack(AF_UNSPEC, 0, ifindex, 0, 0) + nested(IFLA_PROP_LIST, *names)


def query_links(*, kind: str | None = None, master: int = 0, family: int = AF_UNSPEC) -> bytes:
    """The payload of a strict RTM_GETLINK dump without statistics, which the kernel filters by kind and
    by master. With family AF_BRIDGE: all bridge ports, as the events about them come."""
    parts = [_IFINFOMSG.pack(family, 0, 0, 0, 0), attr_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)]
    if master:
        parts.append(attr_u32(IFLA_MASTER, master))
    if kind is not None:
        parts.append(nested(IFLA_LINKINFO, attr_str(IFLA_INFO_KIND, kind)))
    return b"".join(parts)


def query_link(*, ifindex: int = 0, name: str | None = None) -> bytes:
    """The payload of an RTM_GETLINK request for one link, by index or by (alternative) name."""
    payload = _IFINFOMSG.pack(AF_UNSPEC, 0, ifindex, 0, 0) + attr_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    if name is not None:
        # a name too long for a link can only be an alternative one
        payload += attr_str(IFLA_IFNAME if len(name.encode()) < 16 else IFLA_ALT_IFNAME, name)
    return payload
