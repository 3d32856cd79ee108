# SPDX-License-Identifier: MIT
"""Reading routes: those that are ours by their mark, and all of them when there is reason to; what says the
same as last time, or as it was asked for, is not even decoded.

Foreign routes are met by key alone, so that ten of ours among a hundred thousand cost ten. It decides
nothing.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from linxd.netlink import rt, wire
from linxd.netlink.rt import RouteMsg
from linxd.netlink.socket import Requests
from linxd.patch import Key, Trigger
from linxd.records import replace
from linxd.slices import let_go
from linxd.source import Pass
from linxd.sources.rtnl import lookups, routes
from linxd.sources.rtnl.dumps import Dumps
from linxd.sources.rtnl.look import FAMILIES, Index
from linxd.sources.rtnl.model import AF_INET, PROTO_LINXD, Desired
from linxd.sources.rtnl.observed import Observed
from linxd.sources.rtnl.table import LinkTable

T = TypeVar("T")

CROWD = 1000
"""So many foreign routes are no burden to a resync."""

MANY = 5000
"""Keys from which on working out which ones matter takes milliseconds."""
BREATH = 1000
"""Objects after which the event loop has its turn."""
WHOLE_EVERY = 10
"""Resyncs of which one reads all routes, where there is a crowd of others'."""
WHOLE_EVERY_TOLD = 60
"""The same, while events tell of every route that comes: it would be there without an event."""


