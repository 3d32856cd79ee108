# SPDX-License-Identifier: MIT
"""One scope's rtnl source on a real namespace, with every message it sends on record.

Tests declare in TOML, as users do, and look at the kernel with ip(8), never at what the source reports
alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from linxd.config import load
from linxd.ledger import MemoryLedger
from linxd.loop import Loop
from linxd.netlink import wire
from linxd.netlink.socket import Events, Requests, open_netlink
from linxd.patch import Patch, Report, State, Trigger
from linxd.source import Pass
from linxd.sources.rtnl.events import GROUPS, Identify
from linxd.sources.rtnl.hostside import GROUPS as HOST_GROUPS
from linxd.sources.rtnl.hostside import HostSide
from linxd.sources.rtnl.model import Desired
from linxd.sources.rtnl.source import RtnlSource

TIMERS = re.compile(r" \w+_timer +[\d.]+|(?:valid|preferred)_lft \d+sec")
SHOWN = (
    "link show",
    "address show",
    "route show table all",
    "-6 route show table all",
    "rule show",
    "-6 rule show",
    "neigh show nud permanent",
    "neigh show proxy",
)
READS = {
    wire.RTM_GETLINK,
    wire.RTM_GETADDR,
    wire.RTM_GETROUTE,
    wire.RTM_GETRULE,
    wire.RTM_GETNEIGH,
    wire.RTM_GETNETCONF,
    wire.RTM_GETNSID,
}


def ip(netns: str, command: str) -> str:
    """Run ``ip -n NETNS COMMAND`` and return its output. Raises with ip's own words."""
    done = subprocess.run(["ip", "-n", netns, *command.split()], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"ip {command}: {done.stderr.strip()}")
    return done.stdout


def ipj(netns: str, command: str) -> Any:
    """The same with ``-j -d -N``, decoded."""
    text = ip(netns, f"-j -d -N {command}")
    return json.loads(text) if text.strip() else []


