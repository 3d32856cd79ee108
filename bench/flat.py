# SPDX-License-Identifier: MIT
"""Healing among 10, 1,000, 10,000 and 100,000 declared routes: the object that an event names, and those
that the kernel took away silently with it.

It is the daemon beside itself; who else heals, and how fast, stands elsewhere.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass

import bed
import kinds
from figures import Figure, Series, Target
from watching import Observer

from linxd.netlink import rt, wire

COUNTS, QUICK_COUNTS = (10, 1000, 10_000, 100_000), (10, 1000, 10_000)
SIDES, BEHIND = 20, 10
"""Links with an address each, and the routes over each that go silently with that address."""
LINKS = [f"{side}{n}" for n in range(SIDES // 2) for side in "vw"]
REST = 0.0002
"""Seconds of CPU within 5 ms below which a daemon is at rest."""
NAMED = (
    "A deleted route, from its event to that of its coming back, with so many declared ones in the "
    "namespace; broken in turn, each when its daemon was at rest."
)
SILENT = (
    f"An IPv4 address is deleted, and the kernel drops {BEHIND} routes with it without a word: until the "
    "last of them is back. To find them, the routes are read; the more there are, the longer that takes."
)


@dataclass
class World:
    """A namespace with so many declared routes, its daemon, and those who break and watch."""

    daemon: bed.Daemon
    routes: list[kinds.Case]
    silent: list[tuple[kinds.Sabotage, kinds.Seen, list[kinds.Seen]]]
    on_routes: Observer
    on_both: Observer


def _gateway(number: int) -> str:
    return f"10.201.{number}.1"


def _behind(number: int, at: int) -> str:
    return f"15.{number}.{at}.0"


def declaration(count: int) -> str:
    """So many routes over one link, and for the silent ones an address on each of the others."""
    text = [kinds.routes(count)]
    for number, name in enumerate(LINKS):
        text.append(f'[link.{name}]\naddresses = ["10.201.{number}.5/24"]\n')
        text += [
            f'[[route]]\nto = "{_behind(number, at)}/24"\nvia = "{_gateway(number)}"\ndev = "{name}"\n'
            for at in range(BEHIND)
        ]
    return "".join(text)


def world(on: bed.Bed, count: int) -> World:
    """Make one."""
    netns = on.namespace()
    lines = [
        "link add e0 type veth peer name e1", "link set e0 up", "link set e1 up",
        "address add 10.200.0.5/24 dev e0",
        *(f"link add v{n} type veth peer name w{n}" for n in range(SIDES // 2)),
        *(f"link set {name} up" for name in LINKS),
    ]  # fmt: skip
    kinds.batch(netns, lines)
    with bed.apart():
        daemon = on.daemon(netns, declaration(count)).converged(seconds=300)
    route = next(kind for kind in kinds.KINDS if kind.name == "IPv4 route")
    sock = on.socket(netns, wire.NETLINK_ROUTE)
    silent = []
    for number, name in enumerate(LINKS):
        with bed.inside(netns):
            index = socket.if_nametoindex(name)
        address = f"10.201.{number}.5"
        payload = rt.encode_addr(family=kinds.AF_INET, ifindex=index, address=address, prefixlen=24)
        request = wire.message(wire.RTM_DELADDR, wire.NLM_F_REQUEST, 1, payload)
        backs = [
            (wire.RTM_NEWROUTE, socket.inet_pton(kinds.AF_INET, _behind(number, at))) for at in range(BEHIND)
        ]
        gone = (wire.RTM_DELADDR, socket.inet_pton(kinds.AF_INET, address))
        silent.append((kinds.sends(sock, request), gone, backs))
    return World(
        daemon,
        route.cases(on, netns, min(count, 1000)),
        silent,
        Observer(on, netns, wire.NETLINK_ROUTE, wire.RTNLGRP_IPV4_ROUTE),
        Observer(on, netns, wire.NETLINK_ROUTE, wire.RTNLGRP_IPV4_ROUTE, wire.RTNLGRP_IPV4_IFADDR),
    )


def rest(daemon: bed.Daemon, seconds: float = 5.0) -> None:
    """Wait until a daemon does nothing any more."""
    end = time.monotonic() + seconds
    before = bed.cpu_of(daemon.pid)
    while time.monotonic() < end:
        time.sleep(0.005)
        now = bed.cpu_of(daemon.pid)
        if now - before < REST:
            return
        before = now


def measure(quick: bool) -> list[Figure]:
    """Both columns."""
    counts, rounds, rounds_silent = (QUICK_COUNTS, 40, 20) if quick else (COUNTS, 200, 60)
    pace = 0.0 if quick else 0.26
    named: dict[int, list[float]] = {count: [] for count in counts}
    silent: dict[int, list[float]] = {count: [] for count in counts}
    missing: list[tuple[str, str]] = []
    with bed.Bed() as on:
        worlds = {}
        for count in counts:
            bed.progress(f"flat: {count:,} routes")
            worlds[count] = world(on, count)
        with bed.looking_on():
            began = time.monotonic()
            for number in range(rounds):
                for count, each in worlds.items():
                    rest(each.daemon)
                    took = each.on_routes.time(each.routes[number % len(each.routes)])
                    if took is None:
                        raise RuntimeError(f"a route of {count:,} did not come back")
                    named[count].append(took)
                # Ten routes have their turn again after ten rounds: not so soon that it counts as a fight.
                time.sleep(max(0.0, began + (number + 1) * pace - time.monotonic()))
            for number in range(rounds_silent):
                for count, each in worlds.items():
                    rest(each.daemon)
                    last = each.on_both.time_all(*each.silent[number % SIDES])
                    if last is None:
                        missing.append((f"{count:,} routes", "once they were not back within 3 s"))
                    else:
                        silent[count].append(last)
    order = [counts[-1], *counts[:-1]]
    few = "10 routes"
    flat = Target(f"{counts[-1]:,} within 1.3 times 10", 1.3, few)
    return [
        Figure(
            "flat", "the object that the event names", "s",
            tuple(Series(f"{count:,} routes", tuple(named[count])) for count in order), (flat,), note=NAMED,
        ),
        Figure(
            "flat", "what went silently with it", "s",
            tuple(Series(f"{count:,} routes", tuple(silent[count])) for count in order),
            missing=tuple(dict(missing).items()), note=SILENT,
        ),
    ]  # fmt: skip
