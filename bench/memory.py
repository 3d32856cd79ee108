# SPDX-License-Identifier: MIT
"""What one more scope takes of a machine's memory, beside a daemon built the usual way; and whether a scope
grows with what it heals.

It counts from outside, and knows of the daemons only their processes.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import bed
import kinds
from figures import Figure, Series, Target
from idle import DECLARATION
from watching import Observer

SCOPES, QUICK_SCOPES = 30, 6
OBJECTS = 2000
"""Nobody of so many is hit so often that it would count as a fight."""
BEFORE, HEALS, QUICK_HEALS = OBJECTS, 10_000, 4000
"""Heals after which growth counts, and after which it is looked at again. Before that each object is hit
once: what is remembered of one that was is no growth."""
CALM = 3.0
"""Seconds after the last one has said that it is ready."""
ROOM = 64 << 20
"""Bytes that are free for each of them, or there are fewer of them."""
FEWEST = 2
SETTLE = 0.001
PYTHON = "/usr/bin/python3"
OURS, USUAL = "linxd", "pyroute2 and dbus-next"
USUAL_PROGRAM = Path(__file__).with_name("usual.py")
_WAITS = """\
{0}
print("ready", flush=True)
{1}
"""
_SERVES = "asyncio.run(asyncio.Event().wait())"
PARTS = {
    "Python alone": _WAITS.format("import signal", "signal.pause()"),
    "with asyncio, but no ssl": _WAITS.format(
        "import sys; sys.modules['ssl'] = None; import asyncio", _SERVES
    ),
    "with linxd's modules": _WAITS.format(
        "import linxd.lean, linxd.cli.serving, asyncio; from linxd.collector import settle; settle()",
        _SERVES,
    ),
}
"""Programs that come to less and less less than a daemon."""


def measure(quick: bool) -> list[Figure]:
    """Of one more scope, of what that is made, and growth."""
    count = _fit(QUICK_SCOPES if quick else SCOPES)
    return [*_scopes(count), _growth(QUICK_HEALS if quick else HEALS)]


def _fit(count: int) -> int:
    """As many of them as there is room for. Raises Unavailable."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    if free // ROOM < FEWEST:
        raise bed.Unavailable("there is no memory left for daemons")
    return min(count, free // ROOM)


def _scopes(count: int) -> list[Figure]:
    """Each contestant's processes run alone: what one shares with others it would share with another's."""
    pss: dict[str, list[int]] = {}
    uss: dict[str, list[int]] = {}
    missing: list[tuple[str, str]] = []
    for name, start in {
        OURS: _ours,
        USUAL: _usual,
        **{part: lambda on, n, text=text: _part(on, n, text) for part, text in PARTS.items()},
    }.items():
        bed.progress(f"memory: {count} × {name}")
        pss[name], uss[name] = [], []
        with bed.Bed() as on:
            try:
                pids = start(on, count)
            except bed.Unavailable as reason:
                missing.append((name, str(reason)))
                continue
            time.sleep(CALM)
            for pid in pids:
                found = bed.memory_of(pid)
                pss[name].append(found["Pss"])
                uss[name].append(found["Private_Clean"] + found["Private_Dirty"])
    note = (
        f"{count} of them at once, each in a namespace with links, addresses, a route, a ruleset and two "
        "sysctls. PSS: what is shared counts in parts; USS: what a process has for itself."
    )
    beside = (OURS, USUAL)
    return [
        Figure(
            "memory", "PSS of one more scope", "B",
            tuple(Series(name, tuple(pss[name])) for name in beside),
            (Target("14 MiB", 14 * 2.0**20),), tuple(missing), note,
        ),
        Figure(
            "memory", "USS of one more scope", "B",
            tuple(Series(name, tuple(uss[name])) for name in beside), (), tuple(missing), note,
        ),
        Figure(
            "memory", "what it is made of, PSS", "B",
            tuple(Series(name, tuple(pss[name])) for name in (OURS, *PARTS)), (), (),
            "What it is made of: as many processes of each, which have got so far and wait.",
        ),
    ]  # fmt: skip


def _ours(on: bed.Bed, count: int) -> list[int]:
    bus = on.bus()
    daemons = [on.daemon(on.namespace(), DECLARATION, bus=bus) for _ in range(count)]
    return [daemon.converged().pid for daemon in daemons]


def _usual(on: bed.Bed, count: int) -> list[int]:
    for module in ("pyroute2", "dbus_next"):
        try:
            bed.run(PYTHON, "-c", f"import {module}")
        except RuntimeError:
            raise bed.Unavailable(f"{module} is not installed") from None
    env = {"DBUS_SYSTEM_BUS_ADDRESS": on.bus()}
    file = on.directory / "declared.toml"
    file.write_text(DECLARATION)
    return _ready(
        on, count,
        lambda log: on.start(
            [PYTHON, str(USUAL_PROGRAM), str(file)], netns=on.namespace(), env=env, log=log, talks=True
        ),
    )  # fmt: skip


def _part(on: bed.Bed, count: int, program: str) -> list[int]:
    env = bed.alone()
    return _ready(on, count, lambda log: on.start([PYTHON, "-c", program], env=env, log=log, talks=True))


def _ready(on: bed.Bed, count: int, start: Callable[[Path], subprocess.Popen[bytes]]) -> list[int]:
    """So many processes that say a word when they are ready."""
    log = on.directory / "log"
    processes = [start(log) for _ in range(count)]
    for process in processes:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"it does not start: {log.read_text()[-2000:]}")
    return [process.pid for process in processes]


def _growth(heals: int) -> Figure:
    """A scope that heals route after route."""
    bed.progress(f"memory: {heals:,} heals")
    kind = next(each for each in kinds.KINDS if each.name == "IPv4 route")
    with bed.Bed() as on:
        netns = on.namespace()
        kinds.batch(netns, kind.furnish(OBJECTS))
        daemon = on.daemon(netns, kind.declare(OBJECTS)).converged()
        observer, cases = Observer(on, netns, kind.protocol, kind.group), kind.cases(on, netns, OBJECTS)
        before = 0
        for number in range(heals):
            if number == BEFORE:
                time.sleep(CALM)
                before = bed.memory_of(daemon.pid)["Pss"]
            if observer.time(cases[number % OBJECTS]) is None:
                raise RuntimeError(f"the {number}th route was not healed")
            time.sleep(SETTLE)
        time.sleep(CALM)
        after = bed.memory_of(daemon.pid)["Pss"]
    return Figure(
        "memory", f"growth, from {BEFORE:,} heals to {heals:,}", "B", (Series(OURS, (after - before,)),),
        (Target("no growth: at most 0.5 MiB", 0.5 * 2**20),), (),
        f"Growth: PSS of a scope with {OBJECTS:,} routes, one of which after the other is deleted.",
    )  # fmt: skip
