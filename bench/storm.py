# SPDX-License-Identifier: MIT
"""Ten thousand changes a second of others' routes: what a scope with 50 routes of its own takes of a core,
beside those who only listen.

It makes the storm; nobody is asked to do anything about it.
"""

from __future__ import annotations

import socket
import sys
import time

import bed
import kinds
from figures import Figure, Series, Target

from linxd.netlink import rt, wire

RATE, OWN, BATCH = 10_000, 50, 100
OURS, IP, PYROUTE2 = "linxd", "ip monitor", "pyroute2 loop"
_LISTEN = """\
from pyroute2 import IPRoute

watch = IPRoute()
watch.bind(groups=1 << 6)
while True:
    for said in watch.get():
        said["event"]
"""
DECLARATION = (
    '[link.e0]\nkind = "veth"\npeer = { name = "e1" }\naddresses = ["10.200.0.5/24"]\n[link.e1]\nup = true\n'
    + kinds.routes(OWN)
)


def storm(sock: socket.socket, seconds: float) -> float:
    """Add and delete foreign routes for so long; changes a second."""
    datagrams = []
    for type, flags in ((wire.RTM_NEWROUTE, wire.NLM_F_CREATE), (wire.RTM_DELROUTE, 0)):
        parts = []
        for n in range(BATCH):
            payload = rt.encode_route(
                family=kinds.AF_INET, dst=f"100.0.{n}.0/24", protocol=12, gateway=kinds.GATEWAY
            )
            parts.append(wire.message(type, flags | wire.NLM_F_REQUEST, n, payload))
        datagrams.append(b"".join(parts))
    began = time.monotonic()
    made = 0
    while (passed := time.monotonic() - began) < seconds or made // BATCH % 2:
        if made > passed * RATE:
            time.sleep(made / RATE - passed)
        sock.send(datagrams[made // BATCH % 2])
        made += BATCH
    return made / (time.monotonic() - began)


def measure(quick: bool) -> list[Figure]:
    """In turn, each in a namespace of its own."""
    runs, seconds = (3, 2.0) if quick else (7, 3.0)
    bed.progress("storm")
    values: dict[str, list[float]] = {OURS: [], IP: [], PYROUTE2: []}
    missing: list[tuple[str, str]] = []
    rates = []
    with bed.Bed() as on:
        there = {}
        for who in values:
            netns = on.namespace()
            with bed.apart():
                if who == OURS:
                    pid = on.daemon(netns, DECLARATION).converged().pid
                else:
                    kinds.batch(
                        netns,
                        ["link add e0 type veth peer name e1", "link set e0 up", "link set e1 up",
                         "address add 10.200.0.5/24 dev e0"],
                    )  # fmt: skip
                    command = ["ip", "monitor", "route"]
                    if who == PYROUTE2:
                        script = on.directory / "listen.py"
                        script.write_text(_LISTEN)
                        command = [sys.executable, str(script)]
                    process = on.start(command, netns=netns)
                    pid = process.pid
                    time.sleep(1.0)
                    if process.poll() is not None:
                        missing.append((who, "could not be started"))
                        continue
            there[who] = (pid, on.socket(netns, wire.NETLINK_ROUTE))
        for _ in range(runs):
            for who, (pid, sock) in there.items():
                before, began = bed.cpu_of(pid), time.monotonic()
                rates.append(storm(sock, seconds))
                time.sleep(0.3)
                values[who].append((bed.cpu_of(pid) - before) / (time.monotonic() - began - 0.3) * 100)
    rate = sum(rates) / len(rates)
    note = (
        f"Share of a core, with {rate:,.0f} changes a second. The others only listen: `ip monitor` writes "
        "into the void, the loop decodes and throws away."
    )
    series = tuple(Series(who, tuple(each)) for who, each in values.items())
    return [
        Figure(
            "storm", f"{OWN} own routes", "%", series, (Target("under 20 % of a core", 20.0),),
            tuple(missing), note,
        )
    ]  # fmt: skip
