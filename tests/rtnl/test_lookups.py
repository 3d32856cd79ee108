# SPDX-License-Identifier: MIT
"""A few routes of ours among a crowd of others' are asked for one by one, and what is found out so is what a
dump would have said: held against the plan of a source that reads everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from linxd.netlink import wire
from linxd.source import Pass
from linxd.sources.rtnl.routereader import CROWD

from .harness import World, batch, ip

FOREIGN = CROWD + 2500
DECLARED = """
    [link.e0]
    addresses = ["10.0.0.1/24", "10.0.1.1/30"]
    [[route]]
    to = "192.0.2.0/24"
    via = "10.0.0.2"
    [[route]]
    to = "192.0.3.0/24"
    via = "10.0.0.2"
    dev = "e0"
    metric = 50
    [[route]]
    to = "192.0.4.9"
    dev = "e0"
    [[route]]
    to = "192.0.5.2/31"
    via = "10.0.0.3"
    mtu = 1400
    [[route]]
    to = "default"
    via = "10.0.0.2"
    [[route]]
    to = "192.0.6.0/24"
    nexthops = [{ via = "10.0.0.2" }, { via = "10.0.0.3", weight = 2 }]
"""
ODD = [
    '[[route]]\nto = "192.0.7.0/24"\ntype = "blackhole"\n',
    '[[route]]\nto = "192.0.7.0/24"\nvia = "10.0.0.2"\ntable = 1000\n',
    '[[route]]\nto = "192.0.2.0/24"\nvia = "10.0.0.3"\nmetric = 7\n',
]
"""What no question tells of: the kernel answers with an error, with another table's, with a better one."""
SPOILS = [
    "route del 192.0.2.0/24",
    "route replace 192.0.2.0/24 via 10.0.0.3",
    "route replace 192.0.2.0/24 via 10.0.0.3 proto 76",
    "route replace 192.0.2.0/24 via 10.0.0.3 proto bird",
    "route prepend 192.0.2.0/24 via 10.0.0.7",
    "route prepend 192.0.2.0/24 via 10.0.0.7 proto bird",
    "route append 192.0.2.0/24 via 10.0.0.7",
    "route del 192.0.3.0/24",
    "route replace 192.0.3.0/24 via 10.0.0.7 metric 50",
    "route del 192.0.4.9",
    "route del 192.0.5.2/31",
    "route replace 192.0.5.2/31 via 10.0.0.3 proto 76",
    "route del default",
    "route prepend default via 10.0.0.8",
    "route del 192.0.6.0/24",
    "route replace 192.0.6.0/24 proto 76 nexthop via 10.0.0.2 nexthop via 10.0.0.3",
    "route del 10.0.0.0/24",
    "route del 10.0.1.0/30",
    "route replace 10.0.1.0/30 dev far0 scope link",
    "route del 172.16.4.0/24",
    "address del 10.0.1.1/30 dev e0",
]

HIDING = [
    "route add 192.0.2.128/25 via 10.0.0.7",
    "route add 192.0.2.0/24 via 10.0.0.7 metric 9",
    "route add 192.0.3.0/24 via 10.0.0.7 metric 9",
    "route add 240.0.0.0/4 via 10.0.0.8",
    "route add 10.0.0.128/25 via 10.0.0.7",
    "rule add priority 5 to 192.0.3.0/24 table 2000",
    "rule add priority 6 from all unreachable",
    "route add 192.0.2.0/24 via 10.0.0.9 table 2000",
]
"""In front of these no question leads to ours. Whatever stands between them, and in front of ours, is met by
the next look at everything."""


def prepared(netns: str) -> None:
    batch(netns, "link set lo up", "link add e0 type veth peer name far0", "link set far0 up")
    batch(netns, "link set e0 up", "address add 10.0.0.1/24 dev e0")
    batch(
        netns,
        *(f"route add 172.{16 + (n >> 8)}.{n & 255}.0/24 via 10.0.0.2 proto bird" for n in range(FOREIGN)),
    )


@contextlib.asynccontextmanager
async def at_rest(netns: str, directory: Path, text: str, *, told: bool = True) -> AsyncIterator[World]:
    """A scope that hears events and heeds none: whatever goes has gone without a word."""
    world = World(netns, directory)
    subscription = None
    try:
        world.declare(text)
        if told:
            subscription = world.source.subscribe(lambda hint: None)
        await world.settle()
        await world.quiet()
        yield world
    finally:
        if subscription is not None:
            subscription.close()
        world.close()


def asked(sent: list[bytes]) -> tuple[int, int]:
    """Questions for single IPv4 routes, and dumps of all."""
    found = [m for datagram in sent for m in wire.messages(datagram) if m.type == wire.RTM_GETROUTE]
    four = [m for m in found if m.buf[m.start] == wire.AF_INET]
    dumps = [m for m in four if m.flags & wire.NLM_F_DUMP]
    return len(four) - len(dumps), len(dumps)


def test_a_quiet_resync_asks_for_each_and_dumps_nothing(netns: str, tmp_path: Path) -> None:
    prepared(netns)

    async def story() -> None:
        async with at_rest(netns, tmp_path, DECLARED) as world:
            before = len(world.sent)
            await world.quiet()
            assert asked(world.sent[before:]) == (len(world.desired.routes) + 2, 0)

    asyncio.run(story())


