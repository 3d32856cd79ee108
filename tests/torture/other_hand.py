# SPDX-License-Identifier: MIT
"""Another program that keeps links through linxd's library, in a namespace it is started in, until it is
killed: it wants something else than the daemon does. Arguments: the declaration as JSON."""

from __future__ import annotations

import asyncio
import json
import sys

from linxd.config import declare
from linxd.loop import Loop
from linxd.netlink.socket import Events, Requests, open_netlink
from linxd.patch import Report
from linxd.sources.rtnl.events import GROUPS
from linxd.sources.rtnl.source import RtnlSource

config = declare("other", json.loads(sys.argv[1]))
source = RtnlSource(Requests(open_netlink()), lambda: Events(open_netlink(), GROUPS))
heals = 0


def told(report: Report) -> None:
    global heals
    heals += len(report.applied)
    print(heals, flush=True)


asyncio.run(Loop(source, config.rtnl, on_report=told, resync=1.0, name="other").run())
