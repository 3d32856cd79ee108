# SPDX-License-Identifier: MIT
"""One source in one scope, kept converged: a timer, kernel events as hints, retries, and somebody to ask.

It decides when a pass runs, and why. It knows no subsystem, no namespace, no bus and no files.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from linxd.clock import BOOT, Alarm, Clock
from linxd.crowd import patience
from linxd.feed import Feed
from linxd.gate import Gate, backoff
from linxd.ledger import MemoryLedger
from linxd.patch import Condition, Culprit, Key, Op, Patch, Report, State, Trigger
from linxd.runner import Runner
from linxd.source import Blocked, D, Gone, Hint, O, Owned, Source
from linxd.status import LoopState, Status

__all__ = ["Loop", "LoopState", "Status"]

T = TypeVar("T")
log = logging.getLogger(__name__)

RETRY_REST = 4
"""Times as long as a pass of retries took, nothing is retried by itself."""
_URGENCY = (Trigger.START, Trigger.CONFIG, Trigger.REQUEST, Trigger.EVENT, Trigger.RESYNC)
_BAD = (State.PENDING, State.FAILED, State.CONFLICT, State.CONTENDED)


def _random() -> float:
    return int.from_bytes(os.urandom(4), "big") / 2**32


class Loop(Generic[D, O]):
    """Keeps what ``source`` looks after as ``desired`` says, for as long as `run` runs.

    ``owned``: the ledger; without one, ownership lives as long as the loop. ``resync``: seconds between two
    looks at everything, on the clock that counts suspend, at an offset that depends on ``name`` alone; 0:
    hints only. ``on_report`` is told each pass that ended, ``on_state`` each change of `state`, in this
    order. ``random`` gives 0 … 1. ``patience``: seconds for which the account of what is healed already may
    wait, because others heal. Everything is to be called in the event loop that runs it.
    """

    def __init__(
        self,
        source: Source[D, O],
        desired: D,
        *,
        owned: Owned | None = None,
        resync: float = 30.0,
        on_report: Callable[[Report], object] | None = None,
        on_state: Callable[[LoopState], object] | None = None,
        name: str = "",
        clock: Clock = BOOT,
        random: Callable[[], float] = _random,
        patience: Callable[[], float] = patience,
    ) -> None:
        self.source = source
        self.desired = desired
        """What is declared; to be changed by `declare` alone."""
        self.owned: Owned = MemoryLedger() if owned is None else owned
        self.name = name
        self.resync = resync
        self.state = LoopState.STARTING
        self.last_error = ""
        """Why the loop is blocked, "" when it isn't."""
        self.first_pass_done = asyncio.Event()
        """Set once the first pass has ended, or could not run: the loop has an answer."""
        self.gone = False
        """Whether `run` returned because the namespace is gone."""
        self.generation = 1
        """Counts declarations."""
        self.reached = 0
        """The generation that the last pass over everything served."""
        self._serving = 0

        self._on_report = on_report
        self._on_state = on_state
        self._clock = clock
        self._random = random
        self._patience = patience
        self._alarm: Alarm | None = None
        self._rings_at: float | None = None
        self._gate = Gate(clock=clock.now, random=random, unit=source.unit)
        self._wake = asyncio.Event()
        self._feed = Feed(source, clock=clock, random=random, wake=self._wake.set, later=self._later)
        self._runner: Runner[D, O] = Runner(source, self.owned, self._gate, self._feed, ended=self._ended)
        self._task: asyncio.Task[object] | None = None
        self._stopping = False
        self._idle = False
        """Whether nothing runs, and nothing was found to be due."""
        self._ahead = False
        """Whether an op was admitted ahead of a pass that is still to account for it."""

        self._wanted: Trigger | None = Trigger.START
        """Why a pass over everything is to run next, if one is."""
        self._requests: list[asyncio.Future[Report]] = []
        self._plans: list[asyncio.Future[Patch]] = []
        self._resync_at: float | None = None
        self._blocked_until: float | None = None
        self._blocked_times = 0
        self._retry_at = 0.0
        """When what failed may be tried again, whatever is due before."""
        self._paused_until: float | None = None
        self._fresh = True
        """No pass over everything has ended since the loop was created or resumed."""

    # -- asked and told -------------------------------------------------------------------------------------

    @property
    def conditions(self) -> Mapping[Key, Condition]:
        """The objects that are not simply done, those fought over included even while they are as
        desired."""
        contended = self._gate.contended()
        conditions = self._runner.account.conditions.of
        return {**conditions, **contended} if contended else conditions

    def standing(self) -> tuple[Mapping[Key, Condition], Mapping[Key, tuple[State, int]]]:
        """`conditions` as they are at this moment, and which state each has since when, where that is known:
        microseconds of CLOCK_REALTIME. Copies, for a thread to go through."""
        conditions, since = self._runner.account.conditions.standing()
        conditions.update(self._gate.contended())
        return conditions, since

    @property
    def status(self) -> Status:
        """A snapshot."""
        account, feed = self._runner.account, self._feed
        return Status(
            name=self.name,
            source=self.source.name,
            watch=self.source.watch if feed.live else "timer",
            state=self.state,
            generation=self.generation,
            reached=self.reached,
            resync=self.resync,
            total=account.total,
            counts=account.counts(self._gate.contended()),
            last_error=self.last_error,
            subscription_error=feed.error,
            passes=account.passes,
            drifts=account.drifts,
            ops_applied=account.ops_applied,
            overruns=feed.overruns,
            last_pass=account.last_pass,
            last_pass_monotonic=account.last_pass_monotonic,
            last_patch=account.last_patch,
            last_patch_monotonic=account.last_patch_monotonic,
            last_patch_ops=account.last_patch_ops,
            heal_usec=account.heals.summary(),
            paused_until=self._paused_until,
        )

    @property
    def fights(self) -> bool:
        """Whether any object is fought over."""
        return self._gate.fights

    def blame(self, culprits: Mapping[Key, Culprit]) -> None:
        """Who made objects drift, where more has become known of that since the report of it."""
        self._gate.blame(culprits)

    def summary(self) -> tuple[str, ...]:
        """A line for each object that is fought over, at most one a minute and object."""
        return self._gate.summary()

    def stalled(self) -> float:
        """Seconds for which a pass has made no progress; 0.0 while none runs. For a watchdog."""
        return self._runner.stalled()

    @property
    def progress(self) -> int:
        """Grows with each step of a pass."""
        return self._runner.progress

    def declare(self, desired: D) -> None:
        """From now on this is desired. Failures and fights are forgiven, and the pass for it comes next; one
        that runs now ends as it began."""
        self.desired = desired
        self.generation += 1
        self._gate.declared()
        self._want(Trigger.CONFIG, at_once=True)

    def pause(self, until: float) -> None:
        """Write nothing before ``until`` (seconds of the clock: CLOCK_BOOTTIME), but look and report.

        A pass that runs now stops writing with its next op.
        """
        self._paused_until = until
        self._runner.pause()
        self._judge()
        self._wake.set()

    def resume(self) -> None:
        """End a pause now."""
        if self._paused_until is not None:
            self._unpause(Trigger.REQUEST)

    def leave(self, key: Key, until: float, words: str = "paused") -> None:
        """Leave one object alone before ``until`` (seconds of the clock), but look at it and report.
        ``words`` say so in its condition. No op of it that was not tried yet is tried."""
        self._gate.leave(key, until, words)
        self._wake.set()

    def take_up(self, key: Key) -> None:
        """Leave an object alone no longer."""
        if self._gate.take_up(key):
            self._want(Trigger.REQUEST, at_once=True)

    @property
    def left(self) -> Mapping[Key, float]:
        """Objects that are left alone, and until when."""
        return self._gate.left

    async def request(self) -> Report:
        """Look at everything, in a pass that starts after this call, and try again what failed.

        Returns its report. Raises Blocked if it could not run, Gone, or CancelledError if the loop stops
        first.
        """
        future: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        if self._stopping:
            future.cancel()
        self._requests.append(future)
        self._want(Trigger.REQUEST, at_once=True)
        return await future

    async def plan(self) -> Patch:
        """What a pass over everything would do now. Writes nothing. Raises as `request` does."""
        if self._task is None:
            return await self._runner.draft(self.desired)
        future: asyncio.Future[Patch] = asyncio.get_running_loop().create_future()
        if self._stopping:
            future.cancel()
        self._plans.append(future)
        self._wake.set()
        return await future

    def stop(self) -> None:
        """Have `run` return: now when idle, else at the next checkpoint of the pass that runs. What was done
        ahead of a pass is still told of, in one."""
        self._stopping = True
        self._runner.stopping = not self._ahead
        self._wake.set()

    # -- when -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until `stop`, or until the namespace is gone. To be called once."""
        if self._task is not None:
            raise RuntimeError("a loop runs once")
        self._task = asyncio.current_task()
        self._alarm = alarm = self._clock.alarm(self._wake.set)
        self.source.idle, self.source.admits = self._waits, self._admits
        try:
            if not self._stopping:
                self._feed.open()
            while not self._stopping:
                self._wake.clear()
                if not await self._turn():
                    self._arm(alarm)
                    self._idle = True
                    await self._wake.wait()
                    self._idle = False
            if self._ahead:
                await self._hinted(Trigger.EVENT, self._feed.take())
        except Gone:
            self.gone = True
        except asyncio.CancelledError:
            # At a checkpoint that knew of `stop`, or because somebody cancelled us?
            if not self._stopping or self._task is None or self._task.cancelling():
                raise
        finally:
            self._stopping = self._runner.stopping = True
            self._idle = False
            self._feed.close()
            alarm.close()
            self._end_waiting()

    async def _turn(self) -> bool:
        """Do what is most urgent, if anything is."""
        now = self._clock.now()
        if self._feed.retry_at is not None and now >= self._feed.retry_at:
            self._feed.open()
        if self._feed.missed:
            self._feed.missed = False
            self._want(Trigger.EVENT)
        if self._paused_until is not None and now >= self._paused_until:
            self._unpause(Trigger.RESYNC)
        if self._gate.taken_up():
            self._want(Trigger.RESYNC, at_once=True)
        if self._plans:
            await self._draft()
        elif self._blocked_until is not None and now < self._blocked_until:
            return False
        elif self._wanted is not None or (self._resync_at is not None and now >= self._resync_at):
            await self._everything(self._wanted or Trigger.RESYNC)
        elif self._feed:
            await self._hinted(Trigger.EVENT, self._feed.take())
        elif self._paused_until is None and now >= self._retry_at and (due := self._gate.due()) != ():
            if due is None:
                # Sorting them out has taken its time.
                await asyncio.sleep(0)
                await self._everything(Trigger.RESYNC)
            else:
                await self._hinted(Trigger.RESYNC, tuple(Hint(key) for key in due))
            # Where very many fail, trying them again must not be all that is done.
            ended = self._clock.now()
            self._retry_at = ended + RETRY_REST * (ended - now)
        else:
            return False
        # A source that never had to wait has kept everybody else waiting.
        await asyncio.sleep(0)
        return True

    def _waits(self) -> bool:
        """Whether nothing runs or is due, so that an event that is read now leads to the next pass, and that
        may write."""
        if not self._idle or self._wanted is not None or self._plans or self._feed or self._feed.missed:
            return False
        return self._paused_until is None and self._blocked_until is None and not self._stopping

    def _admits(self, op: Op) -> bool:
        """Whether nothing speaks against trying an op now, ahead of the next pass: that is about to be the
        one of the event that calls for it, and would be allowed to try it."""
        if not self._waits():
            return False
        self._ahead = self._gate.admit(op, event=True) is None
        return self._ahead

    def _arm(self, alarm: Alarm) -> None:
        quiet_at = self._gate.expire()
        self._judge()
        times = [self._feed.retry_at, self._paused_until, quiet_at, *self._gate.left.values()]
        if self._blocked_until is not None:
            times.append(self._blocked_until)
        else:
            due = self._gate.next_due() if self._paused_until is None else None
            times += [self._resync_at, None if due is None else max(due, self._retry_at)]
        self._rings_at = min((moment for moment in times if moment is not None), default=None)
        alarm.set(self._rings_at)

    def _later(self) -> None:
        """What was told of is healed, and only to be accounted for: after those who wait for a processor, to
        heal what they look after."""
        patience = self._patience()
        if not patience or self._alarm is None:
            self._wake.set()
        elif self._rings_at is None or self._clock.now() + patience < self._rings_at:
            self._alarm.set(self._clock.now() + patience)

    def _want(self, trigger: Trigger, *, at_once: bool = False) -> None:
        """A pass over everything is to run. ``at_once``: even if the loop is blocked and would wait."""
        if self._wanted is None or _URGENCY.index(trigger) < _URGENCY.index(self._wanted):
            self._wanted = trigger
        if at_once:
            self._blocked_until = None
            self._wake.set()

    def _next_resync(self) -> float | None:
        if not self.resync:
            return None
        offset = zlib.crc32(self.name.encode()) / 2**32 * self.resync
        return (math.floor((self._clock.now() - offset) / self.resync) + 1) * self.resync + offset

    def _unpause(self, trigger: Trigger) -> None:
        self._paused_until = None
        self._runner.paused = False
        self._fresh = True
        self._want(trigger, at_once=True)
        self._judge()

    def _end_waiting(self) -> None:
        waiting: list[asyncio.Future[Any]] = [*self._requests, *self._plans]
        for future in waiting:
            if self.gone and not future.done():
                future.set_exception(Gone("the namespace is gone"))
            future.cancel()

    # -- passes ---------------------------------------------------------------------------------------------

    async def _everything(self, trigger: Trigger) -> None:
        """A pass over everything, and before it a short one over what events have named."""
        hints = self._feed.take()
        if hints and trigger in (Trigger.EVENT, Trigger.RESYNC):
            if not await self._hinted(Trigger.EVENT, hints):
                return
            hints = ()
        self._wanted, self._ahead = None, False
        if trigger is Trigger.REQUEST:
            self._gate.asked()
        asked, self._serving = len(self._requests), self.generation
        answer: Report | Blocked
        try:
            answer = await self._runner.everything(trigger, self.desired, hints)
        except Blocked as exc:
            answer = exc
            self._block(exc, Trigger.RESYNC if trigger is Trigger.REQUEST else trigger)
        self._resync_at = self._next_resync()
        _answer(self._requests, asked, answer)

    async def _hinted(self, trigger: Trigger, hints: tuple[Hint, ...]) -> bool:
        """A pass over some objects. False: it could not run, and the next one looks at everything."""
        self._ahead = False
        try:
            await self._runner.hinted(trigger, self.desired, hints)
        except Blocked as exc:
            self._block(exc, trigger)
            return False
        return True

    async def _draft(self) -> None:
        """Observe and diff, for those who asked for a plan."""
        asked = len(self._plans)
        answer: Patch | Blocked
        try:
            answer = await self._runner.draft(self.desired)
        except Blocked as exc:
            answer = exc
        _answer(self._plans, asked, answer)

    def _block(self, trouble: Blocked, trigger: Trigger) -> None:
        self._blocked_times += 1
        self._blocked_until = self._clock.now() + backoff(self._blocked_times, self._random)
        self.last_error = str(trouble)
        self._want(trigger)
        self._judge()
        self.first_pass_done.set()

    # -- what it comes to -----------------------------------------------------------------------------------

    def _ended(self, report: Report, *, everything: bool) -> None:
        """A pass has ended; it may have been nested in one that goes on."""
        self._blocked_until, self._blocked_times, self.last_error = None, 0, ""
        if everything:
            self._fresh = False
            self.reached = self._serving
            self.first_pass_done.set()
        self._judge(report)

    def _judge(self, report: Report | None = None) -> None:
        """Say what happened, and which state it makes."""
        before, self.state = self.state, self._found_state()
        if report is not None:
            self._tell(self._on_report, report)
        if self.state is not before:
            self._tell(self._on_state, self.state)

    def _found_state(self) -> LoopState:
        if self._blocked_times:
            return LoopState.BLOCKED
        if self._paused_until is not None:
            return LoopState.PAUSED
        if self._fresh:
            return LoopState.STARTING
        if self._gate.contended():
            return LoopState.CONTENDED
        conditions = self._runner.account.conditions
        return LoopState.DEGRADED if any(map(conditions.count, _BAD)) else LoopState.CONVERGED

    def _tell(self, listener: Callable[[T], object] | None, news: T) -> None:
        if listener is not None:
            try:
                listener(news)
            except Exception:
                # Whoever listens must not bring down what keeps the network as it should be.
                log.exception("%s/%s: a listener failed", self.name, self.source.name)


def _answer(waiting: list[asyncio.Future[T]], count: int, answer: T | Blocked) -> None:
    """Answer the first ``count`` of those who wait; who came later asked for something newer."""
    for future in waiting[:count]:
        if future.done():
            continue
        if isinstance(answer, Blocked):
            future.set_exception(Blocked(str(answer)))
        else:
            future.set_result(answer)
    del waiting[:count]
