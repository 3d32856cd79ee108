# SPDX-License-Identifier: MIT
"""Retries and fights on a clock that stands still: every moment is exact."""

from __future__ import annotations

import errno

import pytest

from linxd.gate import MOST_DUE, Gate, backoff
from linxd.patch import Change, Condition, Culprit, Key, Op, State, Verb
from linxd.source import transient
from tests.core.fakes import Clock, Thing


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate(clock=clock.now, random=lambda: 0.0)


def op(
    name: str = "a", *, have: str = "0", want: str = "1", needs: tuple[Key, ...] = (), given: str = ""
) -> Op:
    change = Change("value", have, want)
    return Op(Verb.UPDATE, Thing(name, want), Thing(name, have), (change,), needs, given=(given,))


def advance(clock: Clock, gate: Gate) -> float:
    """To the next moment at which something is due; returns how long that took."""
    due = gate.next_due()
    assert due is not None
    waited = due - clock.now()
    clock.move(waited)
    return round(waited, 6)


# -- failures ---------------------------------------------------------------------------------------------


def test_backoff_doubles_from_a_tenth_of_a_second_to_a_minute() -> None:
    waits = [backoff(n, lambda: 0.0) for n in range(1, 13)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0]
    assert backoff(10_000, lambda: 1.0) == 60.0


def test_jitter_adds_up_to_a_quarter() -> None:
    assert backoff(1, lambda: 0.5) == pytest.approx(0.1125)
    assert backoff(4, lambda: 1.0) == pytest.approx(1.0)


def test_very_many_that_are_due_are_worth_a_look_at_everything(gate: Gate, clock: Clock) -> None:
    many = [op(str(number)) for number in range(MOST_DUE + 1)]
    for one in many:
        gate.failed(one, errno.ENETUNREACH)
    gate.failed(op("later"), errno.ENETUNREACH)
    gate.failed(op("later"), errno.ENETUNREACH)
    assert advance(clock, gate) == 0.1
    assert gate.due() is None
    # The look that follows may try each of them; none is named once more.
    assert gate.due() == ()
    assert all(gate.admit(one) is None for one in many)
    assert gate.admit(op("later")) is not None
    assert advance(clock, gate) == 0.1
    assert gate.due() == (op("later").key,)
    gate.failed(many[0], errno.ENETUNREACH)
    assert advance(clock, gate) == 0.2
    assert gate.due() == (many[0].key,)


def test_what_one_waited_for_is_there_for_the_others_too(gate: Gate, clock: Clock) -> None:
    """A ledger that was full takes the first entry again: the others need not wait out their backoff."""
    for name in ("a", "b"):
        for _ in range(8):
            words = "ledger: No space left on device"
            full = Condition(("thing", name), name, State.FAILED, words, errno.ENOSPC, True, (("ledger",),))
            gate.refused(full, op(name))
    assert advance(clock, gate) == 12.8
    assert gate.due() == (("thing", "a"), ("thing", "b"))
    for _ in range(2):
        gate.refused(full, op("b"))
    gate.applied(op("a"))
    assert advance(clock, gate) == 0.1
    assert gate.due() == (("thing", "b"),)


def test_a_transient_failure_is_held_and_comes_due(gate: Gate, clock: Clock) -> None:
    assert gate.admit(op()) is None
    waits = []
    for _ in range(12):
        condition = gate.failed(op(), errno.EBUSY, "device is busy")
        assert (condition.state, condition.errno, condition.transient) == (State.FAILED, errno.EBUSY, True)
        assert gate.admit(op()) == condition
        waits.append(advance(clock, gate))
        assert gate.due() == (op().key,)
        assert gate.admit(op()) is None
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0]


def test_due_names_an_object_once_and_then_leaves_it_to_the_pass(gate: Gate, clock: Clock) -> None:
    gate.failed(op("a"), errno.EBUSY)
    gate.failed(op("b"), errno.EBUSY)
    clock.move(0.1)
    assert gate.due() == (op("a").key, op("b").key)
    assert gate.due() == ()
    assert gate.next_due() is None
    assert gate.admit(op("a")) is None


def test_success_ends_a_backoff(gate: Gate, clock: Clock) -> None:
    for _ in range(5):
        gate.failed(op(), errno.EBUSY)
    gate.applied(op())
    assert gate.admit(op()) is None
    assert gate.next_due() is None
    gate.failed(op(), errno.EBUSY)
    assert advance(clock, gate) == 0.1


