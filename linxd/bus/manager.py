# SPDX-License-Identifier: MIT
"""org.linxd1.Manager, on the host's name only: which scopes run, and systemd asked to start and stop them.

It finds them by their names on the bus, as everybody can; no scope goes through it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from linxd.bus import names
from linxd.bus.connection import BUS, BUS_PATH, BusError, Call, Connection, Heard, Unreachable
from linxd.bus.interface import Interface, method
from linxd.bus.objects import PROPERTIES

SYSTEMD, SYSTEMD_PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
RULES = (
    f"type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',"
    f"arg0namespace='{names.PREFIX}'",
)
"""What of the bus' signals the manager wants to hear."""
ANSWER = 2.0
"""Seconds within which a scope says how it is, or is listed without that."""
AT_ONCE = 32
"""Scopes that are asked at the same time."""

_NOT_FOUND = (f"{SYSTEMD}.NoSuchUnit", f"{SYSTEMD}.LoadFailed")


class ManagerInterface(Interface):
    """``declared``: the names of all scopes that have files; ``valid``: whether a name can be one."""

    name = "org.linxd1.Manager"
    signals: ClassVar[Mapping[str, str]] = {"ScopeNew": "sso", "ScopeRemoved": "sso"}

    def __init__(
        self,
        connection: Connection,
        *,
        declared: Callable[[], Iterable[str]],
        valid: Callable[[str], bool],
    ) -> None:
        self._connection = connection
        self._declared = declared
        self._valid = valid

    def heard(self, heard: Heard) -> None:
        """A name has come, or gone."""
        if heard.sender != BUS or heard.member != "NameOwnerChanged":
            return
        name, before, now = heard.body
        scope = names.scope_of(name)
        if scope is None or scope == "host" or bool(before) == bool(now):
            return
        self.signal("ScopeNew" if now else "ScopeRemoved", scope, name, names.scope_path(scope))

    @method("", "a(sssso)")
    async def list_scopes(self, call: Call) -> tuple[list[list[str]]]:
        """Every scope that has a name on the bus, the host's too."""
        (owned,) = await self._connection.call(BUS, BUS_PATH, BUS, "ListNames")
        found = sorted(name for name in owned if names.scope_of(name) is not None)
        turn = asyncio.Semaphore(AT_ONCE)

        async def row(name: str) -> list[str] | None:
            scope = names.scope_of(name) or ""
            path = names.scope_path(scope)
            async with turn:
                try:
                    (values,) = await self._connection.call(
                        name, path, PROPERTIES, "GetAll", "s", ["org.linxd1.Scope"], seconds=ANSWER
                    )
                except Unreachable:
                    return [scope, "", names.unit_of_scope(scope), name, path]
                except BusError:
                    # Gone meanwhile, or none of ours.
                    return None
            return [scope, _text(values, "State"), _text(values, "Unit"), name, path]

        rows = await asyncio.gather(*map(row, found))
        return ([one for one in rows if one is not None],)

    @method("s", "o", action="manage-scopes")
    async def start_scope(self, call: Call, name: str) -> tuple[str]:
        """Needs a file for it."""
        self._named(name)
        if name not in await asyncio.to_thread(lambda: set(self._declared())):
            raise BusError(names.NO_SUCH_SCOPE, f"there is no file for a scope {name}")
        return await self._job("StartUnit", name)

    @method("s", "o", action="manage-scopes")
    async def stop_scope(self, call: Call, name: str) -> tuple[str]:
        """Of a scope that does not run the job is done at once, as systemd has it."""
        self._named(name)
        return await self._job("StopUnit", name)

    def _named(self, name: str) -> None:
        if name == "host" or not self._valid(name):
            raise BusError(names.INVALID_NAME, f"{name!r} is no name of a scope that can be started")

    async def _job(self, member: str, name: str) -> tuple[str]:
        unit = names.unit_of_scope(name)
        try:
            (job,) = await self._connection.call(
                SYSTEMD, SYSTEMD_PATH, f"{SYSTEMD}.Manager", member, "ss", [unit, "replace"]
            )
        except BusError as error:
            if error.name in _NOT_FOUND:
                raise BusError(names.NO_SUCH_SCOPE, str(error)) from None
            raise BusError(error.name, f"systemd: {error}") from None
        except Unreachable as error:
            raise BusError(names.TIMED_OUT, f"systemd: {error}") from None
        return (str(job),)


def _text(values: Mapping[str, Any], key: str) -> str:
    value = getattr(values.get(key), "value", "")
    return value if isinstance(value, str) else ""
