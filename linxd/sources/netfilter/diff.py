# SPDX-License-Identifier: MIT
"""From a table as it is to the table as it is declared: the fewest ops, at the level of rules and elements.

Pure. Whose a table is, and whether it may be written to at all, is for linxd.sources.netfilter.plan.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from linxd.digest import blake2b
from linxd.patch import Change, Entry, Key, Op, Verb
from linxd.records import dataclass, field, replace
from linxd.sources.netfilter.decode import comment
from linxd.sources.netfilter.lcs import common
from linxd.sources.netfilter.names import NFT_SET_EVAL, NFT_TABLE_F_DORMANT, hook_word
from linxd.sources.netfilter.state import Chain, Flowtable, Ref, Rule, Set, Table
from linxd.sources.netfilter.things import (
    ChainThing,
    ElementsThing,
    FlowtableThing,
    ObjectThing,
    RuleThing,
    SetThing,
    TableThing,
    Thing,
)
from linxd.sources.netfilter.touched import ALL, Touched
from linxd.sources.netfilter.words import hook_words, policy_word

Text = Callable[[Rule], str]
"""How nft writes a declared rule, "" where nobody knows."""


def no_text(rule: Rule) -> str:
    """Nobody knows."""
    return ""


@dataclass(frozen=True, slots=True)
class Terms:
    """What besides the two tables decides about a difference.

    ``filled``: names of sets whose elements others fill. ``reload``: also load what has a timeout, as it is
    done when the declaration is new. ``touched``: what may differ at all. ``entry``: the ledger's, which ops
    leave as it is, as far as is known here.
    """

    filled: frozenset[str] = frozenset()
    reload: bool = False
    touched: Touched = field(default_factory=lambda: ALL)
    text: Text = no_text
    entry: Entry | None = None


def table_ops(want: Table, have: Table, terms: Terms) -> list[Op]:
    """Ops that make ``have`` what ``want`` says. Empty when they are equal, run-time state aside."""
    if want.userdata != have.userdata and (terms.touched.everything or terms.touched.head):
        # the kernel takes a table's user data when it makes the table, and never again
        change = Change("comment", comment(have.userdata) or None, comment(want.userdata) or None)
        return [Op(Verb.RECREATE, TableThing(want), TableThing(have), (change,))]
    return list(_Diff(want, have, terms).ops())


@dataclass(slots=True)
class _Diff:
    want: Table
    have: Table
    terms: Terms
    again: set[Ref] = field(default_factory=set)
    """What is deleted and made again, so that all that leans on it has to step aside."""
    made: dict[Ref, Key] = field(default_factory=dict)
    """What comes into being, and under which key."""

    def ops(self) -> Iterator[Op]:
        want, have, touched = self.want, self.have, self.terms.touched
        parts: list[Op] = []
        if touched.everything or touched.parts:
            parts = [*self._objects(), *self._flowtables(), *self._sets()]
        chains = list(self._chains())
        if touched.everything or touched.head:
            yield from self._head()
        yield from parts
        yield from chains
        yield from self._elements()
        for name, chain in want.chains.items():
            before = have.chains.get(name)
            if before is None or ("chain", name) in self.again:
                continue
            if touched.chain(name) or self.again:
                yield from self._rules(chain, before)

    # --- the table itself -------------------------------------------------------------------------

    def _head(self) -> Iterator[Op]:
        want, have = self.want, self.have
        if want.flags != have.flags:
            change = Change("flags", _flags(have.flags), _flags(want.flags))
            yield self._op(Verb.UPDATE, TableThing(want), TableThing(have), (change,))

    # --- what has a name ---------------------------------------------------------------------------

    def _objects(self) -> Iterator[Op]:
        want, have, where = self.want.objects, self.have.objects, self.want.id
        for key, there in have.items():
            if key not in want:
                yield self._op(Verb.DELETE, None, ObjectThing(where, there))
        for key, thing in want.items():
            before = have.get(key)
            asked = ObjectThing(where, thing)
            if before is None:
                yield self._new(self._op(Verb.CREATE, asked, None), (asked.key[0], thing.name))
            elif (before.canon, before.userdata) != (thing.canon, thing.userdata):
                change = Change("definition", "another", "as declared")
                op = self._op(Verb.RECREATE, asked, ObjectThing(where, before), (change,))
                yield self._again(op, (asked.key[0], thing.name))

    def _flowtables(self) -> Iterator[Op]:
        want, have, where = self.want.flowtables, self.have.flowtables, self.want.id
        for name, there in have.items():
            if name not in want:
                yield self._op(Verb.DELETE, None, FlowtableThing(where, there))
        for name, flowtable in want.items():
            asked = FlowtableThing(where, flowtable)
            before = have.get(name)
            if before is None:
                yield self._new(self._op(Verb.CREATE, asked, None), ("flowtable", name))
            elif before.flags != flowtable.flags or _place(before) != _place(flowtable):
                change = Change("hook", _flow_words(before), _flow_words(flowtable))
                op = self._op(Verb.RECREATE, asked, FlowtableThing(where, before), (change,))
                yield self._again(op, ("flowtable", name))
            elif before.hook.devices != flowtable.hook.devices:
                change = Change("devices", ", ".join(before.hook.devices), ", ".join(flowtable.hook.devices))
                yield self._op(Verb.UPDATE, asked, FlowtableThing(where, before), (change,))

    def _sets(self) -> Iterator[Op]:
        want, have, where = self.want.sets, self.have.sets, self.want.id
        for name, there in have.items():
            if name not in want:
                yield self._op(Verb.DELETE, None, SetThing(where, there))
        for name, home in want.items():
            asked = SetThing(where, home)
            before = have.get(name)
            if before is None:
                yield self._new(self._op(Verb.CREATE, asked, None), ("set", name))
            elif before.attrs != home.attrs:
                change = Change("definition", "another", "as declared")
                op = self._op(Verb.RECREATE, asked, SetThing(where, before), (change,))
                yield self._again(op, ("set", name))

    def _chains(self) -> Iterator[Op]:
        want, have, where, touched = self.want.chains, self.have.chains, self.want.id, self.terms.touched
        if touched.everything or touched.parts:
            for name, there in have.items():
                if name not in want:
                    yield self._op(Verb.DELETE, None, ChainThing(where, there))
        for name, chain in want.items():
            if not touched.chain(name):
                continue
            before = have.get(name)
            if before is None:
                yield self._new(self._op(Verb.CREATE, ChainThing(where, chain), None), ("chain", name))
                continue
            changes = _chain_changes(self.want.family, chain, before)
            if changes:
                # counters of rules that stay go on counting
                asked = ChainThing(where, replace(chain, rules=_with_use(chain.rules, before.rules)))
                op = self._op(Verb.RECREATE, asked, ChainThing(where, before), changes)
                yield self._again(op, ("chain", name))
            elif chain.policy != before.policy:
                change = Change("policy", policy_word(before.policy), policy_word(chain.policy))
                yield self._op(Verb.UPDATE, ChainThing(where, chain), ChainThing(where, before), (change,))

    def _op(
        self,
        verb: Verb,
        want: Thing | None,
        have: Thing | None,
        changes: tuple[Change, ...] = (),
        needs: tuple[Key, ...] = (),
    ) -> Op:
        return Op(verb, want, have, changes, needs, self.terms.entry)

    def _new(self, op: Op, ref: Ref | tuple[object, str]) -> Op:
        self.made[str(ref[0]), ref[1]] = op.key
        return op

    def _again(self, op: Op, ref: Ref | tuple[object, str]) -> Op:
        self.again.add((str(ref[0]), ref[1]))
        return self._new(op, ref)

    def _needs(self, refs: Iterable[Ref]) -> tuple[Key, ...]:
        if not self.made:
            return ()
        return tuple(sorted({self.made[ref] for ref in refs if ref in self.made}, key=str))

    # --- elements ----------------------------------------------------------------------------------

    def _elements(self) -> Iterator[Op]:
        for name, home in self.want.sets.items():
            before = self.have.sets.get(name)
            if before is None or ("set", name) in self.again or name in self.terms.filled or home.fed:
                continue
            within = self.terms.touched.elements(name)
            if within is None and home.elements == before.elements and not self.again:
                if home.temporary == before.temporary:
                    continue
            elif within is not None and not within and not self.again:
                continue
            yield from self._set_elements(home, before, within)

    def _set_elements(self, home: Set, before: Set, within: set[bytes] | None) -> Iterator[Op]:
        want, have, where = home.elements, before.elements, self.want.id
        asked: Collection[bytes] = want.keys() if within is None else [one for one in within if one in want]
        there: Collection[bytes] = have.keys() if within is None else [one for one in within if one in have]
        missing = [one for one in asked if one not in have]
        if home.temporary and not self.terms.reload:
            # it has gone by itself, as it was meant to
            missing = [one for one in missing if one not in home.temporary]
        # packets add to a dynamic set
        strays = [] if home.flags & NFT_SET_EVAL else [one for one in there if one not in want]
        moved = [
            one
            for one in asked
            if one in have
            and (want[one] != have[one] or (one in before.temporary) != (one in home.temporary))
            and one not in home.temporary
        ]
        if self.again:
            moved += [
                one for one in asked if one in have and home.refs.get(one) in self.again and one not in moved
            ]
        for batch in _batches(strays):
            yield self._op(Verb.DELETE, None, ElementsThing(where, _part(before, batch), batch))
        for batch in _batches(moved):
            asked_for = ElementsThing(where, _part(home, batch), batch)
            there_now = ElementsThing(where, _part(before, batch), batch)
            change = Change("definition", "another", "as declared")
            yield self._op(
                Verb.RECREATE, asked_for, there_now, (change,), self._needs(asked_for.set.refs.values())
            )
        for batch in _batches(missing):
            asked_for = ElementsThing(where, _part(home, batch), batch)
            yield self._op(Verb.CREATE, asked_for, None, (), self._needs(asked_for.set.refs.values()))

    # --- rules -------------------------------------------------------------------------------------

    def _rules(self, chain: Chain, before: Chain) -> Iterator[Op]:
        want, have, where = chain.rules, before.rules, self.want.id
        # Made again, something may lean on any of them.
        first, last = (0, 0) if self.again else _alike(have, want, self.terms.touched.same(chain.name))
        middle = [rule.canon for rule in have[first : len(have) - last]]
        wanted = [rule.canon for rule in want[first : len(want) - last]] if middle else []
        pairs = [(first + a, first + b) for a, b in common(middle, wanted)] if middle else []
        # A rule that leans on something made again steps aside, and comes back as it was.
        dragged = {b: a for a, b in pairs if not self.again.isdisjoint(want[b].refs)} if self.again else {}
        kept = {b: a for a, b in pairs if b not in dragged}
        if len(kept) == len(want) - first - last == len(have) - first - last:
            return
        spare: dict[bytes, list[int]] = defaultdict(list)
        paired = {a for a, _ in pairs}
        for at in range(first, len(have) - last):
            if at not in paired:
                spare[have[at].canon].append(at)
        moves: dict[int, int] = {}
        for at in range(first, len(want) - last):
            if at not in kept and at not in dragged and spare.get(want[at].canon):
                moves[at] = spare[want[at].canon].pop(0)
        strays = sorted(at for group in spare.values() for at in group)
        times: dict[str, int] = defaultdict(int)
        for at in strays:
            name = f"stray {blake2b(have[at].canon, digest_size=4).hexdigest()}"
            times[name] += 1
            label = name if times[name] == 1 else f"{name} ({times[name]})"
            yield self._op(Verb.DELETE, None, RuleThing(where, chain.name, have[at], stray=label))
        follower = len(have) - last if last else None
        follows: dict[int, int | None] = {}
        for at in range(len(want) - last - 1, first - 1, -1):
            follows[at] = follower
            follower = kept.get(at, follower)
        for at in range(first, len(want) - last):
            if at in kept:
                continue
            rule, follower = want[at], follows[at]
            thing = RuleThing(
                where,
                chain.name,
                rule,
                at + 1,
                self.terms.text(rule),
                before=0 if follower is None else have[follower].handle,
            )
            source = dragged.get(at, moves.get(at))
            needs = self._needs(rule.refs)
            if source is None:
                yield self._op(Verb.CREATE, thing, None, (), needs)
                continue
            old = have[source]
            reason = (
                Change("place", str(source + 1), str(at + 1))
                if at in moves
                else Change("what it uses", "as it was", "made again")
            )
            asked = replace(thing, rule=_with_state(rule, old))
            gone = replace(thing, rule=old)
            yield self._op(Verb.RECREATE, asked, gone, (reason,), needs)


def _alike(have: Sequence[Rule], want: Sequence[Rule], known: tuple[int, int]) -> tuple[int, int]:
    """How many rules are the same at the beginning and at the end: nearly all of them, after most drifts.
    ``known``: how many are known to be."""
    short = min(len(have), len(want))
    first = min(known[0], short)
    while first < short and have[first].canon == want[first].canon:
        first += 1
    rest = short - first
    last = min(known[1], rest)
    while last < rest and have[-1 - last].canon == want[-1 - last].canon:
        last += 1
    return first, last


def _with_state(rule: Rule, old: Rule) -> Rule:
    """The declared rule with the counters of the one that stood there."""
    return replace(rule, wire=old.wire, inner=old.inner)


def _with_use(want: Sequence[Rule], have: Sequence[Rule]) -> tuple[Rule, ...]:
    """Rules of a chain that is made again, each with the counters of its like."""
    rules = list(want)
    for a, b in common([rule.canon for rule in have], [rule.canon for rule in want]):
        rules[b] = _with_state(want[b], have[a])
    return tuple(rules)


_TOGETHER = 64
"""Up to so many elements are told one by one."""


def _batches(identities: list[bytes]) -> Iterator[tuple[bytes, ...]]:
    if len(identities) <= _TOGETHER:
        for identity in sorted(identities):
            yield (identity,)
    else:
        yield tuple(sorted(identities))


def _part(home: Set, identities: tuple[bytes, ...]) -> Set:
    """A set with some of its elements alone. An op keeps what it is about, whatever becomes of the set."""
    return replace(
        home,
        elements={one: home.elements[one] for one in identities},
        fresh={one: home.fresh[one] for one in identities if one in home.fresh},
        temporary=home.temporary.intersection(identities),
        refs={one: home.refs[one] for one in identities if one in home.refs},
    )


def _flags(flags: int) -> str:
    words = [
        word for bit, word in ((NFT_TABLE_F_DORMANT, "dormant"), (2, "owner"), (4, "persist")) if flags & bit
    ]
    return ", ".join(words) or "none"


def _place(flowtable: Flowtable) -> tuple[int, int]:
    return (flowtable.hook.number, flowtable.hook.priority)


def _flow_words(flowtable: Flowtable) -> str:
    return (
        f"{hook_word(5, flowtable.hook.number)} priority {flowtable.hook.priority} flags {flowtable.flags}"
    )


def _chain_changes(family: int, want: Chain, have: Chain) -> tuple[Change, ...]:
    """What forces a chain to be made again."""
    if want.fixed == have.fixed and _hanging(want) == _hanging(have):
        return ()
    if want.userdata != have.userdata:
        return (Change("comment", "another", "as declared"),)
    if want.flags != have.flags and want.type == have.type:
        return (Change("flags", str(have.flags), str(want.flags)),)
    return (Change("hook", _chain_words(family, have), _chain_words(family, want)),)


def _hanging(chain: Chain) -> tuple[str, ...]:
    return () if chain.hook is None else chain.hook.devices


def _chain_words(family: int, chain: Chain) -> str | None:
    return None if chain.hook is None else hook_words(family, chain.type, chain.hook)
