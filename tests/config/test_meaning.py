# SPDX-License-Identifier: MIT
"""What a file comes to: what leaving a key out means, and the kernel's form of what is written."""

from __future__ import annotations

from typing import Any

import pytest

from linxd.config import Attach, NetnsRef, ScopeConfig, declare
from linxd.sources.rtnl.model import (
    AF_INET,
    AF_INET6,
    SCOPES,
    Address,
    LinkRef,
    Neighbour,
    Peer,
    Route,
    Rule,
)


def quietly(raw: dict[str, Any], scope: str = "c1") -> ScopeConfig:
    """A configuration about which there is nothing to say."""
    config = declare(scope, raw)
    assert config.warnings == ()
    return config


def address(entry: Any) -> Address:
    (item,) = quietly({"link": {"eth0": {"addresses": [entry]}}}).rtnl.addresses.values()
    return item


def route(**values: Any) -> Route:
    (item,) = quietly({"route": [values]}).rtnl.routes.values()
    return item


def rules(**values: Any) -> list[Rule]:
    return list(quietly({"rule": [values]}).rtnl.rules.values())


# --- the scope ---------------------------------------------------------------------------------------------


def test_everything_of_a_scope_may_be_left_out() -> None:
    config = quietly({})
    assert (config.netns, config.resync) == (NetnsRef("path", "/run/netns/c1"), 30.0)
    assert (config.on_stop, config.foreign, config.on_conflict) == ("keep", "keep", "refuse")
    assert (config.netfilter, config.sysctl, config.attach) == (None, None, ())
    assert not config.rtnl.foreign_remove
    assert not config.rtnl.take


def test_the_hosts_namespace_is_its_own() -> None:
    assert quietly({}, "host").netns == NetnsRef("host")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("0", 0),
        ("2min", 120),
        ("1h", 3600),
        ("1min 30s", 90),
        ("1.5min", 90),
        ("1500ms", 1.5),
        ("1d", 86400),
    ],
)
def test_a_time_span_is_systemds(text: str, seconds: float) -> None:
    assert quietly({"scope": {"resync": text}}).resync == seconds


@pytest.mark.parametrize(
    ("text", "netns"),
    [
        ("/run/netns/x", NetnsRef("path", "/run/netns/x")),
        ("/var/run/netns/x", NetnsRef("path", "/run/netns/x")),
        ("/proc/7/ns/net", NetnsRef("path", "/proc/7/ns/net")),
        ("pid:1234", NetnsRef("pid", "1234")),
        ("unit:machine-web\\x2d1.scope", NetnsRef("unit", "machine-web\\x2d1.scope")),
    ],
)
def test_a_namespace_is_a_path_a_process_or_a_units(text: str, netns: NetnsRef) -> None:
    assert quietly({"scope": {"netns": text}}).netns == netns
    assert str(netns) == text.replace("/var/run", "/run")


def test_the_scopes_policy_reaches_every_source() -> None:
    raw = {"scope": {"foreign": "remove", "on-conflict": "take"}, "netfilter": {}, "sysctl": {}}
    config = quietly(raw)
    assert config.rtnl.foreign_remove
    assert config.rtnl.take
    assert config.netfilter is not None
    assert config.netfilter.foreign_remove
    assert config.netfilter.take
    raw["netfilter"] = {"on-conflict": "refuse"}
    config = quietly(raw)
    assert config.netfilter is not None
    assert not config.netfilter.take


# --- links -------------------------------------------------------------------------------------------------


def test_up_is_true_with_a_kind_or_with_something_on_the_link_and_else_unmanaged() -> None:
    links = quietly(
        {
            "link": {
                "br0": {"kind": "bridge"},
                "eth0": {"mtu": 1500},
                "eth1": {"addresses": ["10.0.0.5/24"]},
                "eth2": {},
                "eth3": {},
                "eth4": {"up": False, "addresses": ["10.1.0.5/24"]},
                "eth5": {"kind": "dummy", "up": False},
            },
            "route": [
                {"to": "10.2.0.0/16", "dev": "eth2"},
                {"to": "10.3.0.0/16", "nexthops": [{"dev": "eth3"}, {"dev": "br0"}]},
            ],
        }
    ).rtnl.links
    assert {name: link.up for name, link in links.items()} == {
        "br0": True, "eth0": None, "eth1": True, "eth2": True, "eth3": True, "eth4": False, "eth5": False,
    }  # fmt: skip


