# SPDX-License-Identifier: MIT
"""What is ours: one entry per object, changed in memory or in an append-only file that outlives a crash.

A ledger knows what it was told, never what the kernel has: who may touch what is for linxd.ownership, what
became of a write in doubt for `linxd.source.settle_unsure`.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from linxd.ledgerfile import Entries, LineFile, change, encoded, keys_of, written
from linxd.patch import Claim, Entry, Key
from linxd.records import replace
from linxd.source import Doubt, LedgerError, settle_unsure

__all__ = ["Doubt", "FileLedger", "LedgerError", "MemoryLedger", "settle_unsure"]


_FORMAT = 1
_STEP = 256
"""Entries that a step of a rewrite writes: a millisecond."""
_GARBAGE = 1024
"""Records that may be past before a rewrite pays."""


class MemoryLedger:
    """A ledger for as long as the process lives: `linxd.source.Owned` without a file.

    Enough for library use, where marks or nothing at all decide after a restart.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, dict[Key, Entry]] = {}
        self._lent: set[str] = set()
        """Kinds of which a snapshot is out: their dictionary is replaced, not changed, by the next
        change."""
        self._doubts: dict[Key, Doubt] = {}

    def __len__(self) -> int:
        return sum(map(len, self._kinds.values()))

    def get(self, key: Key) -> Entry | None:
        kind = self._kinds.get(str(key[0]))
        return None if kind is None else kind.get(key)

    def of(self, kind: str) -> Mapping[Key, Entry]:
        self._lent.add(kind)
        return MappingProxyType(self._kinds.get(kind, {}))

    def in_doubt(self) -> Mapping[Key, Doubt]:
        return dict(self._doubts)

    def intend(self, entries: Iterable[tuple[Key, Entry | None]]) -> None:
        changes: Entries = []
        for key, entry in dict(entries).items():
            current = self.get(key)
            if current is None and entry is not None and entry.sure:
                changes.append((key, entry))
                continue
            after = _kept(current, entry)
            # Whatever becomes of the write, the entry is the same: there is nothing to remember.
            if key in self._doubts or after != current:
                changes.append((key, after))
        if changes:
            self._write_intent(changes)
            self._intend(changes)

    def settle(self, keys: Iterable[Key]) -> None:
        known = [key for key in dict.fromkeys(keys) if key in self._doubts]
        if known:
            self._write_outcome(known, happened=True)
            self._settle(known)

    def revert(self, keys: Iterable[Key]) -> None:
        known = [key for key in dict.fromkeys(keys) if key in self._doubts]
        if known:
            self._write_outcome(known, happened=False)
            self._revert(known)

    def put(self, entries: Iterable[tuple[Key, Entry | None]]) -> None:
        changes: Entries = []
        for key, entry in dict(entries).items():
            current = self.get(key)
            after = _kept(current, entry)
            if key in self._doubts or after != current:
                changes.append((key, after))
        if changes:
            self._write_put(changes)
            self._put(changes)

    # What a file does before memory changes. `_write_outcome` never raises; the others may, with
    # LedgerError.

    def _write_intent(self, changes: Entries) -> None:
        pass

    def _write_outcome(self, keys: list[Key], *, happened: bool) -> None:
        pass

    def _write_put(self, changes: Entries) -> None:
        pass

    # The changes themselves, also made when a file is read again.

    def _intend(self, changes: Entries) -> None:
        doubts = self._doubts
        shows: Entries = []
        for key, after in changes:
            doubt = doubts.get(key)
            if doubt is None:
                before = self.get(key)
            else:
                # A second write before the outcome of the first is known. A found entry of the first is
                # kept, with the value found first; one that claims more is not, the object may be a
                # stranger's.
                first = doubt.after
                before = first if first is not None and first.claim is Claim.FOUND else doubt.before
            doubts[key] = Doubt(before, after)
            shown = after or before
            shows.append((key, None if shown is None else _unsure(shown)))
        self._show(shows)

    def _settle(self, keys: Iterable[Key]) -> None:
        doubts = ((key, self._doubts.pop(key, None)) for key in keys)
        self._show((key, doubt.after) for key, doubt in doubts if doubt is not None)

    def _revert(self, keys: Iterable[Key]) -> None:
        doubts = ((key, self._doubts.pop(key, None)) for key in keys)
        self._show((key, doubt.before) for key, doubt in doubts if doubt is not None)

    def _put(self, changes: Entries) -> None:
        for key, _ in changes:
            self._doubts.pop(key, None)
        self._show(changes)

    def _show(self, shows: Iterable[tuple[Key, Entry | None]]) -> None:
        name = ""
        kind: dict[Key, Entry] = {}
        for key, entry in shows:
            if key[0] != name:
                name = str(key[0])
                kind = self._of_our_own(name)
            if entry is None:
                kind.pop(key, None)
            else:
                kind[key] = entry

    def _of_our_own(self, name: str) -> dict[Key, Entry]:
        """The entries of a kind, for us to change."""
        kind = self._kinds.get(name)
        if kind is None or name in self._lent:
            self._lent.discard(name)
            kind = self._kinds[name] = dict(kind or {})
        return kind


