# SPDX-License-Identifier: MIT
"""What is captured declares what is there: a file written from it finds nothing to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from linxd.config.model import NetnsRef, ScopeConfig
from linxd.config.write import write
from linxd.netlink.socket import Requests, open_netlink
from linxd.sources.rtnl.capture import capture, fresh_links

from .harness import World, batch, ip


def test_a_captured_namespace_needs_nothing_done(netns_factory: Callable[[], str], tmp_path: Path) -> None:
    name, scratch = netns_factory(), netns_factory()
    batch(
        name,
        "link set lo up",
        "link add br0 type bridge forward_delay 900 mcast_snooping 0",
        "link add v0 mtu 1400 type veth peer name v1",
        "link set v0 master br0 up",
        "link set v0 type bridge_slave hairpin on",
        "link set br0 up",
        "link set v1 up alias outside",
        "link add mv0 link v1 type macvlan mode private",
        "link add vx0 type vxlan id 9 remote 10.0.0.2 local 10.0.0.1 dstport 4789 ttl 5",
        "address add 10.0.0.1/24 brd + dev br0",
        "address add 10.0.0.9/32 dev br0 label br0:a",
        "address add fd00::1/64 dev br0 nodad",
        "address add 10.1.0.1/24 dev v1",
        "route add default via 10.0.0.254",
        "route add 192.0.2.0/24 via 10.0.0.253 metric 7 mtu 1300 src 10.0.0.9",
        "route add 198.51.100.0/24 nexthop via 10.0.0.3 weight 2 nexthop via 10.1.0.3",
        "route add blackhole 203.0.113.0/24 table 100",
        "route add fd01::/64 via fd00::2",
        "route add unreachable fd02::/64",
        "rule add from 10.0.0.0/24 lookup 100 priority 500",
        "rule add fwmark 0x5/0xff iif br0 prohibit priority 501",
        "neighbour add 10.0.0.7 lladdr 02:00:00:00:00:07 dev br0 nud permanent",
        "neighbour add proxy 10.0.0.8 dev br0",
    )
    ip(name, "-6 rule add to fd01::/64 lookup 100 priority 502 suppress_prefixlength 0")
    world = World(name, tmp_path)
    with (
        Path("/run/netns", scratch).open("rb") as fd,
        Requests(open_netlink(netns_fd=fd.fileno())) as other,
    ):
        desired = capture(world.requests, fresh_links(other))
    text = write(ScopeConfig(name=name, netns=NetnsRef("path", f"/run/netns/{name}"), rtnl=desired))
    try:
        report = asyncio.run(world.go(text))
        assert [op.describe() for op in report.drifted] == [], text
        assert report.conditions == ()
        assert world.writes() == []
    finally:
        world.close()
    for words in (
        "forward_delay = 900",
        "mcast_snooping = false",
        "hairpin = true",
        'mode = "private"',
        "metric = 7",
    ):
        assert words in text, text
    assert len(desired.rules) == 3
    assert len(desired.neighbours) == 2
