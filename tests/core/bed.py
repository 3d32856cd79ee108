# SPDX-License-Identifier: MIT
"""A running loop over the made-up world, with a clock in the test's hand; nothing of it may be left."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from linxd.loop import Loop, LoopState
from linxd.patch import Report
from linxd.source import Owned
from tests.core.fakes import Clock, Look, Things, World


async def quiet() -> None:
    """Let everything run that can: no real time passes, so a few turns of the event loop do."""
    for _ in range(50):
        await asyncio.sleep(0)


@dataclass
class Bed:
    """What a test has in hand."""

    world: World
    clock: Clock
    loop: Loop[Things, Look]
    task: asyncio.Task[None]
    reports: list[Report] = field(default_factory=list)
    states: list[LoopState] = field(default_factory=list)

    @property
    def triggers(self) -> list[str]:
        return [seen.trigger for seen in self.world.passes]

    def state(self) -> LoopState:
        return self.loop.state

    async def after(self, seconds: float) -> None:
        """What is under way ends, time passes, and what follows from that has happened."""
        await quiet()
        self.clock.move(seconds)
        await quiet()


@contextlib.asynccontextmanager
async def running(
    world: World,
    desired: Things,
    *,
    resync: float = 30.0,
    name: str = "",
    owned: Owned | None = None,
    patience: float = 0.0,
) -> AsyncIterator[Bed]:
    """A loop that has had its first pass, unless that is held up. ``patience``: seconds for which what may
    wait does."""
    tasks = asyncio.all_tasks()
    clock = Clock()
    loop: Loop[Things, Look] = Loop(
        world,
        desired,
        owned=owned,
        resync=resync,
        name=name,
        clock=clock,
        random=lambda: 0.0,
        patience=lambda: patience,
    )
    bed = Bed(world, clock, loop, asyncio.create_task(loop.run()))
    loop._on_report, loop._on_state = bed.reports.append, bed.states.append
    try:
        await quiet()
        yield bed
    finally:
        loop.stop()
        await quiet()
        if not bed.task.done():
            bed.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await bed.task
        assert clock.alarms == 0
        assert world.subscriptions == 0
        assert asyncio.all_tasks() == tasks