@pytest.mark.parametrize("case", ["nobody tells of what comes", "there is no crowd", "foreign routes go"])
def test_otherwise_they_are_dumped(case: str, netns: str, tmp_path: Path) -> None:
    prepared(netns)
    if case == "there is no crowd":
        ip(netns, "route flush proto bird")

    async def story() -> None:
        text = DECLARED + ('[scope]\nforeign = "remove"\n' if "go" in case else "")
        async with at_rest(netns, tmp_path, text, told="nobody" not in case) as world:
            before = len(world.sent)
            await world.quiet()
            questions, dumps = asked(world.sent[before:])
            assert questions == 0
            assert dumps >= 2

    asyncio.run(story())


@pytest.mark.parametrize("odd", ["", *ODD])
def test_what_is_found_is_what_a_look_at_everything_finds(odd: str, netns: str, tmp_path: Path) -> None:
    prepared(netns)
    chance = random.Random(odd)

    async def story() -> None:
        async with at_rest(netns, tmp_path, DECLARED + odd.replace("\n", "\n    ")) as world:
            hidden = odd == ODD[-1]
            seen = [one for one in SPOILS if not (hidden and "prepend 192.0.2.0/24" in one)]
            singles = [[spoil] for spoil in (*seen, *HIDING)]
            pairs = [chance.sample(seen, 2) for _ in range(len(SPOILS))]
            for spoils in [*singles, *pairs] if not odd else chance.sample([*singles, *pairs], 20):
                assert [spoil for spoil in spoils if tried(netns, spoil)], spoils
                expected = await world.plan()
                report = await world.source.reconcile(Pass(world.desired, world.ledger, write=False))
                found = sorted(op.describe() for op in report.drifted)
                assert found == sorted(op.describe() for op in expected.ops), spoils
                conflicts = {c.key for c in expected.conditions}
                assert conflicts == {c.key for c in report.conditions if not c.paused}, spoils
                for spoil in reversed(spoils):
                    undo(netns, spoil)
                await world.settle()

    asyncio.run(story())


@pytest.mark.parametrize("gone", ["192.0.2.0/24", "10.0.1.0/30"])
def test_the_same_route_in_another_table_is_another_one(gone: str, netns: str, tmp_path: Path) -> None:
    prepared(netns)
    # One that was there before bears no mark of ours, and so may a copy of it.
    ip(netns, "route add 192.0.2.0/24 via 10.0.0.2 proto static")

    async def story() -> None:
        async with at_rest(netns, tmp_path, DECLARED) as world:
            there = ip(netns, f"route show {gone} table main").strip()
            ip(netns, f"route add {there.replace(' linkdown', '')} table 1000")
            ip(netns, f"rule add priority 5 to {gone} table 1000")
            await world.quiet()
            ip(netns, f"route del {gone} table main")
            report = await world.go()
            assert len(report.applied) == 1
            assert ip(netns, f"route show {gone} table main").strip() == there

    asyncio.run(story())


def test_for_one_traffic_class_nothing_is_asked(netns: str, tmp_path: Path) -> None:
    prepared(netns)
    both = "[[route]]\nto = '192.0.2.0/24'\nvia = '10.0.0.2'\ntos = 8\n"

    async def story() -> None:
        async with at_rest(netns, tmp_path, DECLARED + both.replace("\n", "\n    ")) as world:
            before = len(world.sent)
            ip(netns, "route del 192.0.2.0/24 tos 8")
            assert [op.describe() for op in (await world.go()).applied] == [
                "create route 192.0.2.0/24 via 10.0.0.2 tos 0x08"
            ]
            # Those of two addresses.
            assert asked(world.sent[before:])[0] == 2

    asyncio.run(story())


def tried(netns: str, command: str) -> bool:
    """Whether ip did it: what was done before may have taken its object along."""
    try:
        ip(netns, command)
    except AssertionError:
        return False
    return True


def undo(netns: str, spoil: str) -> None:
    """Take away what nobody else does: what is foreign, and what is in the way."""
    words = spoil.split()
    if words[0] == "rule":
        ip(netns, spoil.replace(" add ", " del "))
    elif words[0] == "route" and words[1] != "del" and "proto 76" not in spoil:
        tried(netns, " ".join(["route", "del", *words[2:]]))


def test_what_bears_our_mark_and_is_not_declared_goes_when_it_comes(netns: str, tmp_path: Path) -> None:
    prepared(netns)

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            async with world.kept(DECLARED):
                await world.sabotage("route add 192.0.9.0/24 via 10.0.0.2 proto 76")
                await world.until(lambda: ip(netns, "route show 192.0.9.0/24") == "")
                assert [op.describe() for op in world.reports[-1].applied] == [
                    "delete route 192.0.9.0/24 via 10.0.0.2 dev e0"
                ]
        finally:
            world.close()

    asyncio.run(story())


def test_what_came_so_in_a_pause_goes_when_that_has_passed(netns: str, tmp_path: Path) -> None:
    prepared(netns)

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            async with world.kept(DECLARED) as kept:
                assert kept.loop is not None
                kept.loop.pause(kept.loop._clock.now() + 3600)
                await world.sabotage("route add 192.0.9.0/24 via 10.0.0.2 proto 76")
                await world.until(lambda: bool(world.reports[-1].drifted))
                # A resync while it lasts forgets nothing of it.
                for _ in range(2):
                    await world.go(write=False)
                kept.loop.pause(kept.loop._clock.now())
                await world.until(lambda: kept.loop is not None and kept.loop._paused_until is None)
                await world.until(lambda: ip(netns, "route show 192.0.9.0/24") == "")
        finally:
            world.close()

    asyncio.run(story())
