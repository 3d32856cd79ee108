# SPDX-License-Identifier: MIT
"""A scope on the bus: its name, its objects, and word of what happens to it, for as long as it runs.

It puts the pieces together and decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from linxd.bus import names
from linxd.bus.connection import Connection, Heard, system_bus
from linxd.bus.loop import LoopInterface
from linxd.bus.objects import Objects
from linxd.bus.polkit import Authority
from linxd.bus.scope import ScopeInterface
from linxd.bus.wire import paths
from linxd.patch import Report
from linxd.scope import Scope
from linxd.sources.netfilter.source import NetfilterSource
from linxd.sources.rtnl.source import RtnlSource
from linxd.sources.sysctl.source import SysctlSource

if TYPE_CHECKING:
    from linxd.bus.attach import Attacher

_WATCH: Mapping[str, str] = {
    source.name: source.watch for source in (NetfilterSource, RtnlSource, SysctlSource)
}
FIRST = 6.0
"""Seconds for which a daemon that starts waits for the bus."""


def there(address: str) -> bool:
    """Whether there is something that may be a bus."""
    try:
        return any(path.startswith("\0") or os.path.exists(path) for path in paths(address))
    except ValueError:
        return False


class OnBus:
    """Shows ``scope``. ``say`` is told in words when the bus goes and comes; the rest is as in
    `ScopeInterface`."""

    def __init__(
        self,
        scope: Scope,
        cookie: int,
        unit: str,
        *,
        word: Callable[[], Mapping[str, object]],
        reload: Callable[[], Awaitable[Sequence[str]]],
        release: Callable[[], Awaitable[Sequence[str]]],
        say: Callable[[str], None],
        address: str = "",
    ) -> None:
        self._scope = scope
        self._say = say
        self._tried = asyncio.Event()
        rules: Sequence[str] = ()
        if host := scope.config.name == "host":
            # No other scope has it, nor keeps it in memory.
            from linxd.bus import manager, networkmanager
            from linxd.config.files import declared_names
            from linxd.config.model import valid_name

            rules = (*manager.RULES, *networkmanager.RULES)
        self.connection = Connection(
            address or system_bus(),
            names=[names.bus_name(scope.config.name)],
            rules=rules,
            called=lambda call: self.objects.called(call),
            heard=self._heard,
            say=self._told,
            opened=self._opened,
        )
        self._attacher: Attacher | None = None
        self.heard: list[Callable[[Heard], None]] = []
        """Called with each signal of others that comes."""
        self.opened: list[Callable[[], None]] = []
        """Called each time that we are there anew."""
        authority = Authority(self.connection, scope.config.name)
        self.objects = Objects(self.connection, authority)
        self._path = names.scope_path(scope.config.name)
        self._shown = ScopeInterface(scope, cookie, unit, word=word, reload=reload, release=release)
        self.objects.add(self._path, self._shown)
        self._loops: dict[str, LoopInterface] = {}
        if host:
            scopes = manager.ManagerInterface(self.connection, declared=declared_names, valid=valid_name)
            self.objects.add(names.ROOT, scopes)
            self.heard.append(scopes.heard)
        self._see()
        scope.listeners.append(self._changed)
        self._running: list[asyncio.Task[None]] = []

    def follow(self, attacher: Attacher) -> None:
        """Have scopes started and stopped with units, too. To be told before `start`."""
        self._attacher = attacher
        self.heard.append(attacher.heard)
        self.opened.append(attacher.changed)

    def start(self) -> None:
        """Be there from now on, whenever there is a bus."""
        if not self._running:
            self._running.append(asyncio.create_task(self.connection.run(), name="bus"))
            if self._attacher is not None:
                self._running.append(asyncio.create_task(self._attacher.run(), name="attach"))

    async def tried(self) -> None:
        """Return when we are there, or when it is known that there is no bus for now."""
        waiting = [asyncio.ensure_future(event.wait()) for event in (self._tried, self.connection.up)]
        await asyncio.wait(waiting, timeout=FIRST, return_when=asyncio.FIRST_COMPLETED)
        for one in waiting:
            one.cancel()

    async def close(self) -> None:
        """Be there no more; answers that are due still go out."""
        with contextlib.suppress(ValueError):
            self._scope.listeners.remove(self._changed)
        self._shown.moved()
        await asyncio.sleep(0)
        self.objects.flush()
        self.objects.close()
        self._shown.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def reported(self, source: str, report: Report) -> None:
        """A pass of a loop has ended, and something came of it."""
        loop = self._loops.get(source)
        if loop is not None:
            loop.reported(report)

    def _told(self, text: str) -> None:
        self._tried.set()
        if text.startswith("no bus"):
            self.objects.forget_callers()
        if text:
            self._say(text)

    def _heard(self, heard: Heard) -> None:
        self.objects.heard(heard)
        for listener in self.heard:
            listener(heard)

    def _opened(self) -> None:
        for listener in self.opened:
            listener()

    def _changed(self) -> None:
        self._see()
        if self._attacher is not None:
            self._attacher.changed()
        self._shown.moved()
        self.objects.changed()

    def _see(self) -> None:
        """A reload may have brought a loop."""
        for source, part in self._scope.parts.items():
            if source not in self._loops:
                loop = self._loops[source] = LoopInterface(part, _WATCH.get(source, "timer"))
                self.objects.add(f"{self._path}/{source}", loop)
