# SPDX-License-Identifier: MIT
"""A source of objects, one pass at a time: what it does, what it never does, and in which order it
writes."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linxd.ledger import LedgerError, MemoryLedger
from linxd.objects import compare, leave_settled
from linxd.ownership import Origin
from linxd.patch import Change, Claim, Condition, Entry, Key, Op, Patch, Report, State
from linxd.source import Hint, Owned, Pass
from tests.core.fakes import Look, Thing, Things, World, changes, key, things


def run(world: World, desired: Things, owned: Owned, *, write: bool = True) -> Report:
    return asyncio.run(world.reconcile(Pass(desired, owned, write=write)))


def test_it_makes_changes_and_deletes_what_is_ours() -> None:
    world, owned = World(), MemoryLedger()
    report = run(world, things(a="1", b="2"), owned)
    assert [op.describe() for op in report.applied] == ["create thing a=1", "create thing b=2"]
    world.things[key("a")] = Thing("a", "9")
    report = run(world, things(a="1"), owned)
    assert [op.describe() for op in report.applied] == ["delete thing b=2", "update thing a=1: value 9 -> 1"]
    assert world.things == things(a="1")
    assert dict(owned.of("thing")) == {key("a"): Entry(Claim.MADE)}


def test_a_pass_that_finds_nothing_to_do_tries_nothing() -> None:
    world, owned = World(), MemoryLedger()
    run(world, things(a="1"), owned)
    world.tried.clear()
    report = run(world, things(a="1"), owned)
    assert (world.tried, report.drifted, report.converged, report.total) == ([], (), True, 1)


def test_what_was_there_as_desired_is_left_there_when_un_declared() -> None:
    world, owned = World(things=things(a="1")), MemoryLedger()
    run(world, things(a="1"), owned)
    assert owned.get(key("a")) == Entry(Claim.FOUND)
    run(world, {}, owned)
    assert world.things == things(a="1")
    assert owned.get(key("a")) is None


def test_what_is_a_stranger_s_is_a_conflict_that_names_it() -> None:
    world, owned = World(things=things(a="9")), MemoryLedger()
    report = run(world, things(a="1"), owned)
    assert world.things == things(a="9")
    (condition,) = report.conditions
    assert (condition.state, condition.text) == (State.CONFLICT, "there is a=9, which is not ours")
    assert owned.get(key("a")) is None


def test_an_op_waits_for_what_it_needs() -> None:
    class Chain(World):
        def diff(self, observed: Look, desired: Things, owned: Owned) -> Patch:
            patch = super().diff(observed, desired, owned)
            ops = [replace(op, needs=(key("a"),)) if op.key == key("b") else op for op in patch.ops]
            return replace(patch, ops=tuple(ops))

    world, owned = Chain(refuse={key("a"): errno.EINVAL}), MemoryLedger()
    report = run(world, things(a="1", b="2", c="3"), owned)
    assert world.tried == ["create thing a=1", "create thing c=3"]
    conditions = {condition.key: condition for condition in report.conditions}
    assert conditions[key("b")].state is State.PENDING
    assert conditions[key("b")].text == "needs thing a=1: refused"
    assert conditions[key("b")].errno == 0


def test_a_refused_op_is_as_if_it_had_never_been_tried() -> None:
    world, owned = World(refuse={key("a"): errno.EINVAL}), MemoryLedger()
    report = run(world, things(a="1"), owned)
    assert owned.get(key("a")) is None
    assert not owned.in_doubt()
    (condition,) = report.conditions
    assert (condition.errno, condition.text, condition.transient) == (errno.EINVAL, "refused", False)
    assert report.applied == ()


def test_the_ledger_is_written_before_the_object_and_settled_after() -> None:
    order: list[str] = []

    class Told(MemoryLedger):
        def intend(self, entries: Iterable[tuple[Key, Entry | None]]) -> None:
            order.append("intend")
            super().intend(entries)

        def settle(self, keys: Iterable[Key]) -> None:
            known = list(keys)
            if known:
                order.append("settle")
            super().settle(known)

    class Telling(World):
        def apply(self, op: Op) -> None:
            order.append("apply")
            super().apply(op)

    run(Telling(), things(a="1"), Told())
    assert order == ["intend", "apply", "settle"]


def test_without_a_ledger_nothing_is_written() -> None:
    class Full(MemoryLedger):
        def intend(self, entries: Iterable[tuple[Key, Entry | None]]) -> None:
            raise LedgerError(errno.ENOSPC, "ledger: No space left on device")

    world = World()
    with pytest.raises(LedgerError):
        run(world, things(a="1"), Full())
    assert world.things == {}


def test_what_may_not_be_tried_stays_as_it_was_told() -> None:
    condition = Condition(key("a"), "thing a=1", State.CONTENDED, "healed 5 times")
    world, owned = World(), MemoryLedger()
    work = Pass(things(a="1", b="2"), owned, admit=lambda op: condition if op.key == key("a") else None)
    report = asyncio.run(world.reconcile(work))
    assert report.conditions == (condition,)
    assert world.things == things(b="2")


def test_paused_it_says_what_it_would_do() -> None:
    world, owned = World(), MemoryLedger()
    report = run(world, things(a="1"), owned, write=False)
    assert ([op.key for op in report.drifted], report.applied, world.things) == ([key("a")], (), {})
    assert not report.converged


def test_a_hinted_pass_touches_only_what_is_named() -> None:
    world, owned = World(), MemoryLedger()
    run(world, things(a="1", b="2"), owned)
    world.things.clear()
    work = Pass(things(a="1"), owned, hints=(Hint(key("a")),))
    report = asyncio.run(world.reconcile(work))
    assert world.things == things(a="1")
    assert (report.complete, report.looked) == (False, frozenset({key("a")}))
    assert owned.get(key("b")) is not None


@dataclass
class Rounding(World):
    """Keeps even numbers only, as a kernel that counts in jiffies does."""

    marks: set[Key] = field(default_factory=set)

    def apply(self, op: Op) -> None:
        super().apply(op)
        if isinstance(op.want, Thing):
            self.things[op.key] = Thing(op.want.name, str(int(op.want.value) // 2 * 2))

    def read_back(self, op: Op) -> tuple[Change, ...]:
        return changes(self.things[op.key], op.want) if isinstance(op.want, Thing) else ()


def test_a_form_of_the_kernel_s_own_is_said_accepted_and_not_rewritten() -> None:
    world, owned = Rounding(), MemoryLedger()
    for expected in (["create thing a=12345"], []):
        world.tried.clear()
        report = run(world, things(a="12345"), owned)
        assert world.tried == expected
        (condition,) = report.conditions
        assert (condition.state, condition.text) == (State.NOTED, "value: asked 12345, kernel has 12344")
        assert report.converged
    world.things[key("a")] = Thing("a", "7")  # neither asked nor settled on: a drift
    assert [op.describe() for op in run(world, things(a="12345"), owned).applied] == [
        "update thing a=12345: value 7 -> 12345"
    ]
    # Another declaration is asked for in earnest.
    world.tried.clear()
    assert run(world, things(a="12346"), owned).conditions == ()
    assert world.tried == ["update thing a=12346: value 12344 -> 12346"]


def test_a_diff_of_one_s_own_can_leave_out_what_is_settled() -> None:
    owned = MemoryLedger()
    owned.put([(key("a"), Entry(Claim.MADE, asked={"value": "3"}, settled={"value": "2"}))])
    patch = compare(things(a="2"), things(a="3"), MemoryLedger(), kind="thing", changes=changes, take=True)
    left = leave_settled(patch, owned)
    assert left.ops == ()
    assert left.conditions[0].state is State.NOTED
    patch = compare(things(a="4"), things(a="3"), MemoryLedger(), kind="thing", changes=changes, take=True)
    assert leave_settled(patch, owned).ops == patch.ops


def test_after_a_crash_an_unmarked_object_is_nobody_s() -> None:
    world, owned = World(things=things(a="1", b="1")), MemoryLedger()
    owned.put([(key("b"), Entry(Claim.MADE))])
    owned.intend([(key("a"), Entry(Claim.MADE)), (key("b"), None)])
    run(world, {}, owned)
    assert world.things == things(a="1", b="1")
    assert dict(owned.of("thing")) == {}


def test_after_a_crash_a_marked_object_is_ours() -> None:
    class Marked(World):
        def borne_out(self, observed: Look, key: Key, entry: Entry) -> bool | None:
            return True if key in observed.things else None

    world, owned = Marked(things=things(a="1")), MemoryLedger()
    owned.intend([(key("a"), Entry(Claim.MADE))])
    run(world, {}, owned)
    assert world.things == {}


def test_doubt_stays_until_a_pass_that_looks_at_everything_and_may_write() -> None:
    doubts = [(key("a"), Entry(Claim.MADE)), (key("b"), Entry(Claim.MADE))]
    world, owned = World(things=things(a="1", b="1")), MemoryLedger()
    owned.intend(doubts)
    before = owned.in_doubt()
    run(world, things(a="1"), owned, write=False)
    hints = (Hint(key("a")), Hint(key("b")))
    report = asyncio.run(world.reconcile(Pass(things(a="1"), owned, hints=hints)))
    assert report.drifted == ()
    assert world.things == things(a="1", b="1")
    assert owned.in_doubt() == before
    run(world, things(a="1"), owned)
    assert dict(owned.of("thing")) == {key("a"): Entry(Claim.FOUND)}


# -- whatever the world is like
# -------------------------------------------------------------------------------

names = st.sampled_from("abcd")
worlds = st.dictionaries(names, st.sampled_from("123"), max_size=4).map(lambda values: things(**values))


@settings(deadline=None)
@given(before=worlds, first=worlds, between=worlds, second=worlds)
def test_it_converges_and_never_touches_a_stranger_s(
    before: Things, first: Things, between: Things, second: Things
) -> None:
    world, owned = World(things=dict(before)), MemoryLedger()
    report = run(world, first, owned)
    conflicts = {condition.key for condition in report.conditions}
    assert conflicts == {key for key in first if key in before and before[key] != first[key]}
    for each, thing in before.items():
        assert world.things[each] == thing
    assert all(world.things[each] == thing for each, thing in first.items() if each not in conflicts)
    world.tried.clear()
    run(world, first, owned)
    assert world.tried == []  # once converged, nothing is written

    # Somebody adds things of their own; then something else is declared, then nothing.
    theirs = {each: thing for each, thing in between.items() if each not in world.things}
    world.things.update(theirs)
    run(world, second, owned)
    for each, thing in (before | theirs).items():
        if owned.get(each) is None:
            assert world.things[each] == thing
    run(world, {}, owned)
    assert dict(owned.of("thing")) == {}
    assert set(world.things) == set(before | theirs)


@settings(deadline=None)
@given(observed=worlds, desired=worlds, marked=st.sets(names.map(key)), take=st.booleans())
def test_a_mark_stands_for_a_lost_ledger(
    observed: Things, desired: Things, marked: set[Key], take: bool
) -> None:
    def origin(have: Thing) -> Origin:
        return Origin.MARK if have.key in marked else Origin.HAND

    patch = compare(
        observed, desired, MemoryLedger(), kind="thing", changes=changes, origin=origin, take=take
    )
    deleted = {op.key for op in patch.ops if op.want is None}
    assert deleted == {each for each in observed if each in marked and each not in desired}
    changed = {op.key for op in patch.ops if op.want is not None and op.have is not None}
    differ = {each for each in desired if each in observed and observed[each] != desired[each]}
    assert changed == (differ if take else differ & marked)
