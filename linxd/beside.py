# SPDX-License-Identifier: MIT
"""What another manager of this host undoes of what is declared: said when that begins, at the start or with
other declarations, and how the other is told to leave it alone.

It must not know what came of it in the kernel: loops see that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from linxd.config.model import HOST, ScopeConfig
from linxd.log import WARNING, Entry, news
from linxd.systemd import jobs, networkd


class Beside:
    """Looks at other managers of a scope's links. ``manages``, ``runs``: how networkd is configured, and
    whether a unit runs."""

    def __init__(
        self,
        say: Callable[[Entry], None],
        *,
        manages: Callable[[str], bool] = networkd.manages,
        runs: Callable[[str], Awaitable[bool | None]] = jobs.runs,
    ) -> None:
        self._say = say
        self._manages = manages
        self._runs = runs
        self._said: set[str] = set()

    async def look(self, config: ScopeConfig) -> None:
        """Say what is undone from now on, and was not when that was last said."""
        if config.name != HOST:
            return
        declared = (
            ("routes", config.rtnl.routes, networkd.ROUTES),
            ("rules", config.rtnl.rules, networkd.RULES),
        )
        undone = {what: setting for what, objects, setting in declared if objects and self._manages(setting)}
        self._said &= undone.keys()
        if undone.keys() <= self._said or not await self._runs(networkd.UNIT):
            return
        self._said |= undone.keys()
        text = f"systemd-networkd removes {' and '.join(undone)} that it did not make, "
        text += f"unless {networkd.DROP_IN} says"
        drop_in = ("[Network]", *(f"{setting}=no" for setting in undone.values()))
        self._say(news(config.name, text, priority=WARNING, details=drop_in))
