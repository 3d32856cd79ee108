# SPDX-License-Identifier: MIT
"""What a pass does with its patches, round after round, until a look finds nothing left to do.

A write may change other keys, and a value may be refused only until another key has its own: so what is left
is tried again as long as something was achieved. Keys that undo each other are found out here. It reads and
writes nothing itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from linxd.patch import Change, Condition, Key, Op, Patch, Report, left
from linxd.records import replace
from linxd.source import LEDGER, LedgerError, Pass, forgetful, unrecorded
from linxd.sources.sysctl.apply import Applier, Outcome
from linxd.sources.sysctl.diff import found_first
from linxd.sources.sysctl.model import Desired, Path, Sysctl, dotted, path_of
from linxd.sources.sysctl.values import shown

MOST = 8
"""Rounds in one pass. Two are the rule, one to write and one to see that it holds."""


class Rounds:
    """The account of one pass. ``disputes`` is added to: keys that undo each other, and why they are left
    alone from now on."""

    def __init__(self, work: Pass[Desired], applier: Applier, disputes: dict[Path, str]) -> None:
        self.conditions: dict[Key, Condition] = {}
        """Of ops that were held back or refused, or whose values the kernel keeps in another form."""
        self.drifted: dict[Key, Op] = {}
        self.applied: dict[Key, Op] = {}
        self._work = work
        self._applier = applier
        self._disputes = disputes
        self._undone: set[tuple[Path, Path]] = set()
        """Pairs of a key that was written and another one that changed with it after it had been written."""
        self._refused: set[Key] = set()
        self._progress = False
        self._count = 0
        self._healed_at = 0.0
        """When the first write was done (CLOCK_MONOTONIC seconds)."""

    def ahead(self, op: Op, outcome: Outcome, at: float) -> None:
        """Account for what was done ahead of this pass, and is so since ``at`` (CLOCK_MONOTONIC seconds)."""
        self.drifted[op.key] = op
        self._became(op, outcome, at)

    async def run(self, patch: Patch) -> bool:
        """Carry out one patch as far as may be. Returns whether another look is needed."""
        work = self._work
        unknown = [op for op in patch.ops if op.after is not None and work.owned.get(op.key) is None]
        full: LedgerError | None = None
        try:
            if work.write and patch.adopt:
                # Forgotten first: what is put under the same key then is about something else.
                work.owned.put((key, None) for key, entry in patch.adopt if entry is None)
                work.owned.put((key, entry) for key, entry in patch.adopt if entry is not None)
            if work.write and len(patch.ops) > 1:
                # One write changes other keys: what all of them had first is kept before the first of them.
                work.owned.put((op.key, found_first(op.after)) for op in unknown if op.after is not None)
        except LedgerError as error:
            full = error
            self.conditions[LEDGER] = forgetful(error)
        before, self._progress = self._progress, False
        for op in patch.ops:
            if op.key in self._refused and not before:
                continue
            self.drifted[op.key] = _merged(self.drifted.get(op.key), op)
            await work.checkpoint()
            if not work.write:
                self.conditions[op.key] = left(op)
                continue
            held = work.admit(op)
            if held is None and full is not None and op in unknown:
                held = unrecorded(op, full)
            if held is not None:
                self.conditions[op.key] = held
                continue
            self._try(op)
        self._count += 1
        return self._progress and self._count < MOST

    def _try(self, op: Op) -> None:
        again = op.key in self.applied
        others = self._others(op) if again else {}
        outcome = self._applier.carry_out(op, self._work.owned)
        self._became(op, outcome, time.monotonic())
        if again and outcome.op is not None:
            self._blame(op, others)

    def _became(self, op: Op, outcome: Outcome, at: float) -> None:
        """Account for what became of an op."""
        if outcome.condition is not None:
            self.conditions[op.key] = outcome.condition
        else:
            self.conditions.pop(op.key, None)
        if outcome.op is None:
            if outcome.condition is None and op.key not in self.applied:
                del self.drifted[op.key]  # another write of this pass, or somebody else, was faster
            elif outcome.condition is not None:
                self._refused.add(op.key)
            return
        self._progress = True
        self._healed_at = self._healed_at or at
        self._refused.discard(op.key)
        self.applied[op.key] = _merged(self.applied.get(op.key), outcome.op)

    def _others(self, op: Op) -> dict[Path, str | None]:
        paths = [path_of(key) for key in self.applied if key != op.key]
        return {path: self._applier.value(path) for path in paths}

    def _blame(self, op: Op, others: Mapping[Path, str | None]) -> None:
        """A key had to be written a second time. Does that undo what was written before, and that this?"""
        path = path_of(op.key)
        for other, value in others.items():
            if self._applier.value(other) == value:
                continue
            self._undone.add((path, other))
            if (other, path) in self._undone:
                pair = f"{self._asked(path)} and {self._asked(other)}"
                text = f"{pair} contradict each other: setting one sets the other"
                self._disputes[path] = self._disputes[other] = text

    def _asked(self, path: Path) -> str:
        for op in self.applied.values():
            if isinstance(op.want, Sysctl) and op.want.path == path:
                return f"{dotted(path)} = {shown(path, op.want.value)}"
        return dotted(path)

    def report(
        self, conditions: Iterable[Condition], *, total: int, looked: Iterable[Key] | None, usec: int
    ) -> Report:
        """What the pass comes to. ``conditions``: of its last patch. ``looked``: the keys that were looked
        at, None for all."""
        found = {condition.key: condition for condition in conditions} | self.conditions
        hints = self._work.hints
        events = [hint.at for hint in hints if hint.at]
        healed = max(1, int((self._healed_at - min(events)) * 1e6)) if events and self.applied else 0
        return Report(
            trigger=self._work.trigger,
            drifted=tuple(self.drifted.values()),
            applied=tuple(self.applied.values()),
            conditions=tuple(found.values()),
            total=total,
            complete=looked is None,
            culprits={h.key: h.culprit for h in hints if h.key in self.drifted and h.culprit is not None},
            usec=usec,
            heal_usec=healed,
            looked=frozenset(() if looked is None else {*looked, *self.drifted, *found}),
        )


def _merged(before: Op | None, op: Op) -> Op:
    """Two ops of one key in one pass as one."""
    if before is None:
        return op
    changes: dict[str, Change] = {change.attribute: change for change in before.changes}
    for change in op.changes:
        first = changes.get(change.attribute)
        changes[change.attribute] = change if first is None else replace(change, have=first.have)
    kept = tuple(change for change in changes.values() if change.have != change.want)
    return replace(op, have=before.have, changes=kept or op.changes)
