# SPDX-License-Identifier: MIT
"""The account of what is healed already waits while others have to heal, and no longer than nothing else is
to be done.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from linxd import crowd
from linxd.patch import Op, Verb
from linxd.source import Blocked, Hint
from tests.core.bed import Bed, quiet, running
from tests.core.fakes import Thing, World, key, things

PATIENCE = 0.125


async def healed(bed: Bed) -> None:
    """An event has called for an op that is carried out already."""
    assert bed.world.notify is not None
    assert bed.world.admits(Op(Verb.CREATE, Thing("a"), None))
    bed.world.notify(Hint(key("a"), may_wait=True))
    await quiet()


def test_it_is_accounted_for_when_the_others_have_had_their_time() -> None:
    async def story() -> None:
        async with running(World(), things(a="1"), patience=PATIENCE) as bed:
            await healed(bed)
            assert bed.triggers == ["start"]
            assert bed.clock.next == pytest.approx(PATIENCE)
            await bed.after(PATIENCE / 2)
            assert bed.triggers == ["start"]
            await bed.after(PATIENCE / 2)
            assert bed.triggers == ["start", "event"]
            assert bed.clock.next is not None
            assert bed.clock.next > PATIENCE

    asyncio.run(story())


def test_where_nobody_waits_it_is_accounted_for_at_once() -> None:
    async def story() -> None:
        async with running(World(), things(a="1")) as bed:
            await healed(bed)
            assert bed.triggers == ["start", "event"]

    asyncio.run(story())


def test_what_may_not_wait_does_not() -> None:
    async def story() -> None:
        async with running(World(), things(a="1"), patience=PATIENCE) as bed:
            bed.world.drift("a")
            await quiet()
            assert bed.triggers == ["start", "event"]

    asyncio.run(story())


@pytest.mark.parametrize(("name", "may_wait"), [("a", [False]), ("b", [True, False])])
def test_an_event_that_comes_meanwhile_is_served_at_once_and_with_it(
    name: str, may_wait: list[bool]
) -> None:
    """``a``: the same object, which has drifted again."""

    async def story() -> None:
        async with running(World(), things(a="1", b="2"), patience=PATIENCE) as bed:
            await healed(bed)
            assert not bed.world.admits(Op(Verb.CREATE, Thing(name), None))
            bed.world.drift(name)
            await quiet()
            assert bed.triggers == ["start", "event"]
            assert [hint.may_wait for hint in bed.world.passes[1].hints] == may_wait
            assert bed.world.things == things(a="1", b="2")
            assert bed.clock.next is not None
            assert bed.clock.next > PATIENCE

    asyncio.run(story())


def test_what_is_due_sooner_comes_sooner() -> None:
    async def story() -> None:
        async with running(World(), things(a="1"), resync=10, patience=60) as bed:
            await healed(bed)
            await bed.after(10)
            assert bed.triggers == ["start", "event", "resync"]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("meanwhile", "triggers"),
    [
        (lambda bed: bed.loop.pause(bed.clock.now() + 60), ["event"]),
        (lambda bed: bed.loop.leave(key("a"), bed.clock.now() + 60), ["event"]),
        (lambda bed: bed.world.notify(Hint(None)), ["event", "event"]),
        (lambda bed: bed.world.notify(Hint(None, broken=True)), ["event"]),
        (lambda bed: bed.loop.declare(things(a="1", b="2")), ["config"]),
        (lambda bed: asyncio.ensure_future(bed.loop.request()), ["request"]),
        (lambda bed: asyncio.ensure_future(bed.loop.plan()), ["event"]),
        (lambda bed: bed.loop.stop(), ["event"]),
    ],
    ids=["pause", "leave", "lost", "broken", "declare", "request", "plan", "stop"],
)
def test_whatever_else_wakes_the_loop_has_it_accounted_for(
    meanwhile: Callable[[Bed], object], triggers: list[str]
) -> None:
    async def story() -> None:
        async with running(World(), things(a="1"), patience=PATIENCE) as bed:
            await healed(bed)
            assert bed.triggers == ["start"]
            meanwhile(bed)
            await quiet()
            assert bed.triggers == ["start", *triggers]

    asyncio.run(story())


def test_while_a_pass_runs_it_does_not_wait_for_the_clock() -> None:
    async def story() -> None:
        world = World()
        async with running(world, things(a="1"), patience=PATIENCE) as bed:
            world.gate = asyncio.Event()
            asked = asyncio.ensure_future(bed.loop.request())
            await world.halted.wait()
            assert world.notify is not None
            world.notify(Hint(key("a"), may_wait=True))
            world.gate.set()
            await asked
            await quiet()
            assert bed.triggers == ["start", "request", "event"]

    asyncio.run(story())


def test_a_pass_that_could_not_run_leaves_nothing_waiting() -> None:
    async def story() -> None:
        world = World()
        async with running(world, things(a="1"), patience=PATIENCE) as bed:
            await healed(bed)
            world.trouble = Blocked("not now")
            await bed.after(PATIENCE)
            world.trouble = None
            await bed.after(1)
            assert bed.triggers == ["start", "event", "event"]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("running", "processors", "seconds"),
    [
        (1, 2, 0.0),
        (2, 2, 0.0),
        (3, 2, crowd.EACH / 2),
        (6, 2, crowd.EACH * 2),
        (6, 1, crowd.EACH * 5),
        (5000, 2, crowd.MOST),
    ],
)
def test_patience_is_for_those_who_wait(
    running: int, processors: int, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "loadavg"
    said.write_text(f"3.65 9.83 6.70 {running}/8641 8641\n")
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    monkeypatch.setattr(crowd, "LOADAVG", str(said))
    assert crowd.patience() == pytest.approx(seconds)


@pytest.mark.parametrize("said", [None, "", "nonsense", "1 2 3"])
def test_who_can_not_be_told_of_a_crowd_has_no_patience(
    said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "loadavg"
    if said is not None:
        file.write_text(said)
    monkeypatch.setattr(crowd, "LOADAVG", str(file))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert crowd.patience() == 0.0


def test_the_kernel_tells_of_those_who_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """We who ask are one of them."""
    monkeypatch.setattr(os, "cpu_count", lambda: 0.5)
    assert crowd.patience() > 0.0