class RouteReader:
    """Reads the routes of one namespace."""

    def __init__(self, requests: Requests, dumps: Dumps) -> None:
        self._requests = requests
        self._dumps = dumps
        self._steady: dict[bytes, Key] = {}
        self._steady_for: object = None
        self._open: dict[bytes, Key] = {}
        """Routes that leave it to the kernel which link they go through, by what was asked for: until they
        have been read back."""
        self._unseen: dict[int, set[Key]] = {}
        """Routes, by family, that are in ``_steady`` by what was asked for, and were not read back yet."""
        self._crowd: dict[int, int] = {}
        self._wholes: dict[int, int] = {}
        """Resyncs, by family, since all routes were read."""
        self.told = False
        """Whether events tell of what comes and goes between two looks."""
        self.disputed = False
        """Whether somebody else's route stands where one of ours is declared, or one that is to go is left
        for now: only a look at all of them tells whether it still does."""

    def remember(self, observed: Observed, steady: Iterable[Key]) -> None:
        """These objects were found as declared and in the ledger: their very bytes need no comparing next
        time."""
        raw = observed.raw
        if observed.look.routes == FAMILIES and len(self._steady) > 2 * (len(raw) + len(observed.steady)):
            self._steady = {}  # mostly forms that routes once had
        self._steady.update((raw[key], key) for key in steady if key in raw)

    def expect(self, sent: Iterable[tuple[bytes, Key, bool]], table: LinkTable) -> None:
        """Routes that the kernel has taken, by the payloads that it took, and whether these name a link: one
        that it says to the byte so is as declared, and in the ledger."""
        self._for_names(table)
        for payload, key, named in sent:
            raw = rt.as_dumped(payload)
            if named:
                self._steady[raw] = key
            else:
                self._open[raw] = key
            self._unseen.setdefault(int(key[1]), set()).add(key)

    async def borne_out(self, observed: Observed) -> list[Key]:
        """Routes that were expected, and were read back just so for the first time."""
        found: list[Key] = []
        for family in observed.look.routes:
            unseen = self._unseen.pop(family, None)
            if unseen:
                found += await _beside(len(unseen), functools.partial(_among, unseen, observed.steady))
                let_go(unseen)
        if self._open and observed.look.routes == FAMILIES and not self._unseen:
            let_go(self._open)
            self._open = {}
        return found

    def forget(self) -> None:
        """Something else is declared."""
        let_go(self._steady, self._open, *self._unseen.values())
        self._steady, self._open, self._unseen = {}, {}, {}

    def _for_names(self, table: LinkTable) -> None:
        # A message speaks of links by index: it means the same only while they bear the same names.
        names = frozenset((ifindex, table.name(ifindex)) for ifindex in table.by_index)
        if names != self._steady_for:
            self._steady_for = names
            self._steady, self._open, self._unseen = {}, {}, {}

    async def read(self, observed: Observed, family: int, index: Index, work: Pass[Desired]) -> None:
        """Ours by our protocol, those found by theirs; and where a declared one is missing, whoever has its
        key."""
        self._for_names(observed.links)
        claims = work.owned.of("route")
        declared = index.routes_of[family]
        ours = await _beside(
            len(declared) + len(claims), lambda: declared | {key for key in claims if key[1] == family}
        )
        if index.desired.foreign_remove:
            covered = {table for other, table in index.tables if other == family}
            for table in covered:
                await self._dump(observed, work, None, family=family, table=table)
            await self._dump(observed, work, None, but=covered, family=family, protocol=PROTO_LINXD)
        elif observed.look.whole and self._few(family, len(ours), work):
            self._crowd[family] = await self._dump(observed, work, ours, family=family)
            return
        else:
            covered = {table for other, table in observed.look.deep if other == family}
            if not covered and self.asks(family, len(ours)) and not any(key[4] for key in ours):
                proven, covered = await self._in_force(ours, work)
                if len(proven) == len(ours):
                    observed.steady |= proven
                    return
            for table in covered:
                await self._dump(observed, work, ours, family=family, table=table)
            originals = await _beside(
                len(ours), lambda: [entry.original for key, entry in claims.items() if key in ours]
            )
            protocols = {PROTO_LINXD, *(int(one["protocol"]) for one in originals if "protocol" in one)}
            for protocol in sorted(protocols):
                await self._dump(observed, work, ours, but=covered, family=family, protocol=protocol)
        missing, tables = await _beside(len(ours), lambda: _missing(ours, observed))
        for table in tables - covered:
            await self._dump(observed, work, missing, family=family, table=table)

    def asks(self, family: int, count: int) -> bool:
        """Whether so many routes are asked for one by one. What bears our mark, and is not declared, is met
        by no question: it is told of when it comes."""
        return self.told and family == AF_INET and self._crowd.get(family, 0) > CROWD + lookups.PRICE * count

    async def _in_force(self, keys: set[Key], work: Pass[Desired]) -> tuple[set[Key], set[int]]:
        """Those of these routes that the kernel says, when asked for, just as they were found as declared
        before; and the tables where something else stands under a key of ours."""
        proven: set[Key] = set()
        others: set[int] = set()
        questions = (lookups.question(str(key[3])) for key in keys)
        for raw in await lookups.answers(self._requests, questions, work):
            if raw is None:
                continue
            known = self._steady.get(rt.without_carrier(raw))
            if known is not None:
                proven.add(known)
                continue
            key: Key = ("route", *rt.route_key(raw, 0, len(raw)))
            if key in keys:
                others.add(int(key[2]))
        return proven & keys, others

    def _few(self, family: int, ours: int, work: Pass[Desired]) -> bool:
        """Whether all routes are read, with those that stand in front of ours (``ip route prepend``).

        Among a crowd of foreign ones that is done when there is reason to (events were lost, say) and at
        every tenth resync, or at every sixtieth while events are heard; at the others ours are read by their
        mark, which the kernel sorts out, and a missing one leads to a second look.
        """
        since = self._wholes.get(family, 0) + 1
        few = self._crowd.get(family, 0) <= 2 * ours + CROWD
        due = since >= (WHOLE_EVERY_TOLD if self.told else WHOLE_EVERY)
        whole = few or due or self.disputed or work.trigger is not Trigger.RESYNC
        self._wholes[family] = 0 if whole else since
        return whole

    async def _dump(
        self,
        observed: Observed,
        work: Pass[Desired],
        keys: set[Key] | None,
        *,
        but: Collection[int] = (),
        **filters: int,
    ) -> int:
        """Dump routes. Those neither in ``keys`` (None: all are) nor marked as ours are passed over before
        they are decoded, and those in tables ``but`` after. Returns how many there were."""
        steady, unlinked = self._steady, self._open
        found = observed.routes
        count = 0

        def decode(buf: bytes, start: int, end: int) -> tuple[RouteMsg, bytes] | None:
            nonlocal count
            count += 1
            if near is not None and buf[start + RTM_PROTOCOL] != PROTO_LINXD:
                dst = rt.packed_destination(buf, start)
                if dst and dst not in near:
                    return None
            raw = rt.without_carrier(buf[start:end])
            key = steady.get(raw)
            if key is None and unlinked:
                key = unlinked.pop(rt.without_link(raw, 0, len(raw)), None)
                if key is not None:
                    steady[raw] = key
            if key is None:
                key = ("route", *rt.route_key(buf, start, end))
                if keys is not None and key not in keys and buf[start + RTM_PROTOCOL] != PROTO_LINXD:
                    return None
                met.add(key)
            elif key not in met:
                if key not in found:
                    observed.steady.add(key)
                return None
            else:
                observed.steady.discard(key)
            return rt.decode_route(buf, start, end), raw

        near = None
        if keys is not None and len(keys) < MANY and self._crowd.get(int(filters["family"]), 0) > CROWD:
            near = {rt.packed_prefix(str(key[3])) for key in keys}
        met: set[Key] = set()
        here: dict[Key, list[tuple[RouteMsg, bytes]]] = {}
        dumped = await self._dumps.collect(wire.RTM_GETROUTE, rt.query_routes(**filters), decode, work)
        for number, (msg, raw) in enumerate(dumped, 1):
            if not number % BREATH:
                await asyncio.sleep(0)
            if not msg.flags & RTM_F_CLONED and msg.table not in but:
                here.setdefault(routes.key_of(msg), []).append((msg, raw))
        if keys is None and not observed.steady.isdisjoint(here):
            # Foreign routes go, and one stands behind a route that needed no comparing: now it does.
            for key in observed.steady & here.keys():
                observed.steady.discard(key)
                self._steady = {raw: other for raw, other in self._steady.items() if other != key}
            return await self._dump(observed, work, keys, but=but, **filters)
        for number, (key, several) in enumerate(here.items(), 1):
            if not number % BREATH:
                await asyncio.sleep(0)
            if key in observed.steady:
                continue
            msg, raw = several[0]
            # Of several with one key the first is in force. In dumps by protocol, ours counts.
            if key in found and msg.protocol != PROTO_LINXD:
                continue
            found[key] = routes.have(msg, observed.links)
            if len(several) == 1:
                observed.raw[key] = raw
            else:
                found[key] = replace(found[key], same=tuple(msg for msg, _ in several))
        let_go(met, here, dumped)
        return count


def _among(keys: Iterable[Key], steady: Collection[Key]) -> list[Key]:
    return [key for key in keys if key in steady]


def _missing(ours: Iterable[Key], observed: Observed) -> tuple[set[Key], set[int]]:
    """Those that were not seen, and the tables they belong in."""
    missing = {key for key in ours if key not in observed.routes and key not in observed.steady}
    return missing, {int(key[2]) for key in missing}


async def _beside(size: int, work: Callable[[], T]) -> T:
    """What there are to be of many keys is found out beside the event loop."""
    return work() if size < MANY else await asyncio.to_thread(work)


RTM_F_CLONED = 0x200
RTM_PROTOCOL = 5
"""Where struct rtmsg (include/uapi/linux/rtnetlink.h) has the protocol."""
