# SPDX-License-Identifier: MIT
"""A large ruleset: its first load beside `nft -f`, a quiet resync beside `nft -j list ruleset`, and the
healing of one element and of one rule."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from linxd.ledger import FileLedger
from linxd.netlink.socket import Events, Requests, open_netlink
from linxd.netlink.wire import NETLINK_NETFILTER, NETLINK_ROUTE
from linxd.patch import Trigger
from linxd.source import Hint, Pass
from linxd.sources.netfilter.compile import Compiler
from linxd.sources.netfilter.events import GROUPS, LINK_GROUPS
from linxd.sources.netfilter.model import Desired, Ruleset
from linxd.sources.netfilter.source import NetfilterSource


def ruleset(elements: int, rules: int) -> str:
    """A table with so many elements in one set and so many rules in one chain."""
    addresses = ", ".join(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(elements))
    lines = "\n".join(f"    ip saddr 172.16.{n >> 8}.{n & 255} tcp dport 22 accept" for n in range(rules))
    return f"""table inet filter {{
  set allow {{ type ipv4_addr; elements = {{ {addresses} }}; }}
  chain input {{ type filter hook input priority 0; policy accept;
    ip saddr @allow accept
{lines}
  }}
}}
"""


def nft(name: str, *words: str, text: str | None = None) -> str:
    """nft(8) in the namespace."""
    command = ["ip", "netns", "exec", name, "nft", *words]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return done.stdout


class Scope:
    """The source on a namespace, with a ledger in a file as the daemon has it."""

    def __init__(self, name: str, directory: str, desired: Desired) -> None:
        self.fd = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        self.requests = Requests(open_netlink(NETLINK_NETFILTER, netns_fd=self.fd))
        self.source = NetfilterSource(
            self.requests,
            lambda: Events(open_netlink(NETLINK_NETFILTER, netns_fd=self.fd), GROUPS),
            Compiler(cache=os.path.join(directory, "compiled")),
            link_events=lambda: Events(open_netlink(NETLINK_ROUTE, netns_fd=self.fd), LINK_GROUPS),
        )
        self.ledger = FileLedger(directory, boot_id="bench", cookie=1, source="netfilter")
        self.desired = desired

    async def go(self, *hints: Hint) -> float:
        """One pass; seconds that it took."""
        trigger = Trigger.EVENT if hints else Trigger.RESYNC
        began = time.perf_counter()
        report = await self.source.reconcile(Pass(self.desired, self.ledger, trigger, hints))
        took = time.perf_counter() - began
        assert report.converged, report.conditions
        return took

    def close(self) -> None:
        """Let go of the namespace."""
        self.ledger.close()
        self.requests.close()
        os.close(self.fd)


async def measure(
    elements: int,
    rules: int,
    runs: int,
    namespace: Callable[[], AbstractContextManager[str]],
    run: Callable[..., str],
) -> dict[str, dict[str, list[float]]]:
    """The figures, by title; the first of each block is ours."""
    text = ruleset(elements, rules)
    desired = Desired((Ruleset(text, "bench.nft"),))
    load: dict[str, list[float]] = {"linxd, compiled before": [], "linxd, with compiling": [], "nft -f": []}
    quiet: dict[str, list[float]] = {"linxd, nothing has changed": [], "nft -j list | json": []}
    heal: dict[str, list[float]] = {"linxd, one element of the set": [], "linxd, one rule of the chain": []}
    for number in range(runs):
        with tempfile.TemporaryDirectory() as directory:
            for title in ("linxd, with compiling", "linxd, compiled before"):
                with namespace() as name:
                    scope = Scope(name, directory, desired)
                    load[title].append(await scope.go())
                    if title == "linxd, compiled before":
                        await scope.go()
                        if number == 0:
                            await _heals(scope, name, heal)
                        subscription = scope.source.subscribe(lambda hint: None)
                        await scope.go()
                        quiet["linxd, nothing has changed"].append(await scope.go())
                        subscription.close()
                        began = time.perf_counter()
                        json.loads(nft(name, "-j", "list", "ruleset"))
                        quiet["nft -j list | json"].append(time.perf_counter() - began)
                    scope.close()
        with namespace() as name:
            began = time.perf_counter()
            nft(name, "-f", "-", text=text)
            load["nft -f"].append(time.perf_counter() - began)
    what = f"{elements:,} elements and {rules:,} rules"
    return {
        f"nft: {what}, first load": load,
        f"nft: {what}, quiet resync": quiet,
        f"nft: {what}, healed": heal,
    }


async def _heals(scope: Scope, name: str, heal: dict[str, list[float]]) -> None:
    hints: list[Hint] = []
    came = asyncio.Event()

    def notify(hint: Hint) -> None:
        hints.append(hint)
        came.set()

    subscription = scope.source.subscribe(notify)
    await scope.go()
    for number in range(20):
        listed = nft(name, "-a", "list", "chain", "inet", "filter", "input")
        handle = next(line.split()[-1] for line in listed.splitlines() if f"172.16.0.{number + 1} " in line)
        for title, command in (
            ("linxd, one element of the set", f"delete element inet filter allow {{ 10.0.0.{number + 1} }}"),
            ("linxd, one rule of the chain", f"delete rule inet filter input handle {handle}"),
        ):
            hints.clear()
            came.clear()
            nft(name, *command.split(" ", 5))
            await asyncio.wait_for(came.wait(), 5)
            heal[title].append(await scope.go(*hints))
            await asyncio.sleep(0)
    subscription.close()
