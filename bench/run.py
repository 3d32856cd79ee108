#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Figures beside what a user would use instead, in one run on one machine: read the ratios, not the times.

Runs as root on Debian's own Python, in namespaces that it makes and removes. `--quick` for a short run,
`--json FILE` to keep the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import netfilter
import sysctls

from linxd.ledger import FileLedger
from linxd.netlink import rt, wire
from linxd.netlink.socket import Events, Requests, open_netlink
from linxd.patch import Trigger
from linxd.source import Hint, Pass
from linxd.sources.rtnl.events import GROUPS
from linxd.sources.rtnl.model import AF_INET, Address, Desired, Link, Route
from linxd.sources.rtnl.source import RtnlSource

GATEWAY = "10.0.0.1"


def run(*command: str, text: str | None = None) -> str:
    """Run a command; its output. Raises with its own words."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """A namespace with a veth pair e0, e1 that is up, and 10.0.0.5/24 on e0."""
    name = f"lx-bench-{os.getpid()}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "-batch", "-", text="\n".join([
            "link set lo up", "link add e0 type veth peer name e1", "link set e0 up", "link set e1 up",
        ]))  # fmt: skip
        yield name
    finally:
        run("ip", "netns", "del", name)


def destination(number: int) -> str:
    """The number-th of a row of /24s."""
    return f"{20 + (number >> 16)}.{number >> 8 & 255}.{number & 255}.0/24"


def declaration(routes: int) -> Desired:
    """A link, an address and so many routes."""
    address = Address("e0", AF_INET, "10.0.0.5", 24)
    made = [Route(AF_INET, destination(n), via=GATEWAY, dev="e0", scope=0) for n in range(routes)]
    return Desired({"e0": Link("e0", up=True)}, {address.key: address}, {route.key: route for route in made})


class Scope:
    """A source on a namespace, with a ledger in a file as the daemon has it."""

    def __init__(self, netns: str, directory: str, desired: Desired) -> None:
        self.fd = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
        self.requests = Requests(open_netlink(netns_fd=self.fd))
        self.source = RtnlSource(self.requests, lambda: Events(open_netlink(netns_fd=self.fd), GROUPS))
        self.ledger = FileLedger(directory, boot_id="bench", cookie=1, source="rtnl")
        self.desired = desired

    async def go(self, *hints: Hint) -> Any:
        """One pass."""
        trigger = Trigger.EVENT if hints else Trigger.RESYNC
        return await self.source.reconcile(Pass(self.desired, self.ledger, trigger, hints))

    def close(self) -> None:
        """Let go of the namespace."""
        self.ledger.close()
        self.requests.close()
        os.close(self.fd)


async def timed(what: Callable[[], Awaitable[Any]]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    await what()
    return time.perf_counter() - began


def spread(values: list[float]) -> str:
    """Median and range, in ms."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle * 1e3:8.2f} ms  ({low * 1e3:.2f} … {high * 1e3:.2f})"


Figures = dict[str, list[float]]


def show(title: str, figures: Figures, ours: str) -> None:
    """A block of figures and the ratio to ours."""
    print(f"\n{title}")
    base = statistics.median(figures[ours])
    for name, values in figures.items():
        ratio = (
            ""
            if name == ours or name.startswith("linxd")
            else f"   linxd takes {base / statistics.median(values):.2f} of it"
        )
        print(f"  {name:<42}{spread(values)}{ratio}")


async def first_apply(count: int, runs: int) -> Figures:
    """Everything made from nothing, in turn with `ip -batch` on the same machine."""
    figures: Figures = {"linxd, first apply": [], "ip -batch": []}
    text = "\n".join(f"route add {destination(n)} via {GATEWAY} dev e0" for n in range(count))
    for _ in range(runs):
        with namespace() as name, tempfile.TemporaryDirectory() as directory:
            scope = Scope(name, directory, declaration(count))
            figures["linxd, first apply"].append(await timed(scope.go))
            assert (await scope.go()).drifted == ()
            scope.close()
        with namespace() as name:
            run("ip", "-n", name, "address", "add", "10.0.0.5/24", "dev", "e0")
            began = time.perf_counter()
            run("ip", "-n", name, "-batch", "-", text=text)
            figures["ip -batch"].append(time.perf_counter() - began)
    return figures


