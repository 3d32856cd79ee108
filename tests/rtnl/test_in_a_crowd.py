# SPDX-License-Identifier: MIT
"""Where very many wait for a processor, what is healed ahead of its pass is told of later: where
nothing can have gone with it.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linxd.netlink import wire
from linxd.patch import Culprit, State

from .ahead import BACK, DRIFT, ROUTE, Between, keep, refuse, rest, tell
from .harness import World, ip

LONG = 3600.0


ALONE = '[link.e0]\naddresses = ["10.1.0.5/24"]\n'
RULE = '[[rule]]\nfrom = "10.77.0.1/32"\ntable = 100\npriority = 20\n'


async def break_(made: Between, command: str) -> list[Any]:
    """Break something in a crowd that never ends; the keys of what is told as done when all is at rest."""
    made.world.forgive()
    await made.rest()
    made.admitted.clear()
    made.world.patience = LONG
    before = len(made.world.reports)
    await made.world.sabotage(command)
    while not made.admitted:
        await asyncio.sleep(0.001)
    await made.rest()
    return [op.key for report in made.world.reports[before:] for op in report.applied]


def routes_of(made: Between) -> str:
    return ip(made.world.netns, "route show") + ip(made.world.netns, "-6 route show")


@pytest.mark.parametrize(
    ("drift", "shown"),
    [
        (DRIFT, "route show"),
        ("route replace 20.0.0.0/24 via 10.1.0.2 dev e0", "route show"),
        ("-6 route del fd01::/64", "-6 route show"),
        ("rule del priority 20", "rule show"),
        ("neigh del 10.1.0.9 dev e0", "neigh show"),
    ],
)
def test_what_stands_alone_is_healed_and_told_of_later(
    netns: str, tmp_path: Path, drift: str, shown: str
) -> None:
    async def story(made: Between) -> None:
        before = ip(netns, shown)
        assert await break_(made, drift) == []
        assert ip(netns, shown) == before
        told = len(made.world.reports)
        made.world.loop.stop()
        await made.world.until(lambda: len(made.world.reports) > told)
        assert [op.key for op in made.world.reports[told].applied] == [op.key for op in made.admitted]
        assert made.world.reports[told].heal_usec < LONG / 2 * 1e6

    tell(netns, tmp_path, story)


@pytest.mark.parametrize(
    "drift",
    ["address del 10.1.0.5/24 dev e0", "address del fd00::5/64 dev e0", "link set e0 mtu 1300"],
)
def test_what_may_take_something_along_has_its_pass_at_once(netns: str, tmp_path: Path, drift: str) -> None:
    async def story(made: Between) -> None:
        before = routes_of(made)
        told = await break_(made, drift)
        assert [op.key for op in made.admitted] == told[:1]
        assert routes_of(made) == before

    tell(netns, tmp_path, story)


def test_it_is_told_with_the_next_drift_and_that_is_healed_at_once(netns: str, tmp_path: Path) -> None:
    async def story(made: Between) -> None:
        assert await break_(made, DRIFT) == []
        before = len(made.world.reports)
        await made.world.sabotage("rule del priority 20")
        await made.world.until(lambda: len(made.world.reports) > before)
        assert [op.key[0] for op in made.world.reports[before].applied] == ["route", "rule"]
        assert "10.77.0.1" in ip(netns, "rule show")

    tell(netns, tmp_path, story)


def test_a_second_drift_of_the_same_object_is_healed_at_once_and_told_as_two(
    netns: str, tmp_path: Path
) -> None:
    async def story(made: Between) -> None:
        assert await break_(made, DRIFT) == []
        before = len(made.world.reports)
        await made.world.sabotage(DRIFT)
        await made.world.until(lambda: len(made.world.reports) > before)
        assert [op.key for op in made.world.reports[before].applied] == [ROUTE, ROUTE]
        assert BACK in made.routes()

    tell(netns, tmp_path, story)


def test_a_fight_is_seen(netns: str, tmp_path: Path) -> None:
    async def story(made: Between) -> None:
        await break_(made, DRIFT)
        # The sixth is told of in one with the fifth.
        for _ in range(5):
            await made.world.sabotage(DRIFT)
            while BACK not in made.routes():
                await asyncio.sleep(0.001)
        await made.rest()
        assert made.loop.fights
        await made.world.sabotage(DRIFT)
        await made.rest()
        assert BACK not in made.routes()
        made.world.forgive()
        await made.loop.request()

    tell(netns, tmp_path, story)


def test_what_is_refused_is_said_at_once(netns: str, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        loop = world.loop
        assert loop is not None
        refuse(world, wire.RTM_NEWRULE)
        world.patience = LONG
        await world.sabotage("rule del priority 20")
        await world.until(lambda: bool(loop.conditions))
        assert [one.errno for one in loop.conditions.values()] == [errno.ERFKILL]

    keep(netns, tmp_path, RULE, story)


def test_where_something_waits_an_event_is_no_matter_of_its_object_alone(netns: str, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        loop = world.loop
        assert loop is not None
        assert [one.state for one in loop.conditions.values()] == [State.PENDING]
        world.patience = LONG
        before = len(world.reports)
        await world.sabotage("rule del priority 20")
        await world.until(lambda: any(report.applied for report in world.reports[before:]))

    waits = '[[route]]\nto = "30.0.0.0/24"\ndev = "e7"\n'
    keep(netns, tmp_path, ALONE + RULE + waits, story)


def test_an_address_that_nothing_stands_on_is_told_of_later(netns: str, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        world.patience = LONG
        before = len(world.reports)
        await world.sabotage("address del 10.1.0.5/24 dev e0")
        await rest(world)
        assert "10.1.0.5/24" in ip(netns, "address show dev e0")
        assert len(world.reports) == before

    keep(netns, tmp_path, ALONE, story)


def test_who_did_it_is_looked_up_before_the_waiting(netns: str, tmp_path: Path) -> None:
    looked: list[int] = []

    def identify(port: int) -> Callable[[], Culprit | None]:
        def look() -> Culprit:
            looked.append(port)
            return Culprit(port)

        return look

    async def story(world: World) -> None:
        assert world.loop is not None
        world.patience = LONG
        before = len(world.reports)
        looked.clear()
        await world.sabotage("rule del priority 20")
        await rest(world)
        assert "10.77.0.1" in ip(netns, "rule show")
        assert len(looked) == 1
        assert len(world.reports) == before
        await world.loop.request()
        assert [one.pid for one in world.reports[before].culprits.values()] == looked

    keep(netns, tmp_path, ALONE + RULE, story, identify=identify)
