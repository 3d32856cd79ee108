# SPDX-License-Identifier: MIT
"""Reading a namespace: dumps that the kernel filters, in slices, as much as a look covers and no more.

Routes are read by `linxd.sources.rtnl.routereader`. It decides nothing.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Collection, Iterable
from typing import Protocol

from linxd.digest import blake2b
from linxd.netlink import rt, wire
from linxd.netlink.errors import DumpInterrupted, NetlinkError
from linxd.netlink.rt import AddrMsg, LinkMsg, NeighMsg, RuleMsg
from linxd.netlink.socket import Requests
from linxd.patch import Key
from linxd.source import Blocked, Owned, Pass
from linxd.sources.rtnl import addresses, lookups, neighbours, prefixes, rules
from linxd.sources.rtnl.alike import Alike
from linxd.sources.rtnl.dumps import Dumps
from linxd.sources.rtnl.hostside import HostSide
from linxd.sources.rtnl.kind import Have
from linxd.sources.rtnl.look import Index, Look
from linxd.sources.rtnl.model import AF_INET, AF_INET6, Desired
from linxd.sources.rtnl.observed import Observed
from linxd.sources.rtnl.prefixes import RTPROT_KERNEL, Place
from linxd.sources.rtnl.routereader import RouteReader
from linxd.sources.rtnl.table import LinkTable

PLACES = 5000
"""Connected routes of which it is kept in mind what was said of them."""
SAME_RULES = 5000
"""Rules up to which it is kept in mind what was said of them: a kilobyte each."""
FEW_LINKS = 8
DUMP_COST = 40
"""Neighbours, addresses or links that can be passed over in the time that asking for one link's takes."""


class Reader:
    """Reads one namespace through one request socket."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._dumps = Dumps(requests)
        self.routes = RouteReader(requests, self._dumps)
        self.host: HostSide | None = None
        """The way to what declared links refer to in the host's namespace, where they do."""
        self._same_places: dict[bytes, Place] = {}
        """Places of connected routes, by what dumps said of them."""
        self._same_links: dict[int, tuple[bytes, LinkMsg]] = {}
        """Links by index, as the last dump had them, with a digest of what it said."""
        self._same_rules: dict[bytes, Have[RuleMsg]] = {}
        """Rules, by what the last dump said of them."""
        self.alike = Alike()
        """Which rules may be one of several."""
        self._recognised: tuple[LinkTable, int] | None = None
        """When links were last given their declared names, by the moves of their table."""
        self._neighbourhood = 0
        """Neighbours that the last dump of all of them had."""

    async def read(self, look: Look, index: Index, work: Pass[Desired], table: LinkTable) -> Observed:
        """Read what ``look`` covers. ``table``: the links as known, brought up to date when only some are
        looked at. Raises Blocked when the kernel can't be read."""
        try:
            return await self._read(look, index, work, table)
        except (NetlinkError, DumpInterrupted) as error:
            raise Blocked(f"the kernel's state can't be read: {error}") from error

    async def _read(self, look: Look, index: Index, work: Pass[Desired], table: LinkTable) -> Observed:
        if look.links is None:
            table.begin()
            table.replace(await self._links(work))
            await work.checkpoint()
        elif look.links:
            find = self.link
            if self._many(look.links, table):
                find = _Listed(await self._links(work)).find
            for name in look.links:
                _look_at_link(name, table, find)
        if look.links is None or self._recognised != (table, table.moves):
            recognise(table, work.owned)
            self._recognised = table, table.moves
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
            await self.routes.read(observed, family, index, work)
        if look.rules:
            asked = self.alike.asked()
            observed.rules = rules.by_identity(await self._rules(work))
            self.alike.told(asked, (key for key, same in observed.rules.items() if len(same) > 1))
        return observed

    # -- rules ----------------------------------------------------------------------------------------------

    async def _rules(self, work: Pass[Desired]) -> list[Have[RuleMsg]]:
        """All rules: the kernel can't be asked for one. One whose message is the same as last time is not
        taken apart again."""
        before = self._same_rules
        now: dict[bytes, Have[RuleMsg]] = {}

        def decode(buf: bytes, start: int, end: int) -> Have[RuleMsg]:
            raw = buf[start:end]
            have = before.get(raw)
            if have is None:
                have = rules.have(rt.decode_rule(buf, start, end))
            now[raw] = have
            return have

        found: list[Have[RuleMsg]] = []
        for family in (AF_INET, AF_INET6):
            found += await self._dumps.collect(wire.RTM_GETRULE, rt.query_rules(family), decode, work)
        self._same_rules = now if len(now) <= SAME_RULES else {}
        return found

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

        found = await self._dumps.whole(wire.RTM_GETLINK, rt.query_links(), decode, work)
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
        """Addresses, those on ``chosen`` links alone where they are not all meant. One on a link that is not
        known comes with it or has gone with it: there will be word of that."""

        def decode(buf: bytes, start: int, end: int) -> AddrMsg | None:
            if chosen is not None and _index_at(buf, start) not in chosen:
                return None
            return rt.decode_addr(buf, start, end)

        for msg in await self._dumps.collect(wire.RTM_GETADDR, payload, decode, work):
            if msg.ifindex in observed.links.by_index:
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
        if self.routes.asks(AF_INET, len(wanted)):
            await self._ask_for_places(wanted, observed, work)
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
                for msg in await self._dumps.collect(wire.RTM_GETROUTE, payload, rt.decode_route, work):
                    if msg.protocol != RTPROT_KERNEL:
                        taken.add((msg.family, msg.table, msg.dst))
        for place, keys in wanted.items():
            if (place.family, place.table, place.network) in taken:
                continue
            observed.bare.update(keys)

    async def _ask_for_places(
        self, wanted: dict[Place, list[Key]], observed: Observed, work: Pass[Desired]
    ) -> None:
        """Take from ``wanted`` the IPv4 places to which the kernel, when it is asked, says a route."""
        places = [place for place in wanted if place.family == AF_INET]
        questions = (
            lookups.question(
                place.network, oif=place.ifindex, but=observed.addresses[wanted[place][0]].msg.address
            )
            for place in places
        )
        for raw in await lookups.answers(self._requests, questions, work):
            if raw is not None:
                wanted.pop(self._place(raw), None)

    async def _places(self, wanted: dict[Place, list[Key]], work: Pass[Desired], **filters: int) -> None:
        """Take from ``wanted`` the places where there is a route."""

        def decode(buf: bytes, start: int, end: int) -> None:
            wanted.pop(self._place(buf[start:end]), None)

        await self._dumps.collect(wire.RTM_GETROUTE, rt.query_routes(**filters), decode, work)

    def _place(self, raw: bytes) -> Place:
        """That of a route. One whose message is the same as last time is not taken apart again."""
        place = self._same_places.get(raw)
        if place is None:
            if len(self._same_places) > PLACES:
                self._same_places.clear()
            place = self._same_places[raw] = prefixes.of_route(rt.decode_route(raw, 0, len(raw)))
        return place

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
            for msg in await self._dumps.collect(wire.RTM_GETNEIGH, payload, decode, work):
                if msg.family in (AF_INET, AF_INET6) and (not ifindex or msg.ifindex == ifindex):
                    have = neighbours.have(msg, observed.links)
                    observed.neighbours[have.key] = have
        return count


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


def recognise(table: LinkTable, owned: Owned) -> None:
    """Give links that were renamed from outside their declared names."""
    entries = owned.of("link").items()
    table.recognise(
        {str(key[1]): int(entry.facts["ifindex"]) for key, entry in entries if "ifindex" in entry.facts}
    )
