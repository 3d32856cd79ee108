# SPDX-License-Identifier: MIT
"""The netfilter source: declared tables compared with the kernel's on the kernel's own bytes, healed in one
go.

A pass looks, compares and commits under the generation that it looked at; when that has passed, it looks
again. It knows neither the loop that drives it nor how its namespace was found.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

from linxd.netlink.events import Events
from linxd.netlink.socket import Requests
from linxd.patch import Culprit, Key, Op, Patch, Report
from linxd.reflex import Reflex, alone
from linxd.source import Hint, Owned, Pass, Source, Subscription, Unsupported, Writer
from linxd.sources.netfilter.commit import Fate, commit_now, follow, simple
from linxd.sources.netfilter.compile import Compiled, Compiler
from linxd.sources.netfilter.decode import known
from linxd.sources.netfilter.events import EventReader, Identify
from linxd.sources.netfilter.look import Look
from linxd.sources.netfilter.mirror import Mirror, Transaction
from linxd.sources.netfilter.model import Desired
from linxd.sources.netfilter.plan import Observed, plan
from linxd.sources.netfilter.reader import Reader
from linxd.sources.netfilter.run import Run
from linxd.sources.netfilter.state import TableId
from linxd.sources.netfilter.things import (
    ChainThing,
    FlowtableThing,
    ObjectThing,
    RuleThing,
    SetThing,
    TableThing,
    table_key,
)
from linxd.sources.netfilter.touched import Touched
from linxd.sources.netfilter.wanted import Wanted

log = logging.getLogger(__name__)

LARGE = 4000
"""Rules and elements from which on a comparison of everything, being pure, runs beside the event loop."""


def _nobody(pid: int, comm: str) -> Culprit | None:
    return Culprit(pid, comm, confirmed=True)


class NetfilterSource(Source[Desired, Observed]):
    """Tables of the namespace that ``requests`` (NETLINK_NETFILTER) was opened in.

    ``events`` opens a new event socket there, of NFNLGRP_NFTABLES; ``link_events`` one of RTNLGRP_LINK, for
    kernels that don't hang chains on links that come later. None: no events. ``identify`` names the process
    behind a pid, at once.
    """

    name: ClassVar[str] = "netfilter"
    watch: ClassVar[str] = "event"
    interruptible: ClassVar[bool] = True

    def __init__(
        self,
        requests: Requests,
        events: Callable[[], Events] | None,
        compiler: Compiler,
        *,
        link_events: Callable[[], Events] | None = None,
        identify: Identify = _nobody,
    ) -> None:
        self.requests = requests
        self.compiler = compiler
        self.mirror = Mirror()
        self.races = 0
        """Commits that came too late, and were made again."""
        self.commits = 0
        self.loaded_once = False
        """Whether all that is declared has been in force at some time in this namespace."""
        self.named: set[Key] = set()
        """Objects that the last reports had something to say about."""
        self.writers: dict[TableId, Writer] = {}
        """Who wrote to a table last, since it was last as declared."""
        self._open_events = events
        self._open_links = link_events
        self._identify = identify
        self._look = Look(Reader(requests), self.mirror, self._drain)
        self._wanted = Wanted(compiler, requests.sock, self._use)
        self._devices: frozenset[str] = frozenset()
        """Links that declared chains hang on, by their names."""
        self._compared: tuple[str, Desired] | None = None
        """What all tables have been compared with since they were read, with nothing left to do."""
        self._clean = False
        """Whether there was nothing to say about any of them."""
        self._owned: Owned | None = None
        self._keep_foreign = True
        self._reader: EventReader | None = None
        self._queue: deque[Transaction] = deque()
        self._passes = 0
        self._desired: Desired | None = None
        """What the last pass was for."""
        self._reflex: Reflex[int] = Reflex(lambda op, generation: not self.mirror.unknown)
        """What was done ahead of a pass, and which generation that made."""

    @property
    def reads(self) -> int:
        """Times that tables were dumped."""
        return self._look.reads

    # --- the contract -------------------------------------------------------------------------------

    async def observe(self, work: Pass[Desired]) -> Observed:
        """What the kernel makes of the declaration, and what it has. Raises Blocked."""
        return await self.look(work, full=work.full)

    def diff(self, observed: Observed, desired: Desired, owned: Owned) -> Patch:
        """Pure, and possibly long: `linxd.sources.netfilter.plan.plan`."""
        return plan(observed, desired, owned)

    async def check(self, desired: Desired) -> None:
        """Compile a declaration and leave it at that. Raises RulesetError with all its faults."""
        await self.compiler.compile(desired, self._wanted.index, _at_once)

    def unit(self, key: Key) -> Key:
        """The table that it stands in."""
        return ("table", *key[1:3])

    def objects(self, desired: Desired) -> Iterable[tuple[Key, str]]:
        """The tables that were compiled last, with what is in them; rules by their places."""
        for where, table in self._wanted.form.tables.items():
            keys = [TableThing(table).key]
            keys += [ObjectThing(where, one).key for one in table.objects.values()]
            keys += [FlowtableThing(where, one).key for one in table.flowtables.values()]
            keys += [SetThing(where, one).key for one in table.sets.values()]
            for chain in table.chains.values():
                keys.append(ChainThing(where, chain).key)
                keys += [
                    RuleThing(where, chain.name, rule, place).key
                    for place, rule in enumerate(chain.rules, 1)
                ]
            for key in keys:
                yield key, " ".join(map(str, key))

    def subscribe(self, notify: Callable[[Hint], None]) -> Subscription:
        if self._open_events is None:
            raise Unsupported(self.name)
        events = self._open_events()
        try:
            links = self._open_links() if self._open_links is not None else None
        except OSError:
            events.close()
            raise
        self.mirror.lose()
        self._queue.clear()
        reader = EventReader(events, links, self, notify, self._identify)
        self._reader = reader
        return _Subscribed(self, reader)

    def unsubscribed(self, reader: EventReader) -> None:
        """A subscription has been closed."""
        if self._reader is reader:
            self._reader = None
            self.mirror.lose()

    # --- asked and told by the event reader ---------------------------------------------------------

    @property
    def portid(self) -> int:
        """The port that our own writes come from."""
        return self.requests.portid

    def matters(self, where: TableId) -> bool:
        """Whether a table's content is compared."""
        return where in self._wanted.form.tables

    def wants_to_know(self, where: TableId) -> bool:
        """Whether a change of a table is worth a pass."""
        if where in self._wanted.form.tables or not self._keep_foreign:
            return True
        return self._owned is not None and self._owned.get(table_key(where)) is not None

    def waits_for(self, link: str) -> list[TableId]:
        """Tables that hang on a link, where the kernel does not see to it."""
        if self._wanted.form.late:
            return []
        found = [where for where, table in self._wanted.form.tables.items() if link in table.devices]
        if found:
            self.mirror.lose()
        return found

    def happened(self, change: Transaction) -> None:
        """Take in a transaction, for the next look."""
        self._queue.append(change)
        if change.writer is not None:
            for where in change.tables:
                self.writers[where] = change.writer

    def overrun(self) -> None:
        """Events were lost."""
        self._queue.clear()
        self.mirror.lose()

    def identify(self) -> None:
        """Look up who wrote what is healed: that is on its way to the kernel."""
        if self._reader is not None:
            self._reader.writers.look()

    def react(self, hint: Hint) -> Hint:
        """A transaction that stands alone, and its hint, which is about to be told of: what it calls for may
        be done first, where it is one rule or some elements of one set. Returns the hint to be told."""
        owned, form, mirror = self._owned, self._wanted.form, self.mirror
        if not self.idle() or owned is None or self._desired is None:
            return hint
        if self._compared != (form.digest, self._desired):
            return hint
        try:
            self._take_in()
            followed = mirror.valid and not mirror.unknown and self._wanted.stands()
            if followed and all(one.inner for one in mirror.touched.values()):
                op = alone(self.diff(self._observed(form, mirror.touched), self._desired, owned))
                if op is not None and simple(op):
                    known = owned.get(self.unit(op.key))
                    return self._reflex.act(hint, op, known, self._desired, self.admits, self._commit)
        except Exception:
            # The pass will meet it again, and knows how to say it.
            log.debug("%s: ahead of a pass", self.name, exc_info=True)
        return hint

    def _commit(self, op: Op) -> int | None:
        """Carry out an op ahead of a pass. Returns the generation that came of it, None if none did."""
        mirror = self.mirror
        outcome = commit_now(self.requests, mirror.generation, (op,), self.identify)
        if outcome.fate is Fate.LOST:
            mirror.lose()
        self.races += outcome.fate is Fate.MOVED
        if outcome.fate is not Fate.DONE:
            return None
        self.commits += 1
        follow(mirror, (op,), outcome)
        # It was all that there was to do.
        mirror.touched.clear()
        return mirror.generation

    def _drain(self) -> bool:
        more = self._reader is not None and self._reader.read()
        self._take_in()
        return more

    def _take_in(self) -> None:
        while self._queue:
            self.mirror.apply(self._queue.popleft())

    # --- a pass -------------------------------------------------------------------------------------

    async def reconcile(self, work: Pass[Desired]) -> Report:
        """The whole pass. Raises Blocked, LedgerError."""
        if self._passes and not self.mirror.valid:
            # nested in a pass that is about to look at everything
            return Report(work.trigger, complete=False)
        self._passes += 1
        self._desired = work.desired
        try:
            return await self._reflex.accounted(lambda answered: Run(self, work, answered).run())
        finally:
            self._passes -= 1

    @property
    def fault(self) -> str:
        """Why what is declared now is not in force, "" if it is."""
        return "" if self._wanted.fault is None else str(self._wanted.fault)

    async def look(self, work: Pass[Desired], *, full: bool) -> Observed:
        """Observe everything, or what has happened since. Raises Blocked."""
        self._owned = work.owned
        wanted = await self._wanted.compiled(work)
        mirror, names = self.mirror, wanted.tables.keys()
        read = False
        if full or not await self._look.changes(work.checkpoint):
            if self._devices:
                # what hangs on a link may go with it, without a new generation
                mirror.exact = False
            read = await self._look.everything(names, work.checkpoint)
        touched: dict[TableId, Touched] | None = dict(mirror.touched)
        if read:
            self._compared = None
        if self._compared != (wanted.digest, work.desired) or (full and not self._clean):
            touched = None
        return self._observed(wanted, touched)

    def _observed(self, wanted: Compiled, touched: Mapping[TableId, Touched] | None) -> Observed:
        mirror, index = self.mirror, self._wanted.index
        devices = self._devices
        absent = frozenset(name for name in devices if not index(name)) if devices else devices
        return Observed(mirror.generation, wanted, mirror.tables, mirror.heads, touched, absent)

    async def compare(self, observed: Observed, work: Pass[Desired]) -> Patch:
        """Diff, beside the event loop where it may take long."""
        size = (
            sum(table.size for table in observed.wanted.tables.values()) if observed.touched is None else 0
        )
        if size < LARGE:
            return self.diff(observed, work.desired, work.owned)
        return await asyncio.to_thread(self.diff, observed, work.desired, work.owned)

    def compared(self, observed: Observed, work: Pass[Desired], *, left: bool, clean: bool) -> None:
        """A pass has come to its end. ``left``: there is still something to do; ``clean``: there was nothing
        to say."""
        if left:
            self._compared = None
        elif observed.touched is None:
            self._compared = (observed.wanted.digest, work.desired)
        if observed.touched is None or not clean:
            self._clean = clean

    def _use(self, wanted: Compiled, desired: Desired) -> None:
        """From now on this is to be in force."""
        devices = (name for table in wanted.tables.values() for name in table.devices)
        self._devices = frozenset(name for name in devices if "*" not in name)
        self.mirror.lose()
        self._look.reader.known = known(wanted.tables.values())
        self._keep_foreign = not desired.foreign_remove
        self.mirror.wanted = frozenset(wanted.tables)
        self.mirror.others = desired.foreign_remove
        filled = {tuple(words.split()) for words in desired.filled}
        self.mirror.ignored = frozenset(
            (where, name)
            for where, table in wanted.tables.items()
            for name, home in table.sets.items()
            if home.fed or (*table.words.split(), name) in filled
        )


class _Subscribed:
    """What the loop holds of a subscription."""

    def __init__(self, source: NetfilterSource, reader: EventReader) -> None:
        self._source = source
        self._reader = reader

    def close(self) -> None:
        """No hint comes after this."""
        self._reader.close()
        self._source.unsubscribed(self._reader)


async def _at_once() -> None:
    """A checkpoint for one who is in no hurry to let others go on."""
    await asyncio.sleep(0)
