# SPDX-License-Identifier: MIT
"""Reading a namespace: dumps that the kernel filters, in slices, as much as a look covers and no more.

Foreign routes are met by key alone, so that ten of ours among a hundred thousand cost ten. It decides
nothing.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from linxd.digest import blake2b
from linxd.netlink import rt, wire
from linxd.netlink.errors import DumpInterrupted, NetlinkError
from linxd.netlink.rt import AddrMsg, LinkMsg, NeighMsg, RouteMsg, RuleMsg
from linxd.netlink.socket import Requests
from linxd.patch import Key, Trigger
from linxd.slices import let_go
from linxd.source import Blocked, Owned, Pass
from linxd.sources.rtnl import addresses, links, neighbours, prefixes, routes, rules
from linxd.sources.rtnl.hostside import HostSide
from linxd.sources.rtnl.kind import Have
from linxd.sources.rtnl.look import FAMILIES, Index, Look
from linxd.sources.rtnl.model import AF_INET, AF_INET6, PROTO_LINXD, Desired
from linxd.sources.rtnl.prefixes import RTPROT_KERNEL, Place
from linxd.sources.rtnl.table import LinkTable

T = TypeVar("T")

CROWD = 1000
"""So many foreign routes are no burden to a resync."""

MANY = 5000
"""Keys from which on working out which ones matter takes milliseconds."""
BREATH = 1000
"""Objects after which the event loop has its turn."""
FEW_LINKS = 8
DUMP_COST = 40
"""Neighbours, addresses or links that can be passed over in the time that asking for one link's takes."""
WHOLE_EVERY = 10
"""Resyncs of which one reads all routes, where there is a crowd of others'."""
WHOLE_EVERY_TOLD = 60
"""The same, while events tell of every route that comes: it would be there without an event."""
ATTEMPTS = 8
"""Tries at a dump that changes while it is read."""
NOT_HERE = frozenset({errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.ENODEV, errno.ENOENT})
"""A kernel without IPv6 or policy rules has none to list, a device that went has nothing on it, and a table
that nobody has used yet (ENOENT, net/ipv4/fib_frontend.c inet_dump_fib) has no routes."""


class Observed:
    """What the kernel has, as far as ``look`` covers it, and of ``keys`` besides, each object under its
    identity.

    An object that is covered and not in here is not in the kernel. ``links`` are all links, always.
    """

    __slots__ = (
        "addresses",
        "bare",
        "keys",
        "links",
        "look",
        "neighbours",
        "raw",
        "routes",
        "rules",
        "steady",
    )

    def __init__(self, table: LinkTable, look: Look) -> None:
        self.links = table
        self.look = look
        self.keys: set[Key] = set()
        self.addresses: dict[Key, Have[AddrMsg]] = {}
        self.bare: set[Key] = set()
        """Declared addresses among them whose connected route is not there."""
        self.neighbours: dict[Key, Have[NeighMsg]] = {}
        self.routes: dict[Key, Have[RouteMsg]] = {}
        self.rules: dict[Key, list[Have[RuleMsg]]] = {}
        self.steady: set[Key] = set()
        """Routes whose message is to the byte the one that was found as declared before: nothing to
        compare."""
        self.raw: dict[Key, bytes] = {}
        """Messages of the routes that were decoded."""

    def of(self, kind: str) -> Mapping[Key, Have[Any]]:
        """The observed objects of one kind."""
        if kind == "link":
            table = self.links
            names = self.look.links
            # A list made at once: a large diff runs beside the event loop, which goes on reading events.
            chosen = list(table.by_index.values() if names is None else filter(None, map(table.find, names)))
            return {have.key: have for have in (links.have(msg, table) for msg in chosen)}
        if kind == "rule":
            return {key: same[0] for key, same in self.rules.items()}
        found: Mapping[str, Mapping[Key, Have[Any]]] = {
            "address": self.addresses,
            "neighbour": self.neighbours,
            "route": self.routes,
        }
        return found[kind]

    @property
    def size(self) -> int:
        """How many objects there are to compare."""
        return len(self.addresses) + len(self.routes) + len(self.neighbours) + len(self.rules)


