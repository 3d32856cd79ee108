# SPDX-License-Identifier: MIT
"""org.linxd1.Scope: how a scope is, and what may be asked of it.

What is done is the scope's business; here it is asked for, in turns and within limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from linxd import __version__
from linxd.bus import names
from linxd.bus.connection import BusError, Call
from linxd.bus.forms import ObjectForm, listed, object_form, planned, public_name
from linxd.bus.interface import Interface, Property, method
from linxd.bus.kept import Kept
from linxd.config.faults import ConfigError
from linxd.log import clean
from linxd.part import Part
from linxd.patch import Condition, Key, Patch, State
from linxd.records import dataclass
from linxd.reload import ANSWERED, told
from linxd.scope import ORDER, Ambiguous, Scope, ScopeState
from linxd.slices import let_go
from linxd.source import Blocked, Gone

PAGE = 1000
"""Ops, or objects, in one answer at most."""
MOST_WAITING = 16
"""Times that one sender may wait at once."""
PATIENCE = 90.0
"""Seconds after which it is said that something takes too long."""
LONGEST = 365 * 86400
"""Seconds of a pause or a wait; more is taken for so many."""


_Row = tuple[Key, str, Condition | None, Mapping[Key, tuple[State, int]], int]
"""An object: key, name, how it is, since when (of those of which it is known), until when it is paused."""


@dataclass(frozen=True, slots=True)
class _Listed:
    wanted: str
    rows: list[_Row]


def _let_plan_go(plan: tuple[list[Patch], int]) -> None:
    let_go(*(part for patch in plan[0] for part in (patch.ops, patch.conditions, patch.adopt)))


class ScopeInterface(Interface):
    """Shows ``scope``. ``word`` is what it says of itself; ``reload`` and ``release`` are its daemon's."""

    name = "org.linxd1.Scope"
    properties: ClassVar[Mapping[str, Property]] = {
        "Name": Property("s", "const"),
        "Version": Property("s", "const"),
        "Namespace": Property("s", "const"),
        "NamespaceCookie": Property("t", "const"),
        "Unit": Property("s", "const"),
        "Files": Property("as", "true"),
        "State": Property("s", "true"),
        "Paused": Property("b", "true"),
        "PausedUntil": Property("t", "true"),
        "PausedObjects": Property("a(sst)", "true"),
        "Generation": Property("t", "true"),
        "Counts": Property("a{su}", "true"),
    }

    def __init__(
        self,
        scope: Scope,
        cookie: int,
        unit: str,
        *,
        word: Callable[[], Mapping[str, object]],
        reload: Callable[[], Awaitable[Sequence[str]]],
        release: Callable[[], Awaitable[Sequence[str]]],
    ) -> None:
        self._scope = scope
        self._name = scope.config.name
        self._namespace = str(scope.config.netns)
        self._cookie = cookie
        self._unit = unit
        self._word = word
        self._reload = reload
        self._release = release
        self._plans: Kept[tuple[list[Patch], int]] = Kept(_let_plan_go)
        self._lists: Kept[_Listed] = Kept(lambda listed: let_go(listed.rows))
        self._waiting: Counter[str] = Counter()
        self._wakes: set[tuple[int, asyncio.Event]] = set()
        """Who waits for which generation, to be woken when it may be theirs to know."""

    def values(self) -> Mapping[str, Any]:
        """See the XML."""
        scope = self._scope
        return {
            "Name": self._name,
            "Version": __version__,
            "Namespace": clean(self._namespace),
            "NamespaceCookie": self._cookie,
            "Unit": clean(self._unit),
            "Files": [clean(str(file)) for file in scope.config.files],
            "State": str(scope.state),
            "Paused": bool(scope.paused_until),
            "PausedUntil": self._until(),
            "PausedObjects": [
                [name, public_name(name, key, one.name), one.at]
                for name, part in scope.parts.items()
                for key, one in part.left.items()
            ],
            "Generation": scope.generation,
            "Counts": {str(state): count for state, count in scope.counts.items()},
        }

    def _until(self) -> int:
        return round(self._scope.paused_at * 1e6)

    def close(self) -> None:
        """Keep nothing any more."""
        self._plans.close()
        self._lists.close()

    def moved(self) -> None:
        """Something of the scope may have changed."""
        if self._wakes:
            converged = self._converged(0)
            for generation, wake in self._wakes:
                # Anybody may wait, and for what never comes: they are woken for a reason.
                if self._scope.gone or (converged and self._scope.generation >= generation):
                    wake.set()

    # -- looked at ------------------------------------------------------------------------------------------

    @method("uu", "a(ssa{sv})ut", action="inspect")
    async def plan(self, call: Call, offset: int, limit: int) -> tuple[list[Any], int, int]:
        """A plan is made at offset 0, and kept for its sender to read on in."""
        _page(limit)
        kept = self._plans.get(call.sender) if offset else None
        if kept is None:
            self._going()
            generation = self._scope.generation
            kept = [await _asked(part, part.plan()) for part in self._ordered()], generation
            self._plans.put(call.sender, kept)
        patches, generation = kept
        # A copy: the plan may be given up while some of it is put in form.
        some = list(patches)
        total = sum(len(patch.ops) for patch in some)
        return await asyncio.to_thread(planned, some, offset, limit), total, generation

    @method("suu", "a(sssta{sv})u", action="inspect")
    async def list_objects(
        self, call: Call, wanted: str, offset: int, limit: int
    ) -> tuple[list[ObjectForm], int]:
        """See the XML."""
        _page(limit)
        if wanted and wanted not in list(State):
            raise BusError(names.INVALID_ARGS, f"{wanted!r} is no condition: {', '.join(State)}")
        kept = self._lists.get(call.sender) if offset else None
        if kept is None or kept.wanted != wanted:
            kept = await asyncio.to_thread(self._list(wanted))
            if offset + limit < len(kept.rows):
                self._lists.put(call.sender, kept)
        some = kept.rows[offset : offset + limit]

        def form() -> list[ObjectForm]:
            return [
                object_form(key, name, condition, since, paused_until=until)
                for key, name, condition, since, until in some
            ]

        return await asyncio.to_thread(form), len(kept.rows)

    def _list(self, wanted: str) -> Callable[[], _Listed]:
        """What makes the list, in another thread: of how it all is now."""
        looks = [
            (part.loop.source, part.desired, {**part.left}, *part.loop.standing())
            for part in self._ordered()
            if part.loop is not None
        ]

        def look() -> _Listed:
            rows: list[_Row] = []
            for source, desired, left, conditions, since in looks:
                for key, name, condition in listed(source.objects(desired), conditions, wanted):
                    one = left.get(source.unit(key)) if left else None
                    rows.append((key, name, condition, since, 0 if one is None else one.at))
            return _Listed(wanted, rows)

        return look

    @method("", "s", action="inspect")
    def describe(self, call: Call) -> tuple[str]:
        """What the daemon says of itself, with the generation."""
        return (json.dumps({**self._word(), "generation": self._scope.generation}),)

    # -- asked for ------------------------------------------------------------------------------------------

    @method("", "bu", action="reconcile")
    async def reconcile(self, call: Call) -> tuple[bool, int]:
        """A pass of every loop, from now on."""
        self._going()
        if self._scope.paused_until:
            raise BusError(names.PAUSED, f"{self._name} is paused")
        tasks = [asyncio.ensure_future(part.reached()) for part in self._ordered()]
        if tasks:
            try:
                _, late = await asyncio.wait(tasks, timeout=PATIENCE)
            finally:
                for task in tasks:
                    task.cancel()
            if late:
                raise BusError(names.TIMED_OUT, f"no answer within {PATIENCE:.0f} s")
        self._alive()
        done = [task for task in tasks if not task.cancelled() and task.exception() is None]
        applied = sum(len(task.result().applied) for task in done)
        return self._scope.state is ScopeState.CONVERGED and len(done) == len(tasks), applied

    @method("", "as", action="reload")
    async def reload(self, call: Call) -> tuple[list[str]]:
        """See the XML."""
        self._going()
        try:
            # Begun, it is not for whoever asked to break it off by going away.
            warnings = await asyncio.shield(asyncio.ensure_future(self._reload()))
        except ConfigError as error:
            raise BusError(names.INVALID_CONFIG, "\n".join(told(error.faults, ANSWERED))) from None
        return ([clean(one) for one in warnings],)

    @method("t", "", action="pause")
    def pause(self, call: Call, usec: int) -> tuple[()]:
        """See the XML."""
        self._going()
        if usec <= 0:
            raise BusError(names.INVALID_ARGS, "a pause ends by itself: say after how long")
        self._scope.pause(min(usec / 1e6, LONGEST))
        return ()

    @method(action="resume")
    def resume(self, call: Call) -> tuple[()]:
        """See the XML."""
        self._going()
        self._scope.resume()
        return ()

    @method("st", "s", action="pause")
    async def pause_object(self, call: Call, text: str, usec: int) -> tuple[str]:
        """See the XML."""
        self._going()
        if usec <= 0:
            raise BusError(names.INVALID_ARGS, "a pause ends by itself: say after how long")
        with _found():
            return (clean(await self._scope.pause_object(text, min(usec / 1e6, LONGEST))),)

    @method("s", "s", action="resume")
    async def resume_object(self, call: Call, text: str) -> tuple[str]:
        """See the XML."""
        self._going()
        with _found():
            return (clean(await self._scope.resume_object(text)),)

    @method(action="release")
    async def release(self, call: Call) -> tuple[()]:
        """Afterwards the daemon ends."""
        self._going()
        left = await asyncio.shield(asyncio.ensure_future(self._release()))
        if left:
            raise BusError(names.FAILED, f"not everything could be given back: {'; '.join(left)}")
        return ()

    @method("tt", "b")
    async def wait_converged(self, call: Call, generation: int, usec: int) -> tuple[bool]:
        """Anybody may wait; it shows no more than `State` does."""
        if self._waiting[call.sender] >= MOST_WAITING:
            raise BusError(names.LIMITS, f"{MOST_WAITING} are waiting already")
        self._waiting[call.sender] += 1
        wake = asyncio.Event()
        self._wakes.add((generation, wake))
        try:
            async with asyncio.timeout(min(usec / 1e6, LONGEST)):
                while not self._converged(generation):
                    self._alive()
                    wake.clear()
                    await wake.wait()
        except TimeoutError:
            return (False,)
        finally:
            self._wakes.discard((generation, wake))
            self._waiting[call.sender] -= 1
            if not self._waiting[call.sender]:
                del self._waiting[call.sender]
        return (True,)

    # -- what of it -----------------------------------------------------------------------------------------

    def _converged(self, generation: int) -> bool:
        scope = self._scope
        return (
            scope.generation >= generation
            and scope.state is ScopeState.CONVERGED
            and all(part.served for part in scope.parts.values())
        )

    def _ordered(self) -> list[Part]:
        parts = self._scope.parts
        return [parts[name] for name in ORDER if name in parts]

    def _alive(self) -> None:
        if self._scope.gone:
            raise BusError(names.NAMESPACE_GONE, f"the namespace of {self._name} is gone")

    def _going(self) -> None:
        self._alive()
        if self._scope.state is ScopeState.STOPPING:
            raise BusError(names.BUSY, f"{self._name} is stopping")


@contextlib.contextmanager
def _found() -> Iterator[None]:
    """What can't be found has its error's name."""
    try:
        yield
    except Ambiguous as error:
        raise BusError(names.INVALID_ARGS, error.args[0]) from None
    except LookupError as error:
        raise BusError(names.NO_SUCH_OBJECT, error.args[0]) from None


def _page(limit: int) -> None:
    if limit > PAGE:
        raise BusError(names.LIMITS, f"{limit} at once are too many, {PAGE} are not")


async def _asked(part: Part, work: Awaitable[Patch]) -> Patch:
    """The answer of a loop, in plain words where there is none."""
    task = asyncio.ensure_future(work)
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([task])
    except TimeoutError:
        raise BusError(names.TIMED_OUT, f"{part.name}: no answer within {PATIENCE:.0f} s") from None
    finally:
        task.cancel()
    try:
        return task.result()
    except Blocked as error:
        raise BusError(names.BUSY, f"{part.name}: {error}") from None
    except Gone as error:
        raise BusError(names.NAMESPACE_GONE, f"{part.name}: {error}") from None
    except asyncio.CancelledError:
        raise BusError(names.BUSY, f"{part.name} is stopping") from None
