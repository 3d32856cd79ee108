# SPDX-License-Identifier: MIT
"""Reading a scope's files again while it runs: what does not load leaves in force what was.

It is asked by a signal, by the control socket and over D-Bus, and does not know which.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from linxd.config import ConfigError, ScopeConfig
from linxd.log import ERROR, INFO, WARNING, Entry, news
from linxd.scope import Scope
from linxd.systemd.notify import Notifier

FAILED = "reload failed, what was active stays active"


class Reloader:
    """Reloads one scope, one request after the other. ``say`` takes the entries about it."""

    def __init__(
        self,
        scope: Scope,
        read: Callable[[], ScopeConfig],
        say: Callable[[Entry], None],
        notifier: Notifier,
    ) -> None:
        self._scope = scope
        self._read = read
        self._say = say
        self._notifier = notifier
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
        for fault in config.warnings:
            self._say(news(name, str(fault), priority=WARNING))
        await self._scope.declare(config)
        self._say(news(name, f"reloaded: {self._scope.state}", priority=INFO))
        return tuple(str(fault) for fault in config.warnings)


def faults(name: str, error: ConfigError, what: str) -> Entry:
    """The entry for files that do not load: every fault in a line of its own."""
    return news(name, what, priority=ERROR, details=[str(fault) for fault in error.faults])
