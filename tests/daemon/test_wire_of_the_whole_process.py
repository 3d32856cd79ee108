# SPDX-License-Identifier: MIT
"""The daemon as a process, watched from outside: what it sends is read off its system calls, and what
reaches the namespace off the kernel's own events. A start while everything is as declared sends and causes
nothing.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from linxd.netlink.socket import Events, open_netlink
from linxd.sources.rtnl.events import GROUPS

ROOT = Path(__file__).resolve().parents[2]
DECLARED = """
[link.e0]
kind = "veth"
peer = { name = "e1" }
addresses = ["10.0.0.5/24", { address = "fd00::5/64", nodad = true }]

[link.br0]
kind = "bridge"
forward_delay = 900

[[route]]
to = "default"
via = "10.0.0.1"

[[route]]
to = "192.0.2.0/24"
type = "blackhole"
table = 100

[[rule]]
from = "10.0.0.0/24"
table = 100

[[neighbour]]
address = "10.0.0.9"
dev = "e0"
lladdr = "02:00:00:00:00:09"
"""
TYPES = re.compile(r"nlmsg_type=(?:(0x[0-9a-f]+)|([A-Z_]+))")


def writes_in(trace: str) -> list[str]:
    """First messages of datagrams that were no questions. strace names the types of sockets that it saw
    being made, and gives the numbers of others: of four rtnetlink types in a row the third is the
    question."""
    found = []
    for number, name in TYPES.findall(trace):
        if number and int(number, 16) >= 16 and int(number, 16) % 4 != 2:
            found.append(number)
        elif name and not name.startswith("RTM_GET"):
            found.append(name)
    return found


class Daemon:
    """`linxd` under strace."""

    def __init__(self, netns: str, file: Path, directory: Path) -> None:
        self.trace = directory / "trace"
        self.trace.unlink(missing_ok=True)
        self.log = (directory / "log").open("w+")
        self.process = subprocess.Popen(
            [
                "strace", "-f", "-qq", "-s", "8", "-e", "trace=sendto,sendmsg", "-o", str(self.trace),
                sys.executable, "-m", "linxd.cli.daemon", "--scope", netns, "--file", str(file),
                "--state-dir", str(directory / "state"),
            ],
            cwd=ROOT, stderr=self.log, stdout=self.log, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def said(self) -> str:
        self.log.flush()
        return Path(self.log.name).read_text()

    def wait_for(self, words: str) -> None:
        """Until it has said so. The bound is for failure."""
        deadline = time.monotonic() + 30
        while words not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def stop(self) -> list[str]:
        """End it; returns the writes that it asked of the kernel."""
        tracer = self.process.pid
        children = Path(f"/proc/{tracer}/task/{tracer}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGTERM)
        try:
            assert self.process.wait(20) == 0, self.said()
        finally:
            if self.process.poll() is None:
                os.killpg(tracer, signal.SIGKILL)
                self.process.wait()
            self.log.close()
        return writes_in(self.trace.read_text())


@pytest.fixture
def watched(netns: str) -> Events:
    """Every rtnetlink event of the namespace."""
    with Path("/run/netns", netns).open("rb") as fd:
        return Events(open_netlink(netns_fd=fd.fileno()), GROUPS)


def _events(watched: Events, seconds: float = 0.0) -> list[int]:
    found: list[int] = []
    while select.select([watched], [], [], seconds)[0]:
        found += [message.type for message in watched.read()]
    return found


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_restart_while_converged_sends_and_causes_nothing(
    netns: str, tmp_path: Path, watched: Events
) -> None:
    file = tmp_path / "scope.toml"
    file.write_text(DECLARED)
    file.chmod(0o600)
    with watched:
        first = Daemon(netns, file, tmp_path)
        first.wait_for("converged")
        writes = first.stop()
        assert len(writes) >= 3, "the trace shows what is written"
        # What the kernel does by itself after a link came up (addresses of its own, their detection) is
        # over.
        while _events(watched, 1.5):
            pass
        second = Daemon(netns, file, tmp_path)
        second.wait_for("converged")
        assert second.stop() == []
        assert _events(watched) == []