def test_what_is_left_out_of_a_link_is_unmanaged() -> None:
    link = quietly({"link": {"eth0": {}}}).rtnl.links["eth0"]
    assert (link.kind, link.up, link.master, link.parent, link.peer, link.take) == (None,) * 6
    assert (link.attributes, link.options, link.port) == ({}, {}, {})


def test_no_master_is_not_the_same_as_none_said() -> None:
    assert quietly({"link": {"eth0": {"master": ""}}}).rtnl.links["eth0"].master == ""


def test_a_parent_is_here_or_in_the_host() -> None:
    links = quietly(
        {
            "link": {
                "a": {"kind": "macvlan", "parent": "eth0"},
                "b": {"kind": "ipvlan", "parent": "host:eno1", "mode": "l3", "mac": "02:00:00:00:00:0A"},
            }
        }
    ).rtnl.links
    assert (links["a"].parent, links["b"].parent) == (LinkRef("eth0"), LinkRef("eno1", "host"))
    assert (links["b"].options, links["b"].attributes) == ({"mode": "l3"}, {"mac": "02:00:00:00:00:0a"})


def test_a_peer_is_up_and_here_unless_it_says_otherwise() -> None:
    links = quietly(
        {
            "link": {
                "a": {"kind": "veth", "peer": {"name": "b"}},
                "c": {
                    "kind": "veth",
                    "peer": {"name": "d", "scope": "host", "up": False, "master": "br0", "mtu": 9000},
                },
            }
        }
    ).rtnl.links
    assert links["a"].peer == Peer("b")
    assert links["c"].peer == Peer("d", "host", up=False, master="br0", mtu=9000)


def test_an_attribute_that_every_link_has_and_a_kind_too_is_the_kinds() -> None:
    links = quietly(
        {
            "link": {
                "vx0": {"kind": "vxlan", "id": 1, "group": "239.1.1.1", "parent": "eth0"},
                "br0": {"kind": "bridge", "group": "default"},
            }
        }
    ).rtnl.links
    assert links["vx0"].options["group"] == "239.1.1.1"
    assert links["br0"].attributes == {"group": 0}


def test_a_vrfs_table_may_have_a_name() -> None:
    assert quietly({"link": {"v": {"kind": "vrf", "table": "main"}}}).rtnl.links["v"].options == {
        "table": 254
    }


# --- addresses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("10.0.0.5/24", "global"),
        ("127.0.0.2/8", "host"),
        ("169.254.0.1/16", "global"),
        ("fd00::1/64", "global"),
        ("fe80::1/64", "link"),
        ("febf::1/64", "link"),
        ("fec0::1/64", "site"),
        ("fe8::1/64", "global"),
        ("::1/128", "host"),
    ],
)
def test_the_scope_of_an_address_is_derived(text: str, scope: str) -> None:
    assert address(text).scope == SCOPES[scope]


def test_an_address_is_in_the_kernels_form() -> None:
    assert address("FD00:0:0::5/64") == Address("eth0", AF_INET6, "fd00::5", 64)
    assert address("10.0.0.5/24") == Address("eth0", AF_INET, "10.0.0.5", 24)
    assert address("::ffff:10.0.0.5/128").address == "::ffff:10.0.0.5"


def test_an_address_with_all_it_can_have() -> None:
    item = address(
        {
            "address": "10.0.0.5/24", "label": "eth0:1", "broadcast": "+", "scope": "link", "metric": 7,
            "noprefixroute": True, "nodad": False, "on-conflict": "refuse",
        }
    )  # fmt: skip
    assert item == Address(
        "eth0", AF_INET, "10.0.0.5", 24, None, "eth0:1", "10.0.0.255", SCOPES["link"], 7, 0x200, take=False
    )


def test_a_label_that_is_the_links_name_is_none() -> None:
    assert address({"address": "10.0.0.5/24", "label": "eth0"}).label is None


