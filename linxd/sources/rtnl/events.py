# SPDX-License-Identifier: MIT
"""Events of the namespace, turned into hints: which object, what it is now, and whose write it was.

Everything queued is read before the first hint counts, so that what a hint carries is the kernel's latest
word on its object. It decides nothing: foreign objects are let through only where the policy asks for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Protocol, TypeAlias

from linxd.netlink import rt, wire
from linxd.netlink.errors import Overrun
from linxd.netlink.rt import LinkMsg
from linxd.netlink.socket import Events, Requests
from linxd.netlink.wire import Message, WireError
from linxd.patch import Culprit, Key
from linxd.records import replace
from linxd.source import Hint, Owned, Writer
from linxd.sources.rtnl import addresses, neighbours, prefixes, rules
from linxd.sources.rtnl.alike import Alike
from linxd.sources.rtnl.kind import GONE
from linxd.sources.rtnl.look import Index, Waiting
from linxd.sources.rtnl.model import PROTO_LINXD
from linxd.sources.rtnl.routereader import RTM_PROTOCOL
from linxd.sources.rtnl.sieve import overlooking, sieve
from linxd.sources.rtnl.table import LinkTable
from linxd.writers import Writers

GROUPS = (
    wire.RTNLGRP_LINK,
    wire.RTNLGRP_NEIGH,
    wire.RTNLGRP_IPV4_IFADDR,
    wire.RTNLGRP_IPV6_IFADDR,
    wire.RTNLGRP_IPV4_ROUTE,
    wire.RTNLGRP_IPV6_ROUTE,
    wire.RTNLGRP_IPV4_RULE,
    wire.RTNLGRP_IPV6_RULE,
)
SOMETHING: tuple[Key | None, object] = (None, None)
MOST = 4096
"""Messages read in one turn of the event loop; the rest waits for the next one."""
AT_ONCE = 128
"""Datagrams read between two looks at the clock."""
SLICE = 0.008
"""Seconds of a turn of the event loop in which messages are read, however many there are."""


Identify: TypeAlias = Callable[[int], Callable[[], Culprit | None] | None]
"""Asked about a port id when its message is read: sees of the process what can't wait, and returns what sees
the rest when there is time; None where there is nobody to be found."""


class Watched(Protocol):
    """What the reader must know of its source to tell what matters."""

    requests: Requests
    links: LinkTable
    index: Index
    owned: Owned | None
    pending: Waiting

    @property
    def alike(self) -> Alike:
        """Which rules may be one of several."""


class EventReader:
    """A subscription. Reads in the running event loop until closed."""

    def __init__(
        self,
        events: Events,
        source: Watched,
        notify: Callable[[Hint], None],
        identify: Identify,
        react: Callable[[Hint], Hint] = lambda hint: hint,
    ) -> None:
        self._events = events
        self._source = source
        self._notify = notify
        self._react = react
        self._identify = identify
        self._gone: set[Key] = set()
        """Addresses of ours that have gone and are not back, with their connected routes."""
        self._loop = asyncio.get_running_loop()
        self.writers = Writers(self._loop)
        """Who is still to be looked up."""
        self.sift()
        source.alike.lost()
        self._loop.add_reader(events.fileno(), self._readable)

    def sift(self) -> None:
        """Have the kernel pass over what concerns nothing that is declared now. To be called when something
        else is, before a look at everything: what is told meanwhile must not be missed."""
        # What was not declared may have come back unheard.
        self._gone.clear()
        self._attach(overlook=False)

    def overlook(self, *, ours: bool) -> None:
        """Have the kernel pass over the routes of ours that we make, too, or no longer."""
        self._attach(overlook=ours)

    def _attach(self, *, overlook: bool) -> None:
        source = self._source
        try:
            if source.owned is not None:
                program = sieve(source.index, source.owned)
                if overlook:
                    program = overlooking(program, source.requests.portid)
                self._events.attach_filter(program)
        except OSError:
            # It only costs time to be told of everything.
            self._events.detach_filter()

    def close(self) -> None:
        """No hint comes after this."""
        with contextlib.suppress(ValueError, OSError):
            self._loop.remove_reader(self._events.fileno())
        self._events.close()

    def _readable(self) -> None:
        now = time.monotonic()
        writers: dict[int, Writer | None] = {}
        hints: dict[Key, Hint] = {}
        seen = 0
        all_read = False
        try:
            while seen < MOST and time.monotonic() - now < SLICE:
                messages = self._events.read(AT_ONCE)
                seen += len(messages)
                for message in messages:
                    self._take(message, now, writers, hints)
                if len(messages) < AT_ONCE:
                    all_read = True
                    break
        except (Overrun, WireError):
            # Lost, or in a dialect that we can't read: look at everything rather than guess.
            self._source.alike.lost()
            self._gone.clear()
            self._notify(Hint(None, at=now))
        self.writers.add(writer for writer in writers.values() if writer is not None)
        if all_read and len(hints) == 1:
            hints = {key: self._react(hint) for key, hint in hints.items()}
        for key, hint in hints.items():
            # There may be a later word on a link, and it is changed in place whatever it is by then. (What
            # went and is back is met in making it.)
            self._notify(hint if all_read or key[0] != "link" else replace(hint, seen=None))
        self.writers.soon()

    def _take(
        self, message: Message, now: float, writers: dict[int, Writer | None], hints: dict[Key, Hint]
    ) -> None:
        ours = message.pid == self._source.requests.portid
        if (
            ours
            and not hints
            and message.type == wire.RTM_NEWROUTE
            and message.buf[message.start + RTM_PROTOCOL] == PROTO_LINXD
        ):
            # One of very many, mostly: there is nothing that it could have undone.
            return
        for key, seen in self._concerns(message):
            if ours and message.type not in (wire.RTM_NEWLINK, wire.RTM_DELLINK):
                undone = hints.pop(key, None)
                if undone is not None and message.type == wire.RTM_DELROUTE:
                    # What we deleted may have been another route of this key than the one it was about.
                    hints[key] = replace(undone, seen=None)
                continue
            writer = None
            if message.pid and not ours:
                if message.pid not in writers:
                    find = self._identify(message.pid)
                    writers[message.pid] = None if find is None else Writer(find)
                writer = writers[message.pid]
            before = hints.get(key)
            if writer is None and before is not None:
                writer = before.writer
            hints[key] = Hint(key, seen, at=now, writer=writer)

    def _concerns(self, message: Message) -> list[tuple[Key, object]]:
        """The objects of ours that an event speaks of, with what it says of them."""
        kind = message.type
        if kind in (wire.RTM_NEWROUTE, wire.RTM_DELROUTE):
            return self._route(message)
        if kind in (wire.RTM_NEWADDR, wire.RTM_DELADDR):
            return self._address(message)
        if kind in (wire.RTM_NEWLINK, wire.RTM_DELLINK):
            return self._link(message)
        if kind in (wire.RTM_NEWNEIGH, wire.RTM_DELNEIGH):
            return self._neighbour(message)
        if kind in (wire.RTM_NEWRULE, wire.RTM_DELRULE):
            return self._rule(message)
        return []

    def _mine(self, key: Key) -> bool:
        owned = self._source.owned
        return owned is not None and owned.get(key) is not None

    def _route(self, message: Message) -> list[tuple[Key, object]]:
        index = self._source.index
        desired = index.desired
        key: Key = ("route", *rt.route_key(message.buf, message.start, message.end))
        gone = message.type == wire.RTM_DELROUTE
        mine = key in desired.routes or self._mine(key)
        if mine and gone:
            return [(key, GONE)]
        msg = rt.decode_route(message.buf, message.start, message.end)
        if mine:
            # One that came without taking another's place may stand behind ours or in front of it: only a
            # look tells.
            return [(key, msg if message.flags & wire.NLM_F_REPLACE else None)]
        if not gone and desired.foreign_remove and (msg.family, msg.table) in index.tables:
            return [(key, msg)]
        if not gone and msg.protocol == PROTO_LINXD:
            # It says that it is ours, and it isn't: a resync that asks for ours would not meet it.
            return [(key, msg)]
        if msg.protocol == prefixes.RTPROT_KERNEL and (gone or self._gone):
            # The route to a network that an address of ours stands for: alone, or with it.
            addresses = prefixes.behind(msg, index.networks_of(self._source.links.name(msg.oif)))
            if gone:
                return [(key, None) for key in addresses if key not in self._gone]
            self._gone.difference_update(addresses)
        return []

    def _address(self, message: Message) -> list[tuple[Key, object]]:
        source = self._source
        index = source.index
        msg = rt.decode_addr(message.buf, message.start, message.end)
        key = addresses.key_of(msg, source.links)
        gone = message.type == wire.RTM_DELADDR
        if key in index.desired.addresses or self._mine(key):
            (self._gone.add if gone else self._gone.discard)(key)
            return [(key, GONE if gone else msg)]
        link = str(key[1])
        if not gone and index.desired.foreign_remove and link in index.desired.links:
            return [(key, msg)]
        # A foreign address that goes may take gateway routes of ours with it, one that comes may be waited
        # for.
        if (gone and msg.family in index.families) or (not gone and source.pending):
            return [(key, GONE if gone else msg)]
        return []

    def _link(self, message: Message) -> list[tuple[Key, object]]:
        source = self._source
        msg = rt.decode_link(message.buf, message.start, message.end)
        table = source.links
        if msg.family == wire.AF_BRIDGE:
            # Port state; RTM_DELLINK here says that a port left its bridge, not that the link is gone.
            return self._about_link(table.name(msg.ifindex))
        before = table.by_index.get(msg.ifindex)
        name = table.name(msg.ifindex) if before is not None else msg.name
        if message.type == wire.RTM_DELLINK:
            table.drop(msg.ifindex)
            return self._about_link(name)
        table.put(msg)
        if before is not None and before.name != msg.name:
            self._recognise(table)
            return [*self._about_link(name), *self._about_link(msg.name)]
        if before is not None and name == msg.name and _same(before, msg):
            return []
        # A message about one of its sides alone (wireless extensions, say) is not all of it.
        return self._about_link(name, msg if before is not None and name == msg.name and msg.mtu else None)

    def _recognise(self, table: LinkTable) -> None:
        owned = self._source.owned
        if owned is not None:
            entries = owned.of("link").items()
            table.recognise({str(key[1]): int(entry.facts.get("ifindex", 0)) for key, entry in entries})

    def _about_link(self, name: str, seen: LinkMsg | None = None) -> list[tuple[Key, object]]:
        index = self._source.index
        concerns = (
            name in index.desired.links
            or name in index.dependents
            or name in index.users
            or index.anywhere
            or self._mine(("link", name))
        )
        return [(("link", name), seen)] if concerns else []

    def _neighbour(self, message: Message) -> list[tuple[Key, object]]:
        source = self._source
        desired = source.index.desired
        msg = rt.decode_neigh(message.buf, message.start, message.end)
        key = neighbours.key_of(msg, source.links)
        gone = message.type == wire.RTM_DELNEIGH
        if key in desired.neighbours or self._mine(key):
            return [(key, GONE if gone else msg)]
        if (
            not gone
            and desired.foreign_remove
            and msg.state & neighbours.NUD_PERMANENT
            and key[1] in desired.links
        ):
            return [(key, msg)]
        return []

    def _rule(self, message: Message) -> list[tuple[Key, object]]:
        desired = self._source.index.desired
        msg = rt.decode_rule(message.buf, message.start, message.end)
        key = rules.as_rule(msg).key
        gone = message.type == wire.RTM_DELRULE
        if not gone and message.pid != self._source.requests.portid:
            self._source.alike.came(key)
        if gone and key in desired.rules and self._source.alike.alone(key):
            return [(key, GONE)]
        open_key: Key = (key[0], key[1], -1, key[3])
        for mine in (key, open_key):
            if mine in desired.rules or self._mine(mine):
                return [(mine, None)]
        if desired.foreign_remove:
            return [(key, None)]
        return []


def _same(before: LinkMsg, msg: LinkMsg) -> bool:
    """Nothing that anybody declares, or that takes anything with it, has changed."""
    return before == msg
