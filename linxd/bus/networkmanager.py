# SPDX-License-Identifier: MIT
"""NetworkManager asked over the bus which links it manages, and heard when that may be others.

It is never started for being asked. What it manages "externally" it only shows: neither addresses nor routes
there are touched (docs/decisions.md).
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable, Sequence, Set
from typing import Any

from linxd.bus.connection import AWAY, BUS, BUS_PATH, BusError, Connection, Heard, Unreachable
from linxd.bus.objects import PROPERTIES
from linxd.config.model import ScopeConfig

NAME, PATH = "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"
DEVICE, ACTIVE = f"{NAME}.Device", f"{NAME}.Connection.Active"
DROP_IN = "/etc/NetworkManager/conf.d/linxd.conf"
"""The file in which it is told what to leave alone."""
RULES = (
    f"type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{NAME}'",
    f"type='signal',sender='{NAME}',interface='{DEVICE}',member='StateChanged'",
)
"""What of others' signals it takes to hear that something else may be managed."""
ANSWER = 20.0
"""Seconds for all the questions of one look; nobody waits for that."""
NAMED = 5
"""Links that are named in a line."""
_EXTERNAL = 0x80
"""NM_ACTIVATION_STATE_FLAG_EXTERNAL: what is there was made by others, and is only shown."""
_PLAIN = re.compile(r"[\w.@+-]+", re.ASCII)


class NetworkManager:
    """A `linxd.beside.Manager`. ``changed`` is told when it may manage something else."""

    settles = 1.0

    def __init__(self, connection: Connection, changed: Callable[[], None]) -> None:
        self._connection = connection
        self._changed = changed
        self._owner = ""
        """Its unique name; "" while it is not known to run."""

    def opened(self) -> None:
        """The connection is a new one."""
        self._owner = ""
        self._changed()

    def heard(self, heard: Heard) -> None:
        """A signal has come on the connection."""
        if heard.sender == BUS:
            if heard.member == "NameOwnerChanged" and heard.body[:1] == [NAME]:
                self._owner = str(heard.body[2])
                if self._owner:
                    self._changed()
        elif heard.sender == self._owner and heard.interface == DEVICE and heard.member == "StateChanged":
            self._changed()

    async def undone(self, config: ScopeConfig) -> Set[str] | None:
        """The links that it manages among those on which something is declared."""
        try:
            async with asyncio.timeout(ANSWER):
                (owner,) = await self._connection.call(BUS, BUS_PATH, BUS, "GetNameOwner", "s", [NAME])
                self._owner = owner = str(owner)
                return {link for link in config.rtnl.on_links() if await self._manages(owner, link)}
        except (BusError, Unreachable, TimeoutError):
            return None

    async def _manages(self, owner: str, link: str) -> bool:
        # By its unique name: what another one says, that comes in its place, is for another look.
        ask = functools.partial(self._connection.call, owner)
        try:
            (device,) = await ask(PATH, NAME, "GetDeviceByIpIface", "s", [link])
            if not await _get(ask, device, DEVICE, "Managed"):
                return False
            active = await _get(ask, device, DEVICE, "ActiveConnection")
            return active == "/" or not await _get(ask, active, ACTIVE, "StateFlags") & _EXTERNAL
        except BusError as error:
            if error.name in AWAY:
                raise
            # It knows no such link, or what it does with it has just changed, of which there is word.
            return False

    def told(self, undone: Set[str], config: ScopeConfig) -> tuple[str, tuple[str, ...]]:
        """Which links these are; and that file in full, with all links on which something is declared."""
        links = sorted(undone)
        more = f" and {len(links) - NAMED} more" if len(links) > NAMED else ""
        text = f"NetworkManager manages {', '.join(links[:NAMED])}{more}, and removes what others put on a "
        text += f"link when it sets that up or leaves it, unless {DROP_IN} says"
        devices = ";".join(_matching(link) for link in sorted(config.rtnl.on_links()))
        return text, ("[keyfile]", f"unmanaged-devices+={devices}")


async def _get(ask: Callable[..., Awaitable[Sequence[Any]]], path: str, interface: str, name: str) -> Any:
    (value,) = await ask(path, PROPERTIES, "Get", "ss", [interface, name])
    return value.value


def _matching(link: str) -> str:
    """A link as NetworkManager.conf(5) has it under "Device List Format": taken for a pattern unless there
    is a "=", and ended by ";" or "," unless there is a backslash."""
    if _PLAIN.fullmatch(link):
        return f"interface-name:{link}"
    return "interface-name:=" + re.sub(r"([\\;,])", r"\\\1", link)
