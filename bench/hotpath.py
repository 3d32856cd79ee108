# SPDX-License-Identifier: MIT
"""Where time goes: first applies, quiet passes, heals and a storm of others' changes, each beside what the
C tools take for the same in the same run.

It drives the sources as a daemon does, ledger in a file and all. `measure` gives every figure, for others to
print; `--profile` shows what ours are made of.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import gc
import json
import os
import pstats
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import inprocess as plain
import netfilter

from linxd import collector
from linxd.netlink import rt, wire
from linxd.netlink.socket import Requests, open_netlink
from linxd.source import Hint
from linxd.sources.netfilter.model import Desired as NftDesired
from linxd.sources.netfilter.model import Ruleset
from linxd.sources.rtnl import routereader
from linxd.sources.rtnl import source as rtnl_source
from linxd.sources.rtnl.model import AF_INET, AF_INET6, Address, Desired, Link, Peer, Route

Figures = dict[str, list[float]]

PROFILE: cProfile.Profile | None = None


@contextlib.contextmanager
def profiled() -> Iterator[None]:
    """Around what is ours."""
    if PROFILE is None:
        yield
        return
    PROFILE.enable()
    try:
        yield
    finally:
        PROFILE.disable()


async def wall(what: Callable[[], Awaitable[Any]]) -> float:
    """Seconds that it takes."""
    gc.collect()
    with profiled():
        began = time.perf_counter()
        await what()
        return time.perf_counter() - began


async def cpu(what: Callable[[], Awaitable[Any]]) -> float:
    """Seconds on the processor, the kernel's on our behalf included."""
    with profiled():
        began = time.process_time()
        await what()
        return time.process_time() - began


