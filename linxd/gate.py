# SPDX-License-Identifier: MIT
"""When an op may be tried: backoff after failures, patience in fights, one memory per object.

Pure but for the clock and the random numbers handed in. It knows ops and conditions, and neither sources nor
the loop that asks it.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TypeAlias

from linxd.patch import Change, Condition, Culprit, Key, Named, Op, State, Verb, left
from linxd.records import dataclass
from linxd.slices import give_up
from linxd.source import transient

EAGER = 3
"""Tries at events, one right after the other, of an object that waits for something."""
BACKOFF_FIRST = 0.1
BACKOFF_LAST = 60.0
"""Seconds between two tries of something that fails for the moment: doubling, plus up to a quarter at
random."""

FIGHT_HEALS = 5
FIGHT_WINDOW = 10.0
"""So many heals of one object in so many seconds are a fight."""
FIGHT_FIRST = 1.0
FIGHT_LAST = 60.0
"""Seconds between two heals of an object that is fought over: doubling."""
FIGHT_QUIET = 60.0
"""Seconds without a drift of the object after which the fight is over."""
SUMMARY_EVERY = 60.0
MOST_DUE = 1000
"""Objects that are tried again one by one."""
FORGOTTEN = 1000
"""Objects that were healed whose heals are forgotten at once."""


def backoff(failures: int, random: Callable[[], float]) -> float:
    """Seconds to wait after the n-th failure in a row (from 1), in 0.1 … 60. ``random`` gives 0 … 1."""
    doubled: float = BACKOFF_FIRST * 2.0 ** min(failures - 1, 16)
    return min(BACKOFF_LAST, doubled * (1 + random() / 4))


Fingerprint: TypeAlias = tuple[Verb, tuple[Change, ...], Named | None, tuple[str, ...]]


def fingerprint(op: Op) -> Fingerprint:
    """What an op that failed for good must differ in to be tried again: what is declared or what was
    observed."""
    return op.verb, op.changes, op.want, op.given


@dataclass(slots=True)
class _Failure:
    tried: Fingerprint | None
    """None: the object failed without an op of its own, and nothing is held."""
    condition: Condition
    needs: tuple[Key, ...]
    count: int
    at: float
    again: float | None
    """When it may be tried again; None: when something has changed."""
    waiting: bool
    """Whether the loop must come back at `again` of its own accord."""


@dataclass(slots=True)
class _Fight:
    name: str
    since: float
    heals: int
    interval: float
    again: float
    seen: float
    waiting: bool = False
    said: float | None = None
    culprit: Culprit | None = None


class Gate:
    """The memory of what failed and of what is fought over. Objects that have been quiet cost nothing.

    Times are seconds of ``clock``. ``random`` gives numbers in 0 … 1, for the jitter of retries alone.
    ``unit``: with what an object is left alone.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        unit: Callable[[Key], Key] = lambda key: key,
    ) -> None:
        self._clock = clock
        self._unit = unit
        self._random = random
        self._failures: dict[Key, _Failure] = {}
        self._dependents: dict[Key, set[Key]] = {}
        """Failed objects by what they need."""
        self._hurried: set[Key] = set()
        """What is needed by objects that are all to be tried soon: no need to tell them again."""
        self._moved: dict[Key, None] = {}
        """What has moved, with objects that are not told yet."""
        self._heals: dict[Key, tuple[float, ...]] = {}
        """Times of the latest heals, the object healed last standing last."""
        self._fights: dict[Key, _Fight] = {}
        self._left: dict[Key, tuple[float, str]] = {}
        """Objects that are left alone: until when, and that in words."""
        self._queue: list[tuple[float, Key]] = []
        """Retries in time order. An entry counts only if its object still waits for just that moment."""

    def __len__(self) -> int:
        return len(self._failures) + len(self._heals) + len(self._fights)

    @property
    def failing(self) -> int:
        """Objects of which a failure is remembered."""
        return len(self._failures)

    @property
    def moving(self) -> bool:
        """Whether there is something for `stir` to do."""
        return bool(self._moved)

    @property
    def left(self) -> Mapping[Key, float]:
        """Objects that are left alone, and until when."""
        return {key: until for key, (until, _) in self._left.items()}

    @property
    def fights(self) -> bool:
        """Whether any object is fought over."""
        return bool(self._fights)

    # -- asked by a pass ------------------------------------------------------------------------------------

    def admit(self, op: Op, *, event: bool = False) -> Condition | None:
        """Whether ``op`` may be tried now: None, or the condition in which its object stays.

        ``event``: the pass follows a kernel event. What an object waited for (pending) may just have come:
        it is tried at once a few times, and its backoff counts for no more than its first step after that.
        """
        now = self._clock()
        if self._moved:
            self._stir()
        if self._left:
            until, words = self._left.get(self._unit(op.key), (0.0, ""))
            if now < until:
                return left(op, words)
        failure = self._failures.get(op.key)
        if failure is not None and failure.tried is not None and failure.tried == fingerprint(op):
            eager = False
            if event and failure.condition.state is State.PENDING:
                self._hurry(op.key, failure)
                eager = failure.count <= EAGER
            if not eager and (failure.again is None or now < failure.again):
                return failure.condition
        fight = self._fight(op.key, now)
        if fight is not None:
            fight.seen = now
            if now < fight.again:
                if not fight.waiting:
                    fight.waiting = True
                    heapq.heappush(self._queue, (fight.again, op.key))
                return _contended(op.key, fight)
        return None

    # -- told after it --------------------------------------------------------------------------------------

    def applied(self, op: Op, *, heal: bool = True) -> None:
        """The kernel took ``op``. ``heal`` False: it was new (a first pass, a new declaration), nobody undid
        it."""
        failure = self._failures.get(op.key)
        self._forget(op.key)
        # What it waited for is there, and others may wait for the same.
        self.moved([op.key, *(failure.needs if failure is not None else ())])
        if not heal:
            return
        now = self._clock()
        fight = self._fight(op.key, now)
        if fight is not None:
            fight.heals += 1
            fight.interval = min(FIGHT_LAST, 2 * fight.interval)
            fight.again = now + fight.interval
            fight.seen = now
            fight.waiting = False
            return
        times = (*self._heals.pop(op.key, ())[1 - FIGHT_HEALS :], now)
        if len(times) == FIGHT_HEALS and now - times[0] <= FIGHT_WINDOW:
            self._fights[op.key] = _Fight(
                op.name, times[0], FIGHT_HEALS, FIGHT_FIRST, now + FIGHT_FIRST, now
            )
        else:
            self._heals[op.key] = times

    def failed(self, op: Op, number: int, text: str = "") -> Condition:
        """The kernel refused ``op`` with errno ``number`` (0: another reason, held until something changes).

        Returns the condition to report.
        """
        words = text or os.strerror(number)
        condition = Condition(op.key, op.name, State.FAILED, words, number, transient=transient(number))
        self.refused(condition, op)
        return condition

    def refused(self, condition: Condition, op: Op | None = None) -> None:
        """As `failed`, in a source's own words and judgement of what is transient. Without an op nothing is
        held, the object is merely looked at again if the failure was transient."""
        if op is None and not condition.transient:
            return
        now = self._clock()
        before = self._failures.get(condition.key)
        count = before.count + 1 if before is not None else 1
        again = now + backoff(count, self._random) if condition.transient else None
        self._forget(condition.key)
        tried = None if op is None else fingerprint(op)
        needs = tuple(dict.fromkeys((*(op.needs if op is not None else ()), *condition.needs)))
        self._failures[condition.key] = _Failure(
            tried, condition, needs, count, now, again, again is not None
        )
        for needed in needs:
            self._dependents.setdefault(needed, set()).add(condition.key)
            self._hurried.discard(needed)
        if again is not None:
            heapq.heappush(self._queue, (again, condition.key))

    def failed_of(self, looked: Collection[Key] | None) -> list[Key]:
        """Those among ``looked`` (None: all) of which a failure is remembered."""
        if looked is None:
            return list(self._failures)
        return [key for key in looked if key in self._failures]

    def passed(self, bad: Collection[Key], looked: Collection[Key] | None = None) -> None:
        """A pass has looked at ``looked`` (None: at everything), and only ``bad`` is not as it should be."""
        for key in self.failed_of(looked) if self._failures else ():
            if key not in bad:
                self._forget(key)

    def moved(self, keys: Iterable[Key]) -> None:
        """Something happened to these objects: what failed for want of them is worth another try, soon."""
        if self._dependents:
            for key in keys:
                if key in self._dependents and key not in self._hurried:
                    self._moved[key] = None

    def stir(self) -> Iterator[None]:
        """Set about trying again what has failed for want of what `moved`, an object at a time: there may be
        very many, and whoever has the time to take them in slices may do so. It is seen to in any case."""
        while self._moved:
            needed = next(iter(self._moved))
            if needed in self._dependents:
                self._hurried.add(needed)
                # What is forgotten meanwhile is no longer among them.
                for dependent in tuple(self._dependents[needed]):
                    failure = self._failures.get(dependent)
                    if failure is not None:
                        failure.count = 0
                        self._hurry(dependent, failure)
                    yield
                if needed in self._dependents and needed not in self._hurried:
                    # Something more was refused for want of it meanwhile.
                    continue
            self._moved.pop(needed, None)

    def blame(self, culprits: Mapping[Key, Culprit]) -> None:
        """Who made these objects drift, as far as known."""
        if self._fights:
            for key, culprit in culprits.items():
                fight = self._fights.get(key)
                if fight is not None:
                    fight.culprit = culprit

    def leave(self, key: Key, until: float, words: str) -> None:
        """Leave an object alone before ``until``, whatever drifts of it. ``words`` say that to people. What
        is declared changes nothing about it."""
        self._left[self._unit(key)] = until, words

    def take_up(self, key: Key) -> bool:
        """Leave an object alone no longer. Returns whether it was."""
        return self._left.pop(self._unit(key), None) is not None

    def taken_up(self) -> tuple[Key, ...]:
        """The objects that have been left alone for as long as they were to be. Each is named once."""
        if not self._left:
            return ()
        now = self._clock()
        keys = tuple(key for key, (until, _) in self._left.items() if until <= now)
        for key in keys:
            del self._left[key]
        return keys

    def declared(self) -> None:
        """Something else is declared: all is forgiven."""
        self.asked()
        give_up(self._queue)
        self._heals = {}
        self._fights = {}
        self._queue = []

    def asked(self) -> None:
        """Somebody asked for a pass by hand: failures are tried again at once. Fights stay what they are."""
        give_up(self._failures, *self._dependents.values())
        self._failures = {}
        self._dependents = {}
        self._hurried = set()
        self._moved = {}
        self._sort_out()

    # -- time -----------------------------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """When the first held op may be tried again, if any waits for its time, or sooner: what does not
        wait any more is taken out of the queue some at a time."""
        if self._moved:
            self._stir()
        for _ in range(MOST_DUE):
            if not self._queue:
                return None
            when, key = self._queue[0]
            if self._waits(key, when):
                return when
            heapq.heappop(self._queue)
        return self._queue[0][0] if self._queue else None

    def _sort_out(self) -> None:
        """Make the queue anew: most of what stands in it is past."""
        give_up(self._queue)
        self._queue = [
            (one.again, key) for key, one in self._failures.items() if one.waiting and one.again is not None
        ]
        self._queue += [(one.again, key) for key, one in self._fights.items() if one.waiting]
        heapq.heapify(self._queue)

    def due(self) -> tuple[Key, ...] | None:
        """The objects whose time has come; None where they are so many that a look at everything costs less.
        Each is named once: the pass that follows tries it or leaves it. Where much of the queue is past,
        there may be more that `next_due` tells of."""
        now = self._clock()
        keys: dict[Key, None] = {}
        past = 0
        if self._moved:
            self._stir()
        while self._queue and self._queue[0][0] <= now:
            if len(keys) == MOST_DUE:
                for one in self._failures.values():
                    if one.again is not None and one.again <= now:
                        one.waiting = False
                for fought in self._fights.values():
                    if fought.waiting and fought.again <= now:
                        fought.waiting, fought.seen = False, now
                self._sort_out()
                return None
            when, key = heapq.heappop(self._queue)
            if self._waits(key, when):
                keys[key] = None
                failure = self._failures.get(key)
                if failure is not None and failure.again == when:
                    failure.waiting = False
                fight = self._fights.get(key)
                if fight is not None and fight.again == when:
                    fight.waiting = False
                    fight.seen = now
            elif (past := past + 1) == MOST_DUE:
                break
        return tuple(keys)

    def expire(self) -> float | None:
        """Forget what has been quiet, some of it where that is much. Returns when there is more to forget,
        be it now, or a fight that will be over then if it stays quiet."""
        now = self._clock()
        quiet: list[Key] = []
        for key, times in self._heals.items():
            if now - times[-1] <= FIGHT_WINDOW:
                break
            quiet.append(key)
            if len(quiet) == FORGOTTEN:
                break
        for key in quiet:
            del self._heals[key]
        if len(quiet) == FORGOTTEN:
            return now
        for key in list(self._fights):
            self._fight(key, now)
        ends = (fight.seen + FIGHT_QUIET for fight in self._fights.values() if not fight.waiting)
        return min(ends, default=None)

    # -- told to people -------------------------------------------------------------------------------------

    def contended(self) -> Mapping[Key, Condition]:
        """The objects that are fought over, drifted at this moment or not."""
        now = self._clock()
        fights = {key: self._fight(key, now) for key in list(self._fights)}
        return {key: _contended(key, fight) for key, fight in fights.items() if fight is not None}

    def summary(self) -> tuple[str, ...]:
        """A line for each object that is fought over, at most one a minute and object."""
        now = self._clock()
        lines = []
        for key in list(self._fights):
            fight = self._fight(key, now)
            if fight is not None and (fight.said is None or now - fight.said >= SUMMARY_EVERY):
                fight.said = now
                culprit = f", last undone by {fight.culprit.words()}" if fight.culprit is not None else ""
                line = f"{fight.name}: healed {fight.heals} times in {now - fight.since:.0f} s{culprit}"
                lines.append(f"{line}; from now on at most every {fight.interval:.0f} s")
        return tuple(lines)

    # -- within ---------------------------------------------------------------------------------------------

    def _stir(self) -> None:
        for _ in self.stir():
            pass

    def _hurry(self, key: Key, failure: _Failure) -> None:
        soon = max(self._clock(), failure.at + BACKOFF_FIRST)
        if failure.again is None or soon < failure.again:
            failure.again = soon
            failure.waiting = True
            heapq.heappush(self._queue, (soon, key))

    def _fight(self, key: Key, now: float) -> _Fight | None:
        fight = self._fights.get(key)
        # While its heal waits, the object is drifted, however long ago that was seen.
        if fight is not None and not fight.waiting and now - fight.seen >= FIGHT_QUIET:
            del self._fights[key]
            return None
        return fight

    def _waits(self, key: Key, when: float) -> bool:
        failure = self._failures.get(key)
        if failure is not None and failure.waiting and failure.again == when:
            return True
        fight = self._fights.get(key)
        return fight is not None and fight.waiting and fight.again == when

    def _forget(self, key: Key) -> None:
        failure = self._failures.pop(key, None)
        if failure is not None:
            for needed in failure.needs:
                dependents = self._dependents.get(needed)
                if dependents is not None:
                    dependents.discard(key)
                    if not dependents:
                        del self._dependents[needed]
                        self._hurried.discard(needed)


def _contended(key: Key, fight: _Fight) -> Condition:
    culprit = f", last undone by {fight.culprit.words()}" if fight.culprit is not None else ""
    text = f"healed {fight.heals} times{culprit}; now at most every {fight.interval:.0f} s"
    return Condition(key, fight.name, State.CONTENDED, text)
