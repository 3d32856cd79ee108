# SPDX-License-Identifier: MIT
"""``[[attach]]`` at work: watches systemd's units over the bus, and has scopes start and stop with them.

What is to be done is decided in `linxd.attach`; what was begun is kept in a file, so that a daemon that was
away catches up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from linxd.attach import (
    Decision,
    Followed,
    Verb,
    decide,
    from_text,
    glob_of,
    literal,
    runs_of,
    scope_for,
    to_text,
)
from linxd.bus import names
from linxd.bus.connection import BusError, Connection, Heard, Unreachable
from linxd.bus.units import AT_ONCE, SYSTEMD, Listed, Units
from linxd.config.model import Attach

log = logging.getLogger(__name__)

FILE = "attach.json"
"""In the host's state directory: which scopes go with which runs of units."""
LOOK = 30.0
"""Seconds between two looks at all units: events are hints."""
AGAIN = 1.0
"""Seconds until it is tried again after systemd did not answer."""
MOST_STARTING = max(4, 2 * (os.cpu_count() or 1))
"""Scopes that start at the same time. All of many at once would all be late; one after the other, most are
soon there."""
STARTING = 5.0
"""Seconds after which one that starts, and may wait for its namespace, holds up no other any longer."""
_UNITS = names.UNIT.format("*")
_MEMBERS = {Verb.START: "StartUnit", Verb.RESTART: "RestartUnit", Verb.STOP: "StopUnit"}
_DONE = {Verb.START: "started", Verb.RESTART: "started again", Verb.STOP: "stopped"}


class Files(Protocol):
    """What is known of the files of scopes: see `linxd.declared.Declared`."""

    async def names(self) -> frozenset[str]:
        """The scopes that have one."""

    def watch(self, changed: Callable[[Collection[str] | None], None]) -> None:
        """Tell from now on of which that may be another answer, None: of any."""

    def close(self) -> None:
        """Tell of nothing more."""