def test_a_permanent_failure_is_held_until_something_changes(gate: Gate, clock: Clock) -> None:
    condition = gate.failed(op(), errno.EINVAL, "Invalid argument")
    assert gate.next_due() is None
    clock.move(100_000)
    assert gate.admit(op()) == condition
    assert gate.admit(op(have="5")) is None  # observed changed
    assert gate.admit(op(want="2")) is None  # desired changed
    assert gate.admit(op(given="dev eth0 up")) is None  # what it depends on changed
    assert gate.admit(op()) == condition


def test_a_failure_is_forgotten_with_a_new_declaration_or_on_request(gate: Gate) -> None:
    gate.failed(op(), errno.EINVAL)
    gate.declared()
    assert gate.admit(op()) is None
    gate.failed(op(), errno.EINVAL)
    gate.asked()
    assert gate.admit(op()) is None


def test_a_failure_is_forgotten_when_the_object_is_well(gate: Gate) -> None:
    gate.failed(op("a"), errno.EINVAL)
    gate.failed(op("b"), errno.EINVAL)
    gate.passed({op("b").key}, {op("b").key})
    assert gate.admit(op("a")) is not None
    gate.passed({op("b").key}, {op("a").key})
    assert gate.admit(op("a")) is None
    assert gate.admit(op("b")) is not None
    gate.passed(set())
    assert gate.admit(op("b")) is None
    assert len(gate) == 0


def test_what_failed_for_want_of_an_object_is_tried_when_that_moves(gate: Gate, clock: Clock) -> None:
    route = op("route", needs=(("thing", "link"),))
    gate.failed(route, errno.EINVAL)
    gate.moved([("thing", "other")])
    assert gate.next_due() is None
    gate.moved([("thing", "link")])
    assert advance(clock, gate) == 0.1
    assert gate.due() == (route.key,)
    assert gate.admit(route) is None


def test_what_failed_for_want_of_an_object_is_tried_when_that_is_made(gate: Gate, clock: Clock) -> None:
    route = op("route", needs=(("thing", "link"),))
    for _ in range(8):
        gate.failed(route, errno.ENETDOWN)
    clock.move(1.0)
    gate.applied(op("link"))
    assert gate.due() == (route.key,)


def pending(name: str) -> Condition:
    return Condition(
        ("thing", name), f"thing {name}", State.PENDING, "needs its link up", errno.ENETDOWN, True
    )


def test_an_event_hurries_what_waits_but_never_below_the_first_step(gate: Gate, clock: Clock) -> None:
    for _ in range(8):
        gate.refused(pending("a"), op("a"))
    clock.move(0.04)
    assert gate.admit(op("a"), event=True) == pending("a")
    assert advance(clock, gate) == 0.06
    assert gate.due() == (op("a").key,)
    gate.refused(pending("a"), op("a"))
    clock.move(0.2)
    assert gate.admit(op("a")) == pending("a")
    assert gate.admit(op("a"), event=True) is None


def test_an_event_does_not_hurry_what_failed_by_itself(gate: Gate, clock: Clock) -> None:
    for _ in range(8):
        gate.failed(op(), errno.EBUSY)
    clock.move(1.0)
    assert gate.admit(op(), event=True) is not None


def test_a_failure_without_an_op_is_looked_at_again_and_holds_nothing(gate: Gate, clock: Clock) -> None:
    gate.refused(pending("a"))
    assert gate.admit(op("a")) is None
    assert advance(clock, gate) == 0.1
    assert gate.due() == (op("a").key,)


# -- fights
# ---------------------------------------------------------------------------------------------------


def heal(gate: Gate, clock: Clock, times: int, *, every: float = 1.0, name: str = "a") -> None:
    for _ in range(times):
        clock.move(every)
        assert gate.admit(op(name)) is None
        gate.applied(op(name))


def test_five_heals_in_ten_seconds_are_a_fight(gate: Gate, clock: Clock) -> None:
    heal(gate, clock, 4)
    assert gate.contended() == {}
    heal(gate, clock, 1)
    assert list(gate.contended()) == [op().key]
    condition = gate.admit(op())
    assert condition is not None
    assert condition.state is State.CONTENDED
    assert "5 times" in condition.text


def test_five_heals_in_more_than_ten_seconds_are_none(gate: Gate, clock: Clock) -> None:
    heal(gate, clock, 50, every=2.6)
    assert gate.contended() == {}


def test_heals_of_different_objects_are_no_fight(gate: Gate, clock: Clock) -> None:
    for name in "abcdefgh":
        heal(gate, clock, 4, every=0.1, name=name)
    assert gate.contended() == {}


def test_first_creation_is_no_heal(gate: Gate) -> None:
    for _ in range(20):
        gate.applied(op(), heal=False)
    assert gate.contended() == {}


