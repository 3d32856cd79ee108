# SPDX-License-Identifier: MIT
"""The boot clock's alarm, and a real loop on it that leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import pytest

from linxd import clock as clock_module
from linxd.clock import BOOT, Alarm, Clock
from linxd.loop import Loop
from tests.core.fakes import Look, Things, World, things


def timer_fd(ring: Callable[[], None]) -> Alarm:
    return BOOT.alarm(ring)


def call_later(ring: Callable[[], None]) -> Alarm:
    return clock_module._CallLater(BOOT, ring)


@pytest.fixture(params=[timer_fd, call_later])
def make(request: pytest.FixtureRequest) -> Callable[[Callable[[], None]], Alarm]:
    made: Callable[[Callable[[], None]], Alarm] = request.param
    return made


def test_it_counts_the_time_since_boot_suspend_included() -> None:
    assert BOOT.now() == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=1.0)


def test_an_alarm_rings_once_not_before_its_time(make: Callable[[Callable[[], None]], Alarm]) -> None:
    async def story() -> None:
        rung: list[float] = []
        event = asyncio.Event()

        def ring() -> None:
            rung.append(BOOT.now())
            event.set()

        alarm = make(ring)
        alarm.set(BOOT.now() + 1000)
        when = BOOT.now() + 0.02
        alarm.set(when)
        await event.wait()
        assert len(rung) == 1
        assert rung[0] >= when - 0.001
        event.clear()
        alarm.set(BOOT.now() - 5)  # long past: at once
        await event.wait()
        alarm.set(-1.0)
        alarm.set(None)
        alarm.set(BOOT.now() + 0.001)
        alarm.close()
        alarm.close()
        await asyncio.sleep(0.005)
        assert len(rung) == 2

    asyncio.run(story())


def test_set_anew_between_expiry_and_ringing_it_waits_for_the_new_time() -> None:
    async def story() -> None:
        rung: list[bool] = []
        alarm = BOOT.alarm(lambda: rung.append(True))
        alarm.set(BOOT.now() - 1)
        alarm.set(BOOT.now() + 1000)
        for _ in range(5):
            await asyncio.sleep(0)
        assert rung == []
        alarm.close()

    asyncio.run(story())


def test_where_timerfd_is_forbidden_the_event_loop_s_own_timer_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(ring: Callable[[], None]) -> Alarm:
        raise PermissionError(1, "timerfd_create")

    async def story() -> None:
        monkeypatch.setattr(clock_module, "_TimerFd", forbidden)
        event = asyncio.Event()
        alarm = BOOT.alarm(event.set)
        alarm.set(BOOT.now() + 0.01)
        await event.wait()
        alarm.close()

    asyncio.run(story())


def test_a_loop_on_the_boot_clock_resyncs_and_leaves_nothing_behind() -> None:
    async def story(clock: Clock = BOOT) -> None:
        before = sorted(os.listdir("/proc/self/fd"))
        world = World()
        third = asyncio.Event()

        def count(report: object) -> None:
            if len(world.passes) >= 3:
                third.set()

        loop: Loop[Things, Look] = Loop(world, things(a="1"), resync=0.02, clock=clock, on_report=count)
        running = asyncio.create_task(loop.run())
        await third.wait()
        assert [seen.trigger for seen in world.passes[:3]] == ["start", "resync", "resync"]
        await loop.plan()
        loop.stop()
        await running
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert sorted(os.listdir("/proc/self/fd")) == before

    asyncio.run(story())
