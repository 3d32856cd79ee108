# SPDX-License-Identifier: MIT
"""What the log says of reports: one readable line, structured fields, nothing for a quiet pass, no flood."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from linxd.log import MOST, PATCH_ID, Entry, Limit, Narrator, clean, duration, news
from linxd.patch import Change, Condition, Culprit, Key, Op, Report, State, Trigger, Verb
from linxd.status import LoopState, Status


@dataclass(frozen=True)
class Thing:
    """An object of any kind."""

    key: Key
    text: str

    def words(self) -> str:
        return self.text


ADDRESS = Thing(("address", "eth0", "10.0.0.5", 24), "10.0.0.5/24 dev eth0")
LINK = Thing(("link", "eth0"), "eth0")
IP = Culprit(1689, "ip", "session-3.scope", confirmed=True)


def op(verb: Verb, thing: Thing = ADDRESS, *changes: Change) -> Op:
    return Op(verb, None if verb is Verb.DELETE else thing, thing if verb is Verb.DELETE else None, changes)


def told(report: Report) -> list[str]:
    return [entry.text for entry in Narrator("c1", "rtnl").report(report)]


def test_a_heal_reads_as_promised() -> None:
    report = Report(
        Trigger.EVENT,
        drifted=(op(Verb.CREATE),),
        applied=(op(Verb.CREATE),),
        culprits={ADDRESS.key: IP},
        usec=812,
        heal_usec=604,
    )
    (entry,) = Narrator("c1", "rtnl").report(report)
    assert entry.text == (
        "c1/rtnl: restored address 10.0.0.5/24 on eth0 (deleted by ip[1689] in session-3.scope),"
        " 1 op in 0.6 ms"
    )
    assert entry.details == ()
    fields = dict(entry.fields)
    ops = fields.pop("LINX_OP")
    assert fields == {
        "LINX_SCOPE": "c1",
        "LINX_SOURCE": "rtnl",
        "LINX_TRIGGER": "event",
        "LINX_OPS": "1",
        "LINX_PASS_USEC": "812",
        "LINX_HEAL_USEC": "604",
        "LINX_CULPRIT_PID": "1689",
        "LINX_CULPRIT_COMM": "ip",
        "LINX_CULPRIT_UNIT": "session-3.scope",
        "LINX_CULPRIT_CONFIRMED": "1",
    }
    assert json.loads(ops[0]) == {
        "verb": "create",
        "object": "address 10.0.0.5/24 dev eth0",
        "key": ["address", "eth0", "10.0.0.5", 24],
        "culprit": {"pid": 1689, "comm": "ip", "unit": "session-3.scope", "confirmed": True},
    }


@pytest.mark.parametrize(
    ("trigger", "verb", "text"),
    [
        (Trigger.START, Verb.CREATE, "created link eth0"),
        (Trigger.CONFIG, Verb.CREATE, "created link eth0"),
        (Trigger.RESYNC, Verb.CREATE, "restored link eth0"),
        (Trigger.CONFIG, Verb.UPDATE, "changed link eth0: mtu 1400 -> 1500"),
        (Trigger.EVENT, Verb.UPDATE, "restored link eth0: mtu 1400 -> 1500"),
        (Trigger.EVENT, Verb.RECREATE, "recreated link eth0: mtu 1400 -> 1500"),
        (Trigger.CONFIG, Verb.DELETE, "removed link eth0"),
    ],
)
def test_words_tell_what_was_new_from_what_was_undone(trigger: Trigger, verb: Verb, text: str) -> None:
    changes = (Change("mtu", "1400", "1500"),) if verb in (Verb.UPDATE, Verb.RECREATE) else ()
    done = op(verb, LINK, *changes)
    assert told(Report(trigger, (done,), (done,), usec=1000)) == [f"c1/rtnl: {text}, 1 op in 1.0 ms"]


def test_an_unconfirmed_culprit_is_a_number() -> None:
    done = op(Verb.CREATE)
    report = Report(Trigger.EVENT, (done,), (done,), culprits={ADDRESS.key: Culprit(2)}, usec=100)
    (entry,) = Narrator("c1", "rtnl").report(report)
    assert "(deleted by process 2 of the container (unconfirmed))" in entry.text
    assert entry.fields["LINX_CULPRIT_CONFIRMED"] == "0"
    assert "LINX_CULPRIT_COMM" not in entry.fields


def test_several_ops_are_summed_up_and_listed() -> None:
    routes = [Thing(("route", 4, 254, f"10.{n}.0.0/16", 0, 0), f"10.{n}.0.0/16 dev eth0") for n in range(2)]
    ops = (op(Verb.CREATE), *(op(Verb.CREATE, route) for route in routes), op(Verb.DELETE, LINK))
    report = Report(Trigger.EVENT, ops, ops, culprits={ADDRESS.key: IP}, usec=3100)
    (entry,) = Narrator("c1", "rtnl").report(report)
    assert entry.text == (
        "c1/rtnl: restored 1 address and 2 routes, removed 1 link (by ip[1689] in session-3.scope),"
        " 4 ops in 3.1 ms"
    )
    assert entry.details == (
        "restored address 10.0.0.5/24 on eth0 (deleted by ip[1689] in session-3.scope)",
        "restored route 10.0.0.0/16 dev eth0",
        "restored route 10.1.0.0/16 dev eth0",
        "removed link eth0",
    )


def test_a_large_patch_has_parts_that_a_journal_accepts() -> None:
    routes = [Thing(("route", 4, 254, f"10.{n}.0.0/16", 0, 0), f"10.{n}.0.0/16") for n in range(250)]
    ops = tuple(op(Verb.CREATE, route) for route in routes)
    entries = list(Narrator("c1", "rtnl").report(Report(Trigger.START, ops, ops, usec=12_345)))
    assert [len(entry.fields["LINX_OP"]) for entry in entries] == [MOST, MOST, 50]
    assert [entry.fields["LINX_PART"] for entry in entries] == [("1/3",), ("2/3",), ("3/3",)]
    assert {entry.fields["LINX_OPS"] for entry in entries} == {"250"}
    assert entries[0].text == "c1/rtnl: created 250 routes, 250 ops in 12 ms"
    assert entries[0].details[-1] == "… and 150 more"
    assert len(entries[0].details) == MOST + 1
    assert [entry.priority for entry in entries] == [5, 7, 7]


def test_a_quiet_pass_says_nothing() -> None:
    assert told(Report(Trigger.RESYNC, total=14)) == []


def failed(text: str = "No space left", state: State = State.FAILED, errno: int = 28) -> Condition:
    return Condition(ADDRESS.key, f"address {ADDRESS.words()}", state, text, errno)


def report(*conditions: Condition, complete: bool = True, looked: frozenset[Key] = frozenset()) -> Report:
    return Report(Trigger.RESYNC, conditions=conditions, total=1, complete=complete, looked=looked)


def test_a_failure_is_told_once_until_it_changes() -> None:
    narrator = Narrator("c1", "rtnl")
    (entry,) = narrator.report(report(failed()))
    assert entry.text == "c1/rtnl: address 10.0.0.5/24 on eth0 failed: No space left (ENOSPC)"
    assert entry.fields["ERRNO"] == "28"
    assert entry.priority == 4
    assert list(narrator.report(report(failed()))) == []
    (entry,) = narrator.report(report(failed("needs link eth0", State.PENDING, 0)))
    assert entry.text == "c1/rtnl: address 10.0.0.5/24 on eth0 is pending: needs link eth0"
    assert "ERRNO" not in entry.fields
    # A pass that looked elsewhere forgets nothing, one that found it well does.
    elsewhere = report(complete=False, looked=frozenset({LINK.key}))
    assert list(narrator.report(elsewhere)) == []
    assert list(narrator.report(report(failed("needs link eth0", State.PENDING, 0)))) == []
    assert list(narrator.report(report(complete=False, looked=frozenset({ADDRESS.key})))) == []
    assert len(list(narrator.report(report(failed())))) == 1


def test_a_failure_that_is_tried_again_in_vain_is_not_told_again() -> None:
    narrator = Narrator("c1", "rtnl")
    waits = Condition(ADDRESS.key, "address", State.PENDING, "needs link eth0")
    retry = Report(
        Trigger.RESYNC,
        drifted=(op(Verb.CREATE),),
        conditions=(waits,),
        complete=False,
        looked=frozenset({ADDRESS.key}),
    )
    assert len(list(narrator.report(retry))) == 1
    assert list(narrator.report(retry)) == []
    done = Report(Trigger.RESYNC, complete=False, looked=frozenset({ADDRESS.key}))
    assert list(narrator.report(done)) == []
    assert len(list(narrator.report(retry))) == 1


def test_what_waited_was_not_restored_but_created() -> None:
    narrator = Narrator("c1", "rtnl")
    list(narrator.report(report(failed("needs link eth0", State.PENDING, 0))))
    done = op(Verb.CREATE)
    (entry,) = narrator.report(Report(Trigger.EVENT, (done,), (done,), usec=1, complete=False))
    assert "created address" in entry.text


def test_what_was_there_and_had_to_wait_is_restored_in_the_end() -> None:
    narrator = Narrator("c1", "rtnl")
    lost = op(Verb.CREATE)
    waits = failed("needs a way to its gateway", State.PENDING)
    list(narrator.report(Report(Trigger.EVENT, (lost,), (), (waits,), complete=False)))
    (entry,) = narrator.report(Report(Trigger.EVENT, (lost,), (lost,), usec=1, complete=False))
    assert "restored address" in entry.text


def test_a_fight_is_not_told_with_every_blow() -> None:
    narrator = Narrator("c1", "rtnl")
    assert len(list(narrator.report(report(failed("healed 5 times", State.CONTENDED, 0))))) == 1
    assert list(narrator.report(report(failed("healed 6 times", State.CONTENDED, 0)))) == []


def test_a_heal_is_not_the_end_of_a_fight() -> None:
    narrator = Narrator("c1", "rtnl")
    fought = Condition(ADDRESS.key, "address", State.CONTENDED, "healed 5 times")
    begins = Report(Trigger.EVENT, conditions=(fought,), complete=False, looked=frozenset({ADDRESS.key}))
    heal = Report(Trigger.RESYNC, drifted=(op(Verb.CREATE),), applied=(op(Verb.CREATE),), complete=False)
    assert len(list(narrator.report(begins))) == 1
    for _ in range(3):
        assert [entry.message_id for entry in narrator.report(heal)] == [PATCH_ID]
        assert list(narrator.report(begins)) == []
        assert list(narrator.report(Report(Trigger.RESYNC))) == []
    list(narrator.report(heal))
    narrator.state(Status("c1", "rtnl", "event", LoopState.CONVERGED, 1))
    assert len(list(narrator.report(begins))) == 1


def test_many_failures_are_one_entry() -> None:
    conditions = [
        Condition(
            ("address", "eth0", f"10.0.0.{n}", 24), f"address 10.0.0.{n}/24 dev eth0", State.PENDING, "x"
        )
        for n in range(150)
    ]
    (entry,) = Narrator("c1", "rtnl").report(report(failed(), *conditions))
    assert entry.text == "c1/rtnl: 1 failed, 150 pending"
    assert len(entry.details) == MOST + 1
    assert entry.details[-1] == "… and 51 more"


def test_states_say_how_many_objects_are_how() -> None:
    narrator = Narrator("c1", "rtnl")
    status = Status("c1", "rtnl", "event", LoopState.CONVERGED, total=14)
    assert narrator.state(status).text == "c1/rtnl: converged: 14 objects"
    counts = {State.PENDING: 2, State.CONFLICT: 1, State.DONE: 11}
    status = Status("c1", "rtnl", "event", LoopState.DEGRADED, total=14, counts=counts)
    assert narrator.state(status).text == "c1/rtnl: degraded: 1 in conflict, 2 pending of 14 objects"
    status = Status("c1", "rtnl", "event", LoopState.BLOCKED, last_error="no route to\nhell")
    assert narrator.state(status).text == "c1/rtnl: blocked: no route to\\nhell"
    assert narrator.state(status).priority == 3


def test_nothing_that_others_chose_can_forge_a_line_or_drive_a_terminal() -> None:
    evil = Thing(("link", "e"), "e\x1b[2J\nc1/rtnl: all is well")
    done = op(Verb.UPDATE, evil, Change("alias", "\x07", "a\u2028b\u202e"))
    (entry,) = Narrator("c1", "rtnl").report(Report(Trigger.EVENT, (done,), (done,), usec=1))
    assert entry.text.isprintable()
    assert "\\x1b[2J\\n" in entry.text
    for line in entry.fields["LINX_OP"]:
        assert line.isprintable()
    assert clean("näh ✓") == "näh ✓"


@pytest.mark.parametrize(
    ("usec", "text"),
    [(0, "0.0 ms"), (604, "0.6 ms"), (9_999, "10.0 ms"), (45_123, "45 ms"), (2_345_678, "2.3 s")],
)
def test_durations_are_short(usec: int, text: str) -> None:
    assert duration(usec) == text


def test_a_flood_is_cut_and_counted() -> None:
    now = 0.0
    limit = Limit(burst=3, rate=1.0, clock=lambda: now)

    def entries(count: int) -> list[Entry]:
        return [passed for n in range(count) for passed in limit.pass_on(news("c1", f"line {n}"))]

    assert [entry.text for entry in entries(10)] == ["c1: line 0", "c1: line 1", "c1: line 2"]
    now = 2.0
    assert [entry.text for entry in entries(1)] == ["c1: 7 entries were left out: too many", "c1: line 0"]