def theirs(*command: str, text: str | None = None) -> tuple[float, float, str]:
    """Another's command: wall clock, processor, output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    output = plain.run(*command, text=text)
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took, spent, output


async def apply_routes(runs: int, count: int = 10_000, family: int = AF_INET) -> Figures:
    """Routes made from nothing."""
    figures: Figures = {"linxd": [], "ip -batch": []}
    desired, lines = routes_of(count, family)
    for _ in range(runs):
        with plain.namespace() as name, tempfile.TemporaryDirectory() as directory:
            scope = plain.Scope(name, directory, desired)
            figures["linxd"].append(await wall(scope.go))
            assert (await scope.go()).drifted == ()
            scope.close()
        with plain.namespace() as name:
            plain.run("ip", "-n", name, "address", "add", "10.0.0.5/24", "dev", "e0")
            plain.run("ip", "-n", name, "address", "add", "fd00::5/64", "dev", "e0", "nodad")
            figures["ip -batch"].append(theirs("ip", "-n", name, "-batch", "-", text="\n".join(lines))[0])
    return figures


def routes_of(count: int, family: int) -> tuple[Desired, list[str]]:
    """So many routes as a declaration, and as lines for `ip -batch`."""
    if family == AF_INET:
        return plain.declaration(count), [
            f"route add {plain.destination(n)} via {plain.GATEWAY} dev e0" for n in range(count)
        ]
    address = Address("e0", AF_INET6, "fd00::5", 64, flags=2)
    made = [
        Route(AF_INET6, f"fd01:{n + 1:x}::/64", metric=1024, via="fd00::1", dev="e0") for n in range(count)
    ]
    desired = Desired(
        {"e0": Link("e0", up=True)}, {address.key: address}, {route.key: route for route in made}
    )
    return desired, [f"route add fd01:{n + 1:x}::/64 via fd00::1 dev e0" for n in range(count)]


async def apply_routes6(runs: int) -> Figures:
    """The same with IPv6."""
    return await apply_routes(runs, family=AF_INET6)


def veths(count: int) -> tuple[Desired, list[str]]:
    """So many pairs with two addresses each, and the same for `ip -batch`."""
    links = {f"v{n}": Link(f"v{n}", "veth", up=True, peer=Peer(f"w{n}")) for n in range(count)}
    addresses = [
        Address(f"v{n}", AF_INET, f"10.{side}.{n >> 8}.{n & 255}", 32)
        for n in range(count)
        for side in (1, 2)
    ]
    lines = [f"link add v{n} type veth peer name w{n}" for n in range(count)]
    lines += [f"link set {side}{n} up" for n in range(count) for side in "vw"]
    lines += [f"address add {one.address}/32 dev {one.link}" for one in addresses]
    return Desired(links, {one.key: one for one in addresses}), lines


async def apply_veths(runs: int, count: int = 1000) -> Figures:
    """Pairs of veth made from nothing, with two addresses each."""
    figures: Figures = {"linxd": [], "ip -batch": []}
    desired, lines = veths(count)
    for _ in range(runs):
        with plain.namespace() as name, tempfile.TemporaryDirectory() as directory:
            scope = plain.Scope(name, directory, desired)
            figures["linxd"].append(await wall(scope.go))
            report = await scope.go()
            assert report.drifted == (), report.drifted[:3]
            assert report.converged, report.conditions[:3]
            scope.close()
        with plain.namespace() as name:
            figures["ip -batch"].append(theirs("ip", "-n", name, "-batch", "-", text="\n".join(lines))[0])
    return figures


async def apply_nft(runs: int, elements: int = 10_000, rules: int = 2_000) -> Figures:
    """A large ruleset loaded into nothing."""
    figures: Figures = {"linxd": [], "nft -f": []}
    text = netfilter.ruleset(elements, rules)
    desired = NftDesired((Ruleset(text, "bench.nft"),))
    with tempfile.TemporaryDirectory() as directory:
        for number in range(runs + 1):
            with plain.namespace() as name:
                scope = netfilter.Scope(name, directory, desired)
                gc.collect()
                if number:
                    with profiled():
                        figures["linxd"].append(await scope.go())
                else:
                    await scope.go()  # compiles it
                scope.ledger.drop()
                scope.close()
            with plain.namespace() as name:
                command = ("ip", "netns", "exec", name, "nft", "-f", "-")
                figures["nft -f"].append(theirs(*command, text=text)[0])
    return figures


async def quiet_routes(runs: int, count: int = 10_000) -> Figures:
    """A pass over routes of ours that are as declared."""
    figures: Figures = {"linxd": [], "ip -j route | json": []}
    with plain.namespace() as name, tempfile.TemporaryDirectory() as directory:
        scope = plain.Scope(name, directory, plain.declaration(count))
        await scope.go()
        await scope.go()
        for _ in range(runs * 5):
            figures["linxd"].append(await cpu(scope.go))
            _, spent, output = theirs("ip", "-n", name, "-j", "route")
            began = time.process_time()
            json.loads(output)
            figures["ip -j route | json"].append(spent + time.process_time() - began)
        scope.close()
    return figures


async def quiet_few(runs: int, count: int = 50, foreign: int = 100_000) -> Figures:
    """A pass over few routes of ours among very many of others, beside the dump of those with our mark."""
    figures: Figures = {
        "linxd": [],
        "linxd, slowest": [],
        "bare filtered dump": [],
        "ip -j route | json": [],
    }
    with plain.namespace() as name, tempfile.TemporaryDirectory() as directory:
        plain.run("ip", "-n", name, "address", "add", "10.0.0.5/24", "dev", "e0")
        lines = [
            f"route add 100.{n >> 16}.{n >> 8 & 255}.{n & 255}/32 via {plain.GATEWAY} dev e0 proto bird"
            for n in range(foreign)
        ]
        plain.run("ip", "-n", name, "-batch", "-", text="\n".join(lines))
        scope = plain.Scope(name, directory, plain.declaration(count))
        subscription = scope.source.subscribe(lambda hint: None)
        for _ in range(3):
            await scope.go()
        took: list[float] = []
        for _ in range(120):  # two of them look at all routes
            took.append(await cpu(scope.go))
            began = time.process_time()
            for family in (AF_INET, AF_INET6):
                payload = rt.query_routes(family=family, protocol=76)
                for buf, start, end in scope.requests.dump_all(wire.RTM_GETROUTE, payload):
                    rt.decode_route(buf, start, end)
            figures["bare filtered dump"].append(time.process_time() - began)
        _, spent, output = theirs("ip", "-n", name, "-j", "route")
        began = time.process_time()
        json.loads(output)
        figures["ip -j route | json"].append(spent + time.process_time() - began)
        figures["linxd"] = [statistics.fmean(took)]
        figures["linxd, slowest"] = [max(took)]
        figures["linxd, median"] = [statistics.median(took)]
        subscription.close()
        scope.close()
    return figures


async def quiet_links(runs: int, count: int = 500) -> Figures:
    """A pass over a thousand links (pairs of veth) with two addresses a pair."""
    figures: Figures = {"linxd": [], "ip -j link, address | json": [], "bare dumps": []}
    desired, _ = veths(count)
    with plain.namespace() as name, tempfile.TemporaryDirectory() as directory:
        scope = plain.Scope(name, directory, desired)
        for _ in range(3):
            await scope.go()
        for _ in range(runs * 3):
            figures["linxd"].append(await cpu(scope.go))
            _, spent, output = theirs("ip", "-n", name, "-j", "-d", "address")
            began = time.process_time()
            json.loads(output)
            figures["ip -j link, address | json"].append(spent + time.process_time() - began)
            began = time.process_time()
            for kind, payload in (
                (wire.RTM_GETLINK, rt.query_links()),
                (wire.RTM_GETADDR, rt.query_addrs(family=AF_INET)),
                (wire.RTM_GETADDR, rt.query_addrs(family=AF_INET6)),
            ):
                scope.requests.dump_all(kind, payload)
            figures["bare dumps"].append(time.process_time() - began)
        scope.close()
    return figures


async def quiet_nft(runs: int, elements: int = 10_000, rules: int = 2_000) -> Figures:
    """A pass over a large ruleset: unchanged, and after somebody made a generation that changed nothing of
    ours."""
    figures: Figures = {"linxd": [], "linxd, read anew": [], "nft -j list | json": []}
    desired = NftDesired((Ruleset(netfilter.ruleset(elements, rules), "bench.nft"),))
    with plain.namespace() as name, tempfile.TemporaryDirectory() as directory:
        scope = netfilter.Scope(name, directory, desired)
        await scope.go()
        await scope.go()
        for _ in range(runs):
            netfilter.nft(name, "add", "table", "ip", "other")
            figures["linxd, read anew"].append(await cpu(scope.go))
            netfilter.nft(name, "delete", "table", "ip", "other")
            await scope.go()
            figures["linxd"].append(await cpu(scope.go))
            _, spent, output = theirs("ip", "netns", "exec", name, "nft", "-j", "list", "ruleset")
            began = time.process_time()
            json.loads(output)
            figures["nft -j list | json"].append(spent + time.process_time() - began)
        scope.close()
    return figures


async def heals(runs: int, counts: tuple[int, ...] = (10, 1000, 10_000, 100_000)) -> Figures:
    """One deleted route, with so many of ours: from the event's reading to the acknowledgement, and the
    whole pass."""
    figures: Figures = {}
    for count in counts:
        with plain.namespace() as name, tempfile.TemporaryDirectory() as directory:
            scope = plain.Scope(name, directory, plain.declaration(count))
            await scope.go()
            await scope.go()
            saboteur = Requests(open_netlink(netns_fd=scope.fd))
            hints: list[Hint] = []
            came = asyncio.Event()

            def notify(hint: Hint, hints: list[Hint] = hints, came: asyncio.Event = came) -> None:
                hints.append(hint)
                came.set()

            subscription = scope.source.subscribe(notify)
            healed, whole = [], []
            for number in range(runs * 30):
                came.clear()
                hints.clear()
                dst = plain.destination(number % count)
                payload = rt.encode_route(family=AF_INET, dst=dst, type=0, scope=255)
                saboteur.request(wire.RTM_DELROUTE, 0, payload)
                await asyncio.wait_for(came.wait(), 30)
                with profiled():
                    began = time.perf_counter()
                    report = await scope.go(*hints)
                    whole.append(time.perf_counter() - began)
                assert len(report.applied) == 1
                healed.append(report.heal_usec / 1e6)
                await asyncio.sleep(0)
            figures[f"linxd, one of {count:,} routes"] = healed
            figures[f"linxd, one of {count:,}, the pass"] = whole
            subscription.close()
            saboteur.close()
            scope.close()
    return figures


async def storm(runs: int, rate: int = 10_000, seconds: float = 2.0) -> Figures:
    """Processor that a scope of 50 objects spends on others' changes, as a share of one, at so many a
    second: routes in bursts of 200, routes one by one, neighbours one by one."""
    figures: Figures = {}
    with plain.namespace() as name, tempfile.TemporaryDirectory() as directory:
        scope = plain.Scope(name, directory, plain.declaration(50))
        hints: list[Hint] = []
        subscription = scope.source.subscribe(hints.append)
        await scope.go()
        await scope.go()
        for what in ("routes-together", "routes", "neighbours"):
            for _ in range(max(1, runs // 2)):
                await asyncio.sleep(0.1)
                hints.clear()
                child = subprocess.Popen(
                    [sys.executable, __file__, "--make-storm", what, str(rate), str(seconds)],
                    stdin=scope.fd,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                with profiled():
                    spent = time.process_time()
                    while child.poll() is None:
                        await asyncio.sleep(0.1)
                    spent = time.process_time() - spent
                assert child.stdout is not None
                made, took = map(float, child.stdout.read().split())
                child.stdout.close()
                figures.setdefault(f"linxd, share of a core, {what}", []).append(spent / took)
                figures.setdefault(f"{what}, changes a second", []).append(made / took)
                assert not hints, hints[:3]
        subscription.close()
        scope.close()
    return figures


def make_storm(what: str, rate: int, seconds: float) -> None:
    """Routes or neighbours added and deleted in the namespace on standard input, evenly spread; says how
    many changes there were, and how long they took."""
    requests = Requests(open_netlink(netns_fd=0))
    replies = requests.request(wire.RTM_GETLINK, 0, rt.query_link(name="e0"))
    oif = rt.decode_link(replies[0].buf, replies[0].start, replies[0].end).ifindex
    made: list[tuple[int, int, bytes]] = []
    gone: list[tuple[int, int, bytes]] = []
    for n in range(100):
        if what == "neighbours":
            neighbour = rt.encode_neigh(
                family=AF_INET, ifindex=oif, address=f"10.0.0.{100 + n}", lladdr="02:00:00:00:00:09", state=4
            )
            made.append((wire.RTM_NEWNEIGH, wire.NLM_F_CREATE | wire.NLM_F_REPLACE, neighbour))
            gone.append((wire.RTM_DELNEIGH, 0, neighbour))
        else:
            route = rt.encode_route(family=AF_INET, dst=f"100.0.{n}.0/24", oif=oif, protocol=12, scope=253)
            made.append((wire.RTM_NEWROUTE, wire.NLM_F_CREATE, route))
            gone.append((wire.RTM_DELROUTE, 0, route))
    changes = [*made, *gone]
    began = time.perf_counter()
    done = 0
    while (now := time.perf_counter() - began) < seconds:
        if what == "routes-together":
            if done >= now * rate:
                time.sleep(0.002)
                continue
            refused = [error for error in requests.batch(changes) if error is not None]
            assert not refused, refused[0]
            done += len(changes)
        elif done < now * rate:
            requests.request(*changes[done % len(changes)])
            done += 1
    print(done, time.perf_counter() - began)


SECTIONS: dict[str, Callable[[int], Awaitable[Figures]]] = {
    "apply-routes": apply_routes,
    "apply-routes6": apply_routes6,
    "apply-veths": apply_veths,
    "apply-nft": apply_nft,
    "quiet-routes": quiet_routes,
    "quiet-few": quiet_few,
    "quiet-links": quiet_links,
    "quiet-nft": quiet_nft,
    "heal": heals,
    "storm": storm,
}


async def measure(runs: int = 5, sections: tuple[str, ...] = tuple(SECTIONS)) -> dict[str, Figures]:
    """Seconds by section and by what was measured; ours first, and what it is held against after it."""
    return {name: await SECTIONS[name](runs) for name in sections}


def show(title: str, figures: Figures) -> None:
    """A block, each figure with how many times it ours is."""
    print(f"{title}")
    base = statistics.median(next(iter(figures.values())))
    for name, values in figures.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        ratio = f"  ours is {base / middle:.2f}x" if middle and not name.startswith("linxd") else ""
        print(
            f"  {name:<34}{middle * 1e3:10.3f} ms  ({low * 1e3:.3f} … {high * 1e3:.3f}){ratio}", flush=True
        )


def main() -> None:
    """Measure and print."""
    global PROFILE
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", default=list(SECTIONS), help=", ".join(SECTIONS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="show where ours goes")
    parser.add_argument("--make-storm", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make_storm:
        what, rate, seconds = options.make_storm
        make_storm(what, int(rate), float(seconds))
        return
    if os.geteuid() != 0:
        raise SystemExit("bench: needs root, to make network namespaces")
    collector.take_charge()
    for section in options.sections or SECTIONS:
        if options.profile:
            PROFILE = cProfile.Profile()
            # What runs in threads would not be seen.
            rtnl_source.LARGE = routereader.MANY = rtnl_source.MANY = 1 << 30
        show(section, asyncio.run(measure(options.runs, (section,)))[section])
        if PROFILE is not None:
            pstats.Stats(PROFILE).sort_stats("tottime").print_stats(32)


if __name__ == "__main__":
    main()
