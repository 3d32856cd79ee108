# SPDX-License-Identifier: MIT
"""What we read is what ip(8) reads, and what we write is what ip(8) then sees."""

from __future__ import annotations

import errno
import ipaddress
import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

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
    encode_altnames,
    encode_link,
    encode_neigh,
    encode_route,
    encode_rule,
    query_addrs,
    query_link,
    query_links,
    query_neigh,
    query_neighs,
    query_routes,
    query_rules,
)
from linxd.netlink.socket import NetlinkError, Requests
from linxd.netlink.wire import (
    AF_INET,
    AF_INET6,
    FOREVER,
    IFF_UP,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NTF_PROXY,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELLINKPROP,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETNEIGH,
    RTM_GETROUTE,
    RTM_GETRULE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWLINKPROP,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RTM_NEWRULE,
    RTM_SETLINK,
    VETH_INFO_PEER,
    attr_u32,
    pack_attr,
)
from tests.netlink.netlink_bed import Netns

CREATE = NLM_F_CREATE | NLM_F_EXCL
NUD_PERMANENT = 0x80
FLAGS = {
    "UP": 1,
    "BROADCAST": 2,
    "LOOPBACK": 8,
    "NOARP": 0x80,
    "PROMISC": 0x100,
    "ALLMULTI": 0x200,
    "MULTICAST": 0x1000,
    "LOWER_UP": 0x10000,
}
DERIVED = {"NO-CARRIER", "M-DOWN"}
"""Which ip(8) works out for itself."""
OPERSTATES = ["UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP"]
GEN_MODES = ["eui64", "none", "stable_secret", "random"]


def links(requests: Requests) -> dict[str, LinkMsg]:
    found = (decode_link(*one) for one in requests.dump_all(RTM_GETLINK, query_links()))
    return {link.name: link for link in found}


# --- links ----------------------------------------------------------------------------------------


def same_moment(netns: Netns, requests: Requests) -> tuple[dict[str, LinkMsg], dict[str, Any]]:
    """Our look and that of ip(8) at one state: ours is the same before and after. The operational state
    follows a change some time later, by itself."""
    after = links(requests)
    for _ in range(100):
        before = after
        said = {entry["ifname"]: entry for entry in netns.json("link show")}
        after = links(requests)
        if before == after:
            return after, said
    raise AssertionError(f"the links never come to rest: {after}")


def assert_links_are_as_ip_says(netns: Netns, requests: Requests) -> None:
    found, said = same_moment(netns, requests)
    assert found.keys() == said.keys()
    names = {link.ifindex: link.name for link in found.values()}
    for name, entry in said.items():
        link = found[name]
        info = entry.get("linkinfo", {})
        parent = entry.get("link_index", names.get(link.link) if link.link else None)
        assert entry == {
            **entry,
            "ifindex": link.ifindex,
            "mtu": link.mtu,
            "operstate": OPERSTATES[link.operstate],
            "group": str(link.group),
            "txqlen": link.txqlen,
            "link_type": f"[{link.type}]" if link.type == 1 else entry["link_type"],
            "address": link.mac,
            "broadcast": link.broadcast,
            "promiscuity": link.promiscuity,
            "min_mtu": link.minmtu,
            "max_mtu": link.maxmtu,
            "num_tx_queues": link.num_tx_queues,
            "num_rx_queues": link.num_rx_queues,
            "gso_max_size": link.gso_max_size,
            "gso_max_segs": link.gso_max_segs,
        }
        assert {flag for flag in FLAGS if link.flags & FLAGS[flag]} == set(entry["flags"]) - DERIVED
        assert names.get(link.master) == entry.get("master")
        assert parent == (entry.get("link_index") or entry.get("link"))
        assert link.link_netnsid == entry.get("link_netnsid")
        assert link.kind == info.get("info_kind")
        assert link.slave_kind == info.get("info_slave_kind")
        assert link.alias == entry.get("ifalias", "")
        assert list(link.altnames) == entry.get("altnames", [])
        assert link.allmulti == entry.get("allmulti", link.allmulti)
        assert link.gro_max_size == entry.get("gro_max_size", link.gro_max_size)
        # ip leaves the mode out where IPv6 has nothing to do
        if "inet6_addr_gen_mode" in entry:
            assert link.addrgenmode is not None
            assert GEN_MODES[link.addrgenmode] == entry["inet6_addr_gen_mode"]


