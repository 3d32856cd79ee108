# SPDX-License-Identifier: MIT
"""Very many scopes on one machine: all started, one drift in each at once, all stopped.

It is about what they cost each other; what one alone does is measured elsewhere.
"""

from __future__ import annotations

import selectors
import signal
import socket
import time
from dataclasses import dataclass

import bed
import kinds
from figures import Figure, Series, Target
from watching import seen

from linxd.netlink import wire

COUNTS, QUICK_COUNTS = (200, 50), (20, 5)
ROUTES = 20
ROUNDS = 5
HEALED = 10.0
"""Seconds within which all are back, or something is wrong."""

DECLARATION = (
    '[link.e0]\nkind = "veth"\npeer = { name = "e1" }\naddresses = ["10.200.0.5/24"]\n[link.e1]\nup = true\n'
    + kinds.routes(ROUTES)
)


@dataclass
class One:
    """A scope with those who break and watch it."""

    daemon: bed.Daemon
    cases: list[kinds.Case]
    events: socket.socket


def measure(quick: bool) -> list[Figure]:
    """All of it, with many and with a quarter of them."""
    counts = QUICK_COUNTS if quick else COUNTS
    start, heal, stop = {}, {}, {}
    for count in reversed(counts):
        bed.progress(f"scopes: {count} of them")
        start[count], heal[count], stop[count] = _run(count)
    few = counts[-1]
    linear = Target(f"linear: within 1.3 times what one of {few} takes", 1.3, f"{few} scopes")
    return [
        Figure(
            "scopes", "start all: until the last one has converged, for each of them", "s",
            tuple(Series(f"{count} scopes", (start[count] / count,)) for count in counts), (linear,),
        ),
        Figure(
            "scopes", "one drift in each at once: until it is healed", "s",
            tuple(Series(f"{count} scopes", tuple(heal[count])) for count in counts),
            (Target("every heal under 50 ms", 0.05, quantile=1.0),),
            note=f"A route is deleted in every namespace, one right after the other, {ROUNDS} times; ratios "
            "are of single heals, the first with the first.",
        ),
        Figure(
            "scopes", "stop all: until the last one has ended, for each of them", "s",
            tuple(Series(f"{count} scopes", (stop[count] / count,)) for count in counts), (linear,),
        ),
    ]  # fmt: skip


def _run(count: int) -> tuple[float, list[float], float]:
    with bed.Bed() as on:
        names = [on.namespace() for _ in range(count)]
        began = time.monotonic()
        daemons = [on.daemon(name, DECLARATION) for name in names]
        for daemon in daemons:
            daemon.converged(seconds=300)
        started = time.monotonic() - began
        kind = next(each for each in kinds.KINDS if each.name == "IPv4 route")
        scopes = []
        for name, daemon in zip(names, daemons, strict=True):
            events = on.socket(name, kind.protocol)
            events.setsockopt(wire.SOL_NETLINK, wire.NETLINK_ADD_MEMBERSHIP, kind.group)
            scopes.append(One(daemon, kind.cases(on, name, ROUTES), events))
        heals: list[float] = []
        time.sleep(1.0)
        for number in range(ROUNDS):
            heals += _drift(scopes, number)
            time.sleep(1.0)
        began = time.monotonic()
        for daemon in daemons:
            daemon.process.send_signal(signal.SIGTERM)
        for daemon in daemons:
            if daemon.process.wait(bed.PATIENCE):
                raise RuntimeError(f"a daemon ended with {daemon.process.returncode}")
        return started, heals, time.monotonic() - began


def _drift(scopes: list[One], number: int) -> list[float]:
    """Break one object in each of them; seconds that each took."""
    took: dict[int, float] = {}
    with selectors.DefaultSelector() as selector, bed.looking_on():
        for at, scope in enumerate(scopes):
            selector.register(scope.events, selectors.EVENT_READ, at)
        broken = []
        for scope in scopes:
            scope.cases[number].sabotage()
            broken.append(time.monotonic())
        end = time.monotonic() + HEALED
        while len(took) < len(scopes):
            if time.monotonic() > end:
                raise RuntimeError(f"{len(scopes) - len(took)} of {len(scopes)} were not healed")
            for key, _ in selector.select(HEALED):
                at = key.data
                data = scopes[at].events.recv(1 << 16)
                if at not in took and seen(data, scopes[at].cases[number].back):
                    took[at] = time.monotonic() - broken[at]
    return [took[at] for at in range(len(scopes))]
