# SPDX-License-Identifier: MIT
"""One pass of the rtnl source with a ledger in a file, killed by SIGKILL just before its N-th write.

A write is a datagram to the kernel that is not a question, or a record of the ledger. Run to its end it
prints how many there were. Arguments: namespace, file, state directory, N (0: never).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from linxd import ledgerfile
from linxd.config import load
from linxd.ledger import FileLedger
from linxd.netlink import wire
from linxd.netlink.socket import Events, Requests, netns_cookie, open_netlink
from linxd.patch import Trigger
from linxd.source import Pass
from linxd.sources.rtnl.source import RtnlSource

netns, file, state, at = sys.argv[1:5]
writes = 0


def count() -> None:
    """One write is about to happen."""
    global writes
    writes += 1
    if writes == int(at):
        os.kill(os.getpid(), signal.SIGKILL)


def tap(datagram: bytes) -> None:
    """Requests about to be sent."""
    # Of four rtnetlink types in a row the third is the question.
    if any(message.type % 4 != 2 for message in wire.messages(datagram)):
        count()


class CountedOs:
    """The ledger's way to the disk."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, fd: int, data: bytes) -> int:
        count()
        return os.write(fd, data)


for module in (ledgerfile, sys.modules["linxd.ledger"]):
    if hasattr(module, "os"):
        module.os = CountedOs()  # type: ignore[assignment]

fd = os.open(f"/run/netns/{netns}", os.O_RDONLY)
requests = Requests(open_netlink(netns_fd=fd), tap=tap)
source = RtnlSource(requests, lambda: Events(open_netlink(netns_fd=fd), ()))
ledger = FileLedger(state, boot_id="test", cookie=netns_cookie(requests.sock), source="rtnl")
work = Pass(load(netns, file=file).rtnl, ledger, Trigger.START)
report = asyncio.run(source.reconcile(work))
assert report.converged, report.conditions
print(writes, len(report.applied))
