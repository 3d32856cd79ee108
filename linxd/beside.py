# SPDX-License-Identifier: MIT
"""What other managers of this host undo of what is declared: said when that begins, and how each of them is
told to leave it alone.

It must not know what came of it in the kernel, which loops see, nor how a manager is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Set
from typing import Protocol

from linxd.config.model import HOST, ScopeConfig
from linxd.log import WARNING, Entry, news
from linxd.systemd import jobs, networkd


class Manager(Protocol):
    """Another manager of the host's network."""

    settles: float
    """Seconds that it takes to make up its mind about what is new to it. If there are any, nobody waits for
    what is said of it."""

    async def undone(self, config: ScopeConfig) -> Set[str] | None:
        """What it undoes of what is declared, by whatever names; None where nobody can tell for now."""

    def told(self, undone: Set[str], config: ScopeConfig) -> tuple[str, tuple[str, ...]]:
        """That in words, and the lines of the file that ends it."""


class Beside:
    """Looks at the host's other managers: each time that something else is declared, and at those that
    settle when there is word of them, too."""

    def __init__(self, say: Callable[[Entry], None], *managers: Manager) -> None:
        self._say = say
        self._said: dict[Manager, Set[str]] = {}
        self._due: dict[Manager, asyncio.Task[None]] = {}
        self._config: ScopeConfig | None = None
        for manager in managers:
            self.add(manager)

    def add(self, manager: Manager) -> None:
        """Have an eye on one more, with the next look."""
        self._said[manager] = frozenset()

    async def look(self, config: ScopeConfig) -> None:
        """Say what is undone from now on, and was not when that was last said."""
        if config.name != HOST:
            return
        self._config = config
        for manager in self._said:
            if manager.settles:
                self.again(manager)
        await asyncio.gather(*(self._look(manager, config) for manager in self._said if not manager.settles))

    def again(self, manager: Manager) -> None:
        """Look at one when it has settled, counted from the last time that this is said."""
        before = self._due.pop(manager, None)
        if before is not None:
            before.cancel()
        if self._config is not None:
            self._due[manager] = asyncio.create_task(self._settled(manager, self._config))

    async def _settled(self, manager: Manager, config: ScopeConfig) -> None:
        await asyncio.sleep(manager.settles)
        await self._look(manager, config)

    async def _look(self, manager: Manager, config: ScopeConfig) -> None:
        undone = await manager.undone(config)
        if undone is None:
            return
        new = undone - self._said[manager]
        self._said[manager] = undone
        if new:
            text, drop_in = manager.told(undone, config)
            self._say(news(config.name, text, priority=WARNING, details=drop_in))


class Networkd:
    """systemd-networkd. ``manages``, ``runs``: how it is configured, and whether a unit runs."""

    settles = 0.0

    def __init__(
        self,
        manages: Callable[[str], bool] = networkd.manages,
        runs: Callable[[str], Awaitable[bool | None]] = jobs.runs,
    ) -> None:
        self._manages = manages
        self._runs = runs

    async def undone(self, config: ScopeConfig) -> Set[str] | None:
        """Routes, rules."""
        declared = {"routes": config.rtnl.routes, "rules": config.rtnl.rules}
        undone = {what for what in declared if declared[what] and self._manages(networkd.SETTINGS[what])}
        if undone and not (runs := await self._runs(networkd.UNIT)):
            return None if runs is None else frozenset()
        return undone

    def told(self, undone: Set[str], config: ScopeConfig) -> tuple[str, tuple[str, ...]]:
        """What it removes, and what its drop-in is to say."""
        text = f"systemd-networkd removes {' and '.join(sorted(undone))} that it did not make, "
        settings = (f"{networkd.SETTINGS[what]}=no" for what in sorted(undone))
        return f"{text}unless {networkd.DROP_IN} says", ("[Network]", *settings)
