# SPDX-License-Identifier: MIT
"""One pass, from the first look to the report: look, compare, commit, and look again until nothing is left
to do.

All tables change in one transaction, under the generation that was looked at; what is held back is left out
of it only if nothing else leans on it. It must not know how a look is taken.
"""

from __future__ import annotations

import errno
import functools
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from linxd.netlink.errors import NetlinkError
from linxd.netlink.socket import Requests
from linxd.patch import Change, Condition, Entry, Key, Op, Patch, Report, State, Verb, left
from linxd.reflex import Answered
from linxd.source import (
    LEDGER,
    LedgerError,
    Owned,
    Pass,
    Writer,
    forgetful,
    settle_unsure,
    transient,
    unrecorded,
)
from linxd.sources.netfilter.commit import Fate, Outcome, commit, follow, where_of_op
from linxd.sources.netfilter.mirror import Mirror
from linxd.sources.netfilter.model import Desired
from linxd.sources.netfilter.plan import Observed, settle_as_is, where_of
from linxd.sources.netfilter.state import Table, TableId
from linxd.sources.netfilter.things import TableThing, table_key

RACES = 128
"""Times that one pass loses to other writers before it leaves the rest to the next."""
LOST = 3
"""Answers that one pass may lose. Each leaves everything in doubt, so that all is read again."""
ROUNDS = 8
"""Commits in one pass. One is the rule; more are needed while somebody goes on undoing what we do."""


class Host(Protocol):
    """The source, as a pass sees it."""

    requests: Requests
    mirror: Mirror
    races: int
    commits: int
    loaded_once: bool
    named: set[Key]
    writers: dict[TableId, Writer]

    def identify(self) -> None:
        """Look up who wrote what is healed."""

    async def look(self, work: Pass[Desired], *, full: bool) -> Observed:
        """Observe."""

    async def compare(self, observed: Observed, work: Pass[Desired]) -> Patch:
        """Diff."""

    def compared(self, observed: Observed, work: Pass[Desired], *, left: bool, clean: bool) -> None:
        """The pass has come to its end. ``left``: there is still something to do; ``clean``: there was
        nothing to say."""

    @property
    def fault(self) -> str:
        """Why what is declared now is not in force, "" if it is."""


