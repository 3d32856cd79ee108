# SPDX-License-Identifier: MIT
"""Messages of nf_tables as the kernel sends them, spoilt: they are decoded, or refused as what they are.

Those of rtnetlink are tortured in tests/netlink. `LINXD_EXAMPLES` is how many of each there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linxd.netlink.socket import Requests, open_netlink
from linxd.netlink.wire import NETLINK_NETFILTER, WireError
from linxd.sources.netfilter.decode import assemble
from linxd.sources.netfilter.mirror import Mirror, Transaction, following
from linxd.sources.netfilter.reader import Reader
from linxd.sources.netfilter.state import TableId
from tests.torture.bed import Namespace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces are made")

EXAMPLES = int(os.environ.get("LINXD_EXAMPLES", 150))
RULESET = """
table inet t {
	counter hits { }
	quota q { over 10 mbytes }
	limit l { rate 5/second }
	set s {
		type ipv4_addr; flags interval, timeout; comment "one";
		elements = { 10.0.0.0/24 timeout 1h, 192.0.2.7 }
	}
	set d { type ipv4_addr; flags dynamic; size 100; }
	map m { type inet_service : verdict; elements = { 22 : accept, 53 : jump c } }
	map o { type ipv4_addr : mark; elements = { 10.0.0.1 : 7 } }
	chain c { counter name "hits" comment "two"; }
	chain input {
		type filter hook input priority -5; policy drop;
		ct state established,related accept
		ip saddr @s counter packets 5 bytes 6 drop
		tcp dport vmap @m
		tcp dport { 80, 443, 8000-8080 } limit rate 5/second burst 3 packets accept
		ip saddr . tcp dport { 10.0.0.1 . 22, 10.0.0.2 . 80 } accept
		meta mark set ip saddr map @o
		add @d { ip saddr limit rate 10/second } accept
		log prefix "seen " group 3
		reject with icmpx type admin-prohibited
		limit name "l" accept
	}
}
table ip nat {
	chain p { type nat hook prerouting priority -100; meta l4proto tcp dnat to 10.0.0.5:80; }
}
"""


@pytest.fixture(scope="module")
def sent() -> Iterator[list[tuple[int, bytes]]]:
    """What the kernel says of a ruleset with something of everything."""
    with Namespace() as namespace:
        namespace.nft(text=RULESET)
        with open(f"/run/netns/{namespace.name}", "rb") as there:
            sock = open_netlink(NETLINK_NETFILTER, netns_fd=there.fileno())
        with Requests(sock) as requests:
            tables: list[TableId] = [(1, "t"), (2, "nat")]

            async def breathe() -> None:
                pass

            yield asyncio.run(Reader(requests).messages(tables, breathe))


def put_together(messages: list[tuple[int, bytes]]) -> object:
    """As a look does; the last step is the tables."""
    return list(assemble(messages))[-1]


def test_what_is_not_spoilt_is_read(sent: list[tuple[int, bytes]]) -> None:
    tables = put_together(sent)
    assert isinstance(tables, dict)
    assert set(tables) == {(1, "t"), (2, "nat")}


spoil = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=4)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(which=st.integers(0, 1000), bytes_=spoil, cut=st.one_of(st.none(), st.integers(0, 400)))
def test_spoilt_messages_are_read_or_refused(
    sent: list[tuple[int, bytes]], which: int, bytes_: list[tuple[int, int]], cut: int | None
) -> None:
    """One message of a dump has other bytes, or ends early."""
    messages = list(sent)
    at = which % len(messages)
    kind, payload = messages[at]
    spoilt = bytearray(payload)
    for offset, value in bytes_:
        spoilt[offset % len(spoilt)] = value
    messages[at] = (kind, bytes(spoilt[:cut]))
    with contextlib.suppress(WireError):
        put_together(messages)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    picked=st.lists(
        st.tuples(st.integers(0, 1000), st.sampled_from(range(26)), spoil),
        min_size=1,
        max_size=6,
    )
)
def test_spoilt_events_are_followed_or_refused(
    sent: list[tuple[int, bytes]], picked: list[tuple[int, int, list[tuple[int, int]]]]
) -> None:
    """Events of any type, with the bytes of another and a few of nobody's."""
    tables = put_together(sent)
    assert isinstance(tables, dict)
    mirror = Mirror(wanted=frozenset(tables), others=True)
    mirror.taken(7, tables, {where: replace(table) for where, table in tables.items()})
    messages = []
    for which, kind, bytes_ in picked:
        payload = bytearray(sent[which % len(sent)][1])
        for offset, value in bytes_:
            payload[offset % len(payload)] = value
        messages.append(((10 << 8) | kind, bytes(payload)))
    with contextlib.suppress(WireError):
        mirror.apply(Transaction(following(7), frozenset(tables), messages))
