# SPDX-License-Identifier: MIT
"""The registry of link attributes: every attribute that a link, a link of some kind, or a port may be
declared with, under iproute2's name, with its number and form on the wire and whether it can be changed in
place.

Numbers are those of include/uapi/linux/if_link.h and if_tunnel.h. A table; it must not know links.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from linxd.records import dataclass, field, replace
from linxd.sources.rtnl.forms import (
    Address,
    AddressList,
    AnyAddress,
    Bit,
    Choice,
    Form,
    Integer,
    Key,
    LinkName,
    Mac,
    Names,
    Ports,
    Present,
    QosMap,
    Signed,
    Switch,
    Text,
)
from linxd.sources.rtnl.model import Link, Value


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute. ``number6``: that of its IPv6 form, where the two differ. ``also``: (number, bits) that
    are set in a word of flags of 16 bits in network order when this one is given. ``sent_with``: attributes
    that the kernel resets when this one is sent without them. ``needs_down``: only a link that is down takes
    it."""

    name: str
    number: int
    form: Form
    doc: str = ""
    changeable: bool = True
    number6: int = 0
    also: tuple[int, int] | None = None
    sent_with: tuple[str, ...] = ()
    needs_down: bool = False

    def parse(self, value: object) -> Value:
        """A value from a file in its normal form. Raises ValueError saying what was expected."""
        return self.form.parse(value)

    def show(self, value: Value) -> str:
        """The value in iproute2's words."""
        return self.form.show(value)

    def json_schema(self) -> dict[str, Any]:
        """Its JSON Schema."""
        schema = self.form.schema()
        return {**schema, "description": self.doc} if self.doc else schema


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of link. ``needs_parent``: True, False for "has none", None for "may have". ``info_kind``: the
    kernel's word, where it differs. ``master``: others can be its ports, with ``ports`` of their own."""

    name: str
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    needs_parent: bool | None = False
    peer: bool = False
    required: tuple[str, ...] = ()
    master: bool = False
    ports: Mapping[str, Attribute] = field(default_factory=dict)
    info_kind: str = ""
    parent_number: int = 0
    """Where the parent's index stands among the kind's own attributes, for kinds that do not use
    IFLA_LINK."""


def _table(*rows: Attribute) -> dict[str, Attribute]:
    return {row.name: row for row in rows}


A = Attribute
U8, U16, U32, U64 = Integer(1), Integer(2), Integer(4), Integer(8)
ON, ON32 = Switch(1), Switch(4)
PORT = Integer(2, low=0, big=True)

COMMON: Mapping[str, Attribute] = _table(
    A("mac", 1, Mac(), "Ethernet address"),
    A("mtu", 4, Integer(4, low=0, high=0x7FFFFFFF), "largest packet, in bytes"),
    A("txqueuelen", 13, Integer(4, high=0x7FFFFFFF), "length of the transmit queue, in packets"),
    A("alias", 20, Text(255), "a description"),
    A("altnames", 53, Names(), "alternative names"),
    A("group", 27, Integer(4, high=0x7FFFFFFF, words={"default": 0}), "device group"),
    A("arp", 0, Switch(), "take part in ARP and neighbour discovery"),
    A("multicast", 0, Switch(), "multicast flag"),
    A("promisc", 0, Switch(), "receive everything"),
    A("allmulticast", 0, Switch(), "receive all multicast"),
    A(
        "addrgenmode",
        8,
        Choice({"eui64": 0, "none": 1, "stable_secret": 2, "random": 3}),
        "how the IPv6 link-local address is made",
    ),
    A("numtxqueues", 31, Integer(4, low=1, high=4096), "transmit queues", changeable=False),
    A("numrxqueues", 32, Integer(4, low=1, high=4096), "receive queues", changeable=False),
)

_TIME = Integer(4, high=0xFFFFFFFF)
_INTERVAL = Integer(8, high=0xFFFFFFFF)
_ROUTER = Integer(1, high=2)