class Run:
    """One pass."""

    def __init__(self, host: Host, work: Pass[Desired], answered: Answered[int] | None = None) -> None:
        """``answered``: what was done ahead of it."""
        self._host = host
        self._work = work
        self._answered = answered
        self._conditions: dict[Key, Condition] = {}
        self._drifted: list[Op] = []
        self._seen: set[tuple[Verb, Key]] = set()
        self._applied: list[Op] = []
        self._writers: dict[Key, Writer] = {}
        self._looked: set[TableId] = set()
        self._heal_usec = 0
        self._whole: set[TableId] = set()
        """Tables that are replaced as a whole, because the kernel would not have them changed in part."""
        self._last: int | None = None
        """The generation that our last commit made."""
        self._reread = False
        self._lost = 0
        self._doubt = work.full
        """Whether the ledger may hold writes of which nobody knows what became."""

    async def run(self) -> Report:
        """The pass. Raises Blocked, LedgerError."""
        began = time.monotonic()
        work, host = self._work, self._host
        full = work.full
        rounds = races = 0
        if self._answered is not None:
            self._ahead(self._answered)
        while True:
            observed = await host.look(work, full=full)
            if self._doubt and work.write:
                settle_unsure(work.owned, functools.partial(_borne_out, observed.heads))
                self._doubt = False
            patch = await host.compare(observed, work)
            self._note(observed, patch)
            if work.write and patch.adopt:
                self._keep(patch.adopt)
            ops = self._left(observed, patch)
            if not ops or not work.write or rounds >= ROUNDS:
                if not work.write:
                    self._paused(ops)
                break
            admitted = self._admitted(ops)
            if not admitted:
                break
            fate = await self._commit(observed, admitted)
            if fate is Fate.MOVED:
                host.races += 1
                races += 1
                if races > RACES:
                    self._outrun(admitted)
                    break
                await work.checkpoint()
                continue
            if fate is Fate.REFUSED:
                break
            rounds += 1
            if fate is Fate.DONE and len(admitted) < len(ops):
                break
        return self._report(observed, began, full=full, left=bool(ops))

    def _ahead(self, answered: Answered[int]) -> None:
        """Account for what was done ahead of this pass, which is the kernel's last word on it if it has the
        generation that came of it."""
        op = answered.op
        where = where_of_op(op)
        assert where is not None
        self._drifted.append(op)
        self._seen.add((op.verb, op.key))
        self._applied.append(op)
        self._looked.add(where)
        # Somebody else may have written to the table since.
        if answered.hint.writer is not None:
            self._writers[op.key] = answered.hint.writer
        self._last = answered.result
        self._heal_usec = max(1, int((answered.at - answered.hint.at) * 1e6))

    def _keep(self, entries: Iterable[tuple[Key, Entry | None]]) -> None:
        """Have the ledger take in what the kernel has already."""
        try:
            self._work.owned.put(entries)
        except LedgerError as error:
            self._conditions[LEDGER] = forgetful(error)

    # --- what was found -----------------------------------------------------------------------------

    def _note(self, observed: Observed, patch: Patch) -> None:
        """Take over what a comparison says; what an earlier one said of the same tables is past."""
        forgets = {key: one for key, one in self._conditions.items() if key == LEDGER}
        self._conditions = {condition.key: condition for condition in patch.conditions} | forgets
        looked = observed.wanted.tables.keys() if observed.touched is None else observed.touched.keys()
        self._looked.update(looked)
        for op in patch.ops:
            if (op.verb, op.key) not in self._seen:
                self._seen.add((op.verb, op.key))
                self._drifted.append(op)
            where = where_of_op(op)
            writer = self._host.writers.get(where) if where is not None else None
            if writer is not None:
                self._writers[op.key] = writer

    def _left(self, observed: Observed, patch: Patch) -> list[Op]:
        """The ops to be carried out: without those that the kernel has just carried out and yet has in
        another form, and with tables as a whole where it would not have them changed in part."""
        ops = list(patch.ops)
        if self._last is not None and self._last == observed.generation:
            done = {(op.verb, op.key) for op in self._applied}
            settled = [op for op in ops if (op.verb, op.key) in done]
            if settled:
                ops = [op for op in ops if (op.verb, op.key) not in done]
                self._settle(settled)
        if self._whole:
            ops = self._as_wholes(observed, ops)
        return ops

    def _settle(self, ops: Iterable[Op]) -> None:
        """Accept the kernel's form of what we have just written, until the declaration changes."""
        owned = self._work.owned
        for op in ops:
            where = where_of_op(op)
            if where is None:
                continue
            key = table_key(where)
            entry = owned.get(key) or op.after
            if entry is not None:
                self._keep([(key, settle_as_is(entry, op))])
            text = f"written as declared, and the kernel keeps another form: {op.describe()}"
            self._conditions[op.key] = Condition(op.key, op.name, State.NOTED, text)

    def _as_wholes(self, observed: Observed, ops: Sequence[Op]) -> list[Op]:
        kept = [op for op in ops if where_of_op(op) not in self._whole]
        for where in self._whole:
            parts = [op for op in ops if where_of_op(op) == where]
            want, have = observed.wanted.tables.get(where), observed.tables.get(where)
            if not parts or want is None or have is None:
                continue
            change = Change("contents", "not to be changed in part", "as declared")
            whole = TableThing(want, mark=have.marked)
            kept.append(Op(Verb.RECREATE, whole, TableThing(have), (change,), after=parts[0].after))
        return kept

    def _paused(self, ops: Iterable[Op]) -> None:
        for op in ops:
            self._conditions[op.key] = left(op)

    # --- what may be done ---------------------------------------------------------------------------

    def _admitted(self, ops: Sequence[Op]) -> list[Op]:
        """The ops that may be tried now. One that failed holds up all, for all are one transaction; one that
        is fought over, or left alone, holds up what needs it."""
        held: dict[Key, Condition] = {}
        for op in ops:
            condition = self._work.admit(op)
            if condition is not None:
                held[op.key] = condition
        self._conditions.update(held)
        if any(
            condition.state is not State.CONTENDED and not condition.paused and condition.needs != (LEDGER,)
            for condition in held.values()
        ):
            return []
        admitted = []
        for op in ops:
            if op.key in held:
                continue
            needed = next((key for key in op.needs if key in held), None)
            if needed is None:
                admitted.append(op)
                continue
            text = f"needs {held[needed].name}"
            held[op.key] = Condition(op.key, op.name, State.PENDING, text, needs=(needed,))
            self._conditions[op.key] = held[op.key]
        return admitted

    async def _commit(self, observed: Observed, ops: Sequence[Op]) -> Fate:
        """One transaction, with the ledger written ahead."""
        work, host = self._work, self._host
        owned = work.owned
        tables = [op for op in ops if isinstance(op.subject, TableThing) and op.verb is not Verb.UPDATE]
        intended = [(op.key, op.after) for op in tables]
        try:
            owned.intend(intended)
        except LedgerError as error:
            # Tables that the ledger knows come back all the same.
            unknown = {where_of_op(op) for op in tables if owned.get(op.key) != op.after}
            for op in tables:
                if where_of_op(op) in unknown:
                    self._conditions[op.key] = unrecorded(op, error)
            ops = [op for op in ops if where_of_op(op) not in unknown]
            intended = []
            if not ops:
                return Fate.REFUSED
        keys = [key for key, _ in intended]
        outcome = await commit(host.requests, observed.generation, ops, host.identify)
        if outcome.fate is Fate.DONE:
            owned.settle(keys)
            self._done(ops, outcome, owned)
            return Fate.DONE
        if outcome.fate is Fate.LOST:
            # in doubt, in the ledger too, until a look at everything tells
            host.mirror.lose()
            self._doubt = True
            self._lost += 1
            if self._lost <= LOST:
                return Fate.MOVED
            for op in ops:
                self._conditions[op.key] = Condition(
                    op.key,
                    op.name,
                    State.FAILED,
                    "the kernel's answer was lost",
                    errno.ENOBUFS,
                    transient=True,
                )
            return Fate.REFUSED
        owned.revert(keys)
        if outcome.fate is Fate.REFUSED and self._try_otherwise(outcome, ops):
            return Fate.MOVED
        if outcome.fate is Fate.REFUSED:
            self._refused(outcome, ops)
        return outcome.fate

    def _done(self, ops: Sequence[Op], outcome: Outcome, owned: Owned) -> None:
        host, work = self._host, self._work
        host.commits += 1
        mirror = host.mirror
        follow(mirror, ops, outcome)
        self._last = mirror.generation
        self._applied += ops
        moments = [hint.at for hint in work.hints if hint.at]
        if moments and not self._heal_usec:
            self._heal_usec = max(1, int((time.monotonic() - min(moments)) * 1e6))
        after: dict[Key, Entry] = {}
        for op in ops:
            where = where_of_op(op)
            if where is not None and op.after is not None:
                after[table_key(where)] = op.after
        changed = [(key, entry) for key, entry in after.items() if owned.get(key) != entry]
        if changed:
            self._keep(changed)
        held = {where_of_op(op) for op in self._drifted if op.key in self._conditions}
        for where in {where_of_op(op) for op in ops} - held:
            if where is not None:
                mirror.touched.pop(where, None)

    def _try_otherwise(self, outcome: Outcome, ops: Sequence[Op]) -> bool:
        """Whether there is another way to what was refused."""
        mirror = self._host.mirror
        if not mirror.exact and not self._reread and all(_stale(error) for _, error in outcome.refusals):
            # what events made us believe may not be all
            self._reread = True
            mirror.lose()
            return True
        parts = {
            where
            for op in ops
            if (where := where_of_op(op)) is not None
            and (not isinstance(op.subject, TableThing) or op.verb is Verb.UPDATE)
        }
        if parts - self._whole:
            self._whole |= parts
            return True
        return False

    def _refused(self, outcome: Outcome, ops: Sequence[Op]) -> None:
        """Say what the kernel would not have; nothing of the transaction was applied."""
        first = outcome.refusals[0][0]
        for op, error in outcome.refusals[:100]:
            self._conditions[op.key] = Condition(
                op.key, op.name, State.FAILED, str(error), error.errno, transient(error.errno)
            )
        for where in {where for op in ops if (where := where_of_op(op)) is not None}:
            key = table_key(where)
            if key not in self._conditions:
                name = f"table {key[1]} {key[2]}"
                text = f"nothing was applied: {first.name} was refused"
                self._conditions[key] = Condition(key, name, State.PENDING, text, needs=(first.key,))

    def _outrun(self, ops: Sequence[Op]) -> None:
        text = f"other writers were faster {RACES} times"
        for op in ops:
            self._conditions[op.key] = Condition(
                op.key, op.name, State.FAILED, text, errno.ERESTART, transient=True
            )

    # --- what it came to ----------------------------------------------------------------------------

    def _report(self, observed: Observed, began: float, *, full: bool, left: bool) -> Report:
        """``left``: whether the last look found something to do that was not done."""
        host, work = self._host, self._work
        if host.fault:
            key: Key = ("ruleset",)
            text = f"{'; '.join(str(host.fault).splitlines())}; what was in force before stays in force"
            self._conditions[key] = Condition(key, "ruleset", State.FAILED, text)
        bad = [c for c in self._conditions.values() if c.state in (State.FAILED, State.CONFLICT)]
        host.compared(observed, work, left=left, clean=not self._conditions)
        if full and not bad and not left and not host.fault:
            host.loaded_once = True
        if not left:
            for where in self._looked:
                host.mirror.touched.pop(where, None)
                host.writers.pop(where, None)
        named = self._conditions.keys()
        looked = {*map(table_key, self._looked), *(op.key for op in self._drifted), *named}
        looked |= {key for key in host.named if _table_of(key) in self._looked}
        host.named = set(named) if full else (host.named - looked) | named
        return Report(
            work.trigger,
            drifted=tuple(self._drifted),
            applied=tuple(self._applied),
            conditions=tuple(self._conditions.values()),
            total=sum(table.count for table in observed.wanted.tables.values()),
            complete=full,
            culprits={key: found for key, writer in self._writers.items() if (found := writer.look())},
            usec=max(1, int((time.monotonic() - began) * 1e6)),
            heal_usec=self._heal_usec,
            looked=frozenset() if full else frozenset(looked),
        )


def _table_of(key: Key) -> TableId | None:
    """The table that an object of any kind stands in."""
    return where_of(("table", *key[1:3]))


def _stale(error: NetlinkError) -> bool:
    return error.errno in (errno.ENOENT, errno.EEXIST, errno.EBUSY)


def _borne_out(heads: Mapping[TableId, Table], key: Key, entry: Entry) -> bool | None:
    where = where_of(key)
    head = heads.get(where) if where is not None else None
    return None if head is None else head.marked
