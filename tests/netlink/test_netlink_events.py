# SPDX-License-Identifier: MIT
"""Events: what happened, where, by whose hand, and what was lost."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Callable

import pytest

from linxd.netlink.rt import (
    decode_addr,
    decode_link,
    decode_neigh,
    decode_route,
    decode_rule,
    encode_route,
    encode_rule,
)
from linxd.netlink.socket import Events, Overrun, open_netlink
from linxd.netlink.wire import (
    AF_BRIDGE,
    AF_INET,
    AF_UNSPEC,
    NLM_F_CREATE,
    NLM_F_EXCL,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RTM_NEWRULE,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    SOL_NETLINK,
    message,
)
from tests.netlink.netlink_bed import Netns, wait_for

CREATE = NLM_F_CREATE | NLM_F_EXCL


def routes(count: int, *, first: int = 0) -> list[tuple[int, int, bytes]]:
    return [
        (
            RTM_NEWROUTE,
            CREATE,
            encode_route(family=AF_INET, dst=f"10.{n >> 8}.{n & 255}.0/24", gateway="192.0.2.2"),
        )
        for n in range(first, first + count)
    ]


def test_each_kind_of_object_is_told_in_the_form_in_which_it_is_dumped(wired: Netns) -> None:
    events = wired.events(
        RTNLGRP_LINK,
        RTNLGRP_NEIGH,
        RTNLGRP_IPV4_IFADDR,
        RTNLGRP_IPV4_ROUTE,
        RTNLGRP_IPV4_RULE,
        RTNLGRP_IPV6_ROUTE,
    )
    wired.ip("link set v1 mtu 1400")
    links = [decode_link(m.buf, m.start, m.end) for m in events.read() if m.type == RTM_NEWLINK]
    assert [(link.name, link.mtu) for link in links if link.family == AF_UNSPEC][-1] == ("v1", 1400)

    wired.ip("addr add 192.0.2.7/24 dev v0")
    wired.ip("addr del 192.0.2.7/24 dev v0")
    addrs = [
        (m.type, decode_addr(m.buf, m.start, m.end))
        for m in events.read()
        if m.type in (RTM_NEWADDR, RTM_DELADDR)
    ]
    assert [(kind, addr.address, addr.ifindex) for kind, addr in addrs] == [
        (RTM_NEWADDR, "192.0.2.7", 100),
        (RTM_DELADDR, "192.0.2.7", 100),
    ]

    wired.ip("route add 10.0.0.0/8 via 192.0.2.2 metric 7")
    wired.ip("route del 10.0.0.0/8")
    wired.ip("route add 2001:db8:5::/48 via 2001:db8::2")
    found = [
        (m.type, decode_route(m.buf, m.start, m.end))
        for m in events.read()
        if m.type in (RTM_NEWROUTE, RTM_DELROUTE)
    ]
    assert [(kind, one.dst, one.metric) for kind, one in found] == [
        (RTM_NEWROUTE, "10.0.0.0/8", 7),
        (RTM_DELROUTE, "10.0.0.0/8", 7),
        (RTM_NEWROUTE, "2001:db8:5::/48", 1024),
    ]

    wired.ip("rule add from 10.0.0.0/8 table 100 priority 500")
    wired.ip("rule del priority 500")
    told = [m for m in events.read() if m.type in (RTM_NEWRULE, RTM_DELRULE)]
    rules = [(m.type, decode_rule(m.buf, m.start, m.end).src) for m in told]
    assert rules == [(RTM_NEWRULE, "10.0.0.0/8"), (RTM_DELRULE, "10.0.0.0/8")]

    wired.ip("neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev v0")
    wired.ip("neigh del 192.0.2.9 dev v0")
    told = [m for m in events.read() if m.type in (RTM_NEWNEIGH, RTM_DELNEIGH)]
    neighs = [(m.type, decode_neigh(m.buf, m.start, m.end)) for m in told]
    of_ours = [(kind, neigh.lladdr) for kind, neigh in neighs if neigh.address == "192.0.2.9"]
    assert of_ours[0] == (RTM_NEWNEIGH, "02:00:00:00:00:09")
    assert of_ours[-1][0] == RTM_DELNEIGH


def test_a_port_that_leaves_its_bridge_is_not_a_link_that_went(wired: Netns) -> None:
    wired.ip("link add br0 type bridge")
    wired.ip("link set v0 master br0")
    events = wired.events(RTNLGRP_LINK)
    wired.ip("link set v0 nomaster")
    gone = [decode_link(m.buf, m.start, m.end) for m in events.read() if m.type == RTM_DELLINK]
    assert [(link.name, link.family) for link in gone] == [("v0", AF_BRIDGE)]
    wired.ip("link del v0")
    gone = [decode_link(m.buf, m.start, m.end) for m in events.read() if m.type == RTM_DELLINK]
    assert {link.name for link in gone if link.family == AF_UNSPEC} == {"v0", "v1"}


def test_the_writers_port_id_is_its_pid(wired: Netns) -> None:
    events = wired.events(RTNLGRP_IPV4_ROUTE)
    writer = subprocess.Popen(["ip", "-n", wired.name, "route", "add", "10.0.0.0/8", "via", "192.0.2.2"])
    assert writer.wait() == 0
    assert [event.pid for event in events.read()] == [writer.pid]


def test_a_full_buffer_is_an_overrun_and_not_the_end(wired: Netns) -> None:
    requests = wired.requests()
    events = wired.events(RTNLGRP_IPV4_ROUTE, receive_buffer=4096)
    assert not any(requests.batch(routes(200)))
    wait_for(events.fileno())
    with pytest.raises(Overrun):
        events.read()
    events.read()
    assert events.read() == []
    assert not any(requests.batch(routes(2, first=200)))
    assert [decode_route(m.buf, m.start, m.end).dst for m in events.read()] == [
        "10.0.200.0/24",
        "10.0.201.0/24",
    ]


def test_the_usual_buffer_holds_a_burst_and_is_read_in_slices(wired: Netns) -> None:
    requests = wired.requests()
    events = wired.events(RTNLGRP_IPV4_ROUTE)
    assert not any(requests.batch(routes(5000)))
    found = []
    while slice_ := events.read(limit=64):
        assert len(slice_) <= 64
        found += slice_
    assert [decode_route(m.buf, m.start, m.end).dst for m in found] == [
        f"10.{n >> 8}.{n & 255}.0/24" for n in range(5000)
    ]


def test_words_of_other_processes_are_not_events(wired: Netns) -> None:
    events = wired.events(RTNLGRP_IPV4_ROUTE)
    with open_netlink(netns_fd=wired.fd) as liar:
        liar.bind((0, 0))
        liar.sendto(
            message(RTM_NEWROUTE, 0, 0, encode_route(family=AF_INET, dst="10.0.0.0/8")),
            (events.sock.getsockname()[0], 0),
        )
    wait_for(events.fileno())
    assert events.read() == []


def test_a_filter_keeps_what_is_not_wanted_out_of_the_queue(wired: Netns) -> None:
    events = wired.events(RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE)
    # BPF reads big-endian: let through what has nlmsg_type RTM_NEWRULE
    (wanted,) = struct.unpack(">H", struct.pack("=H", RTM_NEWRULE))
    events.attach_filter([(0x28, 0, 0, 4), (0x15, 0, 1, wanted), (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0)])
    requests = wired.requests()
    requests.batch([*routes(3), (RTM_NEWRULE, CREATE, encode_rule(family=AF_INET, priority=500, table=100))])
    assert [event.type for event in events.read()] == [RTM_NEWRULE]


def test_another_namespaces_events_come_with_its_id(make_netns: Callable[[], Netns]) -> None:
    outer, inner = make_netns(), make_netns()
    outer.ip(f"netns set {inner.name} 77")
    events = outer.events(RTNLGRP_IPV4_IFADDR, all_nsid=True)
    inner.ip("addr add 10.0.0.1/8 dev lo")
    outer.ip("addr add 10.0.0.2/8 dev lo")
    found = [(m.nsid, decode_addr(m.buf, m.start, m.end).address) for m in events.read()]
    assert found == [(77, "10.0.0.1"), (None, "10.0.0.2")]


def test_groups_above_32_can_be_joined(netns: Netns) -> None:
    events = netns.events(RTNLGRP_LINK, 33)  # RTNLGRP_BRVLAN
    joined = events.sock.getsockopt(SOL_NETLINK, 9, 8)  # NETLINK_LIST_MEMBERSHIPS
    assert struct.unpack("=II", joined) == (1, 1)


def test_reading_never_blocks_and_closing_leaves_nothing(netns: Netns) -> None:
    with Events(open_netlink(netns_fd=netns.fd), [RTNLGRP_LINK]) as events:
        assert events.read() == []
        assert os.get_blocking(events.fileno()) is False
        sock: socket.socket = events.sock
    assert sock.fileno() == -1
