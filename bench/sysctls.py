# SPDX-License-Identifier: MIT
"""A glob over 200 interfaces: a quiet pass and the look of each second beside sysctl(8) on the same keys."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from linxd.config import declare
from linxd.ledger import MemoryLedger
from linxd.netlink.socket import Events, open_netlink
from linxd.netlink.wire import NETLINK_ROUTE
from linxd.source import Pass
from linxd.sources.sysctl.procfs import Procfs
from linxd.sources.sysctl.source import SysctlSource
from linxd.sources.sysctl.watch import GROUPS

PAIRS = 100
KEY = "net.ipv4.conf.*.arp_ignore"
PASS, LOOK, THEIRS = "linxd, quiet pass (CPU)", "linxd, look of a second (CPU)", "sysctl -n of the same keys"


async def measure(
    runs: int, namespace: Callable[[], AbstractContextManager[str]], run: Callable[..., str]
) -> dict[str, dict[str, list[float]]]:
    """The figures, by title; the first of each block is ours. CPU seconds of ours, wall clock of theirs."""
    quiet: dict[str, list[float]] = {PASS: [], LOOK: [], THEIRS: []}
    with namespace() as name:
        links = "\n".join(f"link add v{n} type veth peer name w{n}" for n in range(PAIRS))
        run("ip", "-n", name, "-batch", "-", text=links)
        fd = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        procfs = Procfs(fd)
        source = SysctlSource(procfs, lambda: Events(open_netlink(NETLINK_ROUTE, netns_fd=fd), GROUPS))
        owned = MemoryLedger()
        desired = declare("bench", {"sysctl": {KEY: 1}}).sysctl
        assert desired is not None
        for _ in range(3):
            await source.reconcile(Pass(desired, owned))
        keys = [f"net.ipv4.conf.{side}{n}.arp_ignore" for n in range(PAIRS) for side in "vw"]
        for _ in range(runs * 3):
            began = time.process_time()
            report = await source.reconcile(Pass(desired, owned))
            quiet[PASS].append(time.process_time() - began)
            assert report.converged
            assert not report.drifted
            began = time.process_time()
            drifted = list(source.drifted(silent=True))
            quiet[LOOK].append(time.process_time() - began)
            assert not drifted
            began = time.perf_counter()
            run("ip", "netns", "exec", name, "sysctl", "-n", *keys)
            quiet[THEIRS].append(time.perf_counter() - began)
        source.close()
        procfs.close()
        os.close(fd)
    return {f"sysctl: one key of {2 * PAIRS} interfaces, quiet": quiet}
