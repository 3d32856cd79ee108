# SPDX-License-Identifier: MIT
"""Keys outside net.*, each of which belongs to a namespace of its own, kept in the host's scope.

To be started by unshare(1) in new uts, ipc and net namespaces, so that the machine's keys are out of reach.
Arguments: the links of the namespaces outside, as JSON. Says what it saw on each line.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

from linxd.config import declare
from linxd.ledger import MemoryLedger
from linxd.loop import Loop
from linxd.patch import State
from linxd.source import Pass
from linxd.sources.sysctl.procfs import Procfs
from linxd.sources.sysctl.source import SysctlSource
from linxd.sources.sysctl.watch import watch_of

OUTSIDE = json.loads(sys.argv[1])
for name in ("uts", "ipc", "net"):
    assert os.readlink(f"/proc/self/ns/{name}") != OUTSIDE[name], name

KEYS = {
    "kernel.hostname": "linxd-test",
    "kernel.msgmax": 9000,
    "kernel.sem": [32000, 1024000000, 500, 31000],
    "net.core.somaxconn": 321,
}
OTHERS = {
    "kernel.hostname": "somebody-else",
    "kernel.msgmax": "7000",
    "kernel.sem": "32000 1024000000 500 30000",
    "net.core.somaxconn": "5",
}


def sysctl(*words: str) -> str:
    return subprocess.run(("sysctl", *words), capture_output=True, text=True, check=True).stdout


def value(key: str) -> str:
    return " ".join(sysctl("-n", key).split())


def wanted(key: str) -> str:
    asked = KEYS[key]
    return " ".join(map(str, asked)) if isinstance(asked, list) else str(asked)


async def main() -> None:
    first = {key: value(key) for key in KEYS}
    desired = declare("host", {"sysctl": {**KEYS, "kernel.ostype": "Plan9", "kernel.no_such_key": 1}}).sysctl
    nothing = declare("host", {"sysctl": {}}).sysctl
    assert desired is not None
    assert nothing is not None
    assert all(watch_of(setting.path) == "poll" for setting in desired.settings)
    procfs, owned = Procfs(), MemoryLedger()
    source = SysctlSource(procfs, poll=0.02)
    came = asyncio.Event()
    loop = Loop(source, desired, owned=owned, resync=0, name="host", on_report=lambda _: came.set())
    task = asyncio.create_task(loop.run())
    await asyncio.wait_for(loop.first_pass_done.wait(), 20)
    assert {key: value(key) for key in KEYS} == {key: wanted(key) for key in KEYS}
    print("set")
    said = {condition.name: condition for condition in loop.conditions.values()}
    assert said["sysctl kernel.ostype"].state is State.FAILED, said
    assert not said["sysctl kernel.ostype"].transient
    assert "can only be read" in said["sysctl kernel.ostype"].text
    assert said["sysctl kernel.no_such_key"].state is State.PENDING, said
    assert len(said) == 2
    print("said")
    for key, other in OTHERS.items():
        sysctl("-qw", f"{key}={other}")
    for _ in range(500):
        if {key: value(key) for key in KEYS} == {key: wanted(key) for key in KEYS}:
            break
        came.clear()
        await asyncio.wait_for(came.wait(), 20)
    print("healed")
    loop.stop()
    await asyncio.wait_for(task, 20)
    assert (await source.reconcile(Pass(desired, owned))).applied == ()
    assert (await source.reconcile(Pass(nothing, owned))).converged
    assert {key: value(key) for key in KEYS} == first
    assert not owned.of("sysctl")
    print("restored")
    source.close()
    procfs.close()


asyncio.run(main())