def test_links_are_read_as_ip_reads_them(make_netns: Callable[[], Netns]) -> None:
    netns, other = make_netns(), make_netns()
    netns.wire()
    netns.ip("link add br0 address 02:00:00:00:00:01 type bridge ageing_time 12345")
    netns.ip("link set v0 master br0")
    netns.ip("link set v1 alias uplink txqueuelen 55 group 7 mtu 1400 addrgenmode random promisc on")
    netns.ip("link property add dev v1 altname first altname second-and-much-longer-name")
    netns.ip(f"link add far0 type veth peer name near0 netns {other.name}")
    netns.ip("link add x0 numtxqueues 4 type ifb")
    requests = netns.requests()
    assert_links_are_as_ip_says(netns, requests)
    found = links(requests)
    assert found["br0"].info_data
    assert (found["v0"].slave_kind, found["v0"].master) == ("bridge", found["br0"].ifindex)
    assert found["v0"].slave_data
    assert found["far0"].link_netnsid is not None
    assert found["v1"].altnames == ("first", "second-and-much-longer-name")
    netns.ip("link set v1 promisc off mtu 1300")
    assert_links_are_as_ip_says(netns, requests)


def test_a_veth_pair_is_made_across_namespaces_with_chosen_indices(make_netns: Callable[[], Netns]) -> None:
    near, far = make_netns(), make_netns()
    requests = near.requests()
    requests.request(RTM_NEWLINK, CREATE, encode_link(name="br0", ifindex=50, kind="bridge"))
    peer = encode_link(name="c0", ifindex=60, netns_fd=far.fd, mac="02:00:00:00:00:60")
    requests.request(
        RTM_NEWLINK,
        CREATE,
        encode_link(
            name="h0",
            ifindex=70,
            kind="veth",
            info_data=pack_attr(VETH_INFO_PEER, peer),
            mac="02:00:00:00:00:70",
            mtu=1400,
            txqlen=77,
            group=9,
            num_tx_queues=3,
            num_rx_queues=3,
            gso_max_size=32768,
            gso_max_segs=99,
            gro_max_size=30000,
            flags=IFF_UP,
            change=IFF_UP,
        ),
    )
    (said,) = near.json("link show h0")
    assert said == {
        **said,
        "ifindex": 70,
        "link_index": 60,
        "mtu": 1400,
        "txqlen": 77,
        "group": "9",
        "address": "02:00:00:00:00:70",
        "num_tx_queues": 3,
        "num_rx_queues": 3,
        "gso_max_size": 32768,
        "gso_max_segs": 99,
    }
    assert "UP" in said["flags"]
    assert links(requests)["h0"].gro_max_size == 30000
    (said,) = far.json("link show c0")
    assert (said["ifindex"], said["address"]) == (60, "02:00:00:00:00:60")
    with pytest.raises(NetlinkError) as taken:
        requests.request(RTM_NEWLINK, CREATE, encode_link(name="br1", ifindex=50, kind="bridge"))
    assert taken.value.errno in (errno.EEXIST, errno.EBUSY)  # which of the two has changed over time
    requests.request(RTM_DELLINK, 0, encode_link(ifindex=70))
    assert far.json("link show type veth") == []


