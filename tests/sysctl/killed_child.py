# SPDX-License-Identifier: MIT
"""One pass of the sysctl source with a ledger in a file, killed by SIGKILL just before its N-th write.

A write is one of a key, or a record of the ledger. Run to its end it prints how many there were. Arguments:
namespace, declared keys as JSON, state directory, N (0: never).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

from linxd import ledgerfile
from linxd.config import declare
from linxd.ledger import FileLedger
from linxd.patch import Trigger
from linxd.source import Pass
from linxd.sources.sysctl.model import Path
from linxd.sources.sysctl.procfs import Procfs
from linxd.sources.sysctl.source import SysctlSource

netns, keys, state, at = sys.argv[1:5]
writes = 0


def count() -> None:
    """One write is about to happen."""
    global writes
    writes += 1
    if writes == int(at):
        os.kill(os.getpid(), signal.SIGKILL)


class CountedOs:
    """The ledger's way to the disk."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, fd: int, data: bytes) -> int:
        count()
        return os.write(fd, data)


class Counted(Procfs):
    """The keys' way to the kernel."""

    def write(self, path: Path, value: str, *, held: int | None = None) -> None:
        count()
        super().write(path, value, held=held)


for module in (ledgerfile, sys.modules["linxd.ledger"]):
    if hasattr(module, "os"):
        module.os = CountedOs()  # type: ignore[assignment]

fd = os.open(f"/run/netns/{netns}", os.O_RDONLY)
config = declare(netns, {"sysctl": json.loads(keys)})
assert config.sysctl is not None
source = SysctlSource(Counted(fd))
ledger = FileLedger(state, boot_id="test", cookie=1, source="sysctl")
report = asyncio.run(source.reconcile(Pass(config.sysctl, ledger, Trigger.START)))
ledger.close()
assert report.converged, report.conditions
print(writes)
