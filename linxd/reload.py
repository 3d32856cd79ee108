# SPDX-License-Identifier: MIT
"""Reading a scope's files again while it runs: what does not load leaves in force what was.

It is asked by a signal, by the control socket and over D-Bus, and does not know which.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from linxd.config.faults import ConfigError, Fault
from linxd.config.model import ScopeConfig
from linxd.log import ERROR, INFO, WARNING, Entry, news
from linxd.scope import Scope
from linxd.systemd.notify import Notifier

SAID = 50
"""Warnings that have an entry each."""
ANSWERED = 1000
"""Faults, or warnings, in one entry or one answer."""
FAILED = "reload failed, what was active stays active"


class Reloader:
    """Reloads one scope, one request after the other. ``say`` takes the entries about it; ``beside`` is
    awaited with what was read, once it is declared."""

    def __init__(
        self,
        scope: Scope,
        read: Callable[[], ScopeConfig],
        say: Callable[[Entry], None],
        notifier: Notifier,
        beside: Callable[[ScopeConfig], Awaitable[None]],
    ) -> None:
        self._scope = scope
        self._read = read
        self._say = say
        self._notifier = notifier
        self._beside = beside
        self._turn = asyncio.Lock()

    async def __call__(self) -> tuple[str, ...]:
        """Returns the warnings once every loop has reached what was read, or has had its time. Raises
        ConfigError with every fault, after having said so."""
        async with self._turn:
            self._notifier.send(RELOADING="1")
            try:
                return await self._reload()
            finally:
                self._notifier.send(READY="1")

    async def _reload(self) -> tuple[str, ...]:
        name = self._scope.config.name
        try:
            # Reading a large file takes time, and the loops have work to do.
            config = await asyncio.to_thread(self._read)
        except ConfigError as error:
            self._say(faults(name, error, FAILED))
            raise
        for entry in warnings(config):
            self._say(entry)
        await asyncio.gather(self._scope.declare(config), self._beside(config))
        self._say(news(name, f"reloaded: {self._scope.state}", priority=INFO))
        return told(config.warnings, ANSWERED)


def warnings(config: ScopeConfig) -> list[Entry]:
    """An entry for each warning; of very many for the first ones, and one that counts the rest."""
    return [news(config.name, line, priority=WARNING) for line in told(config.warnings, SAID)]


def faults(name: str, error: ConfigError, what: str) -> Entry:
    """The entry for files that do not load: each fault in a line of its own, of very many the first ones."""
    return news(name, what, priority=ERROR, details=told(error.faults, ANSWERED))


def told(found: Sequence[Fault], most: int) -> tuple[str, ...]:
    """Faults as lines, ``most`` at most, and how many there are besides. `linxctl check` shows all."""
    lines = tuple(str(fault) for fault in found[:most])
    return lines if len(found) <= most else (*lines, f"… and {len(found) - most} more")