BRIDGE = _table(
    A("forward_delay", 1, _TIME, "forwarding delay, in 1/100 s"),
    A("hello_time", 2, _TIME, "time between hello packets, in 1/100 s"),
    A("max_age", 3, _TIME, "maximum age of messages, in 1/100 s"),
    A("ageing_time", 4, _TIME, "age at which forwarding entries go, in 1/100 s"),
    A("stp_state", 5, ON32, "spanning tree protocol"),
    A("priority", 6, U16, "bridge priority"),
    A("vlan_filtering", 7, ON, "VLAN filtering"),
    A("vlan_protocol", 8, Choice({"802.1Q": 0x8100, "802.1ad": 0x88A8}, 2, big=True), "VLAN protocol"),
    A("group_fwd_mask", 9, U16, "link-local groups that are forwarded"),
    A("group_address", 20, Mac(), "address that spanning tree packets are sent to"),
    A("mcast_router", 22, _ROUTER, "multicast router: 0 off, 1 learn, 2 always"),
    A("mcast_snooping", 23, ON, "multicast snooping"),
    A("mcast_query_use_ifaddr", 24, ON, "use the bridge's address in queries"),
    A("mcast_querier", 25, ON, "send multicast queries"),
    A("mcast_hash_max", 27, U32, "multicast hash table size"),
    A("mcast_last_member_count", 28, U32, "last member queries"),
    A("mcast_startup_query_count", 29, U32, "startup queries"),
    A("mcast_last_member_interval", 30, _INTERVAL, "in 1/100 s"),
    A("mcast_membership_interval", 31, _INTERVAL, "in 1/100 s"),
    A("mcast_querier_interval", 32, _INTERVAL, "in 1/100 s"),
    A("mcast_query_interval", 33, _INTERVAL, "in 1/100 s"),
    A("mcast_query_response_interval", 34, _INTERVAL, "in 1/100 s"),
    A("mcast_startup_query_interval", 35, _INTERVAL, "in 1/100 s"),
    A("mcast_stats_enabled", 42, ON, "multicast statistics"),
    A("mcast_igmp_version", 43, Integer(1, low=2, high=3), "IGMP version"),
    A("mcast_mld_version", 44, Integer(1, low=1, high=2), "MLD version"),
    A("nf_call_iptables", 36, ON, "pass IPv4 through netfilter"),
    A("nf_call_ip6tables", 37, ON, "pass IPv6 through netfilter"),
    A("nf_call_arptables", 38, ON, "pass ARP through netfilter"),
    A("vlan_default_pvid", 39, Integer(2, high=4094), "VLAN of untagged frames"),
    A("vlan_stats_enabled", 41, ON, "VLAN statistics"),
    A("vlan_stats_per_port", 45, ON, "VLAN statistics per port; only without ports"),
)
BRIDGE_PORT = _table(
    A("priority", 2, Integer(2, high=63), "port priority"),
    A("cost", 3, Integer(4, low=1, high=65535), "path cost"),
    A("hairpin", 4, ON, "send frames back where they came from"),
    A("guard", 5, ON, "drop spanning tree packets"),
    A("root_block", 6, ON, "never become the root port"),
    A("fastleave", 7, ON, "leave multicast groups at once"),
    A("learning", 8, ON, "learn addresses"),
    A("flood", 9, ON, "flood unknown unicast"),
    A("proxy_arp", 10, ON, "answer ARP for others"),
    A("proxy_arp_wifi", 12, ON, "the same, for access points"),
    A("mcast_router", 25, Integer(1, high=3), "multicast router port"),
    A("mcast_flood", 27, ON, "flood multicast"),
    A("mcast_to_unicast", 28, ON, "send multicast as unicast"),
    A("bcast_flood", 30, ON, "flood broadcast"),
    A("group_fwd_mask", 31, U16, "link-local groups that are forwarded"),
    A("neigh_suppress", 32, ON, "suppress neighbour discovery"),
    A("vlan_tunnel", 29, ON, "VLAN to tunnel mapping"),
    A("isolated", 33, ON, "no traffic to other isolated ports"),
    A("locked", 39, ON, "only known addresses may send"),
)
VLAN = _table(
    A("id", 1, Integer(2, high=4094), "VLAN id", changeable=False),
    A("protocol", 5, Choice({"802.1Q": 0x8100, "802.1ad": 0x88A8}, 2, big=True), "tag", changeable=False),
    A("reorder_hdr", 2, Bit(bit=0x1, masked=True), "reorder the header"),
    A("gvrp", 2, Bit(bit=0x2, masked=True), "register by GVRP"),
    A("loose_binding", 2, Bit(bit=0x4, masked=True), "do not follow the parent's state"),
    A("mvrp", 2, Bit(bit=0x8, masked=True), "register by MVRP"),
    A("bridge_binding", 2, Bit(bit=0x10, masked=True), "follow the bridge ports with this VLAN"),
    A("ingress-qos-map", 4, QosMap(low=7), "VLAN priorities to packet priorities"),
    A("egress-qos-map", 3, QosMap(high=7), "packet priorities to VLAN priorities"),
)
MACVLAN = _table(
    A(
        "mode",
        1,
        Choice({"private": 1, "vepa": 2, "bridge": 4, "passthru": 8, "source": 16}, 4),
        "how links on one parent reach each other",
    ),
    A("nopromisc", 2, Bit(2, bit=1), "leave the parent's promiscuous mode alone (passthru)"),
    A("nodst", 2, Bit(2, bit=2), "do not look up the destination (source)"),
    A("bcqueuelen", 7, U32, "queue for broadcast and multicast, in packets"),
)
IPVLAN = _table(
    A("mode", 1, Choice({"l2": 0, "l3": 1, "l3s": 2}, 2), "layer at which frames are passed"),
    A("private", 2, Bit(2, bit=1), "no traffic between links on one parent", sent_with=("vepa",)),
    A("vepa", 2, Bit(2, bit=2), "traffic between them goes over the wire", sent_with=("private",)),
)
VXLAN = _table(
    A("id", 1, Integer(4, high=0xFFFFFF), "network identifier", changeable=False),
    A("remote", 2, AnyAddress(), "the other end", number6=16, sent_with=("local",)),
    A("group", 2, AnyAddress(), "multicast group to join", number6=16, sent_with=("local",)),
    A("local", 4, AnyAddress(), "address to send from", number6=17, sent_with=("remote", "group")),
    A("ttl", 5, U8, "time to live, 0 for the default"),
    A("tos", 6, U8, "type of service, 1 to inherit"),
    A("df", 29, Choice({"unset": 0, "set": 1, "inherit": 2}), "don't-fragment bit"),
    A("flowlabel", 26, Integer(4, high=0xFFFFF, big=True), "IPv6 flow label"),
    A("learning", 7, ON, "learn addresses"),
    A("ageing", 8, U32, "age at which forwarding entries go, in s"),
    A("maxaddress", 9, U32, "most forwarding entries", changeable=False),
    A("srcport", 10, Ports(), "source ports", changeable=False),
    A("dstport", 15, PORT, "destination port", changeable=False),
    A("proxy", 11, ON, "answer ARP", changeable=False),
    A("rsc", 12, ON, "route short circuit", changeable=False),
    A("l2miss", 13, ON, "tell of unknown Ethernet addresses", changeable=False),
    A("l3miss", 14, ON, "tell of unknown IP addresses", changeable=False),
    A("udpcsum", 18, ON, "UDP checksums over IPv4", changeable=False),
    A("udp6zerocsumtx", 19, ON, "send without checksum over IPv6", changeable=False),
    A("udp6zerocsumrx", 20, ON, "accept without checksum over IPv6", changeable=False),
    A("remcsumtx", 21, ON, "remote checksum offload, sending", changeable=False),
    A("remcsumrx", 22, ON, "remote checksum offload, receiving", changeable=False),
    A("gbp", 23, Present(), "group policy extension", changeable=False),
    A("gpe", 27, Present(), "generic protocol extension", changeable=False),
    A("external", 25, ON, "controlled from outside", changeable=False),
    A("vnifilter", 30, ON, "filter by network identifier", changeable=False),
)
_MODES = {
    "balance-rr": 0,
    "active-backup": 1,
    "balance-xor": 2,
    "broadcast": 3,
    "802.3ad": 4,
    "balance-tlb": 5,
    "balance-alb": 6,
}
BOND = _table(
    A("mode", 1, Choice(_MODES), "bonding mode; only without ports", needs_down=True),
    A("active_slave", 2, LinkName(), "the active port"),
    A("miimon", 3, U32, "link monitoring interval, in ms"),
    A("updelay", 4, U32, "delay before a port counts as up, in ms", sent_with=("miimon",)),
    A("downdelay", 5, U32, "delay before a port counts as down, in ms", sent_with=("miimon",)),
    A("peer_notify_delay", 28, U32, "delay between notifications, in ms", sent_with=("miimon",)),
    A("use_carrier", 6, ON, "ask the driver for the carrier"),
    A("arp_interval", 7, U32, "ARP monitoring interval, in ms"),
    A("arp_ip_target", 8, AddressList(), "addresses to ask for"),
    A(
        "arp_validate",
        9,
        Choice(
            {
                "none": 0,
                "active": 1,
                "backup": 2,
                "all": 3,
                "filter": 4,
                "filter_active": 5,
                "filter_backup": 6,
            },
            4,
        ),
        "which ARP answers count",
    ),
    A("arp_all_targets", 10, Choice({"any": 0, "all": 1}, 4), "how many targets must answer"),
    A("primary", 11, LinkName(), "the preferred port"),
    A("primary_reselect", 12, Choice({"always": 0, "better": 1, "failure": 2}), "when to go back to it"),
    A(
        "fail_over_mac",
        13,
        Choice({"none": 0, "active": 1, "follow": 2}),
        "whose address the bond has; only without ports",
    ),
    A(
        "xmit_hash_policy",
        14,
        Choice({"layer2": 0, "layer3+4": 1, "layer2+3": 2, "encap2+3": 3, "encap3+4": 4, "vlan+srcmac": 5}),
        "what a port is chosen by",
    ),
    A("resend_igmp", 15, Integer(4, high=255), "IGMP reports after failover"),
    A("num_grat_arp", 16, U8, "notifications after failover"),
    A("all_slaves_active", 17, ON, "accept on inactive ports"),
    A("min_links", 18, U32, "active ports needed for the carrier"),
    A("lp_interval", 19, Integer(4, low=1, high=0x7FFFFFFF), "learning packets, in s"),
    A("packets_per_slave", 20, Integer(4, high=65535), "packets before the next port"),
    A("lacp_rate", 21, Choice({"slow": 0, "fast": 1}), "LACP rate", needs_down=True),
    A("lacp_active", 29, ON, "send LACP frames", needs_down=True),
    A(
        "ad_select",
        22,
        Choice({"stable": 0, "bandwidth": 1, "count": 2}),
        "how an aggregator is chosen",
        needs_down=True,
    ),
    A("ad_actor_sys_prio", 24, Integer(2, low=1), "LACP system priority"),
    A("ad_user_port_key", 25, Integer(2, high=1023), "upper bits of the port key", needs_down=True),
    A("ad_actor_system", 26, Mac(), "LACP system address"),
    A("tlb_dynamic_lb", 27, ON, "rebalance by load", needs_down=True),
    A("missed_max", 30, Integer(1, low=1), "failed monitors before a port is down"),
)
BOND_PORT = _table(
    A("queue_id", 5, U16, "transmit queue"),
    A("prio", 9, Signed(), "failover priority"),
)
VRF = _table(A("table", 1, Integer(4, low=1), "routing table", changeable=False))