def test_a_link_is_changed_in_place(wired: Netns) -> None:
    requests = wired.requests()
    requests.request(RTM_NEWLINK, CREATE, encode_link(name="br0", ifindex=50, kind="bridge"))

    def change(**fields: Any) -> LinkMsg:
        requests.request(RTM_SETLINK, 0, encode_link(ifindex=101, **fields))
        assert_links_are_as_ip_says(wired, requests)
        (reply,) = requests.request(RTM_GETLINK, 0, query_link(ifindex=101))
        return decode_link(reply.buf, reply.start, reply.end)

    assert change(master=50).master == 50
    assert change(master=0).master == 0
    assert change(mtu=1334, txqlen=5, group=3).mtu == 1334
    assert change(alias="it's\tmine").alias == "it's\tmine"
    assert change(alias="").alias == ""
    assert change(mac="02:00:00:00:00:11").mac == "02:00:00:00:00:11"
    assert change(addrgenmode=3).addrgenmode == 3
    assert not change(flags=0, change=IFF_UP).flags & IFF_UP
    assert change(name="renamed").name == "renamed"
    requests.request(RTM_NEWLINKPROP, NLM_F_CREATE | NLM_F_EXCL, encode_altnames(101, ["second", "third"]))
    assert change().altnames == ("second", "third")
    requests.request(RTM_DELLINKPROP, 0, encode_altnames(101, ["second"]))
    assert change().altnames == ("third",)


def test_what_a_kind_has_of_its_own_is_passed_through(netns: Netns) -> None:
    requests = netns.requests()
    ageing = attr_u32(4, 12300)  # IFLA_BR_AGEING_TIME, hundredths of a second
    requests.request(RTM_NEWLINK, CREATE, encode_link(name="br0", kind="bridge", info_data=ageing))
    (said,) = netns.json("link show br0")
    assert said["linkinfo"]["info_data"]["ageing_time"] == 12300
    assert ageing in links(requests)["br0"].info_data


def test_a_link_moves_to_another_namespace_and_names_the_one_its_parent_stays_in(
    make_netns: Callable[[], Netns],
) -> None:
    near, far = make_netns(), make_netns()
    near.wire()
    try:
        near.ip("link add m0 link v0 type macvlan mode bridge")
    except subprocess.CalledProcessError:
        pytest.skip("this kernel has no macvlan")
    requests = near.requests()
    assert links(requests)["m0"].link == 100
    requests.request(RTM_SETLINK, 0, encode_link(ifindex=links(requests)["m0"].ifindex, netns_fd=far.fd))
    moved = links(far.requests())["m0"]
    assert moved.link == 100
    assert moved.link_netnsid is not None
    assert_links_are_as_ip_says(far, far.requests())


# --- addresses ------------------------------------------------------------------------------------


def addrs(requests: Requests) -> list[AddrMsg]:
    return [decode_addr(*one) for one in requests.dump_all(RTM_GETADDR, query_addrs())]


def addr_as_ip_says(addr: AddrMsg) -> dict[str, Any]:
    """Flags aside."""
    said = {
        "family": "inet" if addr.family == AF_INET else "inet6",
        "local": addr.address,
        "address": addr.peer,
        "prefixlen": addr.prefixlen,
        "metric": addr.metric or None,
        "broadcast": addr.broadcast,
        "scope": str(addr.scope),
        "label": addr.label,
        "valid_life_time": addr.valid_lft,
        "preferred_life_time": addr.preferred_lft,
    }
    return {key: value for key, value in said.items() if value is not None}


def assert_addresses_are_as_ip_says(netns: Netns, requests: Requests) -> None:
    said = {
        (entry["ifindex"], one["local"], one["prefixlen"]): {
            key: one[key] for key in one if one[key] is not True
        }
        for entry in netns.json("addr show")
        for one in entry["addr_info"]
        if one
    }
    for one in said.values():
        one.pop("protocol", None)
    found = {(addr.ifindex, addr.address, addr.prefixlen): addr_as_ip_says(addr) for addr in addrs(requests)}
    for key in found:
        for life in ("valid_life_time", "preferred_life_time"):
            # a second may begin between the two looks
            assert found[key][life] - said[key][life] in (0, -1)
            found[key][life] = said[key][life]
    assert found == said


