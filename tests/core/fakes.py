# SPDX-License-Identifier: MIT
"""A clock that stands until it is moved, and a source over a dictionary that does as it is told.

What is under test with them is the loop's side of the contract, so the subsystem behind it may be made up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from linxd.objects import compare
from linxd.patch import Change, Key, Op, Patch, Report
from linxd.source import Hint, ObjectSource, Owned, Pass, Subscription, Unsupported


class Clock:
    """Seconds that pass when `move` says so. Its alarms ring in the event loop's next turn."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self._alarms: list[_Alarm] = []
        self.asked = 0
        """How often somebody asked for the time."""

    def now(self) -> float:
        self.asked += 1
        return self._now

    __call__ = now

    def alarm(self, ring: Callable[[], None]) -> _Alarm:
        alarm = _Alarm(self, ring)
        self._alarms.append(alarm)
        return alarm

    def closed(self, alarm: _Alarm) -> None:
        self._alarms.remove(alarm)

    @property
    def alarms(self) -> int:
        return len(self._alarms)

    @property
    def next(self) -> float | None:
        """Seconds until the first alarm."""
        times = [alarm.when - self._now for alarm in self._alarms if alarm.when is not None]
        return min(times, default=None)

    def move(self, seconds: float) -> None:
        self._now += seconds
        for alarm in self._alarms:
            alarm.check()


class _Alarm:
    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self.clock = clock
        self.ring = ring
        self.when: float | None = None

    def set(self, when: float | None) -> None:
        self.when = when
        self.check()

    def check(self) -> None:
        if self.when is not None and self.clock.now() >= self.when:
            self.when = None
            asyncio.get_running_loop().call_soon(self.ring)

    def close(self) -> None:
        self.clock.closed(self)


@dataclass(frozen=True)
class Thing:
    """An object with one attribute."""

    name: str
    value: str = "1"

    @property
    def key(self) -> Key:
        return ("thing", self.name)

    def words(self) -> str:
        return f"{self.name}={self.value}"


Things = dict[Key, Thing]


def things(**values: str) -> Things:
    return {("thing", name): Thing(name, value) for name, value in values.items()}


def key(name: str) -> Key:
    return ("thing", name)


def changes(have: Thing, want: Thing) -> tuple[Change, ...]:
    return () if have == want else (Change("value", have.value, want.value),)


@dataclass
class Seen:
    """One pass as the source saw it."""

    trigger: str
    hints: tuple[Hint, ...]
    desired: Things
    write: bool


@dataclass(frozen=True)
class Look:
    """What a pass has seen, and of which objects; None: of all."""

    things: Things
    only: frozenset[Key] | None = None


@dataclass
class World(ObjectSource[Things, Look]):
    """Things in a dictionary. What goes wrong, and where a pass halts, is set by the test."""

    name: ClassVar[str] = "world"
    watch: ClassVar[str] = "event"
    keyed: ClassVar[bool] = True

    things: Things = field(default_factory=dict)
    refuse: dict[Key, int] = field(default_factory=dict)
    """errno by object"""
    trouble: Exception | None = None
    """Raised by observe."""
    no_events: Exception | None = None
    """Raised by subscribe."""
    gate: asyncio.Event | None = None
    """A pass over everything waits for it before it looks."""
    halted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while one waits."""
    passes: list[Seen] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    subscriptions: int = 0
    notify: Callable[[Hint], None] | None = None

    async def reconcile(self, work: Pass[Things]) -> Report:
        self.passes.append(Seen(str(work.trigger), work.hints, work.desired, work.write))
        return await super().reconcile(work)

    async def observe(self, work: Pass[Things]) -> Look:
        if self.gate is not None and work.full:
            self.halted.set()
            await self.gate.wait()
            self.halted.clear()
        if self.trouble is not None:
            raise self.trouble
        if work.full:
            return Look(dict(self.things))
        only = frozenset(hint.key for hint in work.hints if hint.key is not None)
        return Look({key: thing for key, thing in self.things.items() if key in only}, only)

    def diff(self, observed: Look, desired: Things, owned: Owned) -> Patch:
        return compare(observed.things, desired, owned, kind="thing", changes=changes, only=observed.only)

    def apply(self, op: Op) -> None:
        self.tried.append(op.describe())
        if op.key in self.refuse:
            raise OSError(self.refuse[op.key], "refused")
        if op.want is None:
            del self.things[op.key]
        else:
            assert isinstance(op.want, Thing)
            self.things[op.key] = op.want

    def subscribe(self, notify: Callable[[Hint], None]) -> Subscription:
        if self.no_events is not None:
            raise self.no_events
        self.subscriptions += 1
        self.notify = notify
        return _Subscription(self)

    def drift(
        self, name: str, value: str | None = None, *, tell: bool = True, hint: Hint | None = None
    ) -> None:
        """Somebody else changes (None: removes) an object; an event tells of it unless ``tell`` is False."""
        if value is None:
            self.things.pop(key(name), None)
        else:
            self.things[key(name)] = Thing(name, value)
        if tell:
            assert self.notify is not None
            self.notify(hint or Hint(key(name)))


class _Subscription:
    def __init__(self, world: World) -> None:
        self.world = world

    def close(self) -> None:
        self.world.notify = None
        self.world.subscriptions -= 1


class Deaf(World):
    """The same without events."""

    def subscribe(self, notify: Callable[[Hint], None]) -> Subscription:
        raise Unsupported(self.name)
