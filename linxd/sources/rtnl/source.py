# SPDX-License-Identifier: MIT
"""The rtnetlink source: whole passes and passes that follow an event, in rounds of observe, diff, apply.

A round that wrote something is followed by a look at what may have changed with it, until nothing is left to
do. It takes its sockets as arguments and knows neither the loop that drives it nor how a namespace is found.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from linxd.netlink.socket import Events, Requests
from linxd.patch import Entry, Key, Op, Patch, Report, State, Verb, left
from linxd.records import ready
from linxd.reflex import Answered, Reflex, alone
from linxd.slices import let_go, slices
from linxd.source import (
    Hint,
    LedgerError,
    Owned,
    Pass,
    Source,
    Subscription,
    forgetful,
    settle_unsure,
)
from linxd.sources.rtnl.ahead import Answers, ask, simple
from linxd.sources.rtnl.alike import Alike
from linxd.sources.rtnl.apply import Applier, Outcome
from linxd.sources.rtnl.diff import Plan, settle
from linxd.sources.rtnl.events import EventReader, Identify
from linxd.sources.rtnl.hostside import HostSide, refers
from linxd.sources.rtnl.kind import GONE, Waits
from linxd.sources.rtnl.look import EVERYTHING, NOTHING, Index, Look, Waiting, look_at, look_into, together
from linxd.sources.rtnl.model import Desired
from linxd.sources.rtnl.observed import Observed, have
from linxd.sources.rtnl.order import order
from linxd.sources.rtnl.plan import KINDS, Planner, borne_out
from linxd.sources.rtnl.reader import Reader
from linxd.sources.rtnl.routereader import BREATH
from linxd.sources.rtnl.run import Run
from linxd.sources.rtnl.table import LinkTable
from linxd.sources.rtnl.watch import Watch

log = logging.getLogger(__name__)

ROUNDS = 6
"""Looks in one pass. Two are the rule (do it, see that it holds); a link made anew with all that stood on it
takes four."""
LARGE = 4000
"""Observed objects from which on the diff, being pure, runs in a thread beside the event loop."""
MANY = 20_000
"""Declared routes from which on it does so even if next to none of them has to be compared."""


class RtnlSource(Source[Desired, Observed]):
    """Links, addresses, routes, rules and neighbours of the namespace that ``requests`` was opened in.

    ``events`` opens a new event socket in that namespace. ``identify``: see `Identify`. ``hold`` says why no
    address may be added and no link set up yet, "" when they may. ``host`` opens the way to the host's
    links, when something declared refers to one; None where there is no way.
    """

    name: ClassVar[str] = "rtnl"
    watch: ClassVar[str] = "event"
    interruptible: ClassVar[bool] = True

    def __init__(
        self,
        requests: Requests,
        events: Callable[[], Events],
        *,
        identify: Identify = lambda port: None,
        hold: Callable[[], str] = lambda: "",
        host: Callable[[], HostSide | None] = lambda: None,
    ) -> None:
        self.requests = requests
        self._open_host = host
        self._host: HostSide | None = None
        self._watch: Watch | None = None
        self._open_events = events
        self._identify = identify
        self._reader = Reader(requests)
        self._reflex: Reflex[Answers] = Reflex(self._settled)
        ready(Waits)
        self._applier = Applier(requests, self._reader, KINDS, self._identify_now, self._overlook)
        self._planner = Planner(hold)
        self.links = LinkTable()
        self.index = Index(Desired())
        """The declaration in force, by what hangs on what."""
        self.owned: Owned | None = None
        self.pending = Waiting()
        """Objects that wait for something that an event may tell of."""
        self._standing: set[Key] = set()
        """Objects of which the last report on them said something."""
        self._proven: set[Key] = set()
        """Objects that the kernel was seen to hold just as declared: what differs later is drift, never
        churn."""
        self._looked_once = False

    @property
    def alike(self) -> Alike:
        """Which rules may be one of several under one identity."""
        return self._reader.alike

    # -- the four verbs -------------------------------------------------------------------------------------

    async def observe(self, work: Pass[Desired]) -> Observed:
        """Read all kinds, as far as declared and owned objects and the policy on foreign ones need it."""
        await self._declare(work)
        return await self._observe(work, EVERYTHING)

    def diff(self, observed: Observed, desired: Desired, owned: Owned) -> Patch:
        """The minimal patch for everything that ``observed`` looked at. Pure."""
        plan = self._planner.plan(observed, Index(desired), owned, complete=True)
        return Patch(order(plan.ops), tuple(plan.conditions), tuple(plan.adopt))

    async def reconcile(self, work: Pass[Desired]) -> Report:
        """One pass. See `linxd.source.Source.reconcile`."""
        return await self._reflex.accounted(lambda answered: self._reconcile(work, answered))

    async def _reconcile(self, work: Pass[Desired], answered: Answered[Answers] | None) -> Report:
        started = time.monotonic()
        await self._declare(work)
        keyed = bool(work.hints) and all(hint.key is not None for hint in work.hints) and self._looked_once
        run = Run(work, keyed=keyed)
        later = self._account(run, answered) if answered is not None else NOTHING
        if keyed:
            hints = [hint for hint in work.hints if answered is None or hint is not answered.hint]
            await self._heal(run, hints, later)
        else:
            await self._rounds(run, EVERYTHING)
            self._looked_once = True
        desired = work.desired
        total = len(desired.links) + len(desired.addresses) + len(desired.routes)
        total += len(desired.rules) + len(desired.neighbours)
        report = run.report(complete=not keyed, usec=int((time.monotonic() - started) * 1e6), total=total)
        await self._stand(report)
        let_go(run.drifted, run.conditions, run.looked)
        return report

    def objects(self, desired: Desired) -> Iterable[tuple[Key, str]]:
        """Everything declared, kind by kind."""
        kinds = (desired.links, desired.addresses, desired.neighbours, desired.routes, desired.rules)
        for kind in kinds:
            for one in kind.values():
                yield one.key, f"{one.key[0]} {one.words()}"

    def subscribe(self, notify: Callable[[Hint], None]) -> Subscription:
        """Hints from rtnetlink's multicast groups. Raises OSError."""
        events = EventReader(self._open_events(), self, notify, self._identify, self._react)
        self._watch = Watch(events, notify, self._reader.routes)
        self._watch.follow(self._host)
        return self._watch

    def close(self) -> None:
        """Let go of the host's namespace, if it was referred to. The request socket is the caller's."""
        if self._host is not None:
            self._host.close()
        self._host = self._reader.host = self._planner.host = None

    def _identify_now(self) -> None:
        """Look up who caused what is healed: something is on its way to the kernel, or has to be read
        first."""
        if self._watch is not None:
            self._watch.identify()

    def _overlook(self, ours: bool) -> None:
        if self._watch is not None:
            self._watch.overlook(ours=ours)

    # -- passes ---------------------------------------------------------------------------------------------

    def _react(self, hint: Hint) -> Hint:
        """An event that stands alone, and its hint, which is about to be told of: what it calls for may be
        done first, where it is simple. Returns the hint to be told."""
        key, owned = hint.key, self.owned
        index = self.index
        if key not in self._proven or hint.seen is None or owned is None or not self._believed([hint]):
            return hint
        if key[0] == "address" and ":" not in str(key[2]) and len(index.neighbouring(key)) > 1:
            # The kernel may be about to tell of the others, and which one comes first matters.
            return hint
        try:
            seen = None if hint.seen is GONE else have(key, hint.seen, self.links)
            plan, view = self._planner.one(key, seen, self.links, index, owned)
            op = alone(plan)
            if op is not None and simple(op):
                return self._reflex.act(
                    hint,
                    op,
                    owned.get(key),
                    index,
                    self.admits,
                    lambda op: ask(self.requests, self._identify_now, op, view),
                )
        except Exception:
            # The pass will meet it again, and knows how to say it.
            log.debug("%s: ahead of a pass", self.name, exc_info=True)
        return hint

    def _settled(self, op: Op, result: Answers) -> bool:
        """Whether what was done ahead is all there is to do, and can have taken nothing along."""
        return not any(result[1]) and not self._after(op.key)

    def _after(self, key: Key) -> Look:
        """Where to look after an event of an object: at what may have gone with it, and at what waits."""
        look = self.pending.look
        if key[0] == "link":
            return look | self.index.after_link(str(key[1]))
        if key[0] == "address":
            return look | self.index.after_address(key)
        return look

    def _account(self, run: Run, answered: Answered[Answers]) -> Look:
        """Account for what was done ahead. Returns where to look because of it, and of the event."""
        op, key = answered.op, answered.op.key
        looks = {self._after(key)}
        view = self._planner.view(self.links, self.index)
        outcome = self._applier.became(op, *answered.result, view)
        if outcome.condition is None or answered.declared is self.index:
            run.named(answered.hint)
            run.drift(op)
            if self._came_of(run, outcome, looks):
                looks.add(look_at(key))
            run.healed(answered.at)
            run.another(key)
        return together(looks)

    async def _stand(self, report: Report) -> None:
        """Keep in mind of which objects something is said, and which of them wait."""
        standing, pending = self._standing, self.pending
        if report.complete:
            standing, pending = set(), Waiting()
        async for keys in slices(report.looked):
            standing.difference_update(keys)
            for key in keys:
                pending.discard(key)
        declared = self.index.desired.routes
        disputed = self._reader.routes.disputed and not report.complete
        async for conditions in slices(report.conditions):
            for condition in conditions:
                standing.add(condition.key)
                if condition.key[0] == "route":
                    disputed |= condition.state is State.CONFLICT or condition.key not in declared
                if condition.state is State.PENDING and not condition.paused:
                    pending.add(condition.key)
        let_go(self._standing if report.complete else ())
        self._reader.routes.disputed = disputed
        self._standing, self.pending = standing, pending

    async def _declare(self, work: Pass[Desired]) -> None:
        self.owned = work.owned
        before = self.index
        if work.desired is not before.desired:
            if len(work.desired.routes) < LARGE:
                self.index = Index(work.desired)
            else:
                self.index = await asyncio.to_thread(Index, work.desired)
            if self._watch is not None:
                self._watch.sift()
            let_go(before.desired.routes, self._proven)
            self._proven = set()
            self._reader.routes.forget()
            if self._host is not None:
                self._host.forget()
            elif any(refers(link) for link in work.desired.links.values()):
                self._host = self._reader.host = self._planner.host = self._open_host()
                if self._watch is not None:
                    self._watch.follow(self._host)

    async def _heal(self, run: Run, hints: Sequence[Hint], later: Look) -> None:
        """Objects that events named, first; then what may have gone silently with them, and ``later``."""
        observed = Observed(self.links, NOTHING)
        now = NOTHING
        look_only = not self._believed(hints)
        for number, hint in enumerate(hints, 1):
            if not number % BREATH:
                await asyncio.sleep(0)
            key = hint.key
            assert key is not None
            run.named(hint)
            kind = str(key[0])
            if kind == "link":
                later |= self.index.after_link(str(key[1]))
            if look_only or hint.seen is None:
                now |= look_into(key) if hint.seen is None else look_at(key)
                continue
            observed.keys.add(key)
            if hint.seen is not GONE:
                observed.put(key, hint.seen)
            if kind == "address":
                later |= self.index.after_address(key)
        if observed.keys:
            # Once for all events: where thousands wait, thousands of events may have come, too.
            if self.pending:
                later |= self.pending.look
            plan = await self._planned(observed, run.work)
            later |= await self._carry_out(run, plan, observed)
        if now or later:
            self._identify_now()
        if now:
            later |= await self._rounds(run, now, rounds=1)
            later |= self.pending.look
        if later:
            await run.work.checkpoint()
            await self._rounds(run, later)

    def _believed(self, hints: Sequence[Hint]) -> bool:
        """Whether what events carry is to be believed. A link's state decides what became of all that stands
        on it: where both are told of, a look tells more than older events. What a link refers to on the
        host's side is in none of them, and whose link it is where any has come, gone or been renamed since
        the last look takes another one."""
        names = [str(hint.key[1]) for hint in hints if hint.key is not None and hint.key[0] == "link"]
        if not names:
            return True
        declared = self.index.desired.links
        return (
            len(names) == len(hints)
            and self._planner.in_place(self.links)
            and not any(name in declared and refers(declared[name]) for name in names)
        )

    async def _rounds(self, run: Run, look: Look, *, rounds: int = ROUNDS) -> Look:
        """Observe, diff, apply until nothing is left to do. Returns what is still to be looked at, if
        anything."""
        for number in range(rounds):
            observed = await self._observe(run.work, look)
            if look.whole and run.work.owned.in_doubt():
                settle_unsure(run.work.owned, _bears_out(observed))
            absent = len(self.index.desired.routes) - len(observed.steady) if look.routes else 0
            few = len(self.index.desired.routes) < MANY or not look.routes
            if max(observed.size, absent) < LARGE and few:
                plan = self._plan(observed, run.work)
            else:
                plan = await asyncio.to_thread(self._plan, observed, run.work)
            look = await self._carry_out(run, plan, observed)
            let_go(observed.routes, observed.raw, plan.ops, plan.conditions, plan.adopt, plan.equal)
            if not look:
                return NOTHING
            if number + 1 < rounds:
                await run.work.checkpoint()
        return look

    async def _carry_out(self, run: Run, plan: Plan, observed: Observed) -> Look:
        """Apply what may be applied; returns where to look again because of it."""
        work = run.work
        # A heal has one op and nothing else, and waits for none of what it has nothing of.
        if plan.equal:
            async for keys in slices(plan.equal):
                self._proven.update(keys)
                run.equal(keys, self._standing)
        if observed.look.routes:
            async for keys in slices(await self._reader.routes.borne_out(observed)):
                self._proven.update(keys)
                run.equal(keys, self._standing)
        if plan.conditions:
            async for conditions in slices(plan.conditions):
                run.judged(conditions)
        if len(observed.raw) >= LARGE:
            await asyncio.to_thread(self._reader.routes.remember, observed, plan.steady)
        elif observed.look.routes:
            self._reader.routes.remember(observed, plan.steady)
        todo: list[Op] = []
        links = False
        for number, op in enumerate(plan.ops, 1):
            if not number % BREATH:
                await asyncio.sleep(0)
            if run.gave_up(op):
                continue
            if run.is_churn(op, self._proven):
                entry = work.owned.get(op.key) or op.after
                if entry is not None:
                    noted = settle(op.changes, entry)
                    plan.adopt.append((op.key, noted))
                    run.note(op)
                continue
            run.drift(op)
            held = run.waits(op)
            if held is None and not run.wrote(op.key):
                held = work.admit(op)
            if held is not None:
                run.hold(op, held)
            elif work.write:
                todo.append(op)
                links = links or op.key[0] == "link"
            else:
                run.hold(op, left(op))
        if work.write and plan.adopt:
            try:
                work.owned.put(plan.adopt)
            except LedgerError as error:
                run.forgets(forgetful(error))
        if not todo:
            return NOTHING
        looks: set[Look] = set()
        places: dict[tuple[str, str | int], Op] = {}
        ordered = order(todo) if len(todo) < LARGE else await asyncio.to_thread(order, todo)
        outcomes = await self._applier.apply(ordered, self._planner.view(observed.links, self.index), work)
        for number, outcome in enumerate(outcomes, 1):
            if not number % BREATH:
                await asyncio.sleep(0)
            op = outcome.op
            if self._came_of(run, outcome, looks):
                places.setdefault((str(op.key[0]), op.key[1]), op)
        for op in places.values():
            looks.add(look_at(op.key))
        if links:
            looks.add(await run.waiting())
        run.healed()
        return together(looks)

    def _came_of(self, run: Run, outcome: Outcome, looks: set[Look]) -> bool:
        """Account for what became of an op. Where it may have changed more than its object comes into
        ``looks``; returns whether its own place is to be looked at."""
        op = outcome.op
        if outcome.condition is not None:
            if outcome.condition.errno == errno.EEXIST and run.first_clash(op):
                looks.add(look_into(op.key))
            else:
                run.hold(op, outcome.condition)
            return False
        run.did(op)
        if op.key[0] in ("link", "address"):
            looks.update(self._looks_after(op))
            return False
        return op.verb is Verb.DELETE or op.key not in self._proven

    def _looks_after(self, op: Op) -> list[Look]:
        """Where an op may have changed more than its object, and the object itself until it was seen to
        hold."""
        kind = op.key[0]
        if kind == "link":
            if op.verb is Verb.UPDATE and [(c.attribute, c.want) for c in op.changes] == [("state", "up")]:
                # Nothing goes with a link that comes up; what stands on it may, too (a vlan does).
                return [Look(links=self.index.after_link(str(op.key[1])).links)]
            return [look_at(op.key), self.index.after_link(str(op.key[1]))]
        looks = [] if op.key in self._proven and op.verb is not Verb.DELETE else [look_at(op.key)]
        if kind == "address":
            looks.append(self.index.after_address(op.key))
        return looks

    # -- observing and planning -----------------------------------------------------------------------------

    async def _observe(self, work: Pass[Desired], look: Look) -> Observed:
        observed = await self._reader.read(look, self.index, work, self.links)
        self.links = observed.links
        return observed

    async def _planned(self, observed: Observed, work: Pass[Desired]) -> Plan:
        """The plan for objects that events named. Each route is a matter of its own; of thousands some are
        compared at a time."""
        if len(observed.keys) <= BREATH:
            return self._plan(observed, work)
        named = [key for key in observed.keys if key[0] == "route"]
        seen, observed.keys = observed.routes, observed.keys.difference(named)
        observed.routes = {}
        plan = self._plan(observed, work)
        async for keys in slices(named):
            some = Observed(observed.links, NOTHING)
            some.keys = set(keys)
            some.routes = {key: seen[key] for key in keys if key in seen}
            part = self._plan(some, work)
            plan.ops += part.ops
            plan.conditions += part.conditions
            plan.adopt += part.adopt
            plan.equal += part.equal
        let_go(seen)
        return plan

    def _plan(self, observed: Observed, work: Pass[Desired]) -> Plan:
        complete = observed.look.whole or self._looked_once
        return self._planner.plan(observed, self.index, work.owned, complete=complete)


def _bears_out(observed: Observed) -> Callable[[Key, Entry], bool | None]:
    seen = {name: observed.of(name) for name in KINDS}
    return lambda key, entry: borne_out(KINDS[str(key[0])], entry, seen[str(key[0])].get(key))