def test_addresses_are_read_as_ip_reads_them(wired: Netns) -> None:
    wired.ip("addr add 192.0.2.7/24 dev v0")
    wired.ip("addr add 10.0.0.1 peer 10.0.0.9/24 dev v1")
    wired.ip("addr add 10.1.0.1/24 brd + dev v1 metric 5 label v1:x valid_lft 500 preferred_lft 400")
    wired.ip("addr add 10.2.0.1/32 dev v1 scope link noprefixroute")
    wired.ip("addr add fd09::1 peer fd09::2/64 dev v1 home nodad")
    wired.ip("addr add fd0a::1/64 dev v1 valid_lft 300 preferred_lft 0")
    requests = wired.requests()
    assert_addresses_are_as_ip_says(wired, requests)
    flags = {addr.address: addr.flags for addr in addrs(requests)}
    assert flags["192.0.2.7"] & 0x01  # IFA_F_SECONDARY
    assert flags["10.2.0.1"] & 0x200  # IFA_F_NOPREFIXROUTE, beyond the eight bits of the header
    assert flags["fd09::1"] & 0x12 == 0x12  # IFA_F_HOMEADDRESS | IFA_F_NODAD


WRITTEN_ADDRESSES = [
    AddrMsg(AF_INET, 100, "10.0.0.5", 24),
    AddrMsg(AF_INET, 100, "10.0.1.5", 24, peer="10.0.9.9", metric=50),
    AddrMsg(
        AF_INET, 101, "10.2.0.5", 24, label="v1:a", broadcast="10.2.0.255", scope=253, flags=0x200, proto=76
    ),
    AddrMsg(AF_INET, 101, "10.3.0.5", 24, valid_lft=1000, preferred_lft=900),
    AddrMsg(AF_INET6, 101, "fd00::5", 64, flags=0x202, metric=5),
    AddrMsg(AF_INET6, 101, "fd01::5", 64, peer="fd01::9", flags=2, proto=76),
]


@pytest.mark.parametrize("wanted", WRITTEN_ADDRESSES, ids=lambda addr: addr.address)
def test_addresses_are_written_and_deleted(wired: Netns, wanted: AddrMsg) -> None:
    requests = wired.requests()
    before = addrs(requests)
    payload = encode_addr(**wanted._asdict())
    requests.request(RTM_NEWADDR, CREATE, payload)
    assert_addresses_are_as_ip_says(wired, requests)
    (found,) = (addr for addr in addrs(requests) if addr not in before)
    settled = found._replace(flags=found.flags & 0x202)
    if wanted.family == AF_INET and wanted.label is None:
        settled = settled._replace(label=None)
    if wanted.valid_lft != FOREVER:
        assert 990 <= found.valid_lft <= 1000
        settled = settled._replace(valid_lft=wanted.valid_lft, preferred_lft=wanted.preferred_lft)
    if wanted.proto and not found.proto:
        settled = settled._replace(proto=wanted.proto)  # IFA_PROTO came with Linux 5.18
        assert tuple(map(int, os.uname().release.split(".")[:2])) < (5, 18)
    assert settled == wanted
    requests.request(RTM_DELADDR, 0, payload)
    assert addrs(requests) == before


# --- routes ---------------------------------------------------------------------------------------

NAMES = {0: None, 1: "lo", 100: "v0", 101: "v1"}
PREFS = {0: "medium", 1: "high", 3: "low"}
RTAX = {2: "mtu", 3: "window", 8: "advmss", 10: "hoplimit", 11: "initcwnd", 16: "congestion"}


def routes(requests: Requests, family: int) -> list[RouteMsg]:
    return [decode_route(*one) for one in requests.dump_all(RTM_GETROUTE, query_routes(family))]


