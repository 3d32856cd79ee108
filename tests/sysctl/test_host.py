# SPDX-License-Identifier: MIT
"""Keys of the whole machine, on the real kernel without touching the machine: those outside net.* of which
uts and ipc namespaces have their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("host_child.py")
ROOT = CHILD.parents[2]
MACHINE = ("kernel/hostname", "kernel/msgmax", "kernel/sem", "net/core/somaxconn")


def unshare(*command: str, flags: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces are made")
    return subprocess.run(
        ["unshare", *flags, *command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )  # fmt: skip


def machine() -> list[str]:
    return [Path("/proc/sys", key).read_text() for key in MACHINE]


def test_keys_outside_net_are_set_kept_and_given_back_in_the_hosts_scope() -> None:
    before = machine()
    outside = {name: os.readlink(f"/proc/self/ns/{name}") for name in ("uts", "ipc", "net")}
    done = unshare(sys.executable, str(CHILD), json.dumps(outside), flags=("--uts", "--ipc", "--net"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == ["set", "said", "healed", "restored"]
    assert machine() == before


READ_ONLY = """
import asyncio
from linxd.config import declare
from linxd.ledger import MemoryLedger
from linxd.source import Pass
from linxd.sources.sysctl.procfs import Procfs
from linxd.sources.sysctl.source import SysctlSource

async def main():
    owned = MemoryLedger()
    desired = declare("c1", {"sysctl": {"net.core.somaxconn": 321, "net.ipv4.ip_forward": 0}}).sysctl
    source = SysctlSource(Procfs())
    for _ in range(2):
        report = await source.reconcile(Pass(desired, owned))
        for condition in report.conditions:
            print(condition.name, condition.state, condition.transient, condition.text, sep="|")
    print(sorted(key[1] for key, entry in owned.of("sysctl").items() if entry.original))

asyncio.run(main())
"""


def test_a_tree_mounted_read_only_is_said_so_and_nothing_is_claimed() -> None:
    """As containers have it."""
    done = unshare(
        "sh", "-c", 'mount -o bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && "$@"', "sh",
        sys.executable, "-c", READ_ONLY, flags=("--mount", "--net"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = "sysctl net.core.somaxconn|failed|False|/proc/sys is mounted read-only"
    assert done.stdout.splitlines() == [text, text, "[]"]
