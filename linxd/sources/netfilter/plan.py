# SPDX-License-Identifier: MIT
"""Which tables may be written to, and what is to become of each: the ownership table applied to nftables.

Pure. How two forms of a table differ is for linxd.sources.netfilter.diff.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from linxd.ownership import Action, Decision, Origin, Seen, decide
from linxd.patch import Change, Claim, Condition, Entry, Key, Op, Patch, State, Verb
from linxd.records import dataclass, field, replace
from linxd.source import Owned
from linxd.sources.netfilter.compile import EMPTY, Compiled
from linxd.sources.netfilter.diff import Terms, table_ops
from linxd.sources.netfilter.model import Desired
from linxd.sources.netfilter.names import FAMILIES
from linxd.sources.netfilter.state import Chain, Rule, Table, TableId
from linxd.sources.netfilter.things import TableThing, Thing, form, table_key
from linxd.sources.netfilter.touched import ALL, Touched


@dataclass(frozen=True, slots=True)
class Observed:
    """What the kernel says: what it makes of the declaration (``wanted``), and what it has.

    ``tables``: declared tables and all that is in them, as far as they are there. ``heads``: every table
    there is, empty. ``touched``: what may differ in a table since it was last compared, None: anything in
    any of them. ``absent``: links that declared chains hang on and that are not there.
    """

    generation: int = 0
    wanted: Compiled = EMPTY
    tables: Mapping[TableId, Table] = field(default_factory=dict)
    heads: Mapping[TableId, Table] = field(default_factory=dict)
    touched: Mapping[TableId, Touched] | None = None
    absent: frozenset[str] = frozenset()


def plan(observed: Observed, desired: Desired, owned: Owned) -> Patch:
    """The patch for all tables, or for those that were touched."""
    work = _Plan(observed, desired, owned)
    for where, want in observed.wanted.tables.items():
        if observed.touched is None or where in observed.touched:
            work.declared(want)
    work.undeclared()
    return Patch(tuple(work.ops), tuple(work.conditions), tuple(work.adopt))


def settle_as_is(entry: Entry, op: Op) -> Entry:
    """The entry of a table in which the kernel's form of one thing counts as the declared one."""
    label = _label(op)
    return replace(
        entry,
        asked={**entry.asked, label: form(cast("Thing | None", op.want))},
        settled={**entry.settled, label: form(cast("Thing | None", op.have))},
    )


def _label(op: Op) -> str:
    return " ".join(map(str, (op.key[0], *op.key[3:])))


def _settled(entry: Entry, op: Op) -> bool:
    label = _label(op)
    return (
        label in entry.settled
        and entry.asked.get(label) == form(cast("Thing | None", op.want))
        and entry.settled.get(label) == form(cast("Thing | None", op.have))
    )


def where_of(key: Key) -> TableId | None:
    """The table that a ledger key names, None when it names none."""
    if len(key) == 3 and key[0] == "table" and key[1] in FAMILIES:
        return (FAMILIES[str(key[1])], str(key[2]))
    return None