def shown(text: str) -> str:
    """As ip(8) abbreviates a prefix."""
    if text in ("0.0.0.0/0", "::/0"):
        return "default"
    network = ipaddress.ip_network(text)
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else text


def gateway_as_ip_says(family: int, gateway: str | None) -> dict[str, Any]:
    if gateway is None:
        return {}
    if (":" in gateway) == (family == AF_INET6):
        return {"gateway": gateway}
    return {"via": {"family": "inet6" if ":" in gateway else "inet", "host": gateway}}


def route_as_ip_says(route: RouteMsg) -> dict[str, Any]:
    said = {
        "type": str(route.type),
        "dst": shown(route.dst),
        "from": shown(route.src) if route.src else None,
        "tos": f"{route.tos:#04x}" if route.tos else None,
        "dev": NAMES[route.oif],
        "table": str(route.table),
        "protocol": str(route.protocol),
        "scope": str(route.scope),
        "prefsrc": route.prefsrc,
        "metric": route.metric or None,
        "metrics": [{RTAX[number]: value for number, value in route.metrics}] if route.metrics else None,
        "pref": PREFS[route.pref] if route.pref is not None else None,
        "nexthops": [
            {**gateway_as_ip_says(route.family, hop.gateway), "dev": NAMES[hop.oif], "weight": hop.weight}
            for hop in route.nexthops
        ]
        or None,
        **gateway_as_ip_says(route.family, route.gateway),
    }
    return {key: value for key, value in said.items() if value is not None}


def assert_routes_are_as_ip_says(netns: Netns, requests: Requests) -> None:
    said = netns.json("-4 route show table all") + netns.json("-6 route show table all")
    found = routes(requests, AF_INET) + routes(requests, AF_INET6)
    assert len(found) == len(said)
    for route, entry in zip(found, said, strict=True):
        assert route.flags & 4 == (4 if "onlink" in entry.pop("flags") else 0)
        for hop in entry.get("nexthops", []):
            hop.pop("flags")
        assert bool(route.expires) == ("expires" in entry)
        if not route.metric:
            entry.pop("metric", None)
        assert abs(route.expires - entry.pop("expires", 0)) <= 2
        assert route_as_ip_says(route) == entry


def test_routes_are_read_as_ip_reads_them(wired: Netns) -> None:
    wired.ip("addr add 203.0.113.1/24 dev v1")
    for words in (
        "default via 192.0.2.2",
        "10.1.0.0/24 via 192.0.2.2 metric 5 proto 76 src 192.0.2.1 tos 0x10",
        "10.2.0.0/24 via 192.0.2.2 table 1000 mtu 1400 advmss 1300 congctl cubic",
        "10.3.0.0/24 nexthop via 192.0.2.2 weight 3 nexthop via 203.0.113.2 dev v1 onlink",
        "10.4.0.0/24 via inet6 2001:db8::9 dev v0",
        "10.5.0.0/24 via 198.51.100.1 dev v0 onlink",
        "10.6.0.7 dev v1 scope link",
        "blackhole 10.7.0.0/16",
        "unreachable 10.8.0.0/16 metric 4",
        "-6 default via 2001:db8::2 metric 5",
        "2001:db8:1::/48 via 2001:db8::2 expires 1000 pref high proto 76",
        "2001:db8:2::/48 nexthop via 2001:db8::2 weight 7 nexthop via 2001:db8::3",
        "2001:db8:3::/48 from 2001:db8:ff::/48 via 2001:db8::2 mtu 1300",
        "2001:db8:4::7 dev v1 table 300",
        "prohibit 2001:db8:5::/48",
    ):
        option, _, rest = words.rpartition("-6 ")
        try:
            wired.ip(f"{'-6' if option or words != rest else ''} route add {rest}")
        except subprocess.CalledProcessError:
            if "from" not in words:  # CONFIG_IPV6_SUBTREES
                raise
    assert_routes_are_as_ip_says(wired, wired.requests())


