# SPDX-License-Identifier: MIT
"""The pure diff: keys as they are, as declared and as first found, to writes in an order that holds.

It plays the writes through, cascades and all, so that what one of them would undo is put right in the same
patch. It does no I/O.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping

from linxd.ownership import Action, Origin, Seen, decide
from linxd.patch import Change, Claim, Condition, Entry, Key, Op, Patch, State, Verb
from linxd.records import dataclass, replace
from linxd.sources.sysctl import reasons
from linxd.sources.sysctl.cascades import FINER, concerned, giver, is_twin, partner, rank, write
from linxd.sources.sysctl.expand import Want, Wanted
from linxd.sources.sysctl.model import Path, Sysctl, dotted, interface_of, key_of, path_of
from linxd.sources.sysctl.observed import Observed, follow
from linxd.sources.sysctl.values import same, shown

VALUE = "value"
"""The one attribute of a sysctl, in changes and in the ledger."""
FIRST, RELEASE, IFINDEX = "first", "release", "ifindex"
"""Facts in the ledger: the value found first, as long as nothing was written; "keep" for on-release; the
interface."""


@dataclass(slots=True)
class _Target:
    """A key and the value it is to end with. ``soft``: it was never written by us, and is put back only if
    one of our own writes changes it."""

    path: Path
    key: Key
    value: str
    rank: int
    entry: Entry | None
    want: Want | None
    soft: bool = False


def diff(observed: Observed, wanted: Wanted, entries: Mapping[Key, Entry]) -> Patch:
    """The minimal patch. ``entries``: the ledger's, of sysctls."""
    return _Differ(observed, wanted, entries).patch()


def again(want: Want, have: str, entry: Entry, index: int | None) -> Op | None:
    """The op that `diff` finds for a declared key that may be written and is another than it shall be, where
    the ledger knows all there is to know of it. ``index``: that of its interface, as far as there is one.
    None where there is more to it."""
    if entry.settled or not _complete(entry, want, index) or same(have, want.value):
        return None
    return _update(want, have, entry)


def _complete(entry: Entry, want: Want, index: int | None) -> bool:
    """Whether an entry has nothing to learn when a key is written: it knows the first value, and the rest is
    as it was."""
    facts = entry.facts
    return (
        entry.sure
        and VALUE in entry.original
        and FIRST not in facts
        and facts.get(RELEASE) == (None if want.restore else "keep")
        and (index is None or facts.get(IFINDEX) == index)
    )


def _change(want: Want, have: str) -> Change:
    return Change(VALUE, shown(want.path, have), shown(want.path, want.value))


def _update(want: Want, have: str, after: Entry) -> Op:
    path = want.path
    return Op(Verb.UPDATE, Sysctl(path, want.value), Sysctl(path, have), (_change(want, have),), after=after)


