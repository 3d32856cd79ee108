# SPDX-License-Identifier: MIT
"""Quiet passes and quiet looks of the poll, for somebody who counts the system calls between the marks.

A mark is a getppid(2), which nothing else here calls. Arguments: namespace, declared keys as JSON, how many
of each. Between the first two marks there are the passes, between the last two the looks.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from linxd.config import declare
from linxd.ledger import MemoryLedger
from linxd.netlink.events import Events
from linxd.netlink.socket import open_netlink
from linxd.netlink.wire import NETLINK_ROUTE
from linxd.source import Pass
from linxd.sources.sysctl.procfs import Procfs
from linxd.sources.sysctl.source import SysctlSource
from linxd.sources.sysctl.watch import GROUPS

netns, keys, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])


async def main() -> None:
    fd = os.open(f"/run/netns/{netns}", os.O_RDONLY)
    desired = declare(netns, {"sysctl": keys}).sysctl
    assert desired is not None
    source = SysctlSource(Procfs(fd), lambda: Events(open_netlink(NETLINK_ROUTE, netns_fd=fd), GROUPS))
    owned = MemoryLedger()
    for _ in range(3):
        assert (await source.reconcile(Pass(desired, owned))).converged
    os.getppid()
    for _ in range(count):
        report = await source.reconcile(Pass(desired, owned))
        assert not report.drifted
    os.getppid()
    for _ in range(count):
        assert not list(source.drifted(silent=True))
    os.getppid()
    print(len(source.watched()))


asyncio.run(main())