# a protocol of 0 is kept for IPv4, but becomes 3 (boot) for IPv6
WRITTEN_ROUTES = [
    RouteMsg(AF_INET, "0.0.0.0/0", gateway="192.0.2.2", oif=100, protocol=76),
    RouteMsg(
        AF_INET,
        "10.1.0.0/24",
        gateway="192.0.2.2",
        oif=100,
        metric=7,
        tos=16,
        prefsrc="192.0.2.1",
        table=1000,
    ),
    RouteMsg(AF_INET, "10.2.0.0/24", gateway="2001:db8::9", oif=100, protocol=4),
    RouteMsg(AF_INET, "10.3.0.0/24", gateway="198.51.100.1", oif=100, flags=4),
    RouteMsg(AF_INET, "10.4.0.0/24", oif=101, scope=253, metrics=((2, 1400), (8, 1300), (16, "cubic"))),
    RouteMsg(AF_INET, "10.5.0.0/24", type=6, metric=3),
    RouteMsg(
        AF_INET, "10.6.0.0/24", nexthops=(Nexthop(100, "192.0.2.2", 3), Nexthop(100, "2001:db8::9", 256))
    ),
    RouteMsg(AF_INET, "10.7.0.0/24", nexthops=(Nexthop(101, "198.51.100.1", 1, 4), Nexthop(101))),
    RouteMsg(AF_INET6, "::/0", gateway="2001:db8::2", oif=100, metric=1024, pref=0, protocol=76),
    RouteMsg(
        AF_INET6,
        "2001:db8:1::/48",
        gateway="2001:db8::2",
        oif=100,
        metric=5,
        pref=3,
        table=70000,
        protocol=4,
    ),
    RouteMsg(
        AF_INET6,
        "2001:db8:2::/48",
        gateway="2001:db8::2",
        oif=100,
        metric=1024,
        pref=0,
        expires=1000,
        protocol=4,
    ),
    RouteMsg(
        AF_INET6,
        "2001:db8:3::/48",
        metric=9,
        pref=0,
        protocol=4,
        nexthops=(Nexthop(100, "2001:db8::2", 2), Nexthop(100, "2001:db8::3", 5)),
    ),
    RouteMsg(AF_INET6, "2001:db8:4::/48", type=7, oif=1, metric=1024, pref=0, protocol=4),
]


@pytest.mark.parametrize("wanted", WRITTEN_ROUTES, ids=lambda route: route.dst)
def test_routes_are_written_and_deleted(wired: Netns, wanted: RouteMsg) -> None:
    requests = wired.requests()
    before = routes(requests, wanted.family)
    fields = wanted._asdict()
    if wanted.type != 1:
        fields["oif"] = 0  # the kernel's own answer for IPv6
    requests.request(RTM_NEWROUTE, CREATE, encode_route(**fields))
    assert_routes_are_as_ip_says(wired, requests)
    (found,) = (route for route in routes(requests, wanted.family) if route not in before)
    if wanted.expires:
        assert 990 <= found.expires <= 1000
        found = found._replace(expires=wanted.expires)
    assert found == wanted
    with pytest.raises(NetlinkError) as there:
        requests.request(RTM_NEWROUTE, CREATE, encode_route(**fields))
    assert there.value.errno == errno.EEXIST
    requests.request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, encode_route(**fields))
    requests.request(RTM_DELROUTE, 0, encode_route(**fields))
    assert routes(requests, wanted.family) == before


# --- rules ----------------------------------------------------------------------------------------


def rules(requests: Requests, family: int) -> list[RuleMsg]:
    return [decode_rule(*one) for one in requests.dump_all(RTM_GETRULE, query_rules(family))]