@pytest.mark.parametrize(
    "entry",
    [
        {"address": "10.0.0.1/32", "peer": "10.0.0.2"},
        {"address": "10.0.0.1/32", "peer": "10.0.0.2/32"},
        {"address": "10.0.0.1", "peer": "10.0.0.2/32"},
    ],
)
def test_with_a_peer_the_length_is_the_peers(entry: dict[str, str]) -> None:
    item = address(entry)
    assert (item.address, item.prefixlen, item.peer) == ("10.0.0.1", 32, "10.0.0.2")


# --- routes ------------------------------------------------------------------------------------------------


def test_a_route_left_as_short_as_possible() -> None:
    assert route(to="default", via="10.0.0.1") == Route(AF_INET, "0.0.0.0/0", via="10.0.0.1", scope=0)
    assert route(to="default", via="fd00::1") == Route(AF_INET6, "::/0", via="fd00::1", scope=0, metric=1024)
    assert route(to="10.0.0.9", dev="eth0") == Route(AF_INET, "10.0.0.9/32", dev="eth0", scope=253)


@pytest.mark.parametrize(
    ("values", "scope"),
    [
        ({"to": "10.0.0.0/8", "via": "10.0.0.1"}, "global"),
        ({"to": "10.0.0.0/8", "dev": "eth0"}, "link"),
        ({"to": "10.0.0.0/8", "dev": "lo", "type": "local"}, "host"),
        ({"to": "10.0.0.0/8", "dev": "eth0", "type": "broadcast"}, "link"),
        ({"to": "10.0.0.0/8", "type": "blackhole"}, "global"),
        ({"to": "10.0.0.0/8", "dev": "eth0", "scope": "global"}, "global"),
        ({"to": "10.0.0.0/8", "nexthops": [{"via": "10.0.0.1"}, {"via": "10.0.0.2"}]}, "global"),
        ({"to": "fd00::/8", "dev": "eth0"}, "global"),
    ],
)
def test_the_scope_of_a_route_is_derived(values: dict[str, Any], scope: str) -> None:
    assert route(**values).scope == SCOPES[scope]


@pytest.mark.parametrize(
    ("values", "family"),
    [
        ({"via": "10.0.0.1"}, AF_INET),
        ({"via": "fe80::1", "dev": "eth0"}, AF_INET6),
        ({"via": "fe80::1", "dev": "eth0", "src": "10.0.0.1"}, AF_INET),
        ({"via": "inet6 fe80::1", "dev": "eth0", "family": "inet"}, AF_INET),
        ({"dev": "eth0", "prefsrc": "fd00::1"}, AF_INET6),
        ({"nexthops": [{"via": "fe80::1", "dev": "eth0"}, {"via": "10.0.0.1"}]}, AF_INET),
        ({"dev": "eth0", "family": "inet6"}, AF_INET6),
    ],
)
def test_the_family_of_a_default_route_is_what_tells_it(values: dict[str, Any], family: int) -> None:
    assert route(to="default", **values).family == family


def test_an_ipv6_metric_of_0_is_the_kernels_1024() -> None:
    assert route(to="fd00::/8", dev="eth0", metric=0).metric == 1024
    assert route(to="10.0.0.0/8", dev="eth0", metric=0).metric == 0


def test_one_next_hop_is_a_plain_route() -> None:
    one = route(to="10.0.0.0/8", nexthops=[{"via": "10.1.0.1", "dev": "eth0", "weight": 7, "onlink": True}])
    assert (one.via, one.dev, one.onlink, one.nexthops) == ("10.1.0.1", "eth0", True, ())


def test_metrics_are_in_the_kernels_numbers() -> None:
    item = route(
        to="10.0.0.0/8",
        dev="eth0",
        mtu="lock 1400",
        rtt="100ms",
        rttvar=5,
        rto_min="40ms",
        features="ecn",
        quickack=True,
    )
    assert item.metrics == ((1, 1 << 2 | 1 << 13), (2, 1400), (4, 800), (5, 5), (12, 1), (13, 40), (15, 1))


# --- rules, neighbours, sysctls ----------------------------------------------------------------------------


def test_a_rule_for_both_families_is_two() -> None:
    assert [rule.family for rule in rules(family="both", table=7)] == [AF_INET, AF_INET6]


def test_a_rule_without_priority_stays_without() -> None:
    (rule,) = rules(**{"from": "10.0.0.0/8"}, table="main")
    assert rule == Rule(AF_INET, None, src="10.0.0.0/8", table=254)


