# SPDX-License-Identifier: MIT
"""Reports of loops on their way to the log: culprits confirmed, entries made, in the order in which things
happened.

It works beside the loops: what takes time (a walk over /proc, the wording of a large patch) is done in a
thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import TypeAlias

from linxd.culprit import Glimpse, Identifier
from linxd.log import Entry, Limit, Narrator
from linxd.patch import Culprit, Report
from linxd.records import replace
from linxd.slices import let_go
from linxd.status import Status

log = logging.getLogger(__name__)

SMALL = 200
"""Ops and conditions that are put in words at once."""
AT_ONCE = 8
"""Entries of one report that are passed on in one turn of the event loop; each may have 100 lines."""


_Item: TypeAlias = Report | Status | Callable[[], Iterable[str]]


class Reporter:
    """Passes entries to ``sink``. ``done`` is told each report with its culprits confirmed, after its
    entries."""

    def __init__(
        self,
        sink: Callable[[Entry], None],
        identifier: Identifier | None = None,
        *,
        limit: Limit | None = None,
        done: Callable[[str, Report, str], None] = lambda source, report, text: None,
    ) -> None:
        self._sink = sink
        self._identifier = identifier
        self._limit = limit or Limit()
        self._done = done
        self._passing = True
        self._narrators: dict[str, Narrator] = {}
        self._queue: asyncio.Queue[tuple[Narrator, str, _Item] | Entry] = asyncio.Queue()

    def report(self, scope: str, source: str, report: Report) -> None:
        """A pass has ended."""
        if report.applied or report.conditions or self._narrator(scope, source).standing:
            self._queue.put_nowait((self._narrator(scope, source), source, report))

    def state(self, scope: str, status: Status) -> None:
        """A loop's state has changed."""
        self._queue.put_nowait((self._narrator(scope, status.source), status.source, status))

    def lines(self, scope: str, source: str, lines: Callable[[], Iterable[str]]) -> None:
        """A loop may have something to sum up: it is asked when all that came before is told."""
        self._queue.put_nowait((self._narrator(scope, source), source, lines))

    def say(self, entry: Entry) -> None:
        """An entry made elsewhere, in its turn."""
        self._queue.put_nowait(entry)

    async def run(self) -> None:
        """Pass on what comes, until cancelled."""
        while True:
            item = await self._queue.get()
            try:
                if isinstance(item, Entry):
                    self._pass_on(item)
                else:
                    await self._tell(*item)
            except Exception:
                # The log must not end because of one entry.
                log.debug("an entry was lost", exc_info=True)
            finally:
                self._queue.task_done()

    async def drain(self) -> None:
        """Return when everything that has come is passed on."""
        await self._queue.join()

    def _narrator(self, scope: str, source: str) -> Narrator:
        return self._narrators.setdefault(source, Narrator(scope, source))

    async def _tell(self, narrator: Narrator, source: str, item: _Item) -> None:
        if isinstance(item, Status):
            self._pass_on(narrator.state(item))
        elif isinstance(item, Report):
            report = await self._confirmed(item)
            if max(map(len, (report.drifted, report.applied, report.conditions))) <= SMALL:
                entries = list(narrator.report(report))
            else:
                entries = await asyncio.to_thread(lambda: list(narrator.report(report)))
            text = entries[0].text if entries else ""
            entries.reverse()
            while entries:
                # Each goes when it is passed on: all at once would be freed with everybody waiting.
                for _ in range(min(AT_ONCE, len(entries))):
                    self._pass_on(entries.pop())
                if entries:
                    await asyncio.sleep(0)
            self._done(source, report, text)
            let_go(report.drifted, report.applied, report.conditions, report.looked, report.culprits)
        else:
            for line in item():
                self._pass_on(narrator.summary(line))

    async def _confirmed(self, report: Report) -> Report:
        """The report with guesses about culprits made certain, or left as numbers."""
        # Thousands of events of one writer have one glimpse between them.
        seen = {id(one): one for one in report.culprits.values()}
        glimpses = [one for one in dict.fromkeys(seen.values()) if isinstance(one, Glimpse)]
        if not glimpses or self._identifier is None:
            return report
        certain = await asyncio.to_thread(self._identifier.confirm, glimpses)
        found: dict[Culprit, Culprit] = dict(zip(glimpses, certain, strict=True))
        named = {number: found.get(one, one) for number, one in seen.items()}
        return replace(report, culprits={key: named[id(one)] for key, one in report.culprits.items()})

    def _pass_on(self, entry: Entry) -> None:
        # The parts of a large patch share the fate of its first.
        if entry.part == 1:
            passed = self._limit.pass_on(entry)
            self._passing = bool(passed)
        else:
            passed = (entry,) if self._passing else ()
        for one in passed:
            self._sink(one)
