# SPDX-License-Identifier: MIT
"""One look at the namespace: from the mirror where it is good, by dumps where it is not.

What it returns is of one generation. It must not know what is declared beyond the names of tables.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection

from linxd.netlink.errors import NetlinkError
from linxd.netlink.wire import WireError
from linxd.source import Blocked
from linxd.sources.netfilter.mirror import Mirror
from linxd.sources.netfilter.reader import Checkpoint, Moved, Pace, Reader
from linxd.sources.netfilter.state import TableId

ATTEMPTS = 64
"""Tries at reading a ruleset that changes meanwhile."""


class Look:
    """Keeps a mirror up to date. ``drain`` takes in some of the events that have come; False: there are
    none."""

    def __init__(self, reader: Reader, mirror: Mirror, drain: Callable[[], bool]) -> None:
        self.reader = reader
        self.mirror = mirror
        self._drain = drain
        self.reads = 0
        """Times that tables were dumped."""

    async def everything(self, wanted: Collection[TableId], checkpoint: Checkpoint) -> bool:
        """Have the mirror hold these tables as they are now. Where its last look still holds, nothing is
        read but the generation. Raises Blocked."""
        mirror = self.mirror
        try:
            await self._catch_up(checkpoint)
            if mirror.valid and mirror.exact and mirror.tables.keys() >= set(wanted) & mirror.heads.keys():
                if self.reader.generation() == mirror.generation:
                    return False
                await self._catch_up(checkpoint)
                if mirror.valid and mirror.exact and self.reader.generation() == mirror.generation:
                    return False
            await self._read_all(wanted, checkpoint)
        except NetlinkError as error:
            raise unreadable(error) from None
        except WireError as error:
            mirror.lose()
            raise Blocked(f"nftables: the kernel's answer makes no sense: {error}") from None
        return True

    async def changes(self, checkpoint: Checkpoint) -> bool:
        """Have the mirror hold what it held, with all that has happened since. False: it can't be had
        without looking at everything. Raises Blocked."""
        mirror = self.mirror
        try:
            await self._catch_up(checkpoint)
            for _ in range(ATTEMPTS):
                if not mirror.valid:
                    return False
                unknown = frozenset(mirror.unknown)
                if not unknown:
                    return True
                self.reads += 1
                before = mirror.generation
                try:
                    found = await self.reader.read(unknown, checkpoint)
                except Moved:
                    found = None
                after = self.reader.generation()
                await self._catch_up(checkpoint)
                if found is None or mirror.generation != after or not mirror.valid:
                    continue
                if after == before or mirror.only(before, after, unknown):
                    mirror.read_again(after, found, unknown)
                await checkpoint()
        except NetlinkError as error:
            raise unreadable(error) from None
        except WireError as error:
            mirror.lose()
            raise Blocked(f"nftables: the kernel's answer makes no sense: {error}") from None
        return False

    async def _catch_up(self, checkpoint: Checkpoint) -> None:
        pace = Pace(checkpoint)
        while self._drain():
            await pace()

    async def _read_all(self, wanted: Collection[TableId], checkpoint: Checkpoint) -> None:
        mirror = self.mirror
        names = set(wanted)
        for _ in range(ATTEMPTS):
            self.reads += 1
            before = self.reader.generation()
            try:
                heads = self.reader.heads()
                found = await self.reader.read(names, checkpoint)
            except Moved:
                await checkpoint()
                continue
            after = self.reader.generation()
            if after != before:
                await self._catch_up(checkpoint)
                if not mirror.only(before, after, names | heads.keys()):
                    await checkpoint()
                    continue
            mirror.taken(after, found, heads)
            return
        raise Blocked("nftables: the ruleset changes faster than it can be read")


def unreadable(error: NetlinkError) -> Blocked:
    """Why tables can't be read, in words."""
    hint = (
        " (is nf_tables there, and CAP_NET_ADMIN?)"
        if error.errno in (errno.EPERM, errno.EPROTONOSUPPORT)
        else ""
    )
    return Blocked(f"nftables can't be read: {error}{hint}")