def rule_as_ip_says(rule: RuleMsg) -> dict[str, Any]:
    said: dict[str, Any] = {
        "priority": rule.priority,
        "not": None if rule.flags & 2 else False,
        "src": "all",
        "tos": f"{rule.tos:#04x}" if rule.tos else False,
        "fwmark": f"{rule.fwmark:#x}" if rule.fwmark or rule.fwmask else False,
        "fwmask": f"{rule.fwmask:#x}" if rule.fwmask not in (0, 0xFFFFFFFF) else False,
        "iif": rule.iifname or False,
        "oif": rule.oifname or False,
        "l3mdev": None if rule.l3mdev else False,
        "ipproto": f"ipproto-{rule.ipproto}" if rule.ipproto is not None else False,
        "tun_id": rule.tun_id if rule.tun_id is not None else False,
        "table": str(rule.table) if rule.action == 1 and not rule.l3mdev else False,
        "suppress_prefixlen": rule.suppress_prefixlength
        if rule.suppress_prefixlength is not None
        else False,
        "suppress_ifgroup": str(rule.suppress_ifgroup) if rule.suppress_ifgroup is not None else False,
        "goto": rule.goto if rule.goto is not None else False,
        "protocol": str(rule.protocol),
    }
    if rule.src:
        said["src"], _, length = rule.src.partition("/")
        if int(length) < (32 if rule.family == AF_INET else 128):
            said["srclen"] = int(length)
    if rule.dst:
        said["dst"], _, length = rule.dst.partition("/")
        if int(length) < (32 if rule.family == AF_INET else 128):
            said["dstlen"] = int(length)
    if rule.uidrange:
        said["uid_start"], said["uid_end"] = rule.uidrange
    for word, span in (("sport", rule.sport), ("dport", rule.dport)):
        if span and span[0] == span[1]:
            said[word] = span[0]
        elif span:
            said[f"{word}_start"], said[f"{word}_end"] = span
    if rule.action not in (1, 2):
        said["action"] = str(rule.action)
    return {key: value for key, value in said.items() if value is not False}


def assert_rules_are_as_ip_says(netns: Netns, requests: Requests) -> None:
    for family, option in ((AF_INET, "-4"), (AF_INET6, "-6")):
        assert [rule_as_ip_says(rule) for rule in rules(requests, family)] == netns.json(
            f"{option} rule show"
        )


WRITTEN_RULES = [
    RuleMsg(AF_INET, 1000, src="10.0.0.0/24", dst="10.9.0.1/32", table=100, protocol=76),
    RuleMsg(AF_INET, 1001, iifname="v0", oifname="lo", fwmark=1, fwmask=0xFF, table=70000, flags=2),
    RuleMsg(
        AF_INET, 1002, fwmark=7, fwmask=0xFFFFFFFF, table=254, suppress_prefixlength=0, suppress_ifgroup=5
    ),
    RuleMsg(AF_INET, 1003, ipproto=6, sport=(1000, 2000), dport=(80, 80), uidrange=(5, 10), action=8),
    RuleMsg(AF_INET, 1004, tun_id=5, tos=16, action=2, goto=32766),
    RuleMsg(AF_INET6, 1005, src="2001:db8::/32", dst="2001:db8:9::/48", table=100),
    RuleMsg(AF_INET6, 1006, action=6),
]


@pytest.mark.parametrize("wanted", WRITTEN_RULES, ids=lambda rule: str(rule.priority))
def test_rules_are_written_and_deleted(wired: Netns, wanted: RuleMsg) -> None:
    requests = wired.requests()
    before = rules(requests, wanted.family)
    requests.request(RTM_NEWRULE, CREATE, encode_rule(**wanted._asdict()))
    assert_rules_are_as_ip_says(wired, requests)
    (found,) = (rule for rule in rules(requests, wanted.family) if rule not in before)
    assert found == wanted
    requests.request(RTM_DELRULE, 0, encode_rule(**wanted._asdict()))
    assert rules(requests, wanted.family) == before


