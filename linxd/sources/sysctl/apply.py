# SPDX-License-Identifier: MIT
"""One op carried out: the ledger first, then the key, then a look at what became of it and of its
neighbours.

It decides nothing about what is to be written.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
from collections.abc import Callable, Collection

from linxd.patch import Change, Condition, Op, State
from linxd.records import dataclass, replace
from linxd.source import LedgerError, Owned, is_news, transient, unrecorded
from linxd.sources.sysctl import reasons
from linxd.sources.sysctl.cascades import rows_of, targets
from linxd.sources.sysctl.diff import VALUE, noted
from linxd.sources.sysctl.model import Path, Sysctl, dotted, interface_of
from linxd.sources.sysctl.procfs import text_of
from linxd.sources.sysctl.reader import Reader
from linxd.sources.sysctl.values import same, shown

_MOST_NAMED = 3
"""Interfaces whose keys changed with another one are named up to this number."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an op. ``op``: as it was carried out, with what changed besides; None if it was not."""

    op: Op | None
    condition: Condition | None = None


class Applier:
    """Writes keys. ``managed`` tells whether a key is declared or owned: those are not spoken of as side
    effects."""

    def __init__(self, reader: Reader, managed: Callable[[Path], bool]) -> None:
        self._reader = reader
        self._procfs = reader.procfs
        self._managed = managed

    def carry_out(self, op: Op, owned: Owned) -> Outcome:
        """Make the change, unless the key already is as it shall be, or the ledger can't be told of it."""
        want = op.want
        assert isinstance(want, Sysctl)
        path, goal = want.via or (want.path, want.value)
        have = self.value(want.path)
        if have is not None and same(have, want.value) and (want.via is None or self._has(path, goal)):
            return Outcome(None)
        if interface_of(want.path) in self._reader.renewed:
            return Outcome(None)  # another link by now: the entry is about the one that went
        besides = self._besides(path)
        before = self._values(besides)
        ahead = is_news(owned.get(op.key), op.after)
        try:
            if ahead:
                owned.intend([(op.key, op.after)])
        except LedgerError as error:
            return Outcome(None, unrecorded(op, error))
        try:
            self._reader.write(path, goal)
        except OSError as error:
            if ahead:
                owned.revert([op.key])
            return Outcome(None, self._failed(op, want, error))
        if ahead:
            owned.settle([op.key])
        if have is not None and not same(have, want.value):
            value = Change(VALUE, shown(want.path, have), shown(want.path, want.value))
            op = replace(op, have=Sysctl(want.path, have), changes=(value,))
        condition = self._read_back(op, want, path, goal, owned)
        changed = _besides(before, self._values(besides))
        return Outcome(replace(op, changes=(*op.changes, *changed)), condition)

    def _read_back(self, op: Op, want: Sysctl, path: Path, goal: str, owned: Owned) -> Condition | None:
        """The kernel keeps another form, or none: asked twice and answered alike, so that nobody's write in
        between is taken for it."""
        first = self.value(want.path)
        if first is None or same(first, want.value) or interface_of(want.path) in self._reader.renewed:
            return None
        try:
            self._reader.write(path, goal)
        except OSError:
            return None
        second = self.value(want.path)
        if second is None or second != first:
            return None
        entry = owned.get(op.key)
        if op.after is not None and entry is not None:
            asked, settled = {**entry.asked, VALUE: want.value}, {**entry.settled, VALUE: second}
            # Where that can't be kept, it is found out again, and said again, after a restart.
            with contextlib.suppress(LedgerError):
                owned.put([(op.key, replace(entry, asked=asked, settled=settled))])
        change = Change(VALUE, shown(path, second), shown(path, want.value))
        return Condition(op.key, op.name, State.NOTED, noted(change))

    def _failed(self, op: Op, want: Sysctl, error: OSError) -> Condition:
        number = error.errno or errno.EIO
        value = shown(want.path, want.value)
        text = reasons.refused(number, value, self._reader.mode(want.path))
        if op.after is None:
            text = f"its first value can't be given back: {text}"
        again = transient(number) and number != errno.ENOENT
        return Condition(op.key, op.name, State.FAILED, text, number, transient=again)

    def _besides(self, path: Path) -> list[Path]:
        """Keys that are neither declared nor owned and may change when this one is written."""
        names: set[str] = set()
        rows = list(rows_of(path))
        if not rows:
            return []
        for row, _ in rows:
            if "*" in row.target:
                names |= self._procfs.listing(row.target[:3]) or set()
        return [one for one in dict.fromkeys(targets(path, names)) if not self._managed(one)]

    def value(self, path: Path) -> str | None:
        """What a key has now, None if that can't be read."""
        raw = self._reader.look(path)
        return None if isinstance(raw, int) else text_of(raw)

    def _has(self, path: Path, value: str) -> bool:
        have = self.value(path)
        return have is not None and same(have, value)

    def _values(self, paths: Collection[Path]) -> dict[Path, str]:
        found: dict[Path, str] = {}
        if not paths:
            return found
        with self._procfs.inside():
            for path in paths:
                try:
                    found[path] = self._procfs.read(path)
                except OSError:
                    continue  # not on this kernel, or gone
        return found


def _besides(before: dict[Path, str], after: dict[Path, str]) -> list[Change]:
    """What changed along with a key; that of many interfaces in one line."""
    changed = [
        (path, have, after[path]) for path, have in before.items() if path in after and after[path] != have
    ]

    def same_line(item: tuple[Path, str, str]) -> tuple[Path, str, str]:
        path, have, want = item
        if interface_of(path) is None:
            return item
        return (*path[:3], "*", *path[4:]), have, want

    changes: list[Change] = []
    for (line, have, want), items in itertools.groupby(sorted(changed, key=same_line), same_line):
        paths = [path for path, _, _ in items]
        if len(paths) > _MOST_NAMED:
            name = f"also {dotted(line)} ({len(paths)} links)"
            changes.append(Change(name, shown(line, have), shown(line, want)))
        else:
            changes += [
                Change(f"also {dotted(path)}", shown(path, have), shown(path, want)) for path in paths
            ]
    return changes
