# SPDX-License-Identifier: MIT
"""The sysctl source on a real namespace, with every write it makes on record.

Values are read and changed by sysctl(8) in the namespace, never by the source's own eyes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from linxd.config import declare
from linxd.ledger import MemoryLedger
from linxd.loop import Loop
from linxd.netlink.events import Events
from linxd.netlink.socket import open_netlink
from linxd.netlink.wire import NETLINK_ROUTE
from linxd.patch import Report, State, Trigger
from linxd.source import Owned, Pass
from linxd.sources.sysctl.model import Desired, Path
from linxd.sources.sysctl.procfs import Procfs
from linxd.sources.sysctl.source import SysctlSource
from linxd.sources.sysctl.watch import GROUPS


def sysctl(netns: str, *words: str) -> str:
    """``sysctl WORDS`` in the namespace. Raises with its own words."""
    done = subprocess.run(
        ["ip", "netns", "exec", netns, "sysctl", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise AssertionError(f"sysctl {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def value(netns: str, key: str) -> str:
    """What the kernel has, lists with single blanks."""
    return " ".join(sysctl(netns, "-n", key).split())


def flip(netns: str, key: str, to: str) -> None:
    """Somebody else writes."""
    sysctl(netns, "-qw", f"{key}={to}")


class Tapped(Procfs):
    """/proc/sys with its writes, and how often anything was opened, on record."""

    writes: list[tuple[Path, str]]
    opened: int

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.writes, self.opened = [], 0
        super().__init__(*arguments, **named)

    def open(self, path: Path, access: int = os.O_RDONLY) -> tuple[int, int]:
        self.opened += 1
        return super().open(path, access)

    def write(self, path: Path, value: str, *, held: int | None = None) -> None:
        self.writes.append((path, value))
        super().write(path, value, held=held)


class World:
    """A namespace and the source that keeps its sysctls."""

    def __init__(self, netns: str, *, ledger: Owned | None = None, poll: float = 0.02) -> None:
        self.netns = netns
        self.fd = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
        self.procfs = Tapped(self.fd)
        self.owned: Owned = MemoryLedger() if ledger is None else ledger
        self.poll = poll
        self.desired = Desired()
        self.reports: list[Report] = []
        self.loop: Loop[Desired, Any] | None = None
        self.patience = 0.0
        """Seconds for which the loop waits with the account of what is healed, as in a crowd."""
        self._came = asyncio.Event()
        self.source = self.new_source()

    def new_source(self) -> SysctlSource:
        """As after a restart."""
        return SysctlSource(self.procfs, self.events, poll=self.poll)

    def events(self) -> Events:
        return Events(open_netlink(NETLINK_ROUTE, netns_fd=self.fd), GROUPS)

    def restart(self) -> None:
        self.source.close()
        self.source = self.new_source()

    def close(self) -> None:
        self.source.close()
        self.procfs.close()
        os.close(self.fd)

    def declare(self, keys: Mapping[str, Any]) -> Desired:
        """What a file with these keys declares."""
        config = declare(self.netns, {"sysctl": dict(keys)})
        assert config.sysctl is not None
        self.desired = config.sysctl
        return self.desired

    async def go(
        self, keys: Mapping[str, Any] | None = None, *, trigger: Trigger = Trigger.RESYNC
    ) -> Report:
        """One whole pass."""
        if keys is not None:
            self.declare(keys)
        report = await self.source.reconcile(Pass(self.desired, self.owned, trigger))
        self.reports.append(report)
        return report

    async def settle(self, keys: Mapping[str, Any] | None = None) -> Report:
        """A pass after which all is done, and one that writes nothing."""
        report = await self.go(keys)
        wrong = [c for c in report.conditions if c.state is not State.NOTED]
        assert not wrong, wrong
        await self.quiet()
        return report

    async def quiet(self) -> Report:
        before = len(self.procfs.writes)
        report = await self.go()
        assert report.drifted == (), [op.describe() for op in report.drifted]
        assert self.procfs.writes[before:] == []
        return report

    @contextlib.asynccontextmanager
    async def kept(self, keys: Mapping[str, Any]) -> AsyncIterator[World]:
        """A running loop without a resync: what is healed was healed because of an event or the poll."""
        self.declare(keys)
        loop = self.loop = Loop(
            self.source,
            self.desired,
            owned=self.owned,
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
        self._came.set()

    async def until(self, holds: Callable[[], bool], *, what: str = "") -> None:
        """Wait for reports until something holds. The bound is for failure."""
        for _ in range(500):
            if holds():
                return
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), 0.02)
        last = [[op.describe() for op in report.drifted] for report in self.reports[-4:]]
        raise AssertionError(f"never: {what}; {last}")

    def forgive(self) -> None:
        """Start counting heals anew: drifts that a test causes are no fight."""
        assert self.loop is not None
        self.loop._gate.declared()
