# SPDX-License-Identifier: MIT
"""What scopes take when nothing happens: CPU, and how often they wake up.

It counts from outside, and knows of the daemons only their processes.
"""

from __future__ import annotations

import time

import bed
from figures import Figure, Series, Target

SCOPES = 30
WINDOW, QUICK_WINDOW = 300.0, 20.0
"""Seconds of doing nothing."""
CALM = 3.0
"""Seconds after the last one has started."""
OURS = "linxd"

DECLARATION = """\
[link.e0]
kind = "veth"
peer = { name = "e1" }
addresses = ["10.0.0.5/24", { address = "fd00::5/64", nodad = true }]

[link.e1]
up = true

[[route]]
to = "default"
via = "10.0.0.1"

[netfilter]
ruleset = '''
table inet filter {
  chain input { type filter hook input priority 0; policy accept; ct state established,related accept; }
}
'''

[sysctl]
"net.ipv4.ip_forward" = 1
"net.ipv4.tcp_fin_timeout" = 30
"""
"""Something of everything; of the second key the kernel tells nothing, so that it is read each second."""


def measure(quick: bool) -> list[Figure]:
    """CPU and wake-ups of each scope."""
    window = QUICK_WINDOW if quick else WINDOW
    scopes = 10 if quick else SCOPES
    bed.progress(f"idle: {scopes} scopes for {window:.0f} s")
    with bed.Bed() as on:
        try:
            bus, words = on.bus(), "On a bus of their own."
        except bed.Unavailable as reason:
            bus, words = bed.NO_BUS, f"Without a bus, which they look for now and then: {reason}."
        daemons = [on.daemon(on.namespace(), DECLARATION, bus=bus) for _ in range(scopes)]
        for daemon in daemons:
            daemon.converged()
        time.sleep(CALM)
        began = time.monotonic()
        cpu = [bed.cpu_of(daemon.pid) for daemon in daemons]
        woken = [bed.switches(daemon.pid) for daemon in daemons]
        time.sleep(window)
        passed = time.monotonic() - began
        shares = [
            (bed.cpu_of(daemon.pid) - at) / passed * 100 for daemon, at in zip(daemons, cpu, strict=True)
        ]
        wakes = [(bed.switches(daemon.pid) - at) / passed for daemon, at in zip(daemons, woken, strict=True)]
    note = (
        f"{scopes} scopes for {window:.0f} s: links, addresses, a route, a ruleset, and two sysctls, one of "
        f"which the kernel tells nothing of, so that it is read each second. {words}"
    )
    return [
        Figure(
            "idle", "CPU of one scope", "%", (Series(OURS, tuple(shares)),),
            (Target("under 0.05 % of a core", 0.05),), note=note,
        ),
        Figure("idle", "wake-ups of one scope", "1/s", (Series(OURS, tuple(wakes)),), note=note),
    ]  # fmt: skip
