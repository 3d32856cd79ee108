# SPDX-License-Identifier: MIT
"""A key that an event alone names is written before the pass begins that accounts for it; and whatever comes
between the two, it is not written twice, and nothing is said that is not so.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from linxd.clock import BOOT
from linxd.patch import Key, Report, State
from linxd.sources.sysctl.model import Path
from tests.bed.between import Between

from ..rtnl.harness import batch
from .harness import World, flip, value

E0 = ("link set lo up", "link add e0 type veth peer name far0", "link set e0 up", "link set far0 up")
FILTER = "net.ipv4.conf.e0.rp_filter"
ARP = "net.ipv4.conf.e0.proxy_arp"
KEY: Key = ("sysctl", FILTER)
DECLARED: dict[str, Any] = {FILTER: 1, ARP: 1, "net.ipv6.conf.e0.forwarding": 1}


class Told(Between):
    """Keys in a namespace, kept by a running loop."""

    def __init__(self, world: World) -> None:
        assert world.loop is not None
        super().__init__(world.loop, lambda: len(world.procfs.writes))
        self.world = world

    async def drift(self, key: str, to: str = "0") -> list[Report]:
        """Change a key, and wait for all that comes of it: the reports."""
        await self.begin()
        before = len(self.world.reports)
        flip(self.world.netns, key, to)
        await self.world.until(lambda: len(self.world.reports) > before, what=key)
        await self.rest()
        return self.world.reports[before:]

    def has(self, key: str) -> str:
        return value(self.world.netns, key)


def tell(netns: str, story: Callable[[Told], Awaitable[None]], keys: Mapping[str, Any] = DECLARED) -> None:
    """Run a story; at its end all is as declared, and a source that remembers nothing sees it so."""
    batch(netns, *E0)

    async def run() -> None:
        world = World(netns, poll=60)
        try:
            for key in keys:
                flip(netns, key, "0")
            async with world.kept(keys):
                told = Told(world)
                await story(told)
                told.then = told.before = lambda: None
                world.desired = told.loop.desired
                await told.rest()
            world.restart()
            await world.quiet()
        finally:
            world.close()

    asyncio.run(run())


def applied(reports: list[Report]) -> list[Key]:
    return [op.key for report in reports for op in report.applied]


@pytest.mark.parametrize("key", DECLARED)
def test_it_is_in_the_kernel_before_the_pass_begins(netns: str, key: str) -> None:
    async def story(told: Told) -> None:
        before = told.written()
        reports = await told.drift(key)
        assert told.has(key) == "1"
        assert told.begun[0] == told.written() == before + 1
        assert [op.key for op in told.admitted] == applied(reports) == [("sysctl", key)]
        assert [op.describe() for op in reports[0].applied] == [f"update sysctl {key}: value 0 -> 1"]
        assert reports[0].heal_usec > 0

    tell(netns, story)


def test_in_a_crowd_it_is_told_of_later(netns: str) -> None:
    async def story(told: Told) -> None:
        told.world.patience = 30.0
        await told.begin()
        flip(netns, FILTER, "0")
        await told.rest()
        assert (told.has(FILTER), len(told.admitted), told.begun) == ("1", 1, [])
        before = len(told.world.reports)
        flip(netns, ARP, "0")
        await told.world.until(lambda: told.has(ARP) == "1")
        assert applied(told.world.reports[before:]) == [KEY, ("sysctl", ARP)]
        told.world.patience = 0.0

    tell(netns, story)


@pytest.mark.parametrize("key", ["net.ipv4.conf.all.forwarding", "net.ipv4.conf.default.rp_filter"])
def test_a_key_that_others_change_along_with_is_left_to_the_pass(netns: str, key: str) -> None:
    async def story(told: Told) -> None:
        await told.drift(key)
        assert told.admitted == []
        assert told.has(key) == "1"

    tell(netns, story, {key: 1})


def test_what_the_ledger_must_be_told_of_is_left_to_the_pass(netns: str) -> None:
    """It was as declared when it was found, and so is written for the first time."""

    async def run() -> None:
        world = World(netns, poll=60)
        try:
            flip(netns, FILTER, "1")
            async with world.kept({FILTER: 1}):
                told = Told(world)
                await told.drift(FILTER)
                assert told.admitted == []
                await told.drift(FILTER)
                assert len(told.admitted) == 1
            await world.settle({})
            assert value(netns, FILTER) == "1"
        finally:
            world.close()

    batch(netns, *E0)
    asyncio.run(run())


def test_several_keys_are_left_to_the_pass(netns: str) -> None:
    async def story(told: Told) -> None:
        await told.begin()
        flip(netns, FILTER, "0")
        flip(netns, ARP, "0")
        await told.world.until(lambda: told.has(FILTER) == told.has(ARP) == "1")
        assert told.admitted == []

    tell(netns, story)


def test_what_was_done_before_a_pause_is_told_as_done(netns: str) -> None:
    async def story(told: Told) -> None:
        told.then = lambda: told.loop.pause(BOOT.now() + 3600)
        reports = await told.drift(FILTER)
        assert applied(reports) == [KEY]
        assert [one for report in reports for one in report.conditions] == []
        await told.drift(FILTER)
        assert (told.admitted, told.has(FILTER)) == ([], "0")
        told.then = lambda: None
        told.loop.resume()
        await told.world.until(lambda: told.has(FILTER) == "1")

    tell(netns, story)


def test_an_object_that_is_left_alone_is_not_touched(netns: str) -> None:
    async def story(told: Told) -> None:
        told.loop.leave(KEY, BOOT.now() + 3600)
        await told.drift(FILTER)
        assert (told.admitted, told.has(FILTER)) == ([], "0")
        told.loop.take_up(KEY)
        await told.world.until(lambda: told.has(FILTER) == "1")

    tell(netns, story)


def test_what_is_fought_over_waits(netns: str) -> None:
    async def story(told: Told) -> None:
        await told.drift(FILTER)
        for _ in range(4):
            flip(netns, FILTER, "0")
            await told.world.until(lambda: told.has(FILTER) == "1")
            await told.rest()
        assert len(told.admitted) == 5
        assert told.loop.fights
        flip(netns, FILTER, "0")
        await told.rest()
        assert (len(told.admitted), told.has(FILTER)) == (5, "0")
        told.loop._gate.declared()
        await told.loop.request()

    tell(netns, story)


def test_what_is_declared_otherwise_meanwhile_is_written_so(netns: str) -> None:
    async def story(told: Told) -> None:
        desired = told.world.declare({**DECLARED, FILTER: 2})
        told.then = lambda: told.loop.declare(desired)
        reports = await told.drift(FILTER)
        assert told.has(FILTER) == "2"
        assert applied(reports)[0] == KEY

    tell(netns, story)


def test_who_asks_for_a_look_at_everything_hides_no_heal(netns: str) -> None:
    async def story(told: Told) -> None:
        asked: list[asyncio.Task[Report]] = []
        told.then = lambda: asked.append(asyncio.ensure_future(told.loop.request()))
        reports = await told.drift(FILTER)
        assert applied(reports) == [KEY]
        assert [(await one).converged for one in asked] == [True]

    tell(netns, story)


def test_a_loop_that_stops_tells_of_it(netns: str) -> None:
    async def story(told: Told) -> None:
        told.then = told.loop.stop
        assert applied(await told.drift(FILTER)) == [KEY]

    tell(netns, story)


def test_a_key_that_is_changed_again_at_once_is_healed_again(netns: str) -> None:
    async def story(told: Told) -> None:
        def again() -> None:
            told.then = lambda: None
            flip(netns, FILTER, "2")

        told.then = again
        before = told.written()
        await told.drift(FILTER)
        assert told.has(FILTER) == "1"
        assert told.written() == before + 2

    tell(netns, story)


def test_what_the_kernel_refuses_is_tried_once_and_said(netns: str) -> None:
    async def story(told: Told) -> None:
        write, tried = told.world.procfs.write, 0

        def refused(path: Path, text: str, *, held: int | None = None) -> None:
            nonlocal tried
            tried += 1
            raise OSError(errno.EPERM, "Operation not permitted")

        told.world.procfs.write = refused  # type: ignore[method-assign]
        reports = await told.drift(FILTER)
        assert tried == len(told.admitted) == len(reports) == 1
        assert [(one.key, one.state) for one in reports[0].conditions] == [(KEY, State.FAILED)]
        assert [op.key for op in reports[0].drifted] == [KEY]
        assert list(told.loop.conditions) == [KEY]
        told.world.procfs.write = write  # type: ignore[method-assign]
        await told.loop.request()
        assert told.loop.conditions == {}

    tell(netns, story)


def test_a_link_that_took_the_name_right_after_the_write_is_not_written_to_for_it(netns: str) -> None:
    """What is read back then is its value, and no other form of what was written."""

    async def story(told: Told) -> None:
        write = told.world.procfs.write

        def replaced(path: Path, text: str, *, held: int | None = None) -> None:
            told.world.procfs.write = write  # type: ignore[method-assign]
            write(path, text, held=held)
            batch(netns, "link del e0", *E0[1:])
            flip(netns, FILTER, "2")

        told.world.procfs.write = replaced  # type: ignore[method-assign]
        await told.drift(FILTER)
        await told.world.until(lambda: told.has(FILTER) == "1")
        await told.rest()
        entry = told.world.owned.get(KEY)
        assert entry is not None
        assert entry.original == {"value": "2"}

    tell(netns, story)


def test_a_link_that_took_the_name_of_another_is_not_written_to_for_it(netns: str) -> None:
    """Between the look and the write: the held descriptor is the other one's."""

    async def story(told: Told) -> None:
        write = told.world.procfs.write

        def replaced(path: Path, text: str, *, held: int | None = None) -> None:
            told.world.procfs.write = write  # type: ignore[method-assign]
            batch(netns, "link del e0", *E0[1:])
            flip(netns, FILTER, "2")
            write(path, text, held=held)
            raise AssertionError("written")

        told.world.procfs.write = replaced  # type: ignore[method-assign]
        await told.drift(FILTER)
        await told.world.until(lambda: told.has(FILTER) == "1")
        entry = told.world.owned.get(KEY)
        assert entry is not None
        assert entry.original == {"value": "2"}

    tell(netns, story)
