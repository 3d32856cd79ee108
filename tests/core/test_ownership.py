# SPDX-License-Identifier: MIT
"""The ownership table, to be read beside the one in the specification: same rows, same order."""

from __future__ import annotations

import itertools

import pytest

from linxd.ownership import Action, Origin, Seen, decide
from linxd.patch import Claim, State

ABSENT, EQUAL, DIFFERENT = Seen.ABSENT, Seen.EQUAL, Seen.DIFFERENT
MARK, HAND, DAEMON = Origin.MARK, Origin.HAND, Origin.DAEMON
MADE, TAKEN, FOUND, NONE = Claim.MADE, Claim.TAKEN, Claim.FOUND, None
DONE, CONFLICT = State.DONE, State.CONFLICT
NOTHING, CREATE, CHANGE, SET, DELETE, GIVE_BACK = Action

TABLE = [
    # row  seen       origin  ledger  declared  policy        do         condition  ledger then
    (1, ABSENT, HAND, NONE, True, "", CREATE, DONE, MADE),
    (1, ABSENT, HAND, NONE, True, "take", CREATE, DONE, MADE),
    (1, ABSENT, HAND, NONE, True, "adoptable", CREATE, DONE, MADE),
    (2, EQUAL, HAND, NONE, True, "", NOTHING, DONE, FOUND),
    (2, EQUAL, DAEMON, NONE, True, "", NOTHING, DONE, FOUND),
    (2, EQUAL, HAND, NONE, True, "take", NOTHING, DONE, FOUND),
    (3, DIFFERENT, HAND, NONE, True, "", NOTHING, CONFLICT, NONE),
    (3, DIFFERENT, DAEMON, NONE, True, "", NOTHING, CONFLICT, NONE),
    (4, DIFFERENT, HAND, NONE, True, "take", CHANGE, DONE, TAKEN),
    (4, DIFFERENT, DAEMON, NONE, True, "take", CHANGE, DONE, TAKEN),
    (5, DIFFERENT, HAND, NONE, True, "adoptable", SET, DONE, FOUND),
    (5, DIFFERENT, HAND, NONE, True, "adoptable take", SET, DONE, FOUND),
    (6, ABSENT, HAND, MADE, True, "", CREATE, DONE, MADE),
    (6, ABSENT, HAND, TAKEN, True, "", CREATE, DONE, TAKEN),
    (6, ABSENT, HAND, FOUND, True, "", CREATE, DONE, FOUND),
    (6, DIFFERENT, HAND, MADE, True, "", CHANGE, DONE, MADE),
    (6, DIFFERENT, HAND, TAKEN, True, "", CHANGE, DONE, TAKEN),
    (6, DIFFERENT, HAND, FOUND, True, "", CHANGE, DONE, FOUND),
    (6, DIFFERENT, MARK, MADE, True, "", CHANGE, DONE, MADE),
    (6, DIFFERENT, MARK, FOUND, True, "", CHANGE, DONE, FOUND),
    (6, EQUAL, HAND, MADE, True, "", NOTHING, DONE, MADE),
    (6, EQUAL, DAEMON, FOUND, True, "", NOTHING, DONE, FOUND),
    (7, DIFFERENT, DAEMON, MADE, True, "", NOTHING, CONFLICT, MADE),
    (7, DIFFERENT, DAEMON, TAKEN, True, "", NOTHING, CONFLICT, TAKEN),
    (7, DIFFERENT, DAEMON, FOUND, True, "", NOTHING, CONFLICT, FOUND),
    (7, DIFFERENT, DAEMON, MADE, True, "take", CHANGE, DONE, MADE),
    (8, DIFFERENT, HAND, MADE, False, "", DELETE, None, NONE),
    (8, DIFFERENT, MARK, MADE, False, "", DELETE, None, NONE),
    (8, DIFFERENT, HAND, TAKEN, False, "", DELETE, None, NONE),
    (8, DIFFERENT, DAEMON, MADE, False, "", NOTHING, None, NONE),
    (8, DIFFERENT, DAEMON, TAKEN, False, "", NOTHING, None, NONE),
    (8, ABSENT, HAND, MADE, False, "", NOTHING, None, NONE),
    (9, DIFFERENT, HAND, FOUND, False, "", GIVE_BACK, None, NONE),
    (9, DIFFERENT, DAEMON, FOUND, False, "", GIVE_BACK, None, NONE),
    (9, DIFFERENT, HAND, FOUND, False, "reach", GIVE_BACK, None, NONE),
    (10, DIFFERENT, MARK, NONE, False, "", DELETE, None, NONE),
    (11, DIFFERENT, HAND, NONE, False, "", NOTHING, None, NONE),
    (11, DIFFERENT, DAEMON, NONE, False, "", NOTHING, None, NONE),
    (11, DIFFERENT, HAND, NONE, False, "reach", DELETE, None, NONE),
    # A mark stands for a lost entry.
    (6, EQUAL, MARK, NONE, True, "", NOTHING, DONE, MADE),
    (6, DIFFERENT, MARK, NONE, True, "", CHANGE, DONE, MADE),
    (1, ABSENT, MARK, NONE, True, "", CREATE, DONE, MADE),
]


@pytest.mark.parametrize(
    ("row", "seen", "origin", "ledger", "declared", "policy", "do", "condition", "then"), TABLE
)
def test_each_row_of_the_table(
    row: int,
    seen: Seen,
    origin: Origin,
    ledger: Claim | None,
    declared: bool,
    policy: str,
    do: Action,
    condition: State | None,
    then: Claim | None,
) -> None:
    decision = decide(
        seen=seen,
        origin=origin,
        claim=ledger,
        declared=declared,
        take="take" in policy,
        adoptable="adoptable" in policy,
        reach="reach" in policy,
    )
    assert (decision.row, decision.action, decision.state, decision.claim) == (row, do, condition, then)


EVERY = [
    {"seen": s, "origin": o, "claim": c, "declared": d, "take": t, "adoptable": a, "reach": r}
    for s, o, c, d, t, a, r in itertools.product(
        Seen, Origin, (None, *Claim), (True, False), (True, False), (True, False), (True, False)
    )
]


def test_nothing_is_deleted_without_a_claim_a_mark_or_the_policy() -> None:
    for case in EVERY:
        if decide(**case).action is Action.DELETE:
            ours = case["claim"] in (MADE, TAKEN) or case["origin"] is MARK
            assert not case["declared"]
            assert ours or case["reach"], case


def test_nothing_is_written_to_what_is_absent_but_a_creation() -> None:
    for case in EVERY:
        if case["seen"] is ABSENT:
            assert decide(**case).action in (CREATE, NOTHING), case


def test_a_strangers_object_is_changed_only_if_taken_or_adoptable() -> None:
    for case in EVERY:
        if (
            case["declared"]
            and case["claim"] is None
            and case["origin"] is not MARK
            and case["seen"] is DIFFERENT
        ):
            action = decide(**case).action
            assert (action is NOTHING) == (not case["take"] and not case["adoptable"]), case


def test_what_is_as_declared_is_never_written() -> None:
    for case in EVERY:
        if case["declared"] and case["seen"] is EQUAL:
            assert decide(**case).action is NOTHING, case


def test_what_was_found_is_never_deleted() -> None:
    for case in EVERY:
        if case["claim"] is FOUND:
            assert decide(**case).action is not DELETE, case