def test_selectors_in_the_kernels_form() -> None:
    (rule,) = rules(
        family="inet", fwmark="0x10", uidrange="7", sport=80, dport="1024-2047", ipproto="udp",
        to="0.0.0.0/0", dscp="EF", tun_id="0xffffffffffffffff", action="prohibit",
    )  # fmt: skip
    assert rule == Rule(
        AF_INET, fwmark=(16, 0xFFFFFFFF), uidrange=(7, 7), sport=(80, 80), dport=(1024, 2047), ipproto=17,
        dscp=46, tun_id=(1 << 64) - 1, action=8,
    )  # fmt: skip


def test_neighbours_are_permanent_or_proxies() -> None:
    found = quietly(
        {
            "neighbour": [
                {"address": "10.0.0.9", "dev": "eth0", "lladdr": "2:0:0:0:0:A"},
                {"address": "FD00::9", "dev": "eth0", "proxy": True},
            ]
        }
    ).rtnl.neighbours
    assert list(found.values()) == [
        Neighbour("eth0", AF_INET, "10.0.0.9", "02:00:00:00:00:0a"),
        Neighbour("eth0", AF_INET6, "fd00::9", proxy=True),
    ]


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", ("net", "ipv4", "ip_forward")),
        ("net/ipv4/ip_forward", ("net", "ipv4", "ip_forward")),
        ("net.ipv4.conf.eth0/100.rp_filter", ("net", "ipv4", "conf", "eth0.100", "rp_filter")),
        ("net/ipv4/conf/eth0.100/rp_filter", ("net", "ipv4", "conf", "eth0.100", "rp_filter")),
        ("net.ipv6.conf.*.accept_ra", ("net", "ipv6", "conf", "*", "accept_ra")),
    ],
)
def test_sysctl_keys_are_those_of_sysctl8(key: str, path: tuple[str, ...]) -> None:
    desired = quietly({"sysctl": {key: 1}}).sysctl
    assert desired is not None
    assert desired.settings[0].path == path


def test_sysctl_values_are_text() -> None:
    desired = quietly(
        {"sysctl": {"net.a": 1, "net.b": " x ", "net.c": [1, "2", 3], "net.d": [], "net.e": {"value": -1}}}
    )
    assert desired.sysctl is not None
    assert [setting.value for setting in desired.sysctl.settings] == ["1", "x", "1 2 3", "", "-1"]
    assert all(setting.restore for setting in desired.sysctl.settings)


def test_the_host_may_set_what_is_not_of_a_namespace() -> None:
    desired = quietly({"sysctl": {"kernel.sysrq": 176}}, "host").sysctl
    assert desired is not None
    assert desired.host


# --- attach ------------------------------------------------------------------------------------------------


def attach(unit: str, scope: str) -> Attach:
    (item,) = quietly({"attach": [{"unit": unit, "scope": scope}]}, "host").attach
    return item


@pytest.mark.parametrize(
    ("unit", "scope"),
    [
        ("machine-c1.scope", "c1"),
        ("machine-web\\x2d1.scope", "web-1"),
        ("machine-web-1.scope", "web-1"),
        ("machine-a\\x2fb.scope", None),
        ("machine-host.scope", None),
        ("machine-.scope", None),
        ("machine-\\x2dx.scope", None),
        ("xmachine-c1.scope", None),
        ("machine-c1.scope.d", None),
        ("libpod-conmon-1234.scope", None),
    ],
)
def test_a_units_scope(unit: str, scope: str | None) -> None:
    assert attach("(?:machine-|libpod-)(?P<name>.*)\\.scope", "{name}").scope_for(unit) == scope


def test_a_scope_may_be_put_together_of_groups_and_text() -> None:
    item = attach("(?P<a>[a-z]+)-(?P<b>[0-9]+)(?P<c>x)?\\.service", "pod-{b}-{a}{c}")
    assert item.scope_for("web-7.service") == "pod-7-web"
    assert item.scope_for("web-7x.service") == "pod-7-webx"


def test_objects_know_where_they_were_declared() -> None:
    config = declare("c1", {"route": [{"to": "default", "via": "10.0.0.1"}]}, origin="the caller")
    (item,) = config.rtnl.routes.values()
    assert str(item.where) == "the caller:1"
