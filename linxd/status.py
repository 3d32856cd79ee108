# SPDX-License-Identifier: MIT
"""What a loop has to say of itself: its state, its counts, its times, and the condition of each object.

Bookkeeping without I/O; it does not know how a pass runs.
"""

from __future__ import annotations

import enum
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

from linxd.patch import Condition, Key, Report, State, Trigger
from linxd.records import dataclass, field
from linxd.slices import chunks, let_go

MANY = 5000
"""Conditions from which on it counts how long each of them takes."""


class LoopState(enum.StrEnum):
    """See SPEC's table: what a loop is, as far as its last pass told."""

    STARTING = "starting"
    CONVERGED = "converged"
    DEGRADED = "degraded"
    CONTENDED = "contended"
    BLOCKED = "blocked"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Status:
    """A loop at one moment.

    ``generation`` counts declarations from 1; ``reached`` is the one that the last pass over everything
    served. ``counts``: objects by state; what is declared and has no condition is done. ``passes`` ended;
    ``drifts``: objects that were found changed; ``overruns``: how often events were lost. Moments are in
    microseconds, of CLOCK_REALTIME and, ``…_monotonic``, of CLOCK_MONOTONIC; 0 is never. ``heal_usec``:
    last, median and 99th percentile of the time from reading an event to the kernel's last acknowledgement.
    ``paused_until``: seconds of the loop's clock. ``resync``: seconds, 0 for never.
    """

    name: str
    source: str
    watch: str
    state: LoopState
    generation: int = 1
    reached: int = 0
    resync: float = 0.0
    total: int = 0
    counts: Mapping[State, int] = field(default_factory=dict)
    last_error: str = ""
    subscription_error: str = ""
    passes: int = 0
    drifts: int = 0
    ops_applied: int = 0
    overruns: int = 0
    last_pass: int = 0
    last_pass_monotonic: int = 0
    last_patch: int = 0
    last_patch_monotonic: int = 0
    last_patch_ops: int = 0
    heal_usec: tuple[int, int, int] = (0, 0, 0)
    paused_until: float | None = None


class Conditions:
    """The condition of each object that is not simply done, counted by state."""

    def __init__(self) -> None:
        self._of: dict[Key, Condition] = {}
        self._counts: Counter[State] = Counter()
        self._since: dict[Key, tuple[State, int]] = {}

    @property
    def of(self) -> Mapping[Key, Condition]:
        """By key; a view."""
        return MappingProxyType(self._of)

    def count(self, state: State) -> int:
        """Objects in that state."""
        return self._counts[state]

    def standing(self) -> tuple[dict[Key, Condition], dict[Key, tuple[State, int]]]:
        """Copies: what `of` has, and which state each of them is in since when, in microseconds of
        CLOCK_REALTIME."""
        return self._of.copy(), self._since.copy()

    def replace(
        self, conditions: Collection[Condition], *, looked: Collection[Key] | None
    ) -> Iterator[None]:
        """Take over what a pass says of ``looked``, None being everything: in steps, between which other
        work may be done."""
        since, now = self._since, time.time_ns() // 1000
        if len(conditions) > MANY:
            # Nobody looks at them one by one, and it takes long.
            self._since = {}
            let_go(since)
            yield from self._replace(conditions, looked=looked)
            return
        for condition in conditions:
            if since.get(condition.key, (None, 0))[0] is not condition.state:
                since[condition.key] = (condition.state, now)
        yield from self._replace(conditions, looked=looked)
        if since:
            for key in [*since] if looked is None or len(looked) > len(since) else looked:
                if key not in self._of:
                    since.pop(key, None)

    def _replace(
        self, conditions: Collection[Condition], *, looked: Collection[Key] | None
    ) -> Iterator[None]:
        if looked is None:
            fresh: dict[Key, Condition] = {}
            counts: Counter[State] = Counter()
            for some in chunks(conditions):
                fresh.update((condition.key, condition) for condition in some)
                yield
            for conditions in chunks(fresh.values()):
                counts.update(condition.state for condition in conditions)
                yield
            before, self._of, self._counts = self._of, fresh, counts
            let_go(before)
            return
        if self._of:
            for keys in chunks(looked):
                for key in keys:
                    self._take(key)
                yield
        for some in chunks(conditions):
            for condition in some:
                self._take(condition.key)
                self._of[condition.key] = condition
                self._counts[condition.state] += 1
            yield

    def _take(self, key: Key) -> None:
        condition = self._of.pop(key, None)
        if condition is not None:
            self._counts[condition.state] -= 1


class Latencies:
    """The latest times of one kind, in microseconds."""

    def __init__(self, keep: int = 512) -> None:
        self._values: deque[int] = deque(maxlen=keep)

    def add(self, usec: int) -> None:
        """One more."""
        self._values.append(usec)

    def summary(self) -> tuple[int, int, int]:
        """Last, median, 99th percentile; zeros as long as there is none."""
        if not self._values:
            return (0, 0, 0)
        ordered = sorted(self._values)
        last = len(ordered) - 1
        return (self._values[-1], ordered[last // 2], ordered[round(last * 0.99)])


class Account:
    """The sum of all reports so far."""

    def __init__(self) -> None:
        self.conditions = Conditions()
        self.total = 0
        self.passes = 0
        self.drifts = 0
        self.ops_applied = 0
        self.last_pass = 0
        self.last_pass_monotonic = 0
        self.last_patch = 0
        self.last_patch_monotonic = 0
        self.last_patch_ops = 0
        self.heals = Latencies()
        self._drifting: set[Key] = set()

    def enter(
        self, report: Report, *, drifted: set[Key], applied: set[Key], looked: Collection[Key] | None
    ) -> Iterator[None]:
        """Add a report with the keys of its ops, in steps, between which other work may be done. ``looked``:
        what it is about, None being everything."""
        yield from self.conditions.replace(report.conditions, looked=looked)
        if report.trigger not in (Trigger.START, Trigger.CONFIG):
            # Held back, an object is found drifted pass after pass; it drifted once.
            for keys in chunks(drifted):
                self.drifts += sum(key not in self._drifting for key in keys)
                yield
        still: set[Key] = set()
        for keys in chunks(drifted):
            still.update(key for key in keys if key not in applied)
            yield
        if looked is None:
            let_go(self._drifting)
            self._drifting = still
            self.total = report.total
        else:
            for keys in chunks(looked if self._drifting else ()):
                self._drifting.difference_update(keys)
                yield
            self._drifting |= still
        self.passes += 1
        self.last_pass, self.last_pass_monotonic = time.time_ns() // 1000, time.monotonic_ns() // 1000
        if report.applied:
            self.ops_applied += len(report.applied)
            self.last_patch, self.last_patch_monotonic = self.last_pass, self.last_pass_monotonic
            self.last_patch_ops = len(report.applied)
        if report.heal_usec:
            self.heals.add(report.heal_usec)

    def counts(self, contended: Collection[Key]) -> dict[State, int]:
        """Objects by state, those that are fought over counted as contended whatever their last pass
        said."""
        counts = {state: self.conditions.count(state) for state in State}
        for key in contended:
            condition = self.conditions.of.get(key)
            if condition is not None:
                counts[condition.state] -= 1
        counts[State.CONTENDED] += len(contended)
        others = sum(count for state, count in counts.items() if state is not State.DONE)
        counts[State.DONE] = max(0, self.total - others)
        return counts
