# SPDX-License-Identifier: MIT
"""One source of a scope with its ledger and its loop, opened anew when it breaks.

It knows neither the other sources of the scope nor which one this is.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from linxd.called import find
from linxd.clock import BOOT
from linxd.ledger import FileLedger
from linxd.loop import Loop, LoopState, Status
from linxd.patch import Condition, Key, Patch, Report
from linxd.records import NamedTuple
from linxd.source import Blocked, Gone, Source

log = logging.getLogger(__name__)

AGAIN_FIRST, AGAIN_LAST = 0.5, 60.0
"""Seconds until a source that could not be opened, or whose loop broke, is opened again."""


class Opened(NamedTuple):
    """A source with what it holds open. ``loaded``: whether all that is declared was in force once, where
    the source itself knows."""

    source: Source[Any, Any]
    close: Callable[[], None]
    loaded: Callable[[], bool] | None = None


class Left(NamedTuple):
    """An object that is left alone: what it is called, until when (seconds of CLOCK_BOOTTIME, microseconds
    of CLOCK_REALTIME), and that in words."""

    name: str
    until: float
    at: int
    words: str


class Part:
    """Runs one loop. ``opener`` opens its source, raising OSError; ``ledger`` opens its ledger.

    ``on_report`` and ``on_change`` are told what the loop tells, ``on_change`` also of what befalls it
    otherwise.
    """

    def __init__(
        self,
        scope: str,
        name: str,
        desired: Any,
        *,
        opener: Callable[[], Opened],
        ledger: Callable[[], FileLedger],
        resync: float,
        on_report: Callable[[Part, Report], None],
        on_change: Callable[[Part], None],
    ) -> None:
        self.name = name
        self.desired = desired
        self.answered = asyncio.Event()
        """Set once there is something to say: a pass has ended, or none can run."""
        self.gone = False
        """Whether `run` returned because the namespace is gone."""
        self.loop: Loop[Any, Any] | None = None
        self.ledger: FileLedger | None = None
        self._scope = scope
        self._opener = opener
        self._open_ledger = ledger
        self._resync = resync
        self._on_report = on_report
        self._on_change = on_change
        self._loaded: Callable[[], bool] | None = None
        self._error = ""
        self._generation = 1
        self._paused_until: float | None = None
        self._left: dict[Key, Left] = {}
        self._stopping = asyncio.Event()

    # -- asked ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> LoopState:
        """The loop's, or blocked while there is none because of an error."""
        if self._error:
            return LoopState.BLOCKED
        return LoopState.STARTING if self.loop is None else self.loop.state

    @property
    def status(self) -> Status:
        """The loop's, or that of one which can't run."""
        if self.loop is not None and not self._error:
            return self.loop.status
        return Status(self._scope, self.name, "timer", self.state, self._generation, last_error=self._error)

    @property
    def loaded(self) -> bool:
        """Whether all that is declared was in force once."""
        if self._loaded is not None:
            return self._loaded()
        return self.state is LoopState.CONVERGED

    @property
    def served(self) -> bool:
        """Whether a pass over everything has ended that served what is declared now."""
        return self.loop is not None and not self._error and self.loop.reached == self._generation

    @property
    def conditions(self) -> Mapping[Key, Condition]:
        """The objects that are not simply done."""
        return {} if self.loop is None else self.loop.conditions

    def stalled(self) -> float:
        """Seconds for which a pass has made no progress."""
        return 0.0 if self.loop is None else self.loop.stalled()

    # -- told -----------------------------------------------------------------------------------------------

    def declare(self, desired: Any, *, resync: float | None = None) -> None:
        """From now on this is desired."""
        self.desired = desired
        self._generation += 1
        if resync is not None:
            self._resync = resync
        if self.loop is not None:
            self.loop.resync = self._resync
            self.loop.declare(desired)

    def pause(self, until: float) -> None:
        """Write nothing before ``until`` (seconds of CLOCK_BOOTTIME), not even in a loop made anew
        meanwhile."""
        self._paused_until = until
        if self.loop is not None:
            self.loop.pause(until)

    def resume(self) -> None:
        """End a pause now, of every object, too."""
        for key in list(self._left):
            self.take_up(key)
        self._paused_until = None
        if self.loop is not None:
            self.loop.resume()

    @property
    def left(self) -> Mapping[Key, Left]:
        """The objects that are left alone now."""
        now = BOOT.now()
        self._left = {key: one for key, one in self._left.items() if one.until > now}
        return self._left

    async def find(self, text: str) -> list[tuple[Key, str]]:
        """The objects that ``text`` may mean, as `linxd.called.find` has it: those that are declared, left
        alone or not as they should be. What is changed only together with others stands for all of them."""
        loop, desired = self.loop, self.desired
        if loop is None:
            return []
        source = loop.source
        others = [(key, one.name) for key, one in self.left.items()]
        conditions, _ = loop.standing()

        def look() -> dict[Key, str]:
            others.extend((key, one.name) for key, one in conditions.items())
            found = find(itertools.chain(source.objects(desired), others), text)
            units = ((source.unit(key), key, name) for key, name in found)
            return {unit: name if unit == key else " ".join(map(str, unit)) for unit, key, name in units}

        return list((await asyncio.to_thread(look)).items())

    def leave(self, key: Key, left: Left) -> None:
        """Leave an object alone, in a loop made anew meanwhile, too. A later word on it replaces an earlier
        one."""
        self._left[key] = left
        if self.loop is not None:
            self.loop.leave(key, left.until, left.words)

    def take_up(self, key: Key) -> None:
        """Leave an object alone no longer."""
        self._left.pop(key, None)
        if self.loop is not None:
            self.loop.take_up(key)

    def stop(self) -> None:
        """Have `run` return soon."""
        self._stopping.set()
        if self.loop is not None:
            self.loop.stop()

    async def reached(self) -> Report:
        """The report of a pass over everything that starts after this call. Raises Blocked, Gone,
        CancelledError."""
        if self.loop is None:
            raise Gone("there is no loop")
        return await self.loop.request()

    async def plan(self) -> Patch:
        """What a pass over everything would do now. Raises as `reached`, and Blocked where none can run."""
        if self.loop is None or self._error:
            raise Blocked(self._error or "has not begun")
        return await self.loop.plan()

    # -- running --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until `stop`, or until the namespace is gone, whatever breaks in between."""
        pause = AGAIN_FIRST
        while not self._stopping.is_set():
            try:
                await self._run()
            except Gone:
                self.gone = True
            except OSError as error:
                self._broke(f"{error.strerror or error}")
            except Exception as error:
                # A fault of ours in one loop must not take the others down with it.
                log.debug("%s/%s: unexpected", self._scope, self.name, exc_info=True)
                self._broke(f"unexpected error: {type(error).__name__}: {error}")
            if self.gone or self._stopping.is_set():
                return
            try:
                await asyncio.wait_for(self._stopping.wait(), pause)
            except TimeoutError:
                pause = min(2 * pause, AGAIN_LAST)

    async def _run(self) -> None:
        opened = self._opener()
        ledger = None
        try:
            ledger = self.ledger = self._open_ledger()
            loop: Loop[Any, Any] = Loop(
                opened.source,
                self.desired,
                owned=ledger,
                resync=self._resync,
                on_report=self._reported,
                on_state=lambda state: self._changed(),
                name=self._scope,
            )
            loop.generation = self._generation
            self.loop, self._error, self._loaded = loop, "", opened.loaded
            if self._paused_until is not None and self._paused_until > BOOT.now():
                loop.pause(self._paused_until)
            for key, one in self.left.items():
                loop.leave(key, one.until, one.words)
            await loop.run()
            self.gone = loop.gone
        finally:
            opened.close()
            if ledger is not None:
                ledger.close()

    def _reported(self, report: Report) -> None:
        self._on_report(self, report)
        self.answered.set()

    def _changed(self) -> None:
        self._on_change(self)
        if self.state is not LoopState.STARTING:
            self.answered.set()

    def _broke(self, error: str) -> None:
        self._error = error
        self._changed()