def test_a_dscp_rule_where_the_kernel_knows_it(wired: Netns) -> None:
    requests = wired.requests()
    wanted = RuleMsg(AF_INET6, 1000, dscp=46, flowlabel=0x12345, flowlabel_mask=0xFFFFF, table=100)
    try:
        requests.request(RTM_NEWRULE, CREATE, encode_rule(**wanted._asdict()))
    except NetlinkError as error:
        pytest.skip(f"this kernel has no rules by DSCP and flow label: {error}")
    (found,) = (rule for rule in rules(requests, AF_INET6) if rule.priority == 1000)
    assert found == wanted


# --- neighbours -----------------------------------------------------------------------------------


def neighs(requests: Requests, *, proxy: bool = False) -> list[NeighMsg]:
    return [decode_neigh(*one) for one in requests.dump_all(RTM_GETNEIGH, query_neighs(proxy=proxy))]


WRITTEN_NEIGHBOURS = [
    NeighMsg(AF_INET, 100, "192.0.2.9", "02:00:00:00:00:09", NUD_PERMANENT, protocol=76),
    NeighMsg(AF_INET6, 101, "2001:db8::9", "02:00:00:00:00:0a", NUD_PERMANENT, flags=0x80),
    NeighMsg(AF_INET, 101, "192.0.2.10", flags=NTF_PROXY, protocol=76),
    NeighMsg(AF_INET6, 101, "2001:db8::a", flags=NTF_PROXY),
]


@pytest.mark.parametrize("wanted", WRITTEN_NEIGHBOURS, ids=lambda neigh: str(neigh.address))
def test_neighbours_are_written_looked_up_and_deleted(wired: Netns, wanted: NeighMsg) -> None:
    requests = wired.requests()
    proxy = bool(wanted.flags & NTF_PROXY)
    payload = encode_neigh(**wanted._asdict())
    requests.request(RTM_NEWNEIGH, CREATE, payload)
    (found,) = (neigh for neigh in neighs(requests, proxy=proxy) if neigh.address == wanted.address)
    assert found._replace(type=0) == wanted
    (reply,) = requests.request(
        RTM_GETNEIGH, 0, query_neigh(wanted.ifindex, str(wanted.address), proxy=proxy)
    )
    assert decode_neigh(reply.buf, reply.start, reply.end) == found
    said = wired.json(f"neigh show {'proxy ' if proxy else ''}{wanted.address}")
    expected: dict[str, Any] = {"dst": wanted.address, "dev": NAMES[wanted.ifindex]}
    if wanted.lladdr:
        expected["lladdr"] = wanted.lladdr
    if wanted.protocol:
        expected["protocol"] = str(wanted.protocol)
    assert {key: said[0].get(key) for key in expected} == expected
    requests.request(RTM_DELNEIGH, 0, payload)
    left = {neigh.address for neigh in neighs(requests, proxy=proxy) if neigh.state & NUD_PERMANENT or proxy}
    assert wanted.address not in left


def test_neighbours_are_filtered_by_link_and_proxies_are_apart(wired: Netns) -> None:
    wired.ip("neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev v0")
    wired.ip("neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev v1")
    wired.ip("neigh add proxy 192.0.2.10 dev v1")
    requests = wired.requests()

    def found(query: bytes) -> set[tuple[int, str | None]]:
        dump = (decode_neigh(*one) for one in requests.dump_all(RTM_GETNEIGH, query))
        return {
            (neigh.ifindex, neigh.address)
            for neigh in dump
            if neigh.address and neigh.address.startswith("192.0.2.")
        }

    assert found(query_neighs(AF_INET, ifindex=101)) == {(101, "192.0.2.9")}
    assert found(query_neighs()) == {(100, "192.0.2.9"), (101, "192.0.2.9")}
    assert found(query_neighs(AF_INET, proxy=True)) == {(101, "192.0.2.10")}
