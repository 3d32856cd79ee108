# SPDX-License-Identifier: MIT
"""The sysctl source: passes over all keys or over those that an event or the poll named, in rounds of
observe, diff, apply.

It takes its procfs and its event socket as arguments and knows neither the loop that drives it nor how a
namespace is found.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import ClassVar

from linxd.netlink.events import Events
from linxd.patch import Condition, Entry, Key, Op, Patch, Report
from linxd.reflex import Answered, Reflex
from linxd.source import Hint, Owned, Pass, Source, Subscription, settle_unsure
from linxd.sources.sysctl.apply import Applier, Outcome
from linxd.sources.sysctl.cascades import changes_others, concerned, giver
from linxd.sources.sysctl.diff import IFINDEX, VALUE, again, diff
from linxd.sources.sysctl.expand import Want, Wanted, directories, expand
from linxd.sources.sysctl.model import (
    ALL_AND_DEFAULT,
    KIND,
    Desired,
    Path,
    dotted,
    interface_of,
    key_of,
    path_of,
)
from linxd.sources.sysctl.observed import Observed, follow
from linxd.sources.sysctl.procfs import Procfs, text_of
from linxd.sources.sysctl.reader import Raw, Reader, texts
from linxd.sources.sysctl.reasons import module_of
from linxd.sources.sysctl.rounds import Rounds
from linxd.sources.sysctl.values import same
from linxd.sources.sysctl.watch import POLL, Watch, watch_of

log = logging.getLogger(__name__)

LARGE = 1000
"""Keys from which on the diff, being pure, runs in a thread beside the event loop."""
SLICE = 2000
"""Keys that are read in one go."""
LOOKS = 3
"""How often a look is begun anew because a link was replaced during it."""

Listing = dict[Path, frozenset[str] | None]
_NOTHING = Wanted({}, {}, {})


def _settle_doubts(owned: Owned, observed: Observed) -> None:
    """A value was being given back when we died: was it? All else that is in doubt counts as done, for an
    entry of a sysctl claims nothing but to know the first value."""

    def still_ours(key: Key, entry: Entry) -> bool | None:
        value = observed.values.get(path_of(key))
        if value is None:
            return None
        first = entry.original.get(VALUE)
        return first is None or not same(value, first)

    settle_unsure(owned, still_ours)


def _holds(raw: Raw | None, value: str) -> bool:
    return isinstance(raw, bytes) and same(text_of(raw), value)


def _usec(began: float) -> int:
    return max(1, int((time.monotonic() - began) * 1e6))


class SysctlSource(Source[Desired, Observed]):
    """The keys below /proc/sys of the namespace that ``procfs`` was made for.

    ``events`` opens a socket in that namespace, joined to `linxd.sources.sysctl.watch.GROUPS`; without it
    every key is polled. ``poll``: seconds. ``descriptors``: how many may be held; half of what the process
    may open if not given. ``procfs`` stays the caller's; `close` lets go of the rest.
    """

    name: ClassVar[str] = "sysctl"
    watch: ClassVar[str] = "event+poll"

    def __init__(
        self,
        procfs: Procfs,
        events: Callable[[], Events] | None = None,
        *,
        poll: float = POLL,
        descriptors: int | None = None,
    ) -> None:
        self._procfs = procfs
        self._open_events = events
        self._poll = poll
        self._reader = Reader(procfs, most=descriptors)
        self._applier = Applier(self._reader, self._managed)
        self._desired: Desired | None = None
        self._wanted = _NOTHING
        self._entries: Mapping[Key, Entry] = {}
        self._directories: list[Path] = []
        self._listing: Listing = {}
        self._indices: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._paths: dict[Path, None] = {}
        """All keys that matter: declared, owned, and what is needed to give those back."""
        self._silent: list[Path] = []
        self._disputes: dict[Path, str] = {}
        """Keys that were found to undo each other, as long as the declaration stays."""
        self._stale = True
        """Whether interfaces may have come or gone since the last look at everything."""
        self._quiet: tuple[Owned, dict[Path, Raw], tuple[Condition, ...]] | None = None
        """The last look at everything, if there was nothing to do: with the same again there is not."""
        self._watch: Watch | None = None
        self._owned: Owned | None = None
        self._reflex: Reflex[Outcome] = Reflex(lambda op, outcome: outcome.condition is None)

    def close(self) -> None:
        """Close what it holds open."""
        self._reader.close()

    # -- the four verbs -------------------------------------------------------------------------------------

    async def observe(self, work: Pass[Desired]) -> Observed:
        """Read all declared and owned keys. Raises OSError."""
        return self._observed(await self._look(work), None)

    def diff(self, observed: Observed, desired: Desired, owned: Owned) -> Patch:
        """The minimal patch. Pure."""
        wanted = self._wanted
        listing = {directory: observed.listing.get(directory) for directory in self._listing}
        if desired is not self._desired or listing != self._listing:
            wanted = expand(desired, observed.listing)
        return diff(observed, wanted, owned.of(KIND))

    async def reconcile(self, work: Pass[Desired]) -> Report:
        """One pass. See `linxd.source.Source.reconcile`."""
        return await self._reflex.accounted(lambda ahead: self._reconcile(work, ahead))

    async def _reconcile(self, work: Pass[Desired], ahead: Answered[Outcome] | None) -> Report:
        began = time.monotonic()
        self._owned = work.owned
        keys = {hint.key for hint in work.hints if hint.key is not None}
        whole = work.full or self._stale or bool(self._reader.renewed) or work.desired is not self._desired
        rounds = Rounds(work, self._applier, self._disputes)
        if ahead is not None and (ahead.result.condition is None or ahead.declared is work.desired):
            rounds.ahead(ahead.op, ahead.result, ahead.at)
            keys.add(ahead.op.key)
        some = None if whole else await self._some(work, rounds, frozenset(map(path_of, keys)))
        whole = some is None
        conditions = await self._everything(work, rounds) if some is None else some
        if self._watch is not None:
            self._watch.arm()
        return rounds.report(
            conditions, total=len(self._wanted.of), looked=None if whole else keys, usec=_usec(began)
        )

    def subscribe(self, notify: Callable[[Hint], None]) -> Subscription:
        """Hints from events and from the poll. Raises OSError."""
        events = None if self._open_events is None else self._open_events()
        self._watch = Watch(self, events, notify, poll=self._poll)
        self._watch.arm()
        return self._watch

    def objects(self, desired: Desired) -> Iterable[tuple[Key, str]]:
        """Every key, globs spread over the interfaces that there are."""
        return [(want.key, f"sysctl {dotted(path)}") for path, want in self._wanted.of.items()]

    def watched(self) -> Mapping[Key, str]:
        """How each declared key is watched: by events, or by a look each second."""
        silent = set(self._silent)
        return {want.key: "poll" if path in silent else "event" for path, want in self._wanted.of.items()}

    # -- asked by the watch ---------------------------------------------------------------------------------

    def drifted(self, *, silent: bool = False, only: Collection[Path] | None = None) -> Iterable[Key]:
        """Keys that are not as they were at the last pass. ``silent``: of those without events; ``only``: of
        just these."""
        if only is None:
            paths: Iterable[Path] = self._silent if silent else self._paths
        else:
            paths = [path for path in only if path in self._paths]
        changed = self._reader.changed(paths)
        if self._reader.renewed:
            self._stale = True
        return [key_of(path) for path in changed]

    def alone(self, path: Path, at: float) -> Hint | None:
        """A key that alone was told of, at that moment (CLOCK_MONOTONIC seconds): its hint, if it is not as
        it was at the last pass. What the hint calls for is done by then, where it is simple."""
        if path not in self._paths:
            return None
        reader = self._reader
        raw, before = reader.look(path), reader.seen.get(path)
        if reader.renewed:
            self._stale = True
        if raw == before:
            return None
        want = self._wanted.of.get(path)
        hint = Hint(key_of(path) if want is None else want.key, at=at)
        # What was not as declared before may be impossible, or waits for something.
        if want is not None and _holds(before, want.value) and not isinstance(raw, int):
            try:
                return self._react(hint, want, text_of(raw))
            except Exception:
                # The pass will meet it again, and knows how to say it.
                log.debug("%s: ahead of a pass", self.name, exc_info=True)
        return hint

    def interface(self, ifindex: int) -> str | None:
        """The name that an interface of some key had at the last pass."""
        return self._names.get(ifindex)

    def interfaces_moved(self) -> Iterable[Key]:
        """Keys and globs that concern an interface which came or went since the last pass."""
        keys: list[Key] = []
        for directory, names in self._listing.items():
            now = self._procfs.listing(directory)
            if now == names or directory[2:3] not in (("conf",), ("neigh",)):
                continue
            moved = (now or frozenset()) ^ (names or frozenset())
            keys += [key_of(glob) for glob in self._wanted.globs if glob[:3] == directory]
            keys += [key_of(path) for path in self._paths if path[:3] == directory and path[3] in moved]
        if keys:
            self._stale = True
        return keys

    def knows(self, name: str) -> bool:
        """Whether the interface was there at the last pass."""
        return all(names is None or name in names for names in self._listing.values())

    @property
    def silent(self) -> bool:
        """Whether there is anything to look at each second."""
        return bool(self._silent)

    def _react(self, hint: Hint, want: Want, have: str) -> Hint:
        path, owned = want.path, self._owned
        if owned is None or self._stale or path in self._wanted.refused or path in self._disputes:
            return hint
        # What other keys change along with is looked at with them.
        if self._reader.readonly((path,)) or changes_others(path):
            return hint
        entry = owned.get(want.key)
        if entry is not None:
            op = again(want, have, entry, self._indices.get(interface_of(path) or ""))
            if op is not None:
                return self._reflex.act(hint, op, entry, self._desired, self.admits, self._carry_out)
        return hint

    # -- passes ---------------------------------------------------------------------------------------------

    async def _everything(self, work: Pass[Desired], rounds: Rounds) -> Iterable[Condition]:
        self._stale = False
        raws = await self._look(work)
        quiet = self._quiet
        if quiet is not None and quiet[0] is work.owned and quiet[1] == raws:
            self._reader.remember(raws)
            return quiet[2]
        self._quiet = None
        observed = self._observed(raws, None)
        if work.write:
            _settle_doubts(work.owned, observed)
        patch = await self._plan(work, observed)
        while await rounds.run(patch):
            raws = await self._look(work)
            patch = await self._plan(work, self._observed(raws, None))
        self._reader.remember(raws)
        if not rounds.drifted and not rounds.conditions and not patch.adopt:
            self._quiet = (work.owned, raws, patch.conditions)
        return patch.conditions

    async def _some(
        self, work: Pass[Desired], rounds: Rounds, paths: frozenset[Path]
    ) -> Iterable[Condition] | None:
        """The named keys; then what the writes may have changed. None if all keys must be looked at, for a
        link was replaced."""
        self._quiet = None
        while True:
            needed = {path for path in paths if path in self._paths}
            needed |= {through[0] for path in needed if (through := giver(path)) is not None}
            raws = self._reader.read(needed)
            if self._reader.renewed:
                return None
            patch = await self._plan(work, self._observed(raws, paths))
            if not await rounds.run(patch):
                self._reader.remember({path: raw for path, raw in raws.items() if path in paths})
                return patch.conditions
            paths = paths.union(*(concerned(path_of(op.key), self._paths) for op in patch.ops))

    async def _plan(self, work: Pass[Desired], observed: Observed) -> Patch:
        entries = work.owned.of(KIND)
        if len(observed.values) < LARGE:
            return diff(observed, self._wanted, entries)
        return await asyncio.to_thread(diff, observed, self._wanted, entries)

    async def _look(self, work: Pass[Desired]) -> dict[Path, Raw]:
        for _ in range(LOOKS):
            self._survey(work.desired, work.owned.of(KIND))
            raws: dict[Path, Raw] = {}
            paths = list(self._paths)
            for start in range(0, len(paths), SLICE):
                raws.update(self._reader.read(paths[start : start + SLICE]))
                await work.checkpoint()
            if not self._reader.renewed:
                break  # else another link stands under a name: what is known of the old one is not its own
        return raws

    # -- what there is --------------------------------------------------------------------------------------

    def _carry_out(self, op: Op) -> Outcome | None:
        """Ahead of a pass; None where somebody was faster."""
        assert self._owned is not None
        outcome = self._applier.carry_out(op, self._owned)
        return None if outcome.op is None and outcome.condition is None else outcome

    def _managed(self, path: Path) -> bool:
        return path in self._paths

    def _survey(self, desired: Desired, entries: Mapping[Key, Entry], tries: int = LOOKS) -> None:
        """See which interfaces there are, and with that which keys matter."""
        new = desired is not self._desired
        if new:
            self._disputes.clear()
            self._quiet = None
        if new or entries != self._entries:
            paths = [setting.path for setting in desired.settings]
            self._directories = sorted(directories(paths) | directories(map(path_of, entries)))
        listing: Listing = {directory: self._procfs.listing(directory) for directory in self._directories}
        moved = listing != self._listing or bool(self._reader.renewed) or self._reader.crowded
        if not new and not moved and entries == self._entries:
            return
        if new or listing != self._listing:
            self._wanted = expand(desired, listing)
            self._quiet = None
        self._desired, self._listing, self._entries = desired, listing, dict(entries)
        if moved:
            self._quiet = None
            self._reader.renewed.clear()
            self._indices = self._procfs.indices(self._named(listing))
            self._names = {ifindex: name for name, ifindex in self._indices.items()}
            if tries > 1 and self._torn(entries):
                self._listing = {}
                self._survey(desired, entries, tries - 1)
                return
        followed = follow(entries, self._indices, listing)
        paths_now = dict.fromkeys(self._wanted.of)
        paths_now.update(dict.fromkeys(map(path_of, followed.entries)))
        for path in list(paths_now):
            through = giver(path)
            if through is not None:
                paths_now[through[0]] = None
        if paths_now.keys() != self._paths.keys():
            self._paths = paths_now
            self._silent = [p for p in paths_now if self._open_events is None or watch_of(p) == "poll"]
            self._reader.keep(paths_now)

    def _torn(self, entries: Mapping[Key, Entry]) -> bool:
        """Whether an interface of ours has just gone by all names that were seen, and is there: it was being
        renamed, and what is known of it is not to be forgotten."""
        lost = {int(entry.facts.get(IFINDEX, 0)) for entry in entries.values()} - self._names.keys() - {0}
        return bool(lost) and self._procfs.exists(lost)

    def _named(self, listing: Listing) -> set[str]:
        """Interfaces whose index must be known: those of our keys, and those that may be ours under a new
        name."""
        names = {name for names in listing.values() for name in names or ()}
        if not any(IFINDEX in entry.facts for entry in self._entries.values()):
            names &= {interface_of(path) or "" for path in self._wanted.of}
        return names.difference(ALL_AND_DEFAULT)

    def _observed(self, raws: dict[Path, Raw], only: frozenset[Path] | None) -> Observed:
        values, troubles, unset = texts(raws)
        listing = dict(self._listing)
        for path, number in troubles.items():
            module = module_of(path) if number == errno.ENOENT else None
            if module is not None and module[0] not in listing:
                listing[module[0]] = self._procfs.listing(module[0])
        for glob in self._wanted.globs:
            module = module_of(glob) if self._listing.get(glob[:3]) is None else None
            if module is not None and module[0] not in listing:
                listing[module[0]] = self._procfs.listing(module[0])
        return Observed(
            values,
            troubles,
            unset,
            self._reader.readonly(values),
            listing,
            self._indices,
            dict(self._disputes),
            only,
        )