_KEY_BIT, _SEQ_BIT, _CSUM_BIT = 0x2000, 0x1000, 0x8000


def _gre(family: int) -> dict[str, Attribute]:
    address = Address(family)
    rows = [
        A("local", 6, address, "address to send from"),
        A("remote", 7, address, "the other end"),
        A("ikey", 4, Key(), "key of received packets", also=(2, _KEY_BIT)),
        A("okey", 5, Key(), "key of sent packets", also=(3, _KEY_BIT)),
        A("iseq", 2, Bit(2, bit=_SEQ_BIT, big=True), "require sequence numbers"),
        A("oseq", 3, Bit(2, bit=_SEQ_BIT, big=True), "send sequence numbers"),
        A("icsum", 2, Bit(2, bit=_CSUM_BIT, big=True), "require checksums"),
        A("ocsum", 3, Bit(2, bit=_CSUM_BIT, big=True), "send checksums"),
        A("ttl", 8, U8, "time to live, 0 to inherit"),
        A("fwmark", 20, U32, "mark of sent packets"),
        A("external", 18, Present(), "controlled from outside", changeable=False),
    ]
    if family == 4:
        rows += [
            A("tos", 9, U8, "type of service, 1 to inherit"),
            A("pmtudisc", 10, ON, "path MTU discovery"),
            A("ignore-df", 19, ON, "ignore the don't-fragment bit"),
        ]
    else:
        rows.append(A("encaplimit", 11, U8, "encapsulation limit"))
    return _all_together(rows)


