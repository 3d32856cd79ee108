# SPDX-License-Identifier: MIT
"""systemd's units over the bus: word that one may have changed, which ones run, and jobs for them.

It knows what systemd says and does, and nothing of scopes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from linxd.bus.connection import AWAY, BUS, BUS_PATH, BusError, Connection, Heard, Unreachable
from linxd.bus.objects import PROPERTIES
from linxd.records import dataclass

SYSTEMD, SYSTEMD_PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
MANAGER = f"{SYSTEMD}.Manager"
UNIT = f"{SYSTEMD}.Unit"
MOST_FOLLOWED = 400
"""Units of which each change of state is told. The bus allows a connection 512 rules; of further units no
more is heard than the end of their jobs, and that they are gone."""
AT_ONCE = 32
"""Calls under way at the same time."""

_RULES = (
    *(
        f"type='signal',sender='{SYSTEMD}',path='{SYSTEMD_PATH}',interface='{MANAGER}',member='{member}'"
        for member in ("UnitNew", "UnitRemoved", "JobRemoved", "Reloading")
    ),
    f"type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{SYSTEMD}'",
)
_JOBS = 100
"""Ends of jobs that are remembered."""
_RUNS = ("active", "reloading", "refreshing", "activating")


@dataclass(frozen=True, slots=True)
class Listed:
    """A unit that systemd has loaded. ``ends``: it runs, but not for long."""

    name: str
    path: str
    runs: bool
    ends: bool


class Units:
    """What systemd says of the units that are ``meant``. ``moved`` is told the name of one that may have
    changed, or None: then any may have. ``own``: how the names of those units begin that jobs are asked
    for."""

    def __init__(
        self,
        connection: Connection,
        meant: Callable[[str], bool],
        moved: Callable[[str | None], None],
        *,
        own: str,
    ) -> None:
        self._connection = connection
        self._own = own
        self._meant = meant
        self._moved = moved
        self._systemd = ""
        self._paths: dict[str, str] = {}
        """By object path: the units that are followed."""
        self._waiting: dict[str, asyncio.Event] = {}
        """By object path: jobs whose end is waited for."""
        self._ended: deque[str] = deque(maxlen=_JOBS)
        """The last ones that have ended: that may be told before anybody waits for it."""

    # -- heard ----------------------------------------------------------------------------------------------

    async def subscribe(self) -> None:
        """From now on hear of units. Once for each connection. Raises BusError, Unreachable."""
        self._paths.clear()
        for rule in _RULES:
            await self._bus("AddMatch", rule)
        await self._find()

    async def unsubscribe(self) -> None:
        """Hear of nothing more. Raises BusError, Unreachable."""
        paths, self._paths = self._paths, {}
        for rule in (*_RULES, *map(_changes, paths)):
            await self._bus("RemoveMatch", rule)
        with contextlib.suppress(BusError):
            await self._ask("Unsubscribe")
        self._systemd = ""

    async def _find(self) -> None:
        try:
            (self._systemd,) = await self._bus("GetNameOwner", SYSTEMD)
        except BusError:
            # It is not on the bus now; when it comes, that is told.
            self._systemd = ""
        else:
            with contextlib.suppress(BusError):
                await self._ask("Subscribe")

    def heard(self, heard: Heard) -> None:
        """A signal has come."""
        if heard.sender == BUS and heard.member == "NameOwnerChanged" and heard.body[:1] == [SYSTEMD]:
            # It has begun anew, and knows nothing of us.
            self._systemd = ""
            self._moved(None)
        elif heard.sender and heard.sender == self._systemd:
            self._take(heard)

    def _take(self, heard: Heard) -> None:
        body = heard.body
        match heard.member:
            case "PropertiesChanged" if heard.path in self._paths:
                self._moved(self._paths[heard.path])
            case "UnitNew" | "UnitRemoved" if self._meant(str(body[0])):
                self._moved(str(body[0]))
            case "JobRemoved":
                if str(body[2]).startswith(self._own):
                    self._ended.append(str(body[1]))
                    if str(body[1]) in self._waiting:
                        self._waiting[str(body[1])].set()
                elif self._meant(str(body[2])):
                    self._moved(str(body[2]))
            case "Reloading" if not body[0]:
                self._moved(None)

    # -- asked ----------------------------------------------------------------------------------------------

    async def listed(self, globs: Iterable[str]) -> list[Listed]:
        """The loaded units whose names match; none is loaded for being asked for. Raises BusError,
        Unreachable."""
        if not self._systemd:
            await self._find()
        (rows,) = await self._ask("ListUnitsByPatterns", "asas", [[], sorted(globs)])
        return [
            Listed(str(row[0]), str(row[6]), runs=row[3] in _RUNS, ends=row[3] == "deactivating")
            for row in rows
        ]

    async def invocation(self, unit: Listed) -> str:
        """Which of its lives a unit is in; "" for one that has ended meanwhile. Raises Unreachable.

        To be asked for units that run: one that is gone would be loaded again for it, and that is told as a
        new unit.
        """
        try:
            (value,) = await self._connection.call(
                SYSTEMD, unit.path, PROPERTIES, "Get", "ss", [UNIT, "InvocationID"]
            )
        except BusError:
            return ""
        return bytes(value.value).hex()

    async def follow(self, units: Iterable[Listed]) -> None:
        """Hear of each change of these units, too. Raises Unreachable."""
        for unit in units:
            if unit.path not in self._paths and len(self._paths) < MOST_FOLLOWED:
                self._paths[unit.path] = unit.name
                # The bus may allow less; then it is the next look that sees what changed.
                with contextlib.suppress(BusError):
                    await self._bus("AddMatch", _changes(unit.path))

    async def unfollow(self, names: Iterable[str]) -> None:
        """Of these no more than of others. Raises Unreachable."""
        gone = set(names)
        for path in [path for path, name in self._paths.items() if name in gone]:
            del self._paths[path]
            with contextlib.suppress(BusError):
                await self._bus("RemoveMatch", _changes(path))

    async def job(self, member: str, unit: str) -> str:
        """StartUnit, RestartUnit or StopUnit: returns the job when systemd has taken it. Raises BusError,
        Unreachable."""
        (job,) = await self._ask(member, "ss", [unit, "replace"])
        return str(job)

    async def done(self, job: str, *, seconds: float) -> None:
        """Wait for the end of a job, but no longer than that."""
        if job in self._ended:
            return
        waiting = self._waiting[job] = asyncio.Event()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await waiting.wait()
        finally:
            del self._waiting[job]

    async def _ask(self, member: str, signature: str = "", body: Sequence[object] = ()) -> Sequence[Any]:
        try:
            return await self._connection.call(SYSTEMD, SYSTEMD_PATH, MANAGER, member, signature, body)
        except BusError as error:
            if error.name in AWAY:
                raise Unreachable(str(error)) from None
            raise

    async def _bus(self, member: str, word: str) -> Sequence[Any]:
        return await self._connection.call(BUS, BUS_PATH, BUS, member, "s", [word])


def _changes(path: str) -> str:
    return (
        f"type='signal',sender='{SYSTEMD}',path='{path}',interface='{PROPERTIES}',"
        f"member='PropertiesChanged',arg0='{UNIT}'"
    )
