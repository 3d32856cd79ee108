# SPDX-License-Identifier: MIT
"""One pass of a source from admission to account, with the breaths and the short passes within it.

It knows how a pass runs and what its report means for each object; when one runs, and why, is the loop's.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar

from linxd.feed import Feed
from linxd.gate import Gate
from linxd.patch import Condition, Culprit, Key, Op, Patch, Report, State, Trigger, left
from linxd.records import replace
from linxd.slices import let_go, slices
from linxd.source import Blocked, D, Gone, Hint, O, Owned, Pass, Source, culprits_of
from linxd.status import Account

T = TypeVar("T")
log = logging.getLogger(__name__)

SLICE = 0.01
"""Seconds of work after which a checkpoint lets the event loop turn."""
_NEW = (Trigger.START, Trigger.CONFIG)
"""Passes whose ops are no heals: nobody undid anything."""


class Ended(Protocol):
    """Who is told each report once it is accounted for."""

    def __call__(self, report: Report, *, everything: bool) -> None: ...


class Runner(Generic[D, O]):
    """Runs the passes of one source."""

    def __init__(self, source: Source[D, O], owned: Owned, gate: Gate, feed: Feed, *, ended: Ended) -> None:
        self.account = Account()
        self.progress = 0
        """Grows with each step of a pass."""
        self.paused = False
        self.stopping = False
        """Whether a pass is to end at its next checkpoint."""
        self._source = source
        self._owned = owned
        self._gate = gate
        self._feed = feed
        self._ended = ended
        self._works: list[Pass[D]] = []
        """What runs now: a pass, and perhaps another nested in its checkpoint."""
        self._nestable = False
        self._nested: set[Key] = set()
        """What nested passes spoke of while the outer one went by an older observation."""
        self._yielded = 0.0
        self._last_progress = 0.0

    def stalled(self) -> float:
        """Seconds for which a pass has made no progress; 0.0 while none runs."""
        return time.monotonic() - self._last_progress if self._works else 0.0

    def pause(self) -> None:
        """Write nothing more until `paused` is False again, not even in a pass that runs now."""
        self.paused = True
        for work in self._works:
            work.write = False

    async def everything(self, trigger: Trigger, desired: D, hints: Iterable[Hint] = ()) -> Report:
        """A pass over everything. ``hints`` tell who did what it finds. Raises Gone, or Blocked in plain
        words."""
        self._nestable = self._source.interruptible and trigger is not Trigger.START
        try:
            report = await self._run(trigger, desired, (), culprits=culprits_of(hints))
        finally:
            self._nestable = False
            nested, self._nested = self._nested, set()
        # The report spoke of these as they were before a nested pass saw to them.
        bad = self.account.conditions.of
        if nested and bad:
            async for keys in slices(nested):
                for key in keys:
                    if key in bad:
                        self._feed.again(Hint(key))
        return report

    async def hinted(self, trigger: Trigger, desired: D, hints: tuple[Hint, ...]) -> Report:
        """A pass over the objects that ``hints`` name. Raises as `everything`."""
        return await self._run(trigger, desired, hints)

    async def draft(self, desired: D) -> Patch:
        """What a pass over everything would do. Raises as `everything`."""
        work = Pass(desired, self._owned, Trigger.REQUEST, write=False)
        work.checkpoint = functools.partial(self._checkpoint, work)
        with self._running(work):
            observed = await self._source.observe(work)
            # Pure, and perhaps long: beside the event loop, not in it.
            return await asyncio.to_thread(self._source.diff, observed, desired, self._owned)

    # -- one pass -------------------------------------------------------------------------------------------

    async def _run(
        self,
        trigger: Trigger,
        desired: D,
        hints: tuple[Hint, ...],
        *,
        culprits: Mapping[Key, Culprit] | None = None,
        nested: bool = False,
    ) -> Report:
        held: set[Key] = set()

        def admit(op: Op) -> Condition | None:
            # A pass that began while paused writes nothing, even if it is over meanwhile.
            if self.paused or not work.write:
                condition: Condition | None = left(op)
            else:
                condition = self._gate.admit(op, event=trigger is Trigger.EVENT)
            if condition is not None:
                held.add(op.key)
            return condition

        if trigger is Trigger.EVENT:
            self._gate.moved(hint.key for hint in hints if hint.key is not None)
            await self._stir()
        work = Pass(desired, self._owned, trigger, hints, admit, write=not self.paused)
        work.checkpoint = functools.partial(self._checkpoint, work)
        began = time.monotonic()
        with self._running(work):
            report = await self._source.reconcile(work)
            await self._breathe()
            report = await self._completed(report, {**(culprits or {}), **culprits_of(hints)}, hints, began)
            await self._enter(report, work, held)
        if nested:
            self._nested.update(_spoken_of(report, work))
        self._ended(report, everything=work.full and not nested)
        let_go(held, report.drifted, report.applied, report.conditions, report.looked, report.culprits)
        return report

    @contextlib.contextmanager
    def _running(self, work: Pass[D]) -> Iterator[None]:
        """Around what a source does: it counts as running, and whatever goes wrong is put in words."""
        self._works.append(work)
        self._step()
        if len(self._works) == 1:
            self._yielded = self._last_progress
        try:
            yield
        except (Gone, Blocked):
            raise
        except OSError as exc:
            raise Blocked(exc.strerror or str(exc)) from exc
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if self.stopping or (task is not None and task.cancelling()):
                raise
            # Something that the source awaited was cancelled, not we.
            raise self._unexpected(exc) from exc
        except Exception as exc:
            raise self._unexpected(exc) from exc
        finally:
            self._works.remove(work)

    def _unexpected(self, exc: BaseException) -> Blocked:
        log.debug("%s: unexpected", self._source.name, exc_info=exc)
        return Blocked(f"unexpected error in the source: {type(exc).__name__}: {exc}")

    # -- within it ------------------------------------------------------------------------------------------

    def _step(self) -> None:
        self.progress += 1
        self._last_progress = time.monotonic()

    async def _breathe(self) -> None:
        """Let the event loop turn if it has waited for long."""
        self._step()
        if self._last_progress - self._yielded >= SLICE:
            await asyncio.sleep(0)
            self._yielded = time.monotonic()

    async def _checkpoint(self, work: Pass[D]) -> None:
        await self._breathe()
        if self.stopping:
            raise asyncio.CancelledError
        if not self._nestable or not self._feed:
            return
        self._nestable = False
        hints = self._feed.take()
        try:
            await self._run(Trigger.EVENT, work.desired, hints, nested=True)
        except Blocked:
            # The outer pass goes on as well as it can; what this one was for comes after it.
            for hint in hints:
                self._feed.again(hint)
        else:
            self._nestable = True

    # -- what it comes to -----------------------------------------------------------------------------------

    async def _enter(self, report: Report, work: Pass[D], held: set[Key]) -> None:
        """Draw the conclusions from a report, for the gate and for the account."""
        gate = self._gate
        heal = report.trigger not in _NEW
        drifted: set[Key] = set()
        applied: set[Key] = set()
        refused: dict[Key, Condition] = {}
        async for conditions in self._slices(report.conditions):
            refused.update((c.key, c) for c in conditions if _refused(c) and c.key not in held)
        async for ops in self._slices(report.applied):
            applied.update(op.key for op in ops)
            for op in ops if heal or len(gate) else ():
                gate.applied(op, heal=heal)
            await self._stir()
        tried: set[Key] = set()
        async for ops in self._slices(report.drifted):
            drifted.update(op.key for op in ops)
            for op in ops if refused else ():
                if op.key in refused and op.key not in tried:
                    tried.add(op.key)
                    gate.refused(refused[op.key], op)
        async for keys in self._slices(refused):
            for key in keys:
                if key not in tried:
                    gate.refused(refused[key])
        looked: Collection[Key] | None = None
        if not report.complete:
            looked = report.looked or _spoken_of(report, work)
        if gate.failing:
            bad = set(drifted)
            async for conditions in self._slices(report.conditions):
                bad.update(condition.key for condition in conditions)
            async for keys in self._slices(gate.failed_of(looked)):
                gate.passed(bad, keys)
        gate.blame(report.culprits)
        for _ in self.account.enter(report, drifted=drifted, applied=applied, looked=looked):
            await self._breathe()
        let_go(drifted, applied, refused)

    async def _stir(self) -> None:
        if self._gate.moving:
            async for _ in self._slices(self._gate.stir()):
                pass

    def _slices(self, things: Iterable[T]) -> slices[T]:
        """What there is much of is accounted for in slices, too."""
        return slices(things, step=self._step)

    async def _completed(
        self, report: Report, culprits: Mapping[Key, Culprit], hints: tuple[Hint, ...], began: float
    ) -> Report:
        """A report with what its source left to us: who did it, and how long it took."""
        now = time.monotonic()
        if culprits:
            named: dict[Key, Culprit] = {}
            async for ops in self._slices(report.drifted):
                named.update((op.key, culprits[op.key]) for op in ops if op.key in culprits)
            if named:
                report = replace(report, culprits={**named, **report.culprits})
        if not report.usec:
            report = replace(report, usec=max(1, int((now - began) * 1e6)))
        moments = [hint.at for hint in hints if hint.at]
        if moments and report.applied and not report.heal_usec:
            report = replace(report, heal_usec=max(1, int((now - min(moments)) * 1e6)))
        return report


def _spoken_of(report: Report, work: Pass[D]) -> set[Key]:
    """The objects that a pass was told of, or tells of."""
    keys = {hint.key for hint in work.hints if hint.key is not None}
    return keys.union(report.looked, (c.key for c in report.conditions), (op.key for op in report.drifted))


def _refused(condition: Condition) -> bool:
    """Whether an op was tried in vain: one that waits for another object has no errno, one that the kernel
    refused for want of something has."""
    return condition.state is State.FAILED or (condition.state is State.PENDING and condition.errno != 0)