_PLAIN_UNSURE = {claim: Entry(claim, sure=False) for claim in Claim}


def _unsure(entry: Entry) -> Entry:
    if not (entry.original or entry.asked or entry.settled or entry.facts):
        return _PLAIN_UNSURE[entry.claim]
    return Entry(entry.claim, entry.original, entry.asked, entry.settled, entry.facts, False)


def _kept(current: Entry | None, entry: Entry | None) -> Entry | None:
    """The new entry, sure, with the original values that were found first."""
    if entry is None:
        return None
    if not entry.sure:
        entry = replace(entry, sure=True)
    if current is None or not current.original or current.original == entry.original:
        return entry
    return replace(entry, original={**entry.original, **current.original})


class FileLedger(MemoryLedger):
    """A ledger in ``directory/SOURCE.ledger`` that is right again after a crash at any moment.

    One line of JSON per call, appended by a single write: a line is whole and counts, or was never finished
    and counts for nothing, and then the call had not returned. There is no fsync: the file lies in /run, a
    tmpfs, and outlives the process, which is all it must; a machine that goes down takes the kernel's state
    with it.

    The first line names the boot and the namespace (SO_NETNS_COOKIE) for which the rest holds; a file of
    another one is replaced with the first write, and `note` says so. Behind something that can't be read
    nothing is believed and `problem` says so. The file is rewritten in small steps when most of it is past.

    Constructing one never fails: while the directory can't be written, `problem` says why and each `intend`
    and `put` tries again and raises LedgerError.
    """

    def __init__(self, directory: str | os.PathLike[str], *, boot_id: str, cookie: int, source: str) -> None:
        super().__init__()
        self._directory = os.fspath(directory)
        self.path = os.path.join(self._directory, f"{source}.ledger")
        self.problem: str | None = None
        """What is wrong with the file that was found, or why there can be none."""
        self.note: str | None = None
        """That a file was found which is not about this boot or namespace."""
        self._header = {"linxd": _FORMAT, "source": source, "boot": boot_id, "cookie": cookie}
        self._file: LineFile | None = None
        self._next: LineFile | None = None
        self._rest: Iterator[tuple[Entries, Entries]] = iter(())
        self._behind = False
        """An outcome is in memory alone: the file has to be written anew before it can go on."""
        self._closed = False
        self._unusable = ""
        self._load()

    def close(self) -> None:
        """Close the file. What is in it stays; what is asked later is refused."""
        self._abandon()
        if self._file is not None:
            self._file.close()
            self._file = None
        self._closed = True

    def drop(self) -> None:
        """Forget everything, the file too."""
        self.close()
        self._kinds.clear()
        self._lent.clear()
        self._doubts.clear()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    # -- changes --------------------------------------------------------------------------------------------

    def intend(self, entries: Iterable[tuple[Key, Entry | None]]) -> None:
        super().intend(entries)
        self._compact()

    def settle(self, keys: Iterable[Key]) -> None:
        super().settle(keys)
        self._compact()

    def revert(self, keys: Iterable[Key]) -> None:
        super().revert(keys)
        self._compact()

    def put(self, entries: Iterable[tuple[Key, Entry | None]]) -> None:
        super().put(entries)
        self._compact()

    def _write_intent(self, changes: Entries) -> None:
        self._append(["i", written(changes)], len(changes))

    def _write_put(self, changes: Entries) -> None:
        self._append(["p", written(changes)], len(changes))

    def _write_outcome(self, keys: list[Key], *, happened: bool) -> None:
        verb = "s" if happened else "r"
        try:
            if len(keys) == len(self._doubts):
                self._append([verb], 1)
            else:
                self._append([verb, keys], len(keys))
        except LedgerError:
            # The kernel has decided already, so memory follows. Should we crash before the file does, it
            # still holds the intention, which nobody trusts.
            self._behind = True

    def _append(self, line: list[object], records: int) -> None:
        try:
            if self._closed:
                raise OSError(errno.EBADF, "it is closed")
            if self._file is None or self._behind or self._file.lost():
                self._rewrite()
            assert self._file is not None
            data = encoded(line)
            self._file.append(data, records)
        except OSError as exc:
            raise LedgerError(
                exc.errno or errno.EIO, f"ledger {self.path} can't be written: {exc.strerror}"
            ) from exc
        if self._next is not None:
            try:
                self._next.append(data, records)
            except OSError:
                self._abandon()

    # -- keeping it small -----------------------------------------------------------------------------------

    def _compact(self) -> None:
        """Go on with the next file, by about as much as was written since: no call takes long, and it gets
        done."""
        file = self._file
        if file is None or self._behind:
            return
        if self._next is None:
            live = len(self) + len(self._doubts)
            if file.records > 2 * live + _GARBAGE and file.records > file.give_up_until:
                with contextlib.suppress(OSError):
                    self._begin()
            file.unpaid = 0
            return
        steps = max(1, 2 * file.unpaid // _STEP)
        file.unpaid = 0
        try:
            for _ in range(steps):
                if not self._step():
                    break
        except OSError:
            self._abandon()

    def _rewrite(self) -> None:
        """Write the whole file anew at once. Raises OSError."""
        self._abandon()
        try:
            self._begin()
            while self._step():
                pass
        except OSError:
            self._abandon()
            raise
        self._behind = False
        if self.problem == self._unusable:
            self.problem = None

    def _begin(self) -> None:
        os.makedirs(self._directory, 0o700, exist_ok=True)
        self._next = LineFile(f"{self.path}.new", os.O_CREAT | os.O_TRUNC, owner=self._directory)
        self._next.append(encoded(self._header), 0)
        self._rest = self._state()

    def _step(self) -> bool:
        assert self._next is not None
        for puts, intents in self._rest:
            self._next.append(encoded(["p", written(puts)]), len(puts))
            if intents:
                self._next.append(encoded(["i", written(intents)]), len(intents))
            return True
        os.replace(f"{self.path}.new", self.path)
        if self._file is not None:
            self._file.close()
        self._file, self._next = self._next, None
        return False

    def _state(self) -> Iterator[tuple[Entries, Entries]]:
        """Everything, in steps, each as it is when its turn comes; changes meanwhile go into both files."""
        keys = list(itertools.chain.from_iterable(self._kinds.values()))
        # Most writes in flight are of objects that are in there already.
        keys += [key for key in self._doubts if self.get(key) is None]
        for start in range(0, len(keys), _STEP):
            puts: Entries = []
            intents: Entries = []
            for key in keys[start : start + _STEP]:
                doubt = self._doubts.get(key)
                if doubt is None:
                    puts.append((key, self.get(key)))
                else:
                    puts.append((key, doubt.before))
                    intents.append((key, doubt.after))
            yield puts, intents

    def _abandon(self) -> None:
        if self._next is not None:
            self._next.close()
            self._next = None
            if self._file is not None:
                self._file.give_up_until = 2 * self._file.records
            with contextlib.suppress(OSError):
                os.unlink(f"{self.path}.new")

    # -- reading --------------------------------------------------------------------------------------------

    def _load(self) -> None:
        try:
            # A file about another namespace stays until there is something to write: whoever only looked
            # into the wrong one has not spoilt it.
            if not self._read() and self.note is None:
                self._rewrite()
        except OSError as exc:
            self.problem = self._unusable = f"ledger {self.path} can't be used: {exc.strerror}"

    def _read(self) -> bool:
        """Take over the file as far as it can be believed. False: it has to be written anew."""
        try:
            file = LineFile(self.path, 0)
        except FileNotFoundError:
            return False
        stranger = file.stranger()
        if stranger:
            file.close()
            self.problem = f"ledger {self.path} is not believed: {stranger}; started without it"
            return False
        *lines, _torn = file.content().split(b"\n")
        try:
            header = json.loads(lines[0])
            if header["linxd"] != _FORMAT or header["source"] != self._header["source"]:
                raise ValueError(f"it is of format {header['linxd']}, source {header['source']}")
            theirs = (header["boot"], header["cookie"])
        except (ValueError, LookupError, TypeError, RecursionError) as exc:
            file.close()
            words = str(exc) if lines else "it has no first line"
            self.problem = f"ledger {self.path} can't be read ({words}); started without it"
            return False
        if theirs != (self._header["boot"], self._header["cookie"]):
            file.close()
            what = "boot" if theirs[0] != self._header["boot"] else "network namespace"
            self.note = f"ledger {self.path} is about another {what}; started without it"
            return False
        good = len(lines[0]) + 1
        for number, line in enumerate(lines[1:], 2):
            try:
                file.records += self._replay(json.loads(line))
            except (ValueError, RecursionError):
                self.problem = (
                    f"ledger {self.path} can't be read from line {number} on; what stands before counts"
                )
                break
            good += len(line) + 1
        file.cut(good)
        self._file = file
        return True

    def _replay(self, line: object) -> int:
        """Do one line again; returns how many records it holds. Raises ValueError, with nothing changed."""
        match line:
            case ["i", list(written)]:
                changes = [change(item) for item in written]
                self._intend(changes)
                return len(changes)
            case ["p", list(written)]:
                changes = [change(item) for item in written]
                self._put(changes)
                return len(changes)
            case ["s" | "r" as verb, *rest] if len(rest) <= 1:
                keys = list(self._doubts) if not rest else keys_of(rest[0])
                (self._settle if verb == "s" else self._revert)(keys)
                return len(keys) if rest else 1
        raise ValueError("not a line of a ledger")
