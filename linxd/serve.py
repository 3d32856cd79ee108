# SPDX-License-Identifier: MIT
"""A scope with all that goes round it in a daemon: culprits, log, word of its state, watchdog.

It knows neither the command line nor signals; the namespace has been entered before.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

from linxd import __version__, statedir
from linxd.access import Kernel
from linxd.beside import Beside, Networkd
from linxd.collector import settle, tidy
from linxd.config.model import ScopeConfig
from linxd.culprit import Identifier
from linxd.log import NOTICE, WARNING, Entry, condition_line, news
from linxd.netns import Namespace, boot_id, cgroup_name
from linxd.part import Part
from linxd.patch import Report, State
from linxd.reporter import Reporter
from linxd.scope import Access, Scope, ScopeState
from linxd.systemd.handed import host_socket
from linxd.systemd.notify import Notifier

WORD_EVERY = 0.2
"""Seconds between two times that word of the state is left, at least."""
SHOWN = 100
"""Conditions of which word is left."""


def _watched(part: Part) -> dict[str, list[str]]:
    """Objects by the way they are watched, where they differ in that."""
    ways: dict[str, list[str]] = {}
    if part.loop is not None:
        for key, way in part.loop.source.watched().items():
            ways.setdefault(way, []).append(" ".join(map(str, key[1:])))
    return {way: sorted(objects)[:SHOWN] for way, objects in sorted(ways.items())}


class Served:
    """Runs a `Scope` in the namespace that the process is in."""

    def __init__(
        self,
        config: ScopeConfig,
        namespace: Namespace,
        base: str,
        directory: str,
        sink: Callable[[Entry], None],
        notifier: Notifier,
        *,
        host_fd: int | None = None,
    ) -> None:
        self._namespace = namespace
        self._base = base
        self._directory = directory
        self._notifier = notifier
        self._changed_at = self._since = time.time()
        self._state = ScopeState.STARTING
        self._told = 0.0
        self._word: asyncio.TimerHandle | None = None
        self._last: dict[str, Any] | None = None
        kernel = Kernel(directory, namespace.cookie, boot_id(base), handed=host_socket(), host_fd=host_fd)
        kernel.identifier = Identifier(ours=kernel.ports, cgroup=lambda: cgroup_name(namespace))
        self.reported: list[Callable[[str, Report], None]] = []
        """Called with the source and the report of each pass of which something came, once it is known who
        did it."""
        self.before_ready: list[Callable[[], Awaitable[None]]] = []
        """What is waited for before it is said that we are ready."""
        self.reporter = Reporter(sink, kernel.identifier, done=self._patched)
        self.beside = Beside(self.reporter.say, Networkd())
        access = Access(kernel.open, kernel.ledger, statedir.ledgers(base, config.name))
        self.scope = Scope(config, access, self.reporter, changed=self._changed, asked=self.leave_word)

    async def run(self) -> None:
        """Run until the scope ends."""
        helpers = [
            asyncio.create_task(work)
            for work in (self.reporter.run(), self._ready(), self._watchdog(), tidy())
        ]
        try:
            await self.scope.run()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.reporter.drain(), 0.5)
        finally:
            for helper in helpers:
                helper.cancel()
            self.leave_word(ended=True)

    async def release(self) -> list[str]:
        """Give back what is owned. Returns, after having said so, a line for each thing that stays."""
        left = await self.scope.release()
        name = self.scope.config.name
        if left:
            self.reporter.say(
                news(name, "not everything could be given back", priority=WARNING, details=left)
            )
        else:
            self.reporter.say(news(name, "gave back all that was owned", priority=NOTICE))
        return left

    # -- told to others -------------------------------------------------------------------------------------

    async def _ready(self) -> None:
        await asyncio.gather(self.scope.ready.wait(), self.beside.look(self.scope.config))
        for wait in self.before_ready:
            await wait()
        # Whoever waited for this reads the status next, as systemctl or linxctl shows it.
        self.leave_word()
        self._notifier.send(READY="1")
        # What is declared stays: looking through 100,000 of it again and again would hold up everything.
        settle()
        self._changed()

    async def _watchdog(self) -> None:
        limit = self._notifier.watchdog
        while limit:
            # A pass that hangs must miss it; a process with nothing to do is well.
            if self.scope.stalled() < limit / 2:
                self._notifier.send(WATCHDOG="1")
            await asyncio.sleep(limit / 4)

    def _patched(self, source: str, report: Report, text: str) -> None:
        for listener in self.reported:
            listener(source, report)
        self.scope.blame(source, report.culprits)
        if report.applied:
            self._last = {
                "source": source,
                "trigger": str(report.trigger),
                "ops": len(report.applied),
                "at": time.time(),
                "text": text.partition(": ")[2],
            }
            self._changed()

    def _changed(self) -> None:
        """Something may look different: say so soon, and not too often."""
        if self._word is None:
            wait = max(0.0, self._told + WORD_EVERY - time.monotonic())
            self._word = asyncio.get_running_loop().call_later(wait, self.leave_word)

    def status_line(self) -> str:
        """``converged: 14 objects, last patch 3 ops at 2025-01-31 12:30:11``: it stays as it is until
        something changes, for days perhaps."""
        scope = self.scope
        counts = scope.counts
        line = f"{scope.state}: {sum(counts.values())} objects"
        bad = [
            f"{counts[state]} {state}"
            for state in (State.FAILED, State.CONFLICT, State.CONTENDED, State.PENDING)
            if counts[state]
        ]
        line += f" ({', '.join(bad)})" if bad else ""
        if self._last is not None:
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._last["at"]))
            ops = self._last["ops"]
            line += f", last patch {ops} op{'s' if ops != 1 else ''} at {at}"
        return line

    def leave_word(self, *, ended: bool = False) -> None:
        """Say how the scope is, now: whoever was answered just now may ask that next."""
        if self._word is not None:
            self._word.cancel()
        self._word = None
        self._told = time.monotonic()
        scope = self.scope
        if scope.state is not self._state:
            self._state, self._changed_at = scope.state, time.time()
        if not ended:
            self._notifier.status(self.status_line())
        # A directory that is full, or gone with a release, is the ledger's trouble, and it says so.
        with contextlib.suppress(OSError):
            statedir.write_status(self._directory, self.word(ended=ended))

    def word(self, *, ended: bool = False) -> dict[str, object]:
        """How the scope is, for those who have no bus to ask on."""
        scope = self.scope
        loops = []
        conditions = []
        for name, part in scope.parts.items():
            status = part.status
            loops.append(
                {
                    "source": name,
                    "state": str(status.state),
                    "watch": status.watch,
                    "objects": status.total,
                    "counts": {str(state): count for state, count in status.counts.items() if count},
                    "error": status.last_error or status.subscription_error,
                    "drifts": status.drifts,
                    "ops": status.ops_applied,
                    "passes": status.passes,
                    "overruns": status.overruns,
                    "heal_usec": list(status.heal_usec),
                    "watched": _watched(part),
                }
            )
            conditions += [
                {"source": name, "object": one.name, "state": str(one.state), "text": condition_line(one)}
                for one in itertools.islice(part.conditions.values(), SHOWN)
            ]
        return {
            "version": __version__,
            "scope": scope.config.name,
            "pid": os.getpid(),
            "netns": str(scope.config.netns),
            "cookie": self._namespace.cookie,
            "files": list(scope.config.files),
            "state": "ended" if ended else str(scope.state),
            "since": self._changed_at,
            "started": self._since,
            "loops": loops,
            "conditions": conditions[:SHOWN],
            "last_patch": self._last,
            "paused_until": scope.paused_at,
            "paused": [
                {"source": name, "object": one.name, "until": one.at / 1e6}
                for name, part in scope.parts.items()
                for one in part.left.values()
            ],
        }