class Attacher:
    """Runs on ``connection``. ``rules`` tells which rules hold now, ``files`` which scopes have files.
    ``directory``: the host's state. ``say`` is told what is done, ``warn`` what could not be."""

    def __init__(
        self,
        connection: Connection,
        rules: Callable[[], Sequence[Attach]],
        files: Files,
        directory: str,
        *,
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._rules = rules
        self._files = files
        self._path = os.path.join(directory, FILE)
        self._say = say
        self._warn = warn
        self._units = Units(connection, self._meant, self._moved, own=_UNITS.partition("*")[0])
        self._queue: dict[str, Decision] = {}
        """Scopes that are to be started, in the order in which that was decided."""
        self._asking: dict[str, Followed] = {}
        """Scopes of which systemd is being asked, for what."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen: Sequence[Attach] = ()
        """The rules that the last look went by."""
        self._dirty: set[str] = set()
        self._filed: set[str] = set()
        """Scopes whose files may have come or gone."""
        self._next = 0.0
        """When all units are looked at again, by the monotonic clock."""
        self._all = self._doubt = True
        """Whether to look at all units, and whether one may have ended and begun again unheard."""
        self._wake = asyncio.Event()
        self._heard_on = ""
        """Our unique name on the connection on which we have subscribed."""
        self._running: dict[str, str] = {}
        self._followed: dict[str, Followed] = {}
        self._broken = False
        """Whether the last look ended in an error of ours, which is said once."""
        self._written = ""
        self._unwritten = False
        """Whether what is followed could not be written, which is said once."""
        with contextlib.suppress(OSError), open(self._path, encoding="utf-8") as file:
            self._followed = from_text(file.read())

    @property
    def followed(self) -> dict[str, Followed]:
        """By scope, what it goes with."""
        return dict(self._followed)

    def heard(self, heard: Heard) -> None:
        """A signal has come on the connection."""
        self._units.heard(heard)

    def changed(self) -> None:
        """The rules may be others now, or the connection a new one."""
        # They are others whenever the files were read: then there may be files of other scopes, too.
        anew = self._heard_on and self._connection.unique != self._heard_on
        if self._rules() is not self._seen or anew:
            self._moved(None)

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            await self._watch()
        finally:
            self._files.close()
            self._queue.clear()
            for task in self._tasks:
                task.cancel()

    async def _watch(self) -> None:
        while True:
            await self._connection.up.wait()
            try:
                await self._look()
                wait = self._next - time.monotonic() if self._rules() or self._followed else None
            except (BusError, Unreachable) as error:
                log.debug("units: %s", error)
                self._all = self._doubt = True
                wait = AGAIN
            except Exception as error:
                # A fault of ours must not leave every later container without its network.
                log.debug("units: unexpected", exc_info=True)
                if not self._broken:
                    self._warn(
                        f"unexpected error: {type(error).__name__}: {error}; units are looked at again"
                    )
                self._all = self._doubt = self._broken = True
                wait = LOOK
            else:
                self._broken = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            # Not only if nothing was heard: somebody may write files, or start units, all the time.
            if time.monotonic() >= self._next:
                self._all = True
            self._wake.clear()

    def _moved(self, unit: str | None) -> None:
        if unit is None:
            self._all = self._doubt = True
        else:
            self._dirty.add(unit)
        self._wake.set()

    def _came_or_went(self, scopes: Collection[str] | None) -> None:
        """Files of these scopes, or of any."""
        if scopes is None:
            self._all = True
        else:
            self._filed.update(scopes)
        self._wake.set()

    def _meant(self, unit: str) -> bool:
        return scope_for(unit, self._seen) is not None or unit in self._runs()

    def _runs(self) -> set[str]:
        return {one.run.unit for one in self._followed.values()}

    # -- looking --------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """One look, at what may have changed or at everything, and what follows from it. Raises BusError,
        Unreachable."""
        everything, self._all = self._all, False
        doubt, self._doubt = self._doubt, False
        dirty, self._dirty = self._dirty, set()
        filed, self._filed = self._filed, set()
        self._seen = rules = self._rules()
        if not rules and not self._followed:
            if self._heard_on == self._connection.unique:
                await self._units.unsubscribe()
            self._heard_on = ""
            self._files.close()
            return
        if self._heard_on != self._connection.unique:
            await self._units.subscribe()
            self._heard_on = self._connection.unique
            everything = doubt = True
        if everything:
            self._next = time.monotonic() + LOOK
            # First listen, then look: nothing falls in between.
            self._files.watch(self._came_or_went)
        concerned = None if everything else self._concerned(dirty) | self._going(filed)
        if not dirty and concerned is not None and not concerned:
            # To ask systemd for no unit in particular is to ask for all.
            return
        try:
            active = await self._see(dirty, concerned, doubt=doubt)
            await self._act(rules, active, concerned)
        except BaseException:
            self._dirty |= dirty
            self._filed |= filed
            raise

    def _concerned(self, dirty: Collection[str]) -> set[str]:
        """The scopes that go with these units, or did so far."""
        scopes = {scope_for(unit, self._seen) for unit in dirty}
        scopes |= {scope for scope, one in self._followed.items() if one.run.unit in dirty}
        return {scope for scope in scopes if scope is not None}

    def _going(self, scopes: Collection[str]) -> set[str]:
        """Those of these scopes that have a unit to go with."""
        if not scopes:
            return set()
        going = (scope_for(unit, self._seen) for unit in self._running)
        return {scope for scope in going if scope is not None and scope in scopes}

    async def _see(
        self, dirty: Collection[str], concerned: Collection[str] | None, *, doubt: bool
    ) -> set[str]:
        """Bring up to date which units run: those that may have changed or, with ``concerned`` None, all.
        Returns those of the concerned scopes whose own units run."""
        if concerned is None:
            globs = {glob_of(rule.unit) for rule in self._seen} | {literal(unit) for unit in self._runs()}
            globs.add(_UNITS)
        else:
            globs = {literal(unit) for unit in (*dirty, *map(names.unit_of_scope, concerned))}
        listed = await self._units.listed(globs)
        own = {one.name for one in listed if one.runs}
        met = {one.name: one for one in listed if self._meant(one.name)}
        looked = {*dirty, *(self._running if concerned is None else ())}
        gone = [unit for unit in looked if unit not in met]
        await self._units.unfollow(gone)
        await self._units.follow(met.values())
        invocations = await self._invocations(
            one
            for one in met.values()
            if (one.runs or one.ends) and (doubt or one.name in dirty or one.name not in self._running)
        )
        for unit, one in met.items():
            if not one.runs and not (one.ends and unit in self._running):
                self._running.pop(unit, None)
            elif unit in invocations:
                self._running[unit] = invocations[unit]
        for unit in gone:
            self._running.pop(unit, None)
        return {
            name.removeprefix(_UNITS.partition("*")[0]).removesuffix(".service")
            for name in own
            if name.startswith(_UNITS.partition("*")[0])
        }

    async def _invocations(self, units: Iterable[Listed]) -> dict[str, str]:
        turn = asyncio.Semaphore(AT_ONCE)

        async def ask(unit: Listed) -> tuple[str, str]:
            async with turn:
                return unit.name, await self._units.invocation(unit)

        found = await asyncio.gather(*map(ask, units))
        return {unit: invocation for unit, invocation in found if invocation}

    # -- doing ----------------------------------------------------------------------------------------------

    async def _act(
        self, rules: Sequence[Attach], active: Collection[str], concerned: Collection[str] | None
    ) -> None:
        declared = await self._files.names()
        runs = runs_of(self._running, rules, declared)
        decisions = {
            scope: decide(
                self._followed.get(scope), runs.get(scope, ()), self._running, active=scope in active
            )
            for scope in sorted(runs.keys() | self._followed.keys())
            if concerned is None or scope in concerned
        }
        for scope, decision in decisions.items():
            self._keep(scope, decision.before)
        # Before systemd is asked: what we have begun has to be known to whoever comes after us.
        self._write()
        stops = []
        for scope, decision in decisions.items():
            if decision.verb is Verb.STOP:
                stops.append(self._stop(scope, decision))
            elif decision.verb is not None and self._asking.get(scope) != decision.before:
                self._queue[scope] = decision
        self._pump()
        if stops:
            results = await asyncio.gather(*stops, return_exceptions=True)
            self._write()
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    def _pump(self) -> None:
        """Have as many scopes started as may start at once."""
        while self._queue and len(self._tasks) < MOST_STARTING:
            scope = next(iter(self._queue))
            task = asyncio.create_task(self._start(scope, self._queue.pop(scope)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: self._pump())

    async def _start(self, scope: str, decision: Decision) -> None:
        if decision.before is None or self._followed.get(scope) != decision.before:
            # Its turn came too late.
            return
        self._asking[scope] = decision.before
        try:
            job = await self._ask(scope, decision)
            if self._followed.get(scope) == decision.before:
                self._keep(scope, decision.after)
                self._write()
        except Unreachable:
            self._moved(None)
            return
        finally:
            del self._asking[scope]
        if job:
            await self._units.done(job, seconds=STARTING)

    async def _stop(self, scope: str, decision: Decision) -> None:
        await self._ask(scope, decision)
        if self._followed.get(scope) == decision.before:
            self._keep(scope, decision.after)

    async def _ask(self, scope: str, decision: Decision) -> str:
        """Ask systemd for the job that is decided on; "" if it refuses, which is for good. Raises
        Unreachable."""
        assert decision.verb is not None
        assert decision.before is not None
        unit = names.unit_of_scope(scope)
        ends = decision.verb is Verb.STOP
        why = f"{decision.before.run.unit} {'has ended' if ends else 'runs'}"
        try:
            job = await self._units.job(_MEMBERS[decision.verb], unit)
        except BusError as error:
            # A unit that is not even loaded has stopped.
            if not (ends and error.name == f"{SYSTEMD}.NoSuchUnit"):
                self._warn(f"{why}, but systemd does not have {unit} {_DONE[decision.verb]}: {error}")
            return ""
        self._say(f"{why}: {unit} is {_DONE[decision.verb]}")
        return job

    def _keep(self, scope: str, one: Followed | None) -> None:
        if one is None:
            self._followed.pop(scope, None)
        else:
            self._followed[scope] = one

    def _write(self) -> None:
        text = to_text(self._followed)
        if text == self._written:
            return
        fresh = f"{self._path}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with open(os.open(fresh, flags, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(fresh, self._path)
        except OSError as error:
            # No reason to leave a container without its network: what is lost is who had it started.
            if not self._unwritten:
                self._warn(f"{self._path}: {error.strerror}; after a restart it is not known what was begun")
            self._unwritten = True
        else:
            self._written, self._unwritten = text, False