class _Differ:
    def __init__(self, observed: Observed, wanted: Wanted, entries: Mapping[Key, Entry]) -> None:
        self.observed = observed
        self.wanted = wanted
        self.targets: list[_Target] = []
        self.ops: list[Op] = []
        self.conditions: list[Condition] = []
        self.adopt: list[tuple[Key, Entry | None]] = []
        if observed.only is None:
            self.entries = self._follow(entries)
            self.wants: Iterable[Want] = wanted.of.values()
        else:
            keys = [key_of(path) for path in observed.only]
            self.entries = {key: entries[key] for key in keys if key in entries}
            self.wants = [wanted.of[path] for path in observed.only if path in wanted.of]

    def patch(self) -> Patch:
        for key, entry in self.entries.items():
            path = path_of(key)
            if path not in self.wanted.of:
                self._undeclared(path, key, entry)
        for want in self.wants:
            self._declared(want.path, want)
        self._globs()
        self._play()
        return Patch(tuple(self.ops), tuple(self.conditions), tuple(self.adopt))

    def _follow(self, entries: Mapping[Key, Entry]) -> Mapping[Key, Entry]:
        followed = follow(entries, self.observed.indices, self.observed.listing)
        self.adopt += [(key, None) for key in followed.gone]
        for key, entry in followed.moved:
            if key in entries:
                self.adopt.append((key, None))  # a stranger's: its first value must not outlive it
            self.adopt.append((key, entry))
        return followed.entries

    def _refused(self, path: Path) -> str | None:
        return self.wanted.refused.get(path) or self.observed.disputes.get(path)

    # -- what each key is to end with -----------------------------------------------------------------------

    def _undeclared(self, path: Path, key: Key, entry: Entry) -> None:
        value = self.observed.values.get(path)
        decision = decide(
            seen=Seen.ABSENT if value is None else Seen.DIFFERENT,
            origin=Origin.HAND,
            claim=entry.claim,
            declared=False,
        )
        if decision.action is not Action.GIVE_BACK or value is None:
            self.adopt.append((key, None))
            return
        if self._handed_on(path):
            kept = entry.facts.get(RELEASE) == "keep" or VALUE not in entry.original
            if kept or self._told_by_other(path):
                self.adopt.append((key, None))
            return  # else it stays known here, until the other form is not declared either
        first = entry.original.get(VALUE, entry.facts.get(FIRST))
        soft = VALUE not in entry.original
        if entry.facts.get(RELEASE) == "keep" or first is None or (soft and not same(value, str(first))):
            self.adopt.append((key, None))
            return
        first = str(first)
        self.targets.append(_Target(path, key, first, rank(path, first), entry, None, soft=soft))

    def _handed_on(self, path: Path) -> bool:
        """Whether the same thing is declared in its other form now: then that goes on from here."""
        other = partner(path)
        return other is not None and other in self.wanted.of and not self._refused(other)

    def _declared(self, path: Path, want: Want) -> None:
        reason = self._refused(path)
        if reason is not None:
            self._condition(want, State.FAILED, reason)
            return
        number = self.observed.troubles.get(path)
        if number is None:
            entry = self.entries.get(want.key)
            self.targets.append(_Target(path, want.key, want.value, want.rank, entry, want))
            return
        if number != errno.ENOENT:
            self._condition(want, *reasons.trouble(number), number)
            return
        if want.key in self.entries:
            self.adopt.append((want.key, None))
        if want.glob is None:
            self._condition(want, State.PENDING, reasons.absent(path, self.observed.listing))

    def _condition(self, want: Want, state: State, text: str, number: int = 0) -> None:
        name = f"sysctl {dotted(want.path)}"
        self.conditions.append(Condition(want.key, name, state, text, number))

    def _globs(self) -> None:
        """A glob that reaches nothing is said once, not for each interface."""
        absent: dict[Path, int] = {}
        if self.observed.troubles:
            for path, number in self.observed.troubles.items():
                want = self.wanted.of.get(path)
                if number == errno.ENOENT and want is not None and want.glob is not None:
                    absent[want.glob] = absent.get(want.glob, 0) + 1
        for glob, count in self.wanted.globs.items():
            if self.observed.only is not None and glob not in self.observed.only:
                continue
            reason = self.wanted.refused.get(glob)
            name = f"sysctl {dotted(glob)}"
            if reason is not None:
                self.conditions.append(Condition(key_of(glob), name, State.FAILED, reason))
            elif self.observed.listing.get(glob[:3]) is None:
                text = reasons.absent(glob, self.observed.listing)
                self.conditions.append(Condition(key_of(glob), name, State.PENDING, text))
            elif count and absent.get(glob) == count:
                text = "this kernel knows no such key of any link"
                self.conditions.append(Condition(key_of(glob), name, State.PENDING, text))

    # -- what is to be written ------------------------------------------------------------------------------

    def _play(self) -> None:
        now = dict(self.observed.values)
        done: dict[Path, _Target] = {}
        for target in sorted(self.targets, key=lambda one: one.rank):
            have = now[target.path]
            if target.want is not None:
                op = self._set(target, target.want, have)
            elif same(have, target.value) and not self._inexact(target, now):
                done[target.path] = target
                continue
            else:
                op = self._give_back(target, have)
                if target.soft:
                    done[target.path] = target
            if op is not None:
                self.ops.append(op)
                assert isinstance(op.want, Sysctl)
                if op.want.via is not None:
                    write(now, *op.want.via)
                write(now, target.path, target.value)
        self._forget(done)

    def _set(self, target: _Target, want: Want, have: str) -> Op | None:
        path, entry = target.path, target.entry
        settled = None
        if entry is not None and entry.asked.get(VALUE) == want.value:
            settled = entry.settled.get(VALUE)
        equal = same(have, want.value)
        decision = decide(
            seen=Seen.EQUAL if equal or (settled is not None and same(have, settled)) else Seen.DIFFERENT,
            origin=Origin.HAND,
            claim=None if entry is None else entry.claim,
            declared=True,
            adoptable=True,
        )
        assert decision.claim is not None
        if decision.action is Action.NOTHING:
            # A write before this one, of this patch, may be what makes it so: then it is our change.
            ours = not same(self.observed.values[path], have)
            after = self._entry(target, want, decision.claim, written=ours)
            if entry is None or entry != after:
                self.adopt.append((target.key, after))
            if not equal:
                self._condition(want, State.NOTED, noted(_change(want, have)))
            return None
        if path in self.observed.readonly:
            text = f"has {shown(path, have)} and {reasons.READ_ONLY}, want {shown(path, want.value)}"
            self._condition(want, State.FAILED, text, errno.EACCES)
            return None
        return _update(want, have, self._entry(target, want, decision.claim, written=True))

    def _give_back(self, target: _Target, have: str) -> Op:
        path, entry = target.path, target.entry
        assert entry is not None
        via = self._via(target)
        change = Change(VALUE, shown(path, have), shown(path, target.value))
        if via is not None and same(have, target.value):
            now = self.observed.values.get(via[0], "")
            change = Change(dotted(via[0]), shown(via[0], now), shown(*via))
        return Op(Verb.UPDATE, Sysctl(path, target.value, via), Sysctl(path, have), (change,))

    def _via(self, target: _Target) -> tuple[Path, str] | None:
        """The key through which a first value is to be given back, and what to write there."""
        through = giver(target.path)
        if through is None or target.entry is None or (through[1] and not same(target.value, "0")):
            return None
        value = target.entry.original.get(dotted(through[0]))
        return None if value is None else (through[0], value)

    def _inexact(self, target: _Target, now: Mapping[Path, str]) -> bool:
        """Whether the finer of two forms does not have its first value yet, though this one has."""
        via = self._via(target)
        if via is None or target.path[-1] not in FINER:
            return False
        return via[0] in now and not same(now[via[0]], via[1]) and key_of(via[0]) not in self.entries

    def _entry(self, target: _Target, want: Want, claim: Claim, *, written: bool) -> Entry:
        """What the ledger is to hold: the value found first, as `FIRST` until something is written."""
        path, entry, values = target.path, target.entry, self.observed.values
        index = self.observed.indices.get(interface_of(path) or "")
        if entry is not None and entry.claim is claim and _complete(entry, want, index):
            return entry
        original = dict(entry.original) if entry is not None else {}
        facts = dict(entry.facts) if entry is not None else {}
        first = facts.get(FIRST)
        if entry is None and path not in self.observed.unset:
            found, first = self._found(path)
            if found:
                written = True  # it was us who changed it, in its other form
        if index is not None:
            facts[IFINDEX] = index
        facts.pop(RELEASE, None)
        if not want.restore:
            facts[RELEASE] = "keep"
        if VALUE in original:
            facts.pop(FIRST, None)
        elif first is not None and not written:
            facts[FIRST] = first
        elif first is not None:
            facts.pop(FIRST, None)
            original[VALUE] = str(first)
            through = giver(path)
            if through is not None:
                known = self.entries.get(key_of(through[0]))
                other = None if known is None else known.original.get(VALUE)
                other = values.get(through[0]) if other is None else other
                if other is not None:
                    original[dotted(through[0])] = other
        if entry is None:
            return Entry(claim, original=original, facts=facts)
        return replace(entry, claim=claim, original=original, facts=facts, sure=True)

    def _told_by_other(self, path: Path) -> bool:
        """Whether the key's other form can say exactly what this one had first."""
        other = partner(path)
        through = giver(path)
        return is_twin(path) or (through is not None and through[0] == other)

    def _found(self, path: Path) -> tuple[bool, str | None]:
        """Whether we changed a key that is new to us, in its other form, and what it had before: None if
        that is known of the other form alone, and comes back through it."""
        value = self.observed.values[path]
        other = partner(path)
        entry = None if other is None else self.entries.get(key_of(other))
        if entry is None:
            return False, value
        if is_twin(path):
            first = str(entry.original.get(VALUE, entry.facts.get(FIRST, value)))
            return first != value, first
        if VALUE not in entry.original:
            return False, value
        return True, entry.original.get(dotted(path))

    def _forget(self, done: dict[Path, _Target]) -> None:
        """Undeclared keys that are as they were first need no entry any more, unless a write of this patch
        changes them or may do so: then it stays, with the value to put back, until the next look."""
        touched: set[Path] = set()
        for op in self.ops if done else ():
            touched |= concerned(path_of(op.key), done)
        for path, target in done.items():
            if path not in touched:
                self.adopt.append((target.key, None))
            elif target.soft:
                assert target.entry is not None
                facts = {name: fact for name, fact in target.entry.facts.items() if name != FIRST}
                entry = replace(target.entry, original={VALUE: target.value}, facts=facts)
                self.adopt.append((target.key, entry))


def found_first(entry: Entry) -> Entry:
    """The entry of a key that is about to be written, as it is before: it knows the first value."""
    first = entry.original.get(VALUE)
    if first is None:
        return entry
    return replace(entry, original={}, facts={**entry.facts, FIRST: first})


def noted(change: Change) -> str:
    """``asked 1001, the kernel has 1004``."""
    return f"asked {change.want or '(nothing)'}, the kernel has {change.have or '(nothing)'}"