async def quiet(count: int, runs: int) -> Figures:
    """A pass that finds nothing to do, beside reading the same routes with `ip -j` and parsing that."""
    figures: Figures = {"linxd, quiet resync": [], "ip -j route | json": []}
    with namespace() as name, tempfile.TemporaryDirectory() as directory:
        scope = Scope(name, directory, declaration(count))
        await scope.go()
        await scope.go()
        for _ in range(runs):
            figures["linxd, quiet resync"].append(await timed(scope.go))
            began = time.perf_counter()
            json.loads(run("ip", "-n", name, "-j", "route"))
            figures["ip -j route | json"].append(time.perf_counter() - began)
        scope.close()
    return figures


async def heal(counts: tuple[int, ...], runs: int) -> dict[str, list[float]]:
    """One deleted route: from the reading of the event to the kernel's acknowledgement."""
    figures: Figures = {}
    for count in counts:
        values: list[float] = []
        with namespace() as name, tempfile.TemporaryDirectory() as directory:
            scope = Scope(name, directory, declaration(count))
            await scope.go()
            await scope.go()
            saboteur = Requests(open_netlink(netns_fd=scope.fd))
            hints: list[Hint] = []
            came = asyncio.Event()

            def notify(hint: Hint, hints: list[Hint] = hints, came: asyncio.Event = came) -> None:
                hints.append(hint)
                came.set()

            subscription = scope.source.subscribe(notify)
            for number in range(runs):
                came.clear()
                hints.clear()
                payload = rt.encode_route(family=AF_INET, dst=destination(number % count), type=0, scope=255)
                saboteur.request(wire.RTM_DELROUTE, 0, payload)
                await asyncio.wait_for(came.wait(), 5)
                report = await scope.go(*hints)
                assert len(report.applied) == 1
                values.append(report.heal_usec / 1e6)
                await asyncio.sleep(0)
            subscription.close()
            saboteur.close()
            scope.close()
        figures[f"one of {count:,} routes"] = values
    return figures


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer runs, fewer routes")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("bench: needs root, to make network namespaces")
    count, runs = (2000, 3) if options.quick else (10_000, 7)
    results: dict[str, Figures] = {}
    print(f"linxd bench: {os.uname().release}, {os.cpu_count()} CPUs, Python {sys.version.split()[0]}")
    results["first apply"] = await first_apply(count, runs)
    show(f"{count:,} routes, first apply", results["first apply"], "linxd, first apply")
    results["quiet resync"] = await quiet(count, runs * 3)
    show(f"{count:,} routes, quiet resync", results["quiet resync"], "linxd, quiet resync")
    counts = (10, 1000, 10_000)
    results["heal"] = await heal(counts, 50 if options.quick else 500)
    print("\nhealing one deleted route, event read to kernel's acknowledgement")
    base = statistics.median(results["heal"]["one of 10 routes"])
    for name, values in results["heal"].items():
        p99 = statistics.quantiles(values, n=100)[98]
        middle = statistics.median(values)
        times = f"p50 {middle * 1e3:.3f} ms  p99 {p99 * 1e3:.3f} ms"
        print(f"  {name:<24} {times}   {middle / base:.2f} of that with 10")
    elements, rules = (2000, 400) if options.quick else (10_000, 2_000)
    results |= await netfilter.measure(elements, rules, runs, namespace, run)
    results |= await sysctls.measure(runs, namespace, run)
    for title, figures in results.items():
        if title.startswith(("nft", "sysctl")):
            show(title, figures, next(iter(figures)))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