def batch(netns: str, *commands: str) -> None:
    """Many ip commands in one process."""
    text = "\n".join(commands) + "\n"
    done = subprocess.run(
        ["ip", "-n", netns, "-batch", "-"], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def pair(netns: str) -> None:
    """Links e0 and far0, a pair of veth that is up, and nothing of the kernel's own still to come: no
    address is made for them, and a worker of the kernel's has made IPv6's route for groups."""
    batch(netns, "link set lo up", "link add e0 type veth peer name far0")
    for command in ("addrgenmode none", "up"):
        batch(netns, *(f"link set {name} {command}" for name in ("far0", "e0")))
    for name in ("e0", "far0"):
        wait_for(netns, f"-6 route show table all dev {name}", "ff00::/8")


def wait_for(netns: str, command: str, shown: str) -> None:
    """Until ip shows something that a worker of the kernel's sees to."""
    end = time.monotonic() + 20
    while shown not in ip(netns, command):
        assert time.monotonic() < end, f"ip {command} does not show {shown}"
        time.sleep(0.005)


class World:
    """A namespace, the source that keeps it, and what both said."""

    def __init__(
        self,
        netns: str,
        directory: Path,
        *,
        ledger: MemoryLedger | None = None,
        host: str = "",
        host_events: bool = True,
        identify: Identify = lambda port: None,
    ) -> None:
        """``host``: the namespace that plays the host. ``identify`` is asked who a port id is."""
        self.netns = netns
        self.directory = directory
        self.ledger = MemoryLedger() if ledger is None else ledger
        self.fd = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
        self.sent: list[bytes] = []
        self.requests = Requests(open_netlink(netns_fd=self.fd), tap=self.sent.append)
        self.sent_to_host: list[bytes] = []
        self.host_fd = os.open(f"/run/netns/{host}", os.O_RDONLY | os.O_CLOEXEC) if host else -1
        self.host_events = host_events
        self.host_requests: Requests | None = None
        self.identify = identify
        self.source = self.new_source()
        self.reports: list[Report] = []
        self._arrived = asyncio.Event()
        self.desired = Desired()
        self.loop: Loop[Desired, Any] | None = None
        self.patience = 0.0
        """Seconds for which the loop waits with the account of what is healed, as in a crowd."""

    def new_source(self) -> RtnlSource:
        """A fresh source, as after a restart: it remembers nothing, the ledger does."""
        return RtnlSource(
            self.requests,
            lambda: Events(open_netlink(netns_fd=self.fd), GROUPS),
            identify=self.identify,
            host=self.host_side,
        )

    def host_side(self) -> HostSide | None:
        """The way to the namespace that plays the host."""
        if self.host_fd < 0:
            return None
        if self.host_requests is None:
            self.host_requests = Requests(open_netlink(netns_fd=self.host_fd), tap=self.sent_to_host.append)
        events = (
            (lambda: Events(open_netlink(netns_fd=self.host_fd), HOST_GROUPS)) if self.host_events else None
        )
        return HostSide(self.host_requests, self.requests, events)

    def restart(self) -> None:
        """Forget all but the ledger."""
        self.source = self.new_source()

    def close(self) -> None:
        self.source.close()
        self.requests.close()
        os.close(self.fd)
        if self.host_requests is not None:
            self.host_requests.close()
        if self.host_fd >= 0:
            os.close(self.host_fd)

    # -- what is declared -----------------------------------------------------------------------------------

    def declare(self, text: str) -> Desired:
        """What a file with this text declares."""
        path = self.directory / f"{self.netns}.toml"
        path.write_text(textwrap.dedent(text))
        path.chmod(0o600)
        self.desired = load(self.netns, file=path).rtnl
        return self.desired

    async def go(
        self, text: str | None = None, *, trigger: Trigger = Trigger.RESYNC, write: bool = True
    ) -> Report:
        """One whole pass."""
        if text is not None:
            self.declare(text)
        work: Pass[Desired] = Pass(self.desired, self.ledger, trigger, write=write)
        report = await self.source.reconcile(work)
        self.reports.append(report)
        return report

    async def settle(self, text: str | None = None) -> Report:
        """A pass after which everything is done, followed by one that writes nothing."""
        report = await self.go(text)
        assert report.converged, [c for c in report.conditions if c.state is not State.NOTED]
        await self.quiet()
        return report

    async def quiet(self) -> Report:
        """A pass that finds nothing to do and writes nothing: on the wire, not by its own word."""
        before = len(self.sent)
        to_host = len(self.sent_to_host)
        report = await self.go()
        assert report.drifted == (), [op.describe() for op in report.drifted]
        assert self.writes(before) == []
        assert [
            m.type for d in self.sent_to_host[to_host:] for m in wire.messages(d) if m.type not in READS
        ] == []
        return report

    def writes(self, since: int = 0) -> list[int]:
        """Types of all messages sent that are not mere questions."""
        return [
            m.type for datagram in self.sent[since:] for m in wire.messages(datagram) if m.type not in READS
        ]

    # -- healing --------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def kept(self, text: str | None = None) -> AsyncIterator[World]:
        """A running loop without a timer: whatever is healed was healed because of an event."""
        if text is not None:
            self.declare(text)
        loop = self.loop = Loop(
            self.source,
            self.desired,
            owned=self.ledger,
            resync=0,
            name=self.netns,
            on_report=self._report,
            patience=lambda: self.patience,
        )
        task = asyncio.create_task(loop.run())
        try:
            await asyncio.wait_for(loop.first_pass_done.wait(), 20)
            yield self
        finally:
            loop.stop()
            await asyncio.wait_for(task, 20)
            self.loop = None

    def _report(self, report: Report) -> None:
        self.reports.append(report)
        self._arrived.set()

    async def until(self, holds: Callable[[], bool], *, what: str = "", seconds: float = 10) -> None:
        """Wait for reports until something holds. The bound is for failure, never for measuring."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not holds():
            left = deadline - asyncio.get_running_loop().time()
            self._arrived.clear()
            if holds():
                return
            try:
                await asyncio.wait_for(self._arrived.wait(), max(left, 0.01))
            except TimeoutError:
                if holds():
                    return
                last = self.reports[-4:]
                said = [f"{r.trigger}: {[o.describe() for o in r.drifted]} {r.conditions}" for r in last]
                raise AssertionError(f"not within {seconds} s: {what or holds}; reports: {said}") from None

    async def plan(self) -> Patch:
        """What a look at everything would do now, through a second socket and without doing it."""
        requests = Requests(open_netlink(netns_fd=self.fd))
        with requests:
            other = RtnlSource(
                requests, lambda: Events(open_netlink(netns_fd=self.fd), GROUPS), host=self.host_side
            )
            work: Pass[Desired] = Pass(self.desired, self.ledger, write=False)
            try:
                return other.diff(await other.observe(work), self.desired, self.ledger)
            finally:
                other.close()

    def forgive(self) -> None:
        """Start counting heals anew: drifts that a test causes are no fight."""
        assert self.loop is not None
        self.loop._gate.declared()

    async def sysctl(self, key: str, value: int) -> None:
        """Set a sysctl in the namespace from outside."""
        command = ["ip", "netns", "exec", self.netns, "sysctl", "-qw", f"{key}={value}"]
        process = await asyncio.create_subprocess_exec(*command)
        assert await process.wait() == 0

    async def sabotage(self, *commands: str) -> None:
        """Run ip commands without stopping the event loop."""
        for command in commands:
            process = await asyncio.create_subprocess_exec(
                "ip", "-n", self.netns, *command.split(), stderr=asyncio.subprocess.PIPE
            )
            _, words = await process.communicate()
            assert process.returncode == 0, f"ip {command}: {words.decode().strip()}"

    def snapshot(self) -> str:
        """The namespace's state without what changes by itself, for comparing byte by byte."""
        keep = []
        for command in SHOWN:
            keep.append(f"== {command}\n{TIMERS.sub('', ip(self.netns, '-d ' + command))}")
        return "\n".join(keep)