class Reader:
    """Reads one namespace through one request socket."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self.host: HostSide | None = None
        """The way to what declared links refer to in the host's namespace, where they do."""
        self._steady: dict[bytes, Key] = {}
        self._steady_for: object = None
        self._open: dict[bytes, Key] = {}
        """Routes that leave it to the kernel which link they go through, by what was asked for: until they
        have been read back."""
        self._unseen: dict[int, set[Key]] = {}
        """Routes, by family, that are in ``_steady`` by what was asked for, and were not read back yet."""
        self._same_places: dict[bytes, Place] = {}
        """Places of connected routes, by what dumps said of them."""
        self._same_links: dict[int, tuple[bytes, LinkMsg]] = {}
        """Links by index, as the last dump had them, with a digest of what it said."""
        self._neighbourhood = 0
        """Neighbours that the last dump of all of them had."""
        self._crowd: dict[int, int] = {}
        self._wholes: dict[int, int] = {}
        """Resyncs, by family, since all routes were read."""
        self.told = False
        """Whether events tell of what comes and goes between two looks."""
        self.disputed = False
        """Whether somebody else's route stands where one of ours is declared: only a look at all of them
        tells whether it still does."""

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

    async def read(self, look: Look, index: Index, work: Pass[Desired], table: LinkTable) -> Observed:
        """Read what ``look`` covers. ``table``: the links as known, brought up to date when only some are
        looked at. Raises Blocked when the kernel can't be read."""
        try:
            return await self._read(look, index, work, table)
        except (NetlinkError, DumpInterrupted) as error:
            raise Blocked(f"the kernel's state can't be read: {error}") from error

    async def _read(self, look: Look, index: Index, work: Pass[Desired], table: LinkTable) -> Observed:
        if look.links is None:
            # Events that are read from here on tell of what came after.
            table.replace(await self._links(work))
            await work.checkpoint()
        elif look.links:
            find = self.link
            if self._many(look.links, table):
                find = _Listed(await self._links(work)).find
            for name in look.links:
                _look_at_link(name, table, find)
        recognise(table, work.owned)
        if self.host is not None:
            declared = index.desired.links
            names = declared if look.links is None else look.links & declared.keys()
            self.host.look((declared[name] for name in names), table)
        observed = Observed(table, look)
        if look.addresses is None:
            for family in (AF_INET, AF_INET6):
                await self._addresses(observed, rt.query_addrs(family=family), work)
        else:
            found_at = {name: table.index(name) for name in look.addresses}
            chosen = {at for name, at in found_at.items() if at is not None and table.name(at) == name}
            if self._many(chosen, table):
                for family in (AF_INET, AF_INET6):
                    await self._addresses(observed, rt.query_addrs(family=family), work, chosen)
            else:
                for ifindex in chosen:
                    for family in (AF_INET, AF_INET6):
                        await self._addresses(observed, rt.query_addrs(family=family, ifindex=ifindex), work)
        await self._connected(observed, index, work)
        await self._neighbours(observed, index, work)
        for family in look.routes:
            await self._routes(observed, family, index, work)
        if look.rules:
            found: list[RuleMsg] = []
            for family in (AF_INET, AF_INET6):
                found += await self._collect(wire.RTM_GETRULE, rt.query_rules(family), rt.decode_rule, work)
            observed.rules = rules.have_all(found)
        return observed

    # -- links ----------------------------------------------------------------------------------------------

    async def _links(self, work: Pass[Desired]) -> list[LinkMsg]:
        """All links. One whose message is the same as last time is not taken apart again."""
        before = self._same_links
        now: dict[int, tuple[bytes, LinkMsg]] = {}

        def decode(buf: bytes, start: int, end: int) -> LinkMsg:
            digest = blake2b(buf[start:end], digest_size=16).digest()
            ifindex = _index_at(buf, start)
            known = before.get(ifindex)
            msg = rt.decode_link(buf, start, end) if known is None or known[0] != digest else known[1]
            now[ifindex] = digest, msg
            return msg

        found = await self._dump(wire.RTM_GETLINK, rt.query_links(), decode, work)
        self._same_links = now
        return found

    def link(self, *, ifindex: int = 0, name: str = "") -> LinkMsg | None:
        """One link by index or by name, None when there is none."""
        try:
            replies = self._requests.request(
                wire.RTM_GETLINK, 0, rt.query_link(ifindex=ifindex, name=name or None)
            )
        except NetlinkError as error:
            if error.errno in (errno.ENODEV, errno.EINVAL):
                return None
            raise
        return rt.decode_link(replies[0].buf, replies[0].start, replies[0].end) if replies else None

    def promotes(self, ifindex: int) -> bool | None:
        """Whether a link keeps the other addresses of a subnet when their first one goes; None when there is
        no telling."""
        try:
            replies = self._requests.request(wire.RTM_GETLINK, 0, rt.query_link(ifindex=ifindex))
        except NetlinkError:
            return None
        return rt.decode_promote(replies[0].buf, replies[0].start, replies[0].end) if replies else None

    def _many(self, chosen: Collection[object], table: LinkTable) -> bool:
        """Whether one dump of all links, or of what is on all, costs less than asking for each chosen
        one."""
        return len(chosen) > FEW_LINKS and len(table.by_index) <= DUMP_COST * len(chosen)

    # -- addresses and neighbours ---------------------------------------------------------------------------

    async def _addresses(
        self, observed: Observed, payload: bytes, work: Pass[Desired], chosen: set[int] | None = None
    ) -> None:
        """Addresses, those on ``chosen`` links alone where they are not all meant."""

        def decode(buf: bytes, start: int, end: int) -> AddrMsg | None:
            if chosen is not None and _index_at(buf, start) not in chosen:
                return None
            return rt.decode_addr(buf, start, end)

        for msg in await self._collect(wire.RTM_GETADDR, payload, decode, work):
            have = addresses.have(msg, observed.links)
            observed.addresses[have.key] = have

    async def _connected(self, observed: Observed, index: Index, work: Pass[Desired]) -> None:
        """Which of the declared addresses that were read lack their connected route."""
        declared = index.desired.addresses
        wanted: dict[Place, list[Key]] = {}
        for key, have in observed.addresses.items():
            if key in declared:
                place = prefixes.expected(have.msg, observed.links)
                if place is not None:
                    wanted.setdefault(place, []).append(key)
        if not wanted:
            return
        links = {place.ifindex for place in wanted}
        only = links.pop() if len(links) == 1 else 0
        for family, table in {(place.family, place.table) for place in wanted}:
            await self._places(wanted, work, family=family, table=table, protocol=RTPROT_KERNEL, oif=only)
        taken: set[tuple[int, int, str]] = set()
        if wanted:
            # Another one, of ours or of somebody else's, may stand there in its place: let it.
            for family, table in {(place.family, place.table) for place in wanted}:
                payload = rt.query_routes(family, table=table)
                for msg in await self._collect(wire.RTM_GETROUTE, payload, rt.decode_route, work):
                    if msg.protocol != RTPROT_KERNEL:
                        taken.add((msg.family, msg.table, msg.dst))
        for place, keys in wanted.items():
            if (place.family, place.table, place.network) in taken:
                continue
            observed.bare.update(keys)

    async def _places(self, wanted: dict[Place, list[Key]], work: Pass[Desired], **filters: int) -> None:
        """Take from ``wanted`` the places where there is a route. One whose message is the same as last time
        is not taken apart again."""
        before = self._same_places

        def decode(buf: bytes, start: int, end: int) -> None:
            raw = buf[start:end]
            place = before.get(raw)
            if place is None:
                place = before[raw] = prefixes.of_route(rt.decode_route(buf, start, end))
            wanted.pop(place, None)

        if len(before) > MANY:
            before.clear()
        await self._collect(wire.RTM_GETROUTE, rt.query_routes(**filters), decode, work)

    async def _neighbours(self, observed: Observed, index: Index, work: Pass[Desired]) -> None:
        names = observed.look.neighbours
        if names is None:
            claims = work.owned.of("neighbour")
            if not (index.neighbours or claims or index.desired.foreign_remove):
                # Nothing declared, nothing owned: only a mark could make one ours, and those lie on declared
                # links.
                names = frozenset(index.desired.links)
            else:
                names = frozenset(
                    {*index.neighbours, *(str(key[1]) for key in claims), *index.desired.links}
                )
        chosen: set[int] = set()
        for name in names:
            ifindex = observed.links.index(name)
            if ifindex is not None and observed.links.name(ifindex) == name:
                chosen.add(ifindex)
        # Two dumps a link, or two of all neighbours there are: whichever is less.
        if len(chosen) > FEW_LINKS and self._neighbourhood <= DUMP_COST * len(chosen):
            self._neighbourhood = await self._neighbour_dumps(observed, chosen, 0, work)
        else:
            self._neighbourhood = self._neighbourhood * 9 // 10  # it may have become less
            for ifindex in chosen:
                await self._neighbour_dumps(observed, chosen, ifindex, work)

    async def _neighbour_dumps(
        self, observed: Observed, chosen: set[int], ifindex: int, work: Pass[Desired]
    ) -> int:
        """Neighbours and proxy entries of one link, or (0) of all, those of ``chosen`` ones decoded; returns
        how many there were."""
        count = 0

        def decode(buf: bytes, start: int, end: int) -> NeighMsg | None:
            nonlocal count
            count += 1
            if _index_at(buf, start) not in chosen:
                return None
            return rt.decode_neigh(buf, start, end)

        for proxy in (False, True):
            payload = rt.query_neighs(ifindex=ifindex, proxy=proxy)
            for msg in await self._collect(wire.RTM_GETNEIGH, payload, decode, work):
                if msg.family in (AF_INET, AF_INET6) and (not ifindex or msg.ifindex == ifindex):
                    have = neighbours.have(msg, observed.links)
                    observed.neighbours[have.key] = have
        return count

    # -- routes ---------------------------------------------------------------------------------------------

    async def _routes(self, observed: Observed, family: int, index: Index, work: Pass[Desired]) -> None:
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
                await self._route_dump(observed, work, None, family=family, table=table)
            await self._route_dump(observed, work, None, but=covered, family=family, protocol=PROTO_LINXD)
        elif observed.look.whole and self._few(family, len(ours), work):
            self._crowd[family] = await self._route_dump(observed, work, ours, family=family)
            return
        else:
            covered = {table for other, table in observed.look.deep if other == family}
            for table in covered:
                await self._route_dump(observed, work, ours, family=family, table=table)
            originals = await _beside(
                len(ours), lambda: [entry.original for key, entry in claims.items() if key in ours]
            )
            protocols = {PROTO_LINXD, *(int(one["protocol"]) for one in originals if "protocol" in one)}
            for protocol in sorted(protocols):
                await self._route_dump(observed, work, ours, but=covered, family=family, protocol=protocol)
        missing, tables = await _beside(len(ours), lambda: _missing(ours, observed))
        for table in tables - covered:
            await self._route_dump(observed, work, missing, family=family, table=table)

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

    async def _route_dump(
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
            raw = buf[start:end]
            key = steady.get(raw)
            if key is None and unlinked:
                key = unlinked.pop(rt.without_link(buf, start, end), None)
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
        dumped = await self._collect(wire.RTM_GETROUTE, rt.query_routes(**filters), decode, work)
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
            return await self._route_dump(observed, work, keys, but=but, **filters)
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

    # -- slices ---------------------------------------------------------------------------------------------

    async def _collect(
        self, kind: int, payload: bytes, decode: Callable[[bytes, int, int], T | None], work: Pass[Any]
    ) -> list[T]:
        """A whole dump, decoded, with a breath after it."""
        found = await self._dump(kind, payload, decode, work)
        await work.checkpoint()
        return found

    async def _dump(
        self, kind: int, payload: bytes, decode: Callable[[bytes, int, int], T | None], work: Pass[Any]
    ) -> list[T]:
        """A whole dump, decoded, with a breath between datagrams. One that changed meanwhile is made
        again."""
        for attempt in range(ATTEMPTS):
            found: list[T] = []
            try:
                for number, (buf, bounds) in enumerate(self._requests.dump(kind, payload)):
                    if number:
                        await work.checkpoint()
                    for start, end in bounds:
                        item = decode(buf, start, end)
                        if item is not None:
                            found.append(item)
            except DumpInterrupted:
                if attempt + 1 == ATTEMPTS:
                    raise
                continue
            except NetlinkError as error:
                if error.errno not in NOT_HERE:
                    raise
            return found
        return []


class _Listed:
    """Links of one dump, found as `Reader.link` finds them in the kernel."""

    def __init__(self, links: Iterable[LinkMsg]) -> None:
        self._by_index = {link.ifindex: link for link in links}
        self._by_name = {link.name: link for link in self._by_index.values()}

    def find(self, *, ifindex: int = 0, name: str = "") -> LinkMsg | None:
        return self._by_index.get(ifindex) if ifindex else self._by_name.get(name)


class _Find(Protocol):
    def __call__(self, *, ifindex: int = 0, name: str = "") -> LinkMsg | None: ...


def _look_at_link(name: str, table: LinkTable, find: _Find) -> None:
    known = table.index(name)
    if known is not None:
        msg = find(ifindex=known)
        if msg is not None:
            table.put(msg)
            return
        table.drop(known)
    msg = find(name=name)
    # One known under another name was renamed just now: its event tells, and leads to a look of its own.
    if msg is not None and msg.name == name and msg.ifindex not in table.by_index:
        table.put(msg)


def _index_at(buf: bytes, start: int) -> int:
    """The ifindex in struct ifinfomsg, ifaddrmsg and ndmsg: all three have it in the same place."""
    return int.from_bytes(buf[start + 4 : start + 8], sys.byteorder)


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


def recognise(table: LinkTable, owned: Owned) -> None:
    """Give links that were renamed from outside their declared names."""
    entries = owned.of("link").items()
    table.recognise(
        {str(key[1]): int(entry.facts["ifindex"]) for key, entry in entries if "ifindex" in entry.facts}
    )
