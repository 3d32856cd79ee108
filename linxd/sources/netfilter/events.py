# SPDX-License-Identifier: MIT
"""Events of the namespace: read as they come, put together to transactions, turned into hints.

The last message of a transaction says who made it. It compares nothing and decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import struct
import time
from collections.abc import Callable
from typing import Protocol

from linxd.netlink.errors import Overrun
from linxd.netlink.events import Events
from linxd.netlink.nft import NFGEN_HDRLEN, SUBSYSTEM, read_generation
from linxd.netlink.wire import (
    IFLA_IFNAME,
    NFNLGRP_NFTABLES,
    NLA_HDRLEN,
    NLA_TYPE_MASK,
    RTM_DELLINK,
    RTM_NEWLINK,
    RTNLGRP_LINK,
    Message,
    WireError,
    attr_map,
    text_of,
)
from linxd.patch import Culprit
from linxd.source import Hint, Writer
from linxd.sources.netfilter import names as n
from linxd.sources.netfilter.mirror import Transaction
from linxd.sources.netfilter.state import TableId
from linxd.sources.netfilter.things import table_key
from linxd.writers import Writers

GROUPS = (NFNLGRP_NFTABLES,)
LINK_GROUPS = (RTNLGRP_LINK,)
MOST = 2000
"""Messages of one transaction about one table. Beyond, reading the table again is better than following."""
_AT_ONCE = 16
"""Datagrams read in one turn of the event loop, of up to some 40 messages each."""
_IFINFO = 16
_NLA = struct.Struct("=HH")

Identify = Callable[[int, str], Culprit | None]
"""Names the process behind a pid in the host's numbering; its name as the kernel tells it."""


class Watched(Protocol):
    """What the reader must know of its source, and what it hands over."""

    def matters(self, where: TableId) -> bool:
        """Whether a table's content is compared."""

    def wants_to_know(self, where: TableId) -> bool:
        """Whether a change of a table is worth a pass."""

    def waits_for(self, link: str) -> list[TableId]:
        """Tables that hang on a link."""

    def happened(self, change: Transaction) -> None:
        """Take in a transaction."""

    def overrun(self) -> None:
        """Events were lost."""

    def react(self, hint: Hint) -> Hint:
        """A transaction that stands alone, and its hint, which is about to be told of: what it calls for may
        be done first. Returns the hint to be told."""

    @property
    def portid(self) -> int:
        """The port that our own writes come from."""


class EventReader:
    """A subscription. Reads in the running event loop until closed."""

    def __init__(
        self,
        events: Events,
        links: Events | None,
        source: Watched,
        notify: Callable[[Hint], None],
        identify: Identify,
    ) -> None:
        self._events = events
        self._links = links
        self._source = source
        self._notify = notify
        self._identify = identify
        self._kept: dict[TableId, list[tuple[int, bytes]]] = {}
        self._told: list[Hint] = []
        """Hints that are still to be told."""
        self._loop = asyncio.get_running_loop()
        self.writers = Writers(self._loop)
        """Who is still to be looked up."""
        self._loop.add_reader(events.fileno(), self._readable)
        if links is not None:
            self._loop.add_reader(links.fileno(), self._read_links)

    def close(self) -> None:
        """No hint comes after this."""
        for each in (self._events, self._links):
            if each is not None:
                with contextlib.suppress(ValueError, OSError):
                    self._loop.remove_reader(each.fileno())
                each.close()

    def _readable(self) -> None:
        """Something has come. Where it is one transaction, that is about one table, it may be answered at
        once."""
        more = self._read()
        if len(self._told) == 1 and more < _AT_ONCE and not self._kept:
            self._told = [self._source.react(self._told[0])]
        self._tell()

    def read(self) -> bool:
        """Read some of what has come. Called before a look, so that it begins with the latest. False: there
        was nothing."""
        more = self._read()
        self._tell()
        return more > 0

    def _read(self) -> int:
        """How much has been read."""
        now = time.monotonic()
        try:
            messages = self._events.read(_AT_ONCE)
            for message in messages:
                self._take(message, now)
        except (Overrun, WireError):
            self._kept.clear()
            self._source.overrun()
            self._told.append(Hint(None, at=now))
            return _AT_ONCE
        except OSError:
            self._source.overrun()
            self._told.append(Hint(None, at=now, broken=True))
            return 0
        return len(messages)

    def _tell(self) -> None:
        told, self._told = self._told, []
        for hint in told:
            self._notify(hint)
        self.writers.soon()

    def _take(self, message: Message, now: float) -> None:
        if message.type == n.NEWGEN:
            self._end(message, now)
            return
        # our own writes are known already
        if message.type >> 8 != SUBSYSTEM >> 8 or message.pid == self._source.portid:
            return
        where = _place(message)
        if where is None:
            return
        kept = self._kept.setdefault(where, [])
        whole = message.type in (n.NEWTABLE, n.DELTABLE)
        if whole or (len(kept) <= MOST and self._source.matters(where)):
            kept.append((message.type, message.buf[message.start : message.end]))

    def _end(self, message: Message, now: float) -> None:
        source = self._source
        kept, self._kept = self._kept, {}
        if message.pid == source.portid:
            return
        made = read_generation(message)
        told = [where for where in kept if source.wants_to_know(where)]
        writer = None
        if told and made.pid:
            writer = Writer(functools.partial(self._identify, made.pid, made.comm))
            self.writers.add((writer,))
        many: set[TableId] = set()
        messages: list[tuple[int, bytes]] = []
        for where, some in kept.items():
            if len(some) > MOST:
                many.add(where)
            else:
                messages += some
        source.happened(Transaction(made.id, frozenset(kept), messages, frozenset(many), writer))
        self._told += [Hint(table_key(where), seen=made.id, at=now, writer=writer) for where in told]

    def _read_links(self) -> None:
        """A link that a chain hangs on has come or gone: the kernel does not say so in its own words before
        Linux 6.16, and forgets the chain with the link."""
        assert self._links is not None
        now = time.monotonic()
        try:
            for message in self._links.read():
                if message.type in (RTM_NEWLINK, RTM_DELLINK):
                    found = attr_map(message.buf, message.start + _IFINFO, message.end)
                    for where in self._source.waits_for(text_of(found.get(IFLA_IFNAME, b""))):
                        self._notify(Hint(table_key(where), at=now))
        except (Overrun, WireError):
            self._notify(Hint(None, at=now))
        except OSError:
            self._notify(Hint(None, at=now, broken=True))


def _place(message: Message) -> TableId | None:
    """The table that a message is about: its first attribute names it in every kind."""
    buf, at = message.buf, message.start + NFGEN_HDRLEN
    if at + NLA_HDRLEN > message.end:
        return None
    size, type = _NLA.unpack_from(buf, at)
    if type & NLA_TYPE_MASK != 1 or at + size > message.end:
        raise WireError(f"a message of {message.end - message.start} bytes does not name its table first")
    return (buf[message.start], text_of(buf[at + NLA_HDRLEN : at + size]))