def test_heals_in_a_fight_come_after_1_2_4_to_60_seconds(gate: Gate, clock: Clock) -> None:
    heal(gate, clock, 5, every=0.1)
    waits = []
    for _ in range(9):
        clock.move(0.01)  # it drifts at once
        assert gate.admit(op()) is not None
        waits.append(round(advance(clock, gate) + 0.01, 6))
        assert gate.due() == (op().key,)
        assert gate.admit(op()) is None
        gate.applied(op())
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_fight_ends_after_60_seconds_without_drift(gate: Gate, clock: Clock) -> None:
    heal(gate, clock, 5)
    clock.move(30)
    assert gate.admit(op()) is None
    gate.applied(op())
    assert gate.expire() == clock.now() + 60
    clock.move(59.9)
    assert list(gate.contended()) == [op().key]
    clock.move(0.2)
    assert gate.contended() == {}
    assert gate.expire() is None
    assert len(gate) == 0
    assert gate.admit(op()) is None


def test_a_drift_that_is_held_keeps_the_fight_going(gate: Gate, clock: Clock) -> None:
    heal(gate, clock, 5)
    for _ in range(6):  # until heals are 60 s apart
        clock.move(59)
        assert gate.admit(op()) is None
        gate.applied(op())
    for _ in range(5):
        assert gate.admit(op()) is not None  # at once
        assert gate.expire() is None  # its end is not in sight
        clock.move(60)
        assert list(gate.contended()) == [op().key]
        assert gate.due() == (op().key,)
        clock.move(0.5)
        assert gate.admit(op()) is None
        gate.applied(op())
    assert gate.admit(op()) is not None
    assert gate.summary() != ()


def test_a_fight_that_the_other_side_gave_up_ends(gate: Gate, clock: Clock) -> None:
    heal(gate, clock, 5)
    assert gate.admit(op()) is not None
    clock.move(1)
    assert gate.due() == (op().key,)  # the pass that follows finds it as desired
    clock.move(60)
    assert gate.contended() == {}


def test_a_fight_goes_on_while_its_heals_fail(gate: Gate, clock: Clock) -> None:
    heal(gate, clock, 5)
    for _ in range(4):
        clock.move(40)
        gate.due()
        assert gate.admit(op()) is None
        gate.failed(op(), errno.EBUSY)
    assert list(gate.contended()) == [op().key]


def test_a_new_declaration_ends_fights(gate: Gate, clock: Clock) -> None:
    heal(gate, clock, 5)
    gate.declared()
    assert gate.admit(op()) is None
    assert gate.contended() == {}


def test_one_summary_line_a_minute_and_object(gate: Gate, clock: Clock) -> None:
    heal(gate, clock, 5)
    gate.blame({op().key: Culprit(1689, "ip", "session-3.scope", confirmed=True)})
    (line,) = gate.summary()
    assert line == (
        "thing a=1: healed 5 times in 4 s, last undone by ip[1689] in session-3.scope; "
        "from now on at most every 1 s"
    )
    said = 0
    for _ in range(120):
        clock.move(1)
        if gate.admit(op()) is None:
            gate.applied(op())
        said += len(gate.summary())
    assert said == 2


def test_what_is_quiet_costs_nothing(gate: Gate, clock: Clock) -> None:
    for number in range(1000):
        gate.applied(op(str(number)))
    assert len(gate) == 1000
    clock.move(11)
    gate.expire()
    assert len(gate) == 0


# -- errnos -------------------------------------------------------------------------------------------------


TRANSIENT = ["EAGAIN", "EBUSY", "ENOMEM", "ENOBUFS", "EINTR", "ENETDOWN", "ENETUNREACH", "EHOSTUNREACH"]
TRANSIENT += ["ETIMEDOUT", "ENODEV", "ENOENT", "ESRCH", "EEXIST", "ERESTART"]


@pytest.mark.parametrize("name", TRANSIENT)
def test_errnos_worth_another_try(name: str) -> None:
    assert transient(getattr(errno, name))


@pytest.mark.parametrize(
    "name", ["EINVAL", "EOPNOTSUPP", "ERANGE", "EPERM", "EACCES", "EAFNOSUPPORT", "ENOTDIR"]
)
def test_errnos_that_say_it_won_t_do(name: str) -> None:
    assert not transient(getattr(errno, name))


def test_what_many_wait_for_is_told_to_them_once(gate: Gate, clock: Clock) -> None:
    link = ("thing", "link")
    many = [op(str(number), needs=(link,)) for number in range(300)]
    for one in many:
        gate.failed(one, errno.ENETUNREACH)
    before = clock.asked
    gate.moved([link])
    clock.move(1.0)
    for one in many:
        assert gate.admit(one, event=True) is None
        gate.applied(one)
    # Not once for each of those that still wait.
    assert clock.asked - before < 20 * len(many)
