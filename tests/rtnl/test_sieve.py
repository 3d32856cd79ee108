# SPDX-License-Identifier: MIT
"""What the kernel need not tell: others' routes and neighbours don't wake us, and nothing that concerns an
object of ours is passed over.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from linxd.ledger import MemoryLedger
from linxd.netlink import rt, wire
from linxd.netlink.socket import Events, Requests, open_netlink
from linxd.patch import Claim, Entry
from linxd.sources.rtnl.apply import Applier
from linxd.sources.rtnl.events import GROUPS
from linxd.sources.rtnl.look import Index
from linxd.sources.rtnl.model import AF_INET, AF_INET6, PROTO_LINXD, Desired, Neighbour, Route
from linxd.sources.rtnl.sieve import MOST, overlooking, sieve

from .harness import World, batch, ip, pair, wait_for

ROUTES = (
    Route(AF_INET, "192.0.2.0/24", via="10.0.0.2"),
    Route(AF_INET, "198.51.100.0/24", table=1000, metric=7, dev="e0"),
    Route(AF_INET6, "fd11::/64", metric=1024, via="fd00::2"),
    Route(AF_INET6, "fd12::/64", metric=1024, dev="e0"),
)
NEIGHBOURS = (
    Neighbour("e0", AF_INET, "10.0.0.9", lladdr="02:00:00:00:00:09"),
    Neighbour("e0", AF_INET6, "fd00::9", lladdr="02:00:00:00:00:09"),
)
OURS = [
    "route add 192.0.2.0/24 via 10.0.0.2",
    "route append 192.0.2.0/24 via 10.0.0.3 proto bird",
    "route add 192.0.2.0/25 via 10.0.0.2",  # another one, with the same address
    "route add 198.51.100.0/24 dev e0 table 1000 metric 7",
    "route add blackhole 203.0.113.0/24",
    "route add default via 10.0.0.2",
    "route add fd11::/64 via fd00::2",
    "route add fd12::/64 dev e0",
    "route add fd13::/64 dev e0",
    "route add default via fd00::2",
    "route add 192.0.9.0/24 via 10.0.0.2 proto 76",  # another one, with our mark
    "route add fd14::/64 dev e0 proto 76",
    "neigh add 10.0.0.9 lladdr 02:00:00:00:00:07 dev e0",
    "neigh add fd00::9 lladdr 02:00:00:00:00:07 dev e0",
    "address add 10.1.0.1/24 dev e0",
    "rule add from 10.0.0.0/8 table 100",
]
THEIRS = [
    "route add 192.0.3.0/24 via 10.0.0.2",
    "route add 198.51.101.0/24 dev e0 table 1000 metric 7",
    "route add fd21::/64 via fd00::2",
    "neigh add 10.0.0.8 lladdr 02:00:00:00:00:07 dev e0",
    "neigh add fd00::8 lladdr 02:00:00:00:00:07 dev e0",
]


def prepared(netns: str) -> None:
    pair(netns)
    batch(netns, "address add 10.0.0.1/24 dev e0", "address add fd00::1/64 dev e0 nodad")
    wait_for(netns, "-6 route show table local dev e0", "local fd00::1 ")


def desired(*, foreign_remove: bool = False) -> Desired:
    return Desired(
        routes={route.key: route for route in ROUTES},
        neighbours={one.key: one for one in NEIGHBOURS},
        foreign_remove=foreign_remove,
    )


def events_in(netns: str) -> Events:
    fd = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return Events(open_netlink(netns_fd=fd), GROUPS)
    finally:
        os.close(fd)


def told(events: Events) -> list[str]:
    """Types and destinations of what was queued. Links are left out, and what IPv6 does on a link by itself:
    they have timers of their own."""
    found = []
    for message in events.read(4096):
        where = message.buf, message.start, message.end
        if message.type in (wire.RTM_NEWROUTE, wire.RTM_DELROUTE):
            dst = rt.decode_route(*where).dst
            if not dst.startswith(("fe80:", "ff00:")):
                found.append(f"route {dst}")
        elif message.type in (wire.RTM_NEWADDR, wire.RTM_DELADDR):
            address = rt.decode_addr(*where)
            if address.family == AF_INET:
                found.append(f"address {address.address}")
        elif message.type in (wire.RTM_NEWNEIGH, wire.RTM_DELNEIGH):
            neighbour = rt.decode_neigh(*where)
            if neighbour.lladdr == "02:00:00:00:00:07":
                found.append(f"neighbour {neighbour.address}")
        elif message.type not in (wire.RTM_NEWLINK, wire.RTM_DELLINK):
            found.append(str(message.type))
    return found


def test_the_kernel_passes_over_what_is_not_ours(netns: str) -> None:
    prepared(netns)
    owned = MemoryLedger()
    # Not declared any more, and in the ledger still.
    owned.put([(Route(AF_INET, "203.0.113.0/24", type=6).key, Entry(Claim.MADE))])
    with events_in(netns) as all_of_it, events_in(netns) as sifted:
        sifted.attach_filter(sieve(Index(desired()), owned))
        batch(netns, *OURS)
        expected = told(all_of_it)
        assert len(expected) >= len(OURS)
        # Of fd13::/64 nothing is declared.
        assert told(sifted) == [one for one in expected if one != "route fd13::/64"]
        batch(netns, *THEIRS)
        assert len(told(all_of_it)) == len(THEIRS)
        assert told(sifted) == []
        sifted.detach_filter()
        batch(netns, *(line.replace(" add ", " del ") for line in THEIRS if "route" in line))
        assert len(told(sifted)) == 3
        sifted.detach_filter()  # there is none


@pytest.mark.parametrize("case", ["foreign routes go", "very many are declared"])
def test_where_all_count_all_are_told(case: str, netns: str) -> None:
    prepared(netns)
    declared = desired(foreign_remove=case == "foreign routes go")
    if case == "very many are declared":
        many = [Route(AF_INET, f"172.{n >> 8}.{n & 255}.0/24", via="10.0.0.2") for n in range(MOST + 1)]
        declared = Desired(routes={route.key: route for route in many}, neighbours=declared.neighbours)
    with events_in(netns) as sifted:
        sifted.attach_filter(sieve(Index(declared), MemoryLedger()))
        batch(netns, *THEIRS)
        assert told(sifted)[:3] == ["route 192.0.3.0/24", "route 198.51.101.0/24", "route fd21::/64"]


@pytest.mark.parametrize("count", [0, 1, MOST // 2, MOST])
def test_the_kernel_takes_the_program(count: int, netns: str) -> None:
    made = [Route(AF_INET, f"172.{n >> 8}.{n & 255}.0/24", via="10.0.0.2") for n in range(count // 2)]
    made += [Route(AF_INET6, f"fd01:{n + 1:x}::/64", metric=1024, dev="e0") for n in range(count // 2)]
    neighbours = [Neighbour("e0", AF_INET, f"10.0.{n >> 8}.{n & 255}") for n in range(count)]
    declared = Desired(
        routes={route.key: route for route in made}, neighbours={one.key: one for one in neighbours}
    )
    with events_in(netns) as events:
        events.attach_filter(sieve(Index(declared), MemoryLedger()))


def test_what_is_declared_later_is_heard_of(netns: str, tmp_path: Path) -> None:
    prepared(netns)
    first = '[link.e0]\n[[route]]\nto = "192.0.2.0/24"\nvia = "10.0.0.2"\n'
    second = first + '[[route]]\nto = "198.51.100.0/24"\nvia = "10.0.0.2"\n'
    second += '[[route]]\nto = "fd11::/64"\nvia = "fd00::2"\n'

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            async with world.kept(first):
                assert world.loop is not None
                world.declare(second)
                world.loop.declare(world.desired)
                await world.until(lambda: "via" in ip(netns, "-6 route show fd11::/64"))
                for gone in (
                    "-6 route del fd11::/64",
                    "route del 198.51.100.0/24",
                    "route del 192.0.2.0/24",
                ):
                    ip(netns, gone)
                    show = gone.replace(" del ", " show ")
                    await world.until(lambda show=show: "via" in ip(netns, show))
        finally:
            world.close()

    asyncio.run(story())


def test_routes_that_a_socket_makes_itself_are_overlooked_and_nothing_else(netns: str) -> None:
    prepared(netns)
    fd = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        ours, others = (Requests(open_netlink(netns_fd=fd)) for _ in range(2))
    finally:
        os.close(fd)
    index = int(ip(netns, "link show e0").partition(":")[0])

    def route(dst: str, proto: int = PROTO_LINXD) -> tuple[int, int, bytes]:
        payload = rt.encode_route(family=AF_INET, dst=dst, protocol=proto, oif=index, gateway="10.0.0.2")
        return wire.RTM_NEWROUTE, wire.NLM_F_CREATE | wire.NLM_F_EXCL, payload

    try:
        with events_in(netns) as sifted:
            program = sieve(Index(desired(foreign_remove=True)), MemoryLedger())
            sifted.attach_filter(overlooking(program, ours.portid))
            ours.request(*route("192.0.2.0/24"))
            ours.request(*route("192.0.3.0/24", proto=4))
            others.request(*route("192.0.4.0/24"))
            ip(netns, "route del 192.0.2.0/24")
            ours.request(wire.RTM_DELROUTE, 0, route("192.0.4.0/24")[2])
            assert told(sifted) == [
                "route 192.0.3.0/24", "route 192.0.4.0/24", "route 192.0.2.0/24", "route 192.0.4.0/24",
            ]  # fmt: skip
    finally:
        ours.close()
        others.close()


def test_of_very_many_that_are_made_none_is_told_and_of_one_that_goes_meanwhile_or_later(
    netns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(netns)
    count = 1500
    text = "[link.e0]\n" + "".join(
        f'[[route]]\nto = "172.16.{n >> 8}.{n & 255}/32"\nvia = "10.0.0.2"\n' for n in range(count)
    )
    read: list[int] = []
    real = Events.read

    def counted(self: Events, most: int) -> list[wire.Message]:
        messages = real(self, most)
        read.extend(message.type for message in messages)
        return messages

    monkeypatch.setattr(Events, "read", counted)
    everything = "route show root 172.16.0.0/16"

    async def story() -> None:
        world = World(netns, tmp_path)
        batches: list[list[str]] = []
        real_batch = Applier._batch

        def batched(self: Applier, *rest: Any) -> Any:
            batches.append(ip(netns, everything).splitlines())
            if len(batches) == 2:
                # Some hundreds are there by now.
                ip(netns, f"route del {batches[1][0].split()[0]}")
            return real_batch(self, *rest)

        monkeypatch.setattr(Applier, "_batch", batched)
        try:
            async with world.kept(text):
                await world.until(lambda: len(ip(netns, everything).splitlines()) == count)
                assert len(batches) > 2
                assert read.count(wire.RTM_NEWROUTE) < 50
                assert wire.RTM_DELROUTE in read
                read.clear()
                ip(netns, "route del 172.16.0.4")
                await world.until(lambda: "via" in ip(netns, "route show 172.16.0.4"))
                # They are overlooked for as long as they are made.
                await world.until(lambda: wire.RTM_NEWROUTE in read)
        finally:
            world.close()

    asyncio.run(story())