def _tunnel(family: int, *extra: Attribute) -> dict[str, Attribute]:
    address = Address(family)
    rows = [
        A("local", 2, address, "address to send from"),
        A("remote", 3, address, "the other end"),
        A("ttl", 4, U8, "time to live, 0 to inherit"),
        A("fwmark", 20, U32, "mark of sent packets"),
        A("external", 19, Present(), "controlled from outside", changeable=False),
        *extra,
    ]
    return _all_together(rows)


def _all_together(rows: list[Attribute]) -> dict[str, Attribute]:
    """The kernel takes what a tunnel's request leaves out for its default, so all travel together."""
    names = tuple(row.name for row in rows)
    return {row.name: replace(row, sent_with=names) for row in rows}


_TOS = A("tos", 5, U8, "type of service, 1 to inherit")
_PMTUDISC = A("pmtudisc", 10, ON, "path MTU discovery")
IPIP = _tunnel(
    4,
    _TOS,
    _PMTUDISC,
    A("mode", 9, Choice({"ipip": 4, "mplsip": 137, "any": 0}), "what is carried", changeable=False),
)
# net/ipv6/sit.c knows no metadata, and takes neither of these two for a tunnel that is there.
SIT = _tunnel(
    4,
    _TOS,
    replace(_PMTUDISC, changeable=False),
    A(
        "mode",
        9,
        Choice({"ip6ip": 41, "ipip": 4, "mplsip": 137, "any": 0}),
        "what is carried",
        changeable=False,
    ),
)
del SIT["external"]
SIT = {name: replace(row, sent_with=tuple(SIT)) for name, row in SIT.items()}
IP6TNL = _tunnel(
    6,
    A("mode", 9, Choice({"ipip6": 4, "ip6ip6": 41, "any": 0}), "what is carried"),
    A("encaplimit", 6, U8, "encapsulation limit"),
)

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("bridge", BRIDGE, master=True, ports=BRIDGE_PORT),
        Kind("dummy"),
        Kind("ifb"),
        Kind("veth", peer=True),
        Kind("vlan", VLAN, needs_parent=True, required=("id",)),
        Kind("macvlan", MACVLAN, needs_parent=True),
        Kind("macvtap", MACVLAN, needs_parent=True),
        Kind("ipvlan", IPVLAN, needs_parent=True),
        Kind("ipvtap", IPVLAN, needs_parent=True),
        Kind("vxlan", VXLAN, needs_parent=None, parent_number=3),
        Kind("bond", BOND, master=True, ports=BOND_PORT),
        Kind("vrf", VRF, required=("table",), master=True),
        Kind("ipip", IPIP, needs_parent=None, parent_number=1),
        Kind("sit", SIT, needs_parent=None, parent_number=1),
        Kind("ip6tnl", IP6TNL, needs_parent=None, parent_number=1),
        Kind("gre", _gre(4), needs_parent=None, parent_number=1),
        Kind("gretap", _gre(4), needs_parent=None, parent_number=1),
        Kind("ip6gre", _gre(6), needs_parent=None, parent_number=1),
        Kind("ip6gretap", _gre(6), needs_parent=None, parent_number=1),
        Kind("wireguard"),
    )
}


def link_options(link: Link) -> dict[str, str]:
    """The options of a link that name another one (a bond's primary), with its name. They can be set once
    that is there, and a port."""
    if link.kind is None:
        return {}
    table = KINDS[link.kind].attributes
    return {
        name: str(value)
        for name, value in link.options.items()
        if value and isinstance(table[name].form, LinkName)
    }
