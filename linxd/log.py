# SPDX-License-Identifier: MIT
"""What is worth an entry, in words for people and in fields for programs: patches, failures that changed,
states.

Pure: reports go in, entries come out, and nothing for a quiet pass. Where entries go is not known here.
"""

from __future__ import annotations

import errno
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from linxd.patch import Condition, Culprit, Key, Op, Report, State, Trigger, Verb
from linxd.records import dataclass, field
from linxd.status import LoopState, Status

PATCH_ID = "b17cd482ddd641a6b68c69661eb7bdc7"
FAILURE_ID = "d273849c3b4047acadc22be480c648f9"
STATE_ID = "e9a99a113f594a9f89318f8f172a01e3"
NEWS_ID = "03426d0c86a048d890e6a0ec684fe0f2"
MOST = 100
"""Ops, or conditions, in one entry. journald drops entries of more than 1024 fields without a word."""

ERROR, WARNING, NOTICE, INFO, DEBUG = 3, 4, 5, 6, 7
"""Priorities, as syslog(3) counts them."""

Fields: TypeAlias = Mapping[str, str | tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log. ``text`` is one line, ``details`` are further ones; ``fields`` go to the
    journal, those with several values as repeated fields. ``part``: 1 for the first or only one of a
    patch."""

    text: str
    details: tuple[str, ...] = ()
    fields: Fields = field(default_factory=dict)
    priority: int = NOTICE
    message_id: str = NEWS_ID
    part: int = 1


def news(scope: str, text: str, *, priority: int = INFO, details: Iterable[str] = ()) -> Entry:
    """An entry about the scope itself: how it starts, is reloaded, ends."""
    return Entry(
        clean(f"{scope}: {text}"), tuple(clean(line) for line in details), {"LINX_SCOPE": scope}, priority
    )


class Narrator:
    """Tells what the loop of one source in one scope did. Keeps in mind what it has said of failures."""

    def __init__(self, scope: str, source: str) -> None:
        self._prefix = f"{scope}/{source}: "
        self._fields: dict[str, str | tuple[str, ...]] = {"LINX_SCOPE": scope, "LINX_SOURCE": source}
        self._standing: dict[Key, tuple[State, str, int]] = {}
        self._fought: dict[Key, None] = {}
        """Those among them that are fought over."""
        self._lost: set[Key] = set()
        """Objects that were as declared and are not now: to be restored, not created."""

    @property
    def standing(self) -> bool:
        """Whether something was said of failures that is not over."""
        return bool(self._standing)

    # -- patches --------------------------------------------------------------------------------------------

    def report(self, report: Report) -> Iterator[Entry]:
        """The entries of one pass; none for one that did nothing and failed at nothing new."""
        if report.applied:
            yield from self._patch(report)
        if report.trigger not in _NEW and len(report.drifted) > len(report.applied):
            self._lost.update(op.key for op in report.drifted if op.key not in self._standing)
        changed = self._changed(report)
        if changed:
            yield self._failures(report, changed)

    def _patch(self, report: Report) -> Iterator[Entry]:
        ops = report.applied
        usec = report.heal_usec or report.usec
        did = [self._did(op, report) for op in ops]
        tally = f"{_count(len(ops), 'op')} in {duration(usec)}"
        if len(report.drifted) > len(ops):
            tally = f"{len(ops)} of {_count(len(report.drifted), 'op')} in {duration(usec)}"
        if len(ops) == 1:
            text = _line(did[0], ops[0], report)
        else:
            text = _summary(did, ops) + (f" (by {_culprits(report)})" if report.culprits else "")
        text = clean(f"{self._prefix}{text}, {tally}")
        fields = {
            **self._fields,
            "LINX_TRIGGER": str(report.trigger),
            "LINX_OPS": str(len(ops)),
            "LINX_PASS_USEC": str(report.usec),
            **({"LINX_HEAL_USEC": str(report.heal_usec)} if report.heal_usec else {}),
            **culprit_fields(main_culprit(report)),
        }
        parts = -(-len(ops) // MOST)
        for part in range(1, parts + 1):
            some = range((part - 1) * MOST, min(len(ops), part * MOST))
            more = {"LINX_OP": tuple(machine(ops[n], report.culprits.get(ops[n].key)) for n in some)}
            details = [clean(_line(did[n], ops[n], report)) for n in some] if len(ops) > 1 else []
            if parts == 1:
                yield Entry(text, tuple(details), {**fields, **more}, NOTICE, PATCH_ID)
                return
            more["LINX_PART"] = (f"{part}/{parts}",)
            if part == 1:
                details.append(f"… and {len(ops) - MOST} more")
                yield Entry(text, tuple(details), {**fields, **more}, NOTICE, PATCH_ID)
            else:
                rest = f"{text} (part {part} of {parts})"
                yield Entry(rest, tuple(details), {**fields, **more}, DEBUG, PATCH_ID, part)

    def _did(self, op: Op, report: Report) -> str:
        """The word for what was done."""
        new = report.trigger in _NEW or self._waited(op.key)
        match op.verb:
            case Verb.CREATE:
                return "created" if new else "restored"
            case Verb.UPDATE:
                return "changed" if new else "restored"
            case Verb.RECREATE:
                return "recreated"
            case Verb.DELETE:
                return "removed"

    def _waited(self, key: Key) -> bool:
        """Whether the object was not as declared before, for a reason that has been said."""
        if key in self._lost or key not in self._standing:
            return False
        return self._standing[key][0] in _BAD

    # -- failures -------------------------------------------------------------------------------------------

    def _changed(self, report: Report) -> list[Condition]:
        """The conditions that differ from what was said last."""
        # What was said last counts until now, also of what this report speaks of anew.
        before = self._standing if report.complete else dict(self._standing)
        # A fight is told when it begins, not with every blow: a heal is not its end.
        fights = {key: before[key] for key in self._fought}
        standing = {} if report.complete else self._standing
        if not report.complete:
            for key in {*report.looked, *(op.key for op in report.applied)}:
                standing.pop(key, None)
        standing |= fights
        changed = []
        for condition in report.conditions:
            # How often an object was fought over changes with each fight, and is summed up elsewhere.
            text = "" if condition.state is State.CONTENDED else condition.text
            form = (condition.state, text, condition.errno)
            if before.get(condition.key) != form:
                changed.append(condition)
            standing[condition.key] = form
        self._standing = standing
        spoken = {condition.key: condition for condition in report.conditions}
        self._fought = dict.fromkeys(
            key for key in (*fights, *spoken) if standing[key][0] is State.CONTENDED
        )
        self._lost &= standing.keys()
        return changed

    def _failures(self, report: Report, changed: Sequence[Condition]) -> Entry:
        worst = min((_SEVERITY[condition.state] for condition in changed), default=INFO)
        fields: dict[str, str | tuple[str, ...]] = {**self._fields, "LINX_TRIGGER": str(report.trigger)}
        number = next((condition.errno for condition in changed if condition.errno), 0)
        if number:
            fields["ERRNO"] = str(number)
        lines = [clean(condition_line(condition)) for condition in changed[:MOST]]
        if len(changed) == 1:
            return Entry(clean(self._prefix + lines[0]), (), fields, worst, FAILURE_ID)
        counts = Counter(condition.state for condition in changed)
        text = ", ".join(f"{counts[state]} {_STATE_WORDS[state]}" for state in _SEVERITY if counts[state])
        if len(changed) > len(lines):
            lines.append(f"… and {len(changed) - len(lines)} more")
        return Entry(clean(self._prefix + text), tuple(lines), fields, worst, FAILURE_ID)

    # -- states ---------------------------------------------------------------------------------------------

    def state(self, status: Status) -> Entry:
        """The entry for a loop that has changed its state."""
        if status.state is not LoopState.CONTENDED:
            for key in self._fought:
                del self._standing[key]
            self._fought = {}
        priority = {LoopState.BLOCKED: ERROR, LoopState.CONTENDED: WARNING, LoopState.DEGRADED: WARNING}
        return Entry(
            clean(self._prefix + state_line(status)),
            (),
            {**self._fields, "LINX_STATE": str(status.state)},
            priority.get(status.state, INFO),
            STATE_ID,
        )

    def summary(self, line: str) -> Entry:
        """A line about objects that are fought over."""
        return Entry(clean(self._prefix + line), (), self._fields, WARNING, FAILURE_ID)


# -- words
# ----------------------------------------------------------------------------------------------------

_NEW = (Trigger.START, Trigger.CONFIG)
_BAD = (State.PENDING, State.FAILED, State.CONFLICT)
_SEVERITY = {
    State.FAILED: WARNING,
    State.CONFLICT: WARNING,
    State.CONTENDED: WARNING,
    State.PENDING: NOTICE,
    State.NOTED: INFO,
    State.DONE: INFO,
}
_STATE_WORDS = {
    State.FAILED: "failed",
    State.CONFLICT: "in conflict",
    State.CONTENDED: "contended",
    State.PENDING: "pending",
    State.NOTED: "kept by the kernel in another form",
    State.DONE: "done",
}
_BLAME = {Verb.CREATE: "deleted", Verb.UPDATE: "changed", Verb.RECREATE: "changed", Verb.DELETE: "added"}
_PLURALS = {"address": "addresses"}
_MOST_CHANGES = 4


def thing(name: str) -> str:
    """An object's name in a sentence: ``address 10.0.0.5/24 on eth0``."""
    if name.startswith(("address ", "neighbour ")):
        return name.replace(" dev ", " on ", 1)
    return name


def condition_line(condition: Condition) -> str:
    """``route default via 10.0.0.1 is pending: needs link eth0``, with the errno's name where there is
    one."""
    code = errno.errorcode.get(condition.errno, str(condition.errno)) if condition.errno else ""
    text = f"{condition.text} ({code})" if code and code not in condition.text else condition.text
    word = _STATE_WORDS[condition.state]
    verb = "" if condition.state is State.FAILED else "is "
    return f"{thing(condition.name)} {verb}{word}: {text}"


def state_line(status: Status) -> str:
    """``degraded: 2 pending, 1 in conflict of 14 objects``."""
    counts = status.counts
    bad = [
        f"{counts[state]} {_STATE_WORDS[state]}"
        for state in (State.FAILED, State.CONFLICT, State.CONTENDED, State.PENDING)
        if counts.get(state)
    ]
    objects = _count(status.total, "object")
    match status.state:
        case LoopState.BLOCKED:
            return f"blocked: {status.last_error}"
        case LoopState.CONVERGED:
            return f"converged: {objects}"
        case LoopState.DEGRADED | LoopState.CONTENDED if bad:
            return f"{status.state}: {', '.join(bad)} of {objects}"
        case _:
            return str(status.state)


def duration(usec: int) -> str:
    """``0.6 ms``, ``45 ms``, ``2.3 s``."""
    if usec < 10_000:
        return f"{usec / 1000:.1f} ms"
    if usec < 1_000_000:
        return f"{usec / 1000:.0f} ms"
    return f"{usec / 1_000_000:.1f} s"


def clock_time(moment: float) -> str:
    """``12:30:11``; with its date where that is not within a day."""
    form = "%H:%M:%S" if abs(moment - time.time()) < 86400 else "%Y-%m-%d %H:%M:%S"
    return time.strftime(form, time.localtime(moment))


def machine(op: Op, culprit: Culprit | None = None) -> str:
    """An op as one line of JSON: its verb, its object, what changes from what to what, and who caused it."""
    form: dict[str, object] = {"verb": str(op.verb), "object": op.name, "key": op.key}
    if op.changes:
        form["changes"] = {change.attribute: [change.have, change.want] for change in op.changes}
    if culprit is not None:
        named = {"comm": culprit.comm, "unit": culprit.unit}
        form["culprit"] = {
            "pid": culprit.pid,
            **{key: value for key, value in named.items() if value is not None},
            "confirmed": culprit.confirmed,
        }
    return json.dumps(form, separators=(",", ":"))


def culprit_fields(culprit: Culprit | None) -> dict[str, str]:
    """The journal's fields for a culprit."""
    if culprit is None:
        return {}
    fields = {"LINX_CULPRIT_PID": str(culprit.pid), "LINX_CULPRIT_CONFIRMED": str(int(culprit.confirmed))}
    if culprit.comm is not None:
        fields["LINX_CULPRIT_COMM"] = culprit.comm
    if culprit.unit is not None:
        fields["LINX_CULPRIT_UNIT"] = culprit.unit
    return fields


def main_culprit(report: Report) -> Culprit | None:
    """The one who caused most of it."""
    counts = Counter(report.culprits.values())
    return max(counts, key=lambda culprit: counts[culprit]) if counts else None


def clean(text: str) -> str:
    """One line, whatever others put into it: what is not printable is escaped."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _line(did: str, op: Op, report: Report) -> str:
    text = f"{did} {thing(op.name)}"
    if op.changes and op.verb in (Verb.UPDATE, Verb.RECREATE):
        shown = [change.words() for change in op.changes[:_MOST_CHANGES]]
        if len(op.changes) > _MOST_CHANGES:
            shown.append(f"{len(op.changes) - _MOST_CHANGES} more")
        text += ": " + ", ".join(shown)
    culprit = report.culprits.get(op.key)
    return text if culprit is None else f"{text} ({_BLAME[op.verb]} by {culprit.words()})"


def _summary(did: Sequence[str], ops: Sequence[Op]) -> str:
    """``restored 3 addresses and 1 route, removed 2 routes``."""
    counts: dict[str, Counter[str]] = {}
    for word, op in zip(did, ops, strict=True):
        counts.setdefault(word, Counter())[str(op.key[0])] += 1
    return ", ".join(
        f"{word} {_joined([_count(number, kind) for kind, number in kinds.items()])}"
        for word, kinds in counts.items()
    )


def _culprits(report: Report) -> str:
    named = [culprit.words() for culprit in dict.fromkeys(report.culprits.values())]
    if len(named) > 2:
        named = [*named[:2], f"{len(named) - 2} more"]
    return _joined(named)


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun if number == 1 else _PLURALS.get(noun, noun + 's')}"


# -- no flood
# -------------------------------------------------------------------------------------------------


class Limit:
    """Lets ``burst`` entries through at once and ``rate`` a second for good; counts those it holds back.

    What goes wrong in a machine goes wrong many times over: the log must stay readable, and others' entries
    in it.
    """

    def __init__(
        self, *, burst: int = 200, rate: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst, self._rate, self._clock = float(burst), rate, clock
        self._left, self._at = float(burst), clock()
        self._held = 0

    def pass_on(self, entry: Entry) -> tuple[Entry, ...]:
        """The entry, and before it one that says how many were left out; or nothing."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            self._held += 1
            return ()
        self._left -= 1
        if not self._held:
            return (entry,)
        scope = entry.fields.get("LINX_SCOPE", "")
        held, self._held = self._held, 0
        return (news(str(scope), f"{held} entries were left out: too many", priority=WARNING), entry)
