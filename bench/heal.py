# SPDX-License-Identifier: MIT
"""From an event to the object's being back, kind by kind: linxd beside the least that can be done in C, a
shell loop over `ip monitor`, and a loop of fifteen lines over pyroute2.

Each contestant has a namespace of its own with the same objects; they are broken in turn, and watched in the
same way.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import bed
from figures import Figure, Series, Target
from kinds import KINDS, Kind, batch
from watching import Observer

OURS, LIMIT, SHELL, PYROUTE2 = "linxd", "C program", "shell loop", "pyroute2 loop"
ROUNDS, QUICK = 500, 60
SETTLE = 0.01
"""Seconds between two: what is still looked at after a heal is nobody else's."""
NOTE = (
    "Time between the kernel's event of the going and its event of the coming back, on one socket that does "
    "not sleep meanwhile. One real daemon, one namespace for each contestant, broken in turn."
)


def compiled(on: bed.Bed) -> Path:
    """limit.c as a program. Raises Unavailable."""
    program = on.directory / "limit"
    source = Path(__file__).with_name("limit.c")
    try:
        subprocess.run(["cc", "-O2", "-o", program, source], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise bed.Unavailable("there is no C compiler here") from None
    except subprocess.CalledProcessError as error:
        raise bed.Unavailable(f"limit.c does not compile: {error.stderr.strip()[-300:]}") from None
    return program


def rival(on: bed.Bed, kind: Kind, name: str, netns: str) -> None:
    """Start a contestant of others' in its namespace, and wait until it listens. Raises Unavailable."""
    if name == LIMIT:
        command = [str(compiled(on)), "nft" if kind.nft else "rtnl", str(kind.group)]
    elif name == SHELL:
        command = ["bash", "-c", kind.shell]
    else:
        if kind.pyroute2 is None:
            raise bed.Unavailable(kind.missing)
        try:
            bed.run(sys.executable, "-c", "import pyroute2")
        except RuntimeError:
            raise bed.Unavailable("pyroute2 is not installed") from None
        script = on.directory / "loop.py"
        script.write_text(kind.pyroute2)
        command = [sys.executable, str(script)]
    on.start(command, netns=netns, log=on.directory / f"{name}.log")
    bed.until(lambda: listens(netns), lambda: f"{name} does not listen")


def listens(netns: str) -> bool:
    """Whether some netlink socket in a namespace is in a group: its processes' own, as nobody else is there
    yet."""
    with bed.inside(netns):
        lines = Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]
    return any(int(line.split()[3], 16) for line in lines)


def prepare(on: bed.Bed, kind: Kind, name: str) -> tuple[str, bed.Daemon | None]:
    """A namespace with the objects and somebody who keeps them."""
    netns = on.namespace()
    batch(netns, kind.furnish(kind.count))
    if name == OURS:
        return netns, on.daemon(netns, kind.declare(kind.count)).converged()
    kind.by_hand(netns, kind.count)
    rival(on, kind, name, netns)
    return netns, None


def measure_kind(kind: Kind, rounds: int) -> Figure:
    """One kind, all contestants."""
    values: dict[str, list[float]] = {}
    missing: list[tuple[str, str]] = []
    with bed.Bed() as on:
        contestants = []
        for name in (OURS, LIMIT, SHELL, PYROUTE2):
            try:
                with bed.apart():
                    netns, _ = prepare(on, kind, name)
            except bed.Unavailable as reason:
                missing.append((name, str(reason)))
                continue
            # The first socket of a process in a namespace has its pid for port id, as that of `ip` has:
            # whose it is, is what linxd looks up.
            cases = kind.cases(on, netns, kind.count)
            contestants.append((name, netns, Observer(on, netns, kind.protocol, kind.group), cases))
            values[name] = []
        with bed.looking_on():
            for number in range(-3, rounds):
                for name, netns, observer, cases in list(contestants):
                    with bed.inside(netns):
                        took = observer.time(cases[number % len(cases)])
                    if took is None:
                        log = on.directory / f"{name}.log"
                        words = log.read_text().strip().splitlines()[-1:] if log.exists() else []
                        missing.append((name, " ".join(["did not bring it back", *words])))
                        contestants = [each for each in contestants if each[0] != name]
                    elif number >= 0:
                        values[name].append(took)
                    time.sleep(SETTLE)
    series = tuple(Series(name, tuple(values.get(name, ()))) for name in (OURS, LIMIT, SHELL, PYROUTE2))
    ms = kind.under * 1e3
    targets = [Target(f"half of them under {ms:.0f} ms", kind.under)]
    if not kind.nft:
        targets.append(Target("within 6 times the C program", 6.0, LIMIT))
    targets += [
        Target(f"ahead of the {name} by 5", 0.2, name) for name in (SHELL, PYROUTE2) if values.get(name)
    ]
    return Figure("heal", kind.name, "s", series, tuple(targets), tuple(missing), NOTE)


def measure(quick: bool) -> list[Figure]:
    """Every kind."""
    figures = []
    for kind in KINDS:
        bed.progress(f"healing: {kind.name}")
        figures.append(measure_kind(kind, QUICK if quick else ROUNDS))
    return figures
