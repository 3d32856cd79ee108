# SPDX-License-Identifier: MIT
"""The netfilter source on a namespace with a large ruleset, driven from this process: for profiles.

What is shown to users is measured from outside, on daemons and commands as they are.
"""

from __future__ import annotations

import os
import subprocess
import time

from linxd.ledger import FileLedger
from linxd.netlink.socket import Events, Requests, open_netlink
from linxd.netlink.wire import NETLINK_NETFILTER, NETLINK_ROUTE
from linxd.patch import Trigger
from linxd.source import Hint, Pass
from linxd.sources.netfilter.compile import Compiler
from linxd.sources.netfilter.events import GROUPS, LINK_GROUPS
from linxd.sources.netfilter.model import Desired
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