@dataclass(slots=True)
class _Plan:
    observed: Observed
    desired: Desired
    owned: Owned
    ops: list[Op] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    adopt: list[tuple[Key, Entry | None]] = field(default_factory=list)

    # --- declared ---------------------------------------------------------------------------------

    def declared(self, want: Table) -> None:
        observed = self.observed
        want = self._hanging(want)
        key = table_key(want.id)
        entry = self._entry(key)
        have = observed.tables.get(want.id)
        touched = ALL if observed.touched is None else observed.touched[want.id]
        if entry is None or entry.settled:
            # Another's table was not as declared before either, and what the kernel has in a form of its own
            # is still to be spoken of.
            touched = ALL
        digest = observed.wanted.digest
        ops: list[Op] = []
        if have is not None:
            reload = entry is not None and entry.facts.get("ruleset") not in (None, digest)
            ops = table_ops(want, have, self._terms(want, touched, entry, reload=reload))
            if entry is not None and entry.settled:
                ops = self._unsettled(entry, ops)
        seen = Seen.ABSENT if have is None else Seen.DIFFERENT if ops else Seen.EQUAL
        decision = decide(
            seen=seen,
            origin=Origin.MARK if have is not None and have.marked else Origin.HAND,
            claim=None if entry is None else entry.claim,
            declared=True,
            # what iptables-nft has written it expects to find again, and nothing else can write it
            take=self.desired.take and not (have is not None and have.xt),
        )
        after = self._after(decision, entry, digest)
        if decision.state is State.CONFLICT:
            assert have is not None
            self._conflict(key, want, have, ops)
        elif decision.action is Action.CREATE:
            self.ops.append(Op(Verb.CREATE, self._whole(want, after), None, after=after))
        elif decision.action is Action.CHANGE:
            assert have is not None
            whole = isinstance(ops[0].want, TableThing) and ops[0].verb is Verb.RECREATE
            if whole or (entry is None and not have.marked):
                other = Change("contents", "another table's", "as declared")
                changes = ops[0].changes if whole else (other,)
                thing = self._whole(want, after)
                self.ops.append(Op(Verb.RECREATE, thing, TableThing(have), changes, after=after))
            else:
                self.ops += [op if op.after is after else replace(op, after=after) for op in ops]
        elif after is not None and after != entry:
            self.adopt.append((key, after))

    def _unsettled(self, entry: Entry, ops: list[Op]) -> list[Op]:
        """Without what the kernel was seen to keep in a form of its own."""
        left = []
        for op in ops:
            if _settled(entry, op):
                text = f"the kernel keeps another form: {op.describe()}"
                self.conditions.append(Condition(op.key, op.name, State.NOTED, text))
            else:
                left.append(op)
        return left

    def _entry(self, key: Key) -> Entry | None:
        """The ledger's entry, as far as it counts: one that a crash left in doubt does not."""
        entry = self.owned.get(key)
        return entry if entry is not None and entry.sure else None

    def _after(self, decision: Decision, entry: Entry | None, digest: str) -> Entry | None:
        if decision.claim is None:
            return None
        facts = {**(entry.facts if entry is not None else {}), "ruleset": digest}
        if entry is None:
            return Entry(decision.claim, facts=facts)
        if entry.claim is decision.claim and entry.facts == facts:
            return entry
        return replace(entry, claim=decision.claim, facts=facts)

    def _whole(self, want: Table, after: Entry | None) -> TableThing:
        # a table that stood there before us bears no mark, however often it is put back
        return TableThing(want, mark=after is not None and after.claim is not Claim.FOUND)

    def _terms(self, want: Table, touched: Touched, entry: Entry | None, *, reload: bool) -> Terms:
        texts = self.observed.wanted.texts
        where = want.id

        def text(rule: Rule) -> str:
            return texts.get((where, rule.handle), "")

        filled = [
            words[2]
            for words in map(str.split, self.desired.filled)
            if len(words) == 3 and (FAMILIES.get(words[0]), words[1]) == where
        ]
        return Terms(frozenset(filled), reload, touched, text, entry)

    def _conflict(self, key: Key, want: Table, have: Table, ops: list[Op]) -> None:
        if have.xt:
            text = "a table of this name holds rules of iptables-nft, which linxd never replaces"
        else:
            owner = f" and belongs to the process at netlink port {have.owner}" if have.owner else ""
            text = f"another table of this name stood here first{owner}; to be as declared it lacks: "
            text += ops[0].describe() if ops else "nothing"
            if len(ops) > 1:
                text += f" (and {len(ops) - 1} more)"
        self.conditions.append(Condition(key, f"table {want.words}", State.CONFLICT, text))

    def _hanging(self, want: Table) -> Table:
        """The table as far as it can be had without links that are not there, and what waits for them.
        Kernels that take names of links to come need nothing of this."""
        absent = self.observed.absent
        gone = want.devices & absent if absent else absent
        if not gone or self.observed.wanted.late:
            return want
        chains: dict[str, Chain] = {}
        for name, chain in want.chains.items():
            hook = chain.hook
            missing = gone.intersection(hook.devices) if hook is not None else frozenset()
            if hook is None or not missing:
                chains[name] = chain
                continue
            there = tuple(device for device in hook.devices if device not in gone)
            self._waits(want, "chain", name, missing)
            if there:
                chains[name] = replace(chain, hook=replace(hook, devices=there))
        flowtables = {}
        for name, flowtable in want.flowtables.items():
            missing = gone.intersection(flowtable.hook.devices)
            if missing:
                self._waits(want, "flowtable", name, missing)
                there = tuple(device for device in flowtable.hook.devices if device not in gone)
                flowtable = replace(flowtable, hook=replace(flowtable.hook, devices=there))
            flowtables[name] = flowtable
        return replace(want, chains=chains, flowtables=flowtables)

    def _waits(self, want: Table, kind: str, name: str, missing: Iterable[str]) -> None:
        links = sorted(missing)
        key = (kind, *table_key(want.id)[1:], name)
        needs: tuple[Key, ...] = tuple(("link", link) for link in links)
        text = f"hangs on {', '.join(links)}, which is not there"
        self.conditions.append(
            Condition(key, f"{kind} {want.words} {name}", State.PENDING, text, needs=needs)
        )

    # --- not declared -----------------------------------------------------------------------------

    def undeclared(self) -> None:
        observed = self.observed
        if observed.touched is not None and observed.touched.keys() <= observed.wanted.tables.keys():
            return
        known = {key: entry for key, entry in self.owned.of("table").items() if entry.sure}
        places = {where: key for key in known if (where := where_of(key)) is not None}
        everything = observed.touched is None
        for where in {**places, **dict.fromkeys(observed.heads)}:
            if where in observed.wanted.tables or not (everything or where in (observed.touched or ())):
                continue
            key = table_key(where)
            have = observed.heads.get(where)
            entry = known.get(key)
            decision = decide(
                seen=Seen.ABSENT if have is None else Seen.DIFFERENT,
                origin=Origin.MARK if have is not None and have.marked else Origin.HAND,
                claim=None if entry is None else entry.claim,
                declared=False,
                # a table that belongs to a process goes with it, and nobody else can delete it
                reach=self.desired.foreign_remove and have is not None and not have.owner,
            )
            if decision.action is Action.DELETE and have is not None:
                self.ops.append(Op(Verb.DELETE, None, TableThing(have)))
            elif entry is not None:
                self.adopt.append((key, None))
