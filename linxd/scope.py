# SPDX-License-Identifier: MIT
"""One scope in one process: its loops, in the order in which they may begin, and what they come to together.

It knows which sources there are and what is declared for them. How they reach the kernel, how the namespace
was found and who reads the log is for its caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from linxd.called import find
from linxd.clock import BOOT
from linxd.config.model import ScopeConfig
from linxd.ledger import FileLedger
from linxd.log import INFO, NOTICE, WARNING, clock_time, condition_line, news, thing
from linxd.loop import LoopState
from linxd.part import Left, Opened, Part
from linxd.patch import Condition, Culprit, Key, Report, State
from linxd.records import dataclass
from linxd.reporter import Reporter
from linxd.source import Blocked, Gone
from linxd.sources.netfilter.model import Desired as NetfilterDesired
from linxd.sources.rtnl.model import Desired as RtnlDesired
from linxd.sources.sysctl.model import Desired as SysctlDesired

ORDER = ("netfilter", "sysctl", "rtnl")
"""First passes run in this order, so that no address is up before its filter; the teardown in the other
one."""
FIRST_PASS = 30.0
"""Seconds for which a first pass may keep the next loop waiting."""
PATIENCE = 30.0
"""Seconds for which a reload, or a release, waits for each loop."""
NAMED = 5
"""Objects that are named where several may be meant."""
END = 1.0
"""Seconds in which loops end by themselves."""

NOTHING: Mapping[str, Any] = {
    "netfilter": NetfilterDesired(),
    "sysctl": SysctlDesired(),
    "rtnl": RtnlDesired(),
}
"""What is declared where nothing is."""


class Ambiguous(LookupError):  # noqa: N818 - a fact
    """Several objects may be meant."""


class ScopeState(enum.StrEnum):
    """What a scope is: mostly its worst loop."""

    WAITING = "waiting"
    STARTING = "starting"
    CONVERGED = "converged"
    DEGRADED = "degraded"
    CONTENDED = "contended"
    BLOCKED = "blocked"
    PAUSED = "paused"
    RELOADING = "reloading"
    STOPPING = "stopping"


_WORST = (
    LoopState.BLOCKED,
    LoopState.CONTENDED,
    LoopState.DEGRADED,
    LoopState.STARTING,
    LoopState.PAUSED,
    LoopState.CONVERGED,
)


@dataclass(frozen=True, slots=True)
class Access:
    """How a scope reaches what is outside it.

    ``opener`` opens a source by name, given what says why no address may be added yet (`Scope.hold`); it
    raises OSError. ``ledger`` opens a source's ledger. ``ledgers`` names those sources of which there is one
    already.
    """

    opener: Callable[[str, Callable[[], str]], Opened]
    ledger: Callable[[str], FileLedger]
    ledgers: Collection[str] = ()


def declared(config: ScopeConfig, source: str) -> Any:
    """What a scope declares for a source; None where no loop is asked for."""
    match source:
        case "netfilter":
            return config.netfilter
        case "sysctl":
            return config.sysctl
    return config.rtnl


class Scope:
    """Runs the loops of one scope. ``changed`` is called whenever something of it may look different now,
    ``asked`` besides when that is because somebody asked for it, who may look next."""

    def __init__(
        self,
        config: ScopeConfig,
        access: Access,
        reporter: Reporter,
        *,
        changed: Callable[[], None] = lambda: None,
        asked: Callable[[], None] = lambda: None,
    ) -> None:
        self.config = config
        self.ready = asyncio.Event()
        """Set when every loop has left `starting`, or has had its time."""
        self.gone = False
        """Whether it ended because the namespace did."""
        self.generation = 1
        """Counts declarations."""
        self.listeners: list[Callable[[], None]] = []
        """Called after each pass, too, and whenever ``changed`` is."""
        self._access = access
        self._reporter = reporter
        self._notify, self._asked = changed, asked
        self._parts: dict[str, Part] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._over = asyncio.Event()
        self._overriding: ScopeState | None = None
        self._paused_until = 0.0
        self._paused_at = 0.0
        self._filtered = False
        """Whether the ruleset has loaded once in this namespace."""
        self._beginning: asyncio.Task[None] | None = None
        self._errands: set[asyncio.Task[Any]] = set()
        for name in ORDER:
            # A section that went while we were away has left objects behind which are un-declared now.
            if declared(config, name) is not None or name in access.ledgers:
                self._add(name)

    # -- asked ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> ScopeState:
        """See SPEC's table: what overrides, else the worst of the loops."""
        if self._overriding is not None:
            return self._overriding
        states = {part.state for part in self._parts.values()}
        return ScopeState(next((state for state in _WORST if state in states), LoopState.STARTING))

    @property
    def parts(self) -> Mapping[str, Part]:
        """The loops that there are, by source."""
        return self._parts

    @property
    def counts(self) -> dict[State, int]:
        """Objects by state."""
        counts = dict.fromkeys(State, 0)
        for part in self._parts.values():
            for state, count in part.status.counts.items():
                counts[state] += count
        return counts

    def stalled(self) -> float:
        """The longest time for which a pass has made no progress, in seconds."""
        return max((part.stalled() for part in self._parts.values()), default=0.0)

    @property
    def paused_until(self) -> float:
        """When the pause ends by itself, in seconds of CLOCK_BOOTTIME; 0.0 where there is none."""
        return self._paused_until if self._paused_until > BOOT.now() else 0.0

    @property
    def paused_at(self) -> float:
        """The same moment in seconds of CLOCK_REALTIME, as it was when the pause began."""
        return self._paused_at if self.paused_until else 0.0

    def hold(self) -> str:
        """Why no address may be added and no link set up yet; "" when they may."""
        wanted = self.config.netfilter
        if wanted is None or not wanted.required or self._filtered:
            return ""
        return "waits for the netfilter ruleset, which is required and has not loaded yet"

    # -- running --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until `end` is called or the namespace is gone. Removes nothing."""
        begin = self._beginning = asyncio.create_task(self._begin())
        try:
            await self._over.wait()
        finally:
            begin.cancel()
            self._override(ScopeState.STOPPING)
            await self._stop()

    def blame(self, source: str, culprits: Mapping[Key, Culprit]) -> None:
        """Who made objects drift, once it is known for certain, or known that it can't be."""
        part = self._parts.get(source)
        if part is not None and part.loop is not None:
            part.loop.blame(culprits)

    def end(self, *, gone: bool = False) -> None:
        """Have `run` return. ``gone``: because the namespace is, so nothing is written any more."""
        self.gone = self.gone or gone
        self._over.set()

    async def _begin(self) -> None:
        for name in ORDER:
            part = self._parts.get(name)
            if part is not None:
                # A reload may have been faster.
                if name not in self._tasks:
                    self._launch(name)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(part.answered.wait(), FIRST_PASS)
        self.ready.set()
        self._changed()

    def _add(self, name: str) -> Part:
        def ledger() -> FileLedger:
            opened = self._access.ledger(name)
            # That a container that was started again has another namespace is no more than it should be.
            for line, priority in ((opened.problem, WARNING), (opened.note, INFO)):
                if line:
                    self._reporter.say(news(self.config.name, f"{name}: {line}", priority=priority))
            return opened

        desired = declared(self.config, name)
        part = self._parts[name] = Part(
            self.config.name,
            name,
            NOTHING[name] if desired is None else desired,
            opener=lambda: self._access.opener(name, self.hold),
            ledger=ledger,
            resync=self.config.resync,
            on_report=self._reported,
            on_change=self._moved,
        )
        if self.paused_until:
            part.pause(self._paused_until)
        return part

    def _launch(self, name: str) -> None:
        part = self._parts[name]

        async def run() -> None:
            await part.run()
            if part.gone:
                self.end(gone=True)

        self._tasks[name] = asyncio.create_task(run(), name=f"{self.config.name}/{name}")

    async def _stop(self) -> None:
        for part in self._parts.values():
            part.stop()
        tasks = [*self._tasks.values(), *self._errands]
        for errand in self._errands:
            errand.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=END)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=END)

    # -- what loops tell ------------------------------------------------------------------------------------

    def _reported(self, part: Part, report: Report) -> None:
        self._reporter.report(self.config.name, part.name, report)
        if part.loop is not None and part.loop.fights:
            # By then it is known for certain who fights.
            self._reporter.lines(self.config.name, part.name, part.loop.summary)
        self._look_for_filter(part)
        if report.applied or report.conditions:
            self._changed()
        else:
            self._listened()

    def _moved(self, part: Part) -> None:
        if part.state is not LoopState.STARTING:
            self._reporter.state(self.config.name, part.status)
        self._look_for_filter(part)
        self._changed()

    def _look_for_filter(self, part: Part) -> None:
        """Once the ruleset has loaded, what waited for it need not wait any more."""
        if part.name != "netfilter" or self._filtered or not part.loaded:
            return
        self._filtered = True
        rtnl = self._parts.get("rtnl")
        wanted = self.config.netfilter
        if rtnl is not None and rtnl.loop is not None and wanted is not None and wanted.required:
            self._errand(rtnl)

    def _errand(self, part: Part) -> None:
        """Have a loop look at everything, without waiting for it."""

        async def run() -> None:
            with contextlib.suppress(Blocked, Gone, asyncio.CancelledError):
                await part.reached()

        task = asyncio.create_task(run())
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def _override(self, state: ScopeState | None) -> None:
        self._overriding = state
        self._changed()

    def _changed(self) -> None:
        self._notify()
        self._listened()

    def _listened(self) -> None:
        for listener in self.listeners:
            listener()

    # -- told -----------------------------------------------------------------------------------------------

    async def declare(self, config: ScopeConfig) -> None:
        """From now on this is declared. Returns when every loop has reached it, or has had its time.

        What can't change while the scope runs (its namespace) stays as it was, and the log says so. Once it
        stops, nothing changes any more.
        """
        if self._overriding is ScopeState.STOPPING:
            return
        netns, self.config = self.config.netns, config
        self.generation += 1
        if config.netns != netns:
            text = f"netns is {config.netns} now; that takes a restart, until then it stays {netns}"
            self._reporter.say(news(config.name, text, priority=WARNING))
        self._override(ScopeState.RELOADING)
        try:
            for name in ORDER:
                desired = declared(config, name)
                part = self._parts.get(name)
                if part is not None:
                    part.declare(NOTHING[name] if desired is None else desired, resync=config.resync)
                elif desired is not None:
                    self._add(name)
                    self._launch(name)
            await self._settled(self._parts.values())
        finally:
            if self.state is ScopeState.RELOADING:
                self._override(None)

    def pause(self, seconds: float) -> None:
        """Write nothing for so long, but look and report. A later word on it replaces an earlier one."""
        self._paused_until = BOOT.now() + seconds
        self._paused_at = time.time() + seconds
        for part in self._parts.values():
            part.pause(self._paused_until)
        self._changed()
        self._asked()

    async def pause_object(self, text: str, seconds: float) -> str:
        """Leave one object alone for so long. Returns what it is called, once nothing more is written of
        it; raises LookupError, or its subclass `Ambiguous`."""
        part, key, name = await self._find(text)
        until = BOOT.now() + seconds
        moment = time.time() + seconds
        words = f"paused until {clock_time(moment)}"
        part.leave(key, Left(name, until, round(moment * 1e6), words))
        self._reporter.say(news(self.config.name, f"{part.name}: {thing(name)} is {words}", priority=NOTICE))
        # What a pass that runs now has begun with it is done with when the next one begins.
        await self._settled([part])
        self._changed()
        self._asked()
        return name

    async def resume_object(self, text: str) -> str:
        """Leave one object alone no longer. Returns what it is called; raises as `pause_object`."""
        part, key, name = await self._find(text, left=True)
        part.take_up(key)
        self._reporter.say(news(self.config.name, f"{part.name}: {thing(name)} is paused no longer"))
        self._changed()
        self._asked()
        return name

    async def _find(self, text: str, *, left: bool = False) -> tuple[Part, Key, str]:
        found: list[tuple[Part, Key, str]] = []
        for part in self._parts.values():
            if left:
                known = [(key, one.name) for key, one in part.left.items()]
                found += ((part, key, name) for key, name in find(known, text))
            else:
                found += ((part, key, name) for key, name in await part.find(text))
        if not found:
            raise LookupError(f"{text!r} is not paused" if left else f"no object is called {text!r}")
        if len(found) > 1:
            some = [name for _, _, name in found[:NAMED]]
            more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            raise Ambiguous(f"{text!r} may be any of {', '.join(some)}{more}")
        return found[0]

    def resume(self) -> None:
        """End a pause now, of every object, too."""
        self._paused_until = 0.0
        for part in self._parts.values():
            part.resume()
        self._changed()
        self._asked()

    async def _settled(self, parts: Iterable[Part]) -> None:
        async def reach(part: Part) -> None:
            with contextlib.suppress(Blocked, Gone, asyncio.CancelledError):
                await (part.reached() if part.loop is not None else part.answered.wait())

        waiting = [asyncio.create_task(reach(part)) for part in parts]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=PATIENCE)
            for task in late:
                task.cancel()

    async def release(self) -> list[str]:
        """Delete what is owned and give back what was found, in teardown order; then forget it.

        Returns a line for each thing that stays behind; its ledger does too, then.
        """
        left: list[str] = []
        self._override(ScopeState.STOPPING)
        if self._beginning is not None:
            # No loop may begin now with what was declared.
            self._beginning.cancel()
        for name in reversed(ORDER):
            part = self._parts.get(name)
            if part is not None:
                left += await self._release(part)
        return left

    async def _release(self, part: Part) -> list[str]:
        part.declare(NOTHING[part.name])
        if part.name not in self._tasks:
            # Its turn had not come; what it owns since an earlier time goes all the same.
            self._launch(part.name)
        if part.loop is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(part.answered.wait(), PATIENCE)
        if part.loop is None or part.ledger is None:
            return [f"{part.name}: {part.status.last_error or 'has not begun'}"]
        part.resume()
        try:
            report = await asyncio.wait_for(part.reached(), PATIENCE)
        except TimeoutError:
            return [f"{part.name}: did not end within {PATIENCE:.0f} s"]
        except (Blocked, Gone) as error:
            return [f"{part.name}: {error}"]
        left = [f"{part.name}: {condition_line(one)}" for one in report.conditions if _stays(one)]
        if not left:
            part.stop()
            task = self._tasks.get(part.name)
            if task is not None:
                await asyncio.wait([task], timeout=END)
            part.ledger.drop()
        return left


def _stays(condition: Condition) -> bool:
    return condition.state not in (State.NOTED, State.DONE)
