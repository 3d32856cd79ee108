# SPDX-License-Identifier: MIT
"""What is done ahead of its pass when the kernel refuses it, when the pass fails or never comes, and what
stays in memory of it: as if the pass had done it.
"""

from __future__ import annotations

import asyncio
import errno
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linxd.clock import BOOT
from linxd.netlink import wire
from linxd.patch import Culprit, State

from .ahead import BACK, DECLARED, DRIFT, ROUTE, Between, keep, refuse, rest, tell
from .harness import World, ip, pair


def test_what_went_with_a_link_that_can_not_be_set_up_is_said(netns: str, tmp_path: Path) -> None:
    text = """
    [link.e0]
    up = true
    addresses = ["10.1.0.5/24"]
    [[route]]
    to = "20.0.0.0/24"
    via = "10.1.0.1"
    dev = "e0"
    """

    async def story(world: World) -> None:
        loop = world.loop
        assert loop is not None
        refuse(world, wire.RTM_NEWLINK)
        await world.sabotage("link set e0 down")
        await world.until(lambda: ROUTE in loop.conditions and ("link", "e0") in loop.conditions)
        assert loop.conditions["link", "e0"].errno == errno.ERFKILL
        assert "20.0.0.0" not in ip(netns, "route show")

    keep(netns, tmp_path, text, story)


def test_what_went_with_an_address_that_is_refused_is_healed(netns: str, tmp_path: Path) -> None:
    text = """
    [link.e0]
    addresses = ["10.1.0.5/24"]
    [[route]]
    to = "20.0.0.0/24"
    dev = "e0"
    """

    async def story(world: World) -> None:
        refuse(world, wire.RTM_NEWADDR, 1)
        await world.sabotage("address del 10.1.0.5/24 dev e0")
        await world.until(lambda: "20.0.0.0/24 dev e0" in ip(netns, "route show"))

    keep(netns, tmp_path, text, story)


def test_who_did_it_is_looked_up_behind_what_heals_several(netns: str, tmp_path: Path) -> None:
    order: list[str] = []
    pair(netns)

    def identify(port: int) -> Callable[[], Culprit | None]:
        def look() -> None:
            order.append("look")

        return look

    async def run() -> None:
        world = World(netns, tmp_path, identify=identify)
        try:
            async with world.kept(DECLARED):
                assert world.loop is not None
                await rest(world)
                await world.loop.request()
                await rest(world)
                before = world.requests.tap
                assert before is not None

                def tap(datagram: bytes) -> None:
                    order.extend("write" for m in wire.messages(datagram) if m.type in (24, 28))
                    before(datagram)

                world.requests.tap = tap
                order.clear()
                # The event loop does not turn between the two.
                ip(netns, DRIFT)
                ip(netns, "neigh del 10.1.0.9 dev e0")
                await world.until(lambda: BACK in ip(netns, "route show"))
                await rest(world)
                assert order[0] == "write"
                assert "look" in order
        finally:
            world.close()

    asyncio.run(run())


def test_what_was_done_before_the_end_is_told_before_the_end(netns: str, tmp_path: Path) -> None:
    async def story(made: Between) -> None:
        made.then = made.loop.stop
        before = len(made.world.reports)
        await made.world.sabotage(DRIFT)
        await made.world.until(lambda: len(made.world.reports) > before)
        assert BACK in made.routes()
        assert [op.key for report in made.world.reports[before:] for op in report.applied] == [ROUTE]

    tell(netns, tmp_path, story)


def test_what_a_pass_that_failed_was_to_account_for_is_told_by_the_next(netns: str, tmp_path: Path) -> None:
    async def story(made: Between) -> None:
        source = made.world.source
        rounds, failed = source._rounds, []

        async def broken(*given: Any, **named: Any) -> Any:
            if not failed:
                failed.append(given)
                raise OSError(errno.EIO, "not now")
            return await rounds(*given, **named)

        source._rounds = broken  # type: ignore[method-assign]
        before = len(made.world.reports)
        await made.world.sabotage("address del 10.1.0.5/24 dev e0")
        await made.world.until(lambda: len(made.world.reports) > before)
        assert failed
        applied = [op.key for report in made.world.reports[before:] for op in report.applied]
        assert applied.count(("address", "e0", "10.1.0.5", 24)) == 1

    tell(netns, tmp_path, story)


def test_an_object_that_is_left_alone_since_is_not_touched_again(netns: str, tmp_path: Path) -> None:
    async def story(made: Between) -> None:
        def then() -> None:
            made.then = lambda: None
            made.loop.leave(ROUTE, BOOT.now() + 3600)
            ip(netns, DRIFT)
            # Read before the pass, as it happens.
            watch = made.world.source._watch
            assert watch is not None
            watch._events._readable()

        made.then = then
        await made.drift(DRIFT)
        assert BACK not in made.routes()
        made.loop.take_up(ROUTE)
        await made.world.until(lambda: BACK in made.routes())

    tell(netns, tmp_path, story)


def test_a_declaration_that_is_no_more_is_let_go(netns: str, tmp_path: Path) -> None:
    async def story(made: Between) -> None:
        await made.drift(DRIFT)
        old = made.world.source.index
        made.loop.declare(made.world.declare(DECLARED.replace("10.1.0.1", "10.1.0.2")))
        await made.loop.request()
        await made.rest()
        assert made.world.source.index is not old
        held = [one for one in gc.get_referrers(old) if isinstance(one, tuple)]
        assert not held

    tell(netns, tmp_path, story)


@pytest.mark.parametrize(
    ("protocol", "drift"),
    [("bird", DRIFT), ("static", "route replace 20.0.0.0/24 via 10.1.0.2 dev e0")],
)
def test_a_route_that_was_found_keeps_its_protocol(
    netns: str, tmp_path: Path, protocol: str, drift: str
) -> None:
    pair(netns)
    ip(netns, "address add 10.1.0.5/24 dev e0")
    ip(netns, f"route add 20.0.0.0/24 via 10.1.0.1 dev e0 proto {protocol}")

    async def run() -> None:
        world = World(netns, tmp_path)
        try:
            async with world.kept(DECLARED):
                loop = world.loop
                assert loop is not None
                await rest(world)
                await loop.request()
                await world.sabotage(drift)
                found = f"20.0.0.0/24 via 10.1.0.1 dev e0 proto {protocol}"
                await world.until(lambda: found in ip(netns, "route show"))
                # A daemon's, in its place, is a conflict.
                await world.sabotage("route replace 20.0.0.0/24 via 10.1.0.2 dev e0 proto bird")
                await world.until(lambda: ROUTE in loop.conditions)
                assert loop.conditions[ROUTE].state is State.CONFLICT
                assert "via 10.1.0.2 dev e0 proto bird" in ip(netns, "route show")
        finally:
            world.close()

    asyncio.run(run())
