# SPDX-License-Identifier: MIT
"""What systemd has in mind for us: whether a stop is a stop, or half of a restart or of a shutdown.

It asks by systemctl, for which there need be no bus and no library; no answer in time is no answer. Over the
bus, `linxd.bus.jobs` is faster.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence

from linxd.child import Child
from linxd.culprit import cgroup_paths, unit_of

ANSWER = 0.2
"""Seconds within which there is an answer, or none."""
TOLD = 10.0
"""The same where somebody waits anyway."""
LOOK_FIRST, LOOK_LAST = 0.2, 2.0
"""Seconds between two looks at whether a unit has ended."""
_LONGEST = 1 << 20
"""Bytes of an answer that are read."""
READ_LAST = 8.0
"""The same where that is read in the journal, which is more work."""


async def stopped_for_good() -> bool | None:
    """Whether our own unit is being stopped because somebody wants it stopped. None where nobody can
    tell."""
    unit = own_unit()
    if unit is None:
        return None
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(ANSWER):
            jobs, system = await asyncio.gather(
                _ask("list-jobs", "--plain", "--no-legend", unit), _ask("is-system-running")
            )
            kinds = [line.split()[2] for line in jobs.splitlines() if line.split()[1:2] == [unit]]
            return for_good(kinds, system)
    return None


def for_good(kinds: list[str], system: str) -> bool | None:
    """What the pending jobs of a unit, and how the system is, say of its end."""
    if not kinds or not system:
        return None
    return kinds == ["stop"] and system.strip() not in ("stopping", "offline", "unknown")


async def ended(units: Sequence[str]) -> None:
    """Return when all of these units have ended, which with none of them is never."""
    pause = LOOK_FIRST
    while not units or not all([await _has_ended(unit) for unit in units]):
        await asyncio.sleep(pause)
        pause = min(2 * pause, LOOK_LAST)


async def ran_and_ended(unit: str, since: float) -> None:
    """Return when a unit that ran at ``since`` (seconds of CLOCK_REALTIME) or later has ended.

    systemd forgets a scope as soon as that has ended, and with it that it wanted anything: what it was is
    left in the journal alone. Where that is not kept, this never returns.
    """
    pause = LOOK_FIRST
    while not (await _was_told_of(unit, since) and await _has_ended(unit)):
        await asyncio.sleep(pause)
        pause = min(2 * pause, READ_LAST)


async def _was_told_of(unit: str, since: float) -> bool:
    """Whether systemd has said something of a unit since then, as it does of each end."""
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(TOLD):
            # Anybody may write UNIT=, but nobody else is process 1.
            which = ("_PID=1", f"UNIT={unit}", f"--since=@{since:.6f}")
            return bool(await _ask("--quiet", "--lines=1", "--output=cat", *which, program="journalctl"))
    return False


def began() -> float:
    """When this process was started, in seconds of CLOCK_REALTIME, and by what the kernel counts in (10 ms)
    too early at most."""
    with open("/proc/self/stat", "rb") as file:
        ticks = int(file.read().rpartition(b")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


async def _has_ended(unit: str) -> bool:
    """Whether it neither runs nor is about to; one that nobody can tell of has not."""
    return await runs(unit) is False


async def runs(unit: str) -> bool | None:
    """Whether a unit runs, or is about to. None where nobody can tell."""
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(TOLD):
            said = await _ask("show", "--property=LoadState,ActiveState,Job", unit)
            values = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
            if not values:
                return None
            if values.get("LoadState") == "not-found":
                return False
            idle = values.get("ActiveState") in ("inactive", "failed")
            return not idle or values.get("Job", "0") not in ("", "0")
    return None


async def left_out(scope: str) -> bool:
    """Whether the socket that a scope's unit, which is to be ours, is to be handed could have been.

    It is stopped with the unit. Whoever makes scopes mostly starts them with mode "fail": what a scope that
    begins just then brings along by its wishes, and is being stopped, is left out.
    """
    if own_unit() != f"linx-reconcile@{scope}.service":
        return False
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(TOLD):
            said = await _ask("show", "--property=LoadState,ActiveState", f"linx-host@{scope}.socket")
            values = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
            return values.get("LoadState") == "loaded" and values.get("ActiveState") != "failed"
    return False


def own_unit() -> str | None:
    """The unit that this process belongs to."""
    with contextlib.suppress(OSError), open("/proc/self/cgroup", "rb") as file:
        return unit_of(cgroup_paths(file.read()))
    return None


async def _ask(*words: str, program: str = "systemctl") -> str:
    with open(os.memfd_create(program, os.MFD_CLOEXEC), "rb") as said:
        process = Child([program, *words], fds={1: said.fileno()})
        try:
            await process.wait()
            return os.pread(said.fileno(), _LONGEST, 0).decode("utf-8", "replace")
        finally:
            await process.close()
