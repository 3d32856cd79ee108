# SPDX-License-Identifier: MIT
"""A source on a namespace, driven from this process: for profiles, which want to see inside.

What is shown to users is measured from outside, on daemons and commands as they are.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from linxd.ledger import FileLedger
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
