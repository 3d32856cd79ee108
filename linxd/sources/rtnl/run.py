# SPDX-License-Identifier: MIT
"""What one pass has found and done so far, and the report it comes to. Does no I/O."""

from __future__ import annotations

import time
from collections.abc import Iterable

from linxd.patch import Change, Condition, Key, Op, Report, State, Verb
from linxd.slices import slices
from linxd.source import Hint, Pass, culprits_of
from linxd.sources.rtnl.look import Look, Waiting
from linxd.sources.rtnl.model import Desired


class Run:
    """The account of one pass over its rounds."""

    def __init__(self, work: Pass[Desired], *, keyed: bool) -> None:
        self.work = work
        self._keyed = keyed
        """It looks at some objects, so that it counts at which ones."""
        self.drifted: dict[Key, Op] = {}
        self._again: dict[tuple[Key, Verb], Op] = {}
        """Further ops of objects that another op was found for before."""
        self.applied: list[Op] = []
        self.conditions: dict[Key, Condition] = {}
        self.looked: set[Key] = set()
        self.event_at = 0.0
        self.heal_usec = 0
        self._wrote: set[Key] = set()
        self._residual: dict[Key, tuple[Change, ...]] = {}
        self._refused: set[Key] = set()
        self._clashed: set[Key] = set()

    def named(self, hint: Hint) -> None:
        """An event named an object: when we read of it."""
        assert hint.key is not None
        self.looked.add(hint.key)
        if hint.at:
            self.event_at = min(self.event_at or hint.at, hint.at)

    def healed(self, at: float | None = None) -> None:
        """The first patch that an event asked for is in the kernel, since ``at`` (CLOCK_MONOTONIC seconds)
        or now."""
        if self.event_at and not self.heal_usec:
            at = time.monotonic() if at is None else at
            self.heal_usec = max(1, int((at - self.event_at) * 1e6))

    def wrote(self, key: Key) -> bool:
        """Whether this pass has changed the object already."""
        return bool(self._wrote) and key in self._wrote

    def equal(self, keys: Iterable[Key], standing: set[Key]) -> None:
        """Objects that a diff found as declared. Only those count that something was said of before
        (``standing``)."""
        if standing or self.conditions:
            for key in keys:
                if key in standing or key in self.conditions:
                    self.looked.add(key)
                    self.conditions.pop(key, None)

    def judged(self, conditions: Iterable[Condition]) -> None:
        """What a diff said of objects for which there is nothing that may be done."""
        for condition in conditions:
            self.looked.add(condition.key)
            self.conditions[condition.key] = condition

    async def waiting(self) -> Look:
        """A look that has every object in it that waits for something, as far as this pass has found."""
        waiting = Waiting()
        async for conditions in slices(self.conditions.values()):
            for condition in conditions:
                if condition.state is State.PENDING and not condition.paused:
                    waiting.add(condition.key)
        return waiting.look

    def gave_up(self, op: Op) -> bool:
        """Refused or held back in this pass already: not again before the next."""
        return (
            bool(self._refused)
            and op.key in self._refused
            and self.conditions[op.key].state is not State.PENDING
        )

    def first_clash(self, op: Op) -> bool:
        """Whether the object was, for the first time in this pass, there already when it was to be made:
        somebody was faster, or one event told of one of several. Another look tells what to do."""
        if op.key in self._clashed:
            return False
        self._clashed.add(op.key)
        return True

    def is_churn(self, op: Op, proven: set[Key]) -> bool:
        """Whether the kernel keeps another form than we wrote twice in this pass, acknowledged both times.

        Never for an object that the kernel has been seen to hold just as this declaration asks.
        """
        if op.verb not in (Verb.UPDATE, Verb.RECREATE) or op.key in proven or op.key not in self._wrote:
            return False
        if self._residual.get(op.key) == op.changes:
            return True
        self._residual[op.key] = op.changes
        return False

    def note(self, op: Op) -> None:
        """The kernel's form is accepted from now on, and said once."""
        text = "; ".join(
            f"{change.attribute}: asked {change.want or 'none'}, kernel has {change.have or 'none'}"
            for change in op.changes
        )
        self.conditions[op.key] = Condition(op.key, op.name, State.NOTED, text)

    def drift(self, op: Op) -> None:
        """An op that was found to be needed."""
        if self._keyed:
            self.looked.add(op.key)
        first = self.drifted.setdefault(op.key, op)
        if first.verb is not op.verb:
            self._again.setdefault((op.key, op.verb), op)

    def hold(self, op: Op, condition: Condition) -> None:
        """The op is not tried now, or was refused: the object stays as ``condition`` says."""
        self.conditions[op.key] = condition
        self._refused.add(op.key)

    def waits(self, op: Op) -> Condition | None:
        """The condition of an op whose object stands on a link that is not made now."""
        if not self.conditions:
            return None
        for needed in op.needs:
            cause = self.conditions.get(needed)
            if cause is not None and cause.state not in (State.DONE, State.NOTED):
                text = f"needs {cause.name}: {cause.text}"
                return Condition(op.key, op.name, State.PENDING, text, needs=op.needs)
        return None

    def forgets(self, condition: Condition) -> None:
        """The ledger can't be written: said of it, for nothing else waits for that."""
        self.conditions[condition.key] = condition

    def did(self, op: Op) -> None:
        """The kernel acknowledged."""
        self.applied.append(op)
        self._wrote.add(op.key)
        if self.conditions:
            self.conditions.pop(op.key, None)

    def another(self, key: Key) -> None:
        """What was written of an object was not this pass's: another op of it has to be admitted."""
        self._wrote.discard(key)

    def report(self, *, complete: bool, usec: int, total: int) -> Report:
        """What the loop is told."""
        return Report(
            trigger=self.work.trigger,
            drifted=(*self.drifted.values(), *self._again.values()),
            applied=tuple(self.applied),
            conditions=tuple(self.conditions.values()),
            total=total,
            complete=complete,
            culprits=culprits_of(self.work.hints),
            usec=usec,
            heal_usec=self.heal_usec,
            looked=frozenset() if complete else frozenset(self.looked),
        )
