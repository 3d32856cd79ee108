# SPDX-License-Identifier: MIT
"""How drift is noticed between two resyncs: by the kernel's events where there are any, else by a look each
second.

It turns both into hints that name keys, and knows neither what is declared nor what is done about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import Callable, Collection, Iterable
from typing import Literal, Protocol

from linxd.netlink import wire
from linxd.netlink.errors import Overrun
from linxd.netlink.events import Events
from linxd.netlink.wire import Message, WireError
from linxd.patch import Key
from linxd.source import Hint
from linxd.sources.sysctl.model import Path

GROUPS = (wire.RTNLGRP_LINK, wire.RTNLGRP_IPV4_NETCONF, wire.RTNLGRP_IPV6_NETCONF)
"""What `Events` are to be opened with."""
POLL = 1.0
"""Seconds for which a silent key may stay changed."""

REST = 0.01
"""Seconds after events that name keys until the other keys are looked at, too."""

_TOLD = {
    "ipv4": {2: "forwarding", 3: "rp_filter", 5: "proxy_arp", 6: "ignore_routes_with_linkdown"},
    "ipv6": {2: "forwarding", 5: "proxy_ndp", 6: "ignore_routes_with_linkdown", 9: "force_forwarding"},
}
"""The keys below conf of which RTM_NEWNETCONF tells, by their attributes (include/uapi/linux/netconf.h;
measured, and the tests measure it again)."""
_FAMILIES = {wire.AF_INET: "ipv4", wire.AF_INET6: "ipv6"}
_IFINDEX = 1
_ALL_AND_DEFAULT = {-1: "all", -2: "default"}
_IP_FORWARD: Path = ("net", "ipv4", "ip_forward")
_FORWARDING: Path = ("net", "ipv4", "conf", "all", "forwarding")
"""Two names for one value."""
_IFINFOMSG = 16
_NETCONFMSG = 4
_CHANGE = struct.Struct("=B3xIiIi")
"""A family, and two attributes of four bytes each: the interface, and the key that has changed."""
_INDEX_HEAD = wire.head(_IFINDEX, 4)
_NUMBER_HEADS = {wire.head(type, 4): type for told in _TOLD.values() for type in told}


def watch_of(path: Path) -> Literal["event", "poll"]:
    """How a change of this key is noticed: by an event at once, or by a look within `POLL` seconds."""
    if path == _IP_FORWARD:
        return "event"
    conf = len(path) == 5 and path[0] == "net" and path[2] == "conf"
    return "event" if conf and path[4] in _TOLD.get(path[1], {}).values() else "poll"


def named(message: Message, interface: Callable[[int], str | None]) -> Path | None:
    """The key of which alone an event tells, by the name of its interface; None where there is more to it,
    or it can't be told."""
    if message.type != wire.RTM_NEWNETCONF or message.end - message.start != _CHANGE.size:
        return None
    number, first, index, second, _ = _CHANGE.unpack_from(message.buf, message.start)
    family, type = _FAMILIES.get(number), _NUMBER_HEADS.get(second)
    if family is None or type is None or first != _INDEX_HEAD:
        return None
    name = _ALL_AND_DEFAULT.get(index) or interface(index)
    key = _TOLD[family].get(type)
    return None if name is None or key is None else ("net", family, "conf", name, key)


class Watched(Protocol):
    """What is watched for."""

    def drifted(self, *, silent: bool = False, only: Collection[Path] | None = None) -> Iterable[Key]:
        """Keys that are not as they were at the last pass. ``silent``: only those without events are looked
        at, ``only``: just these."""

    def alone(self, path: Path, at: float) -> Hint | None:
        """A key that alone was told of, at that moment (CLOCK_MONOTONIC seconds): its hint, if it is not as
        it was at the last pass. What the hint calls for may be done by then."""

    def interface(self, ifindex: int) -> str | None:
        """The name that an interface had at the last pass."""

    def interfaces_moved(self) -> Iterable[Key]:
        """Keys that may have come or gone with an interface."""

    def knows(self, name: str) -> bool:
        """Whether the interface was there at the last pass."""

    @property
    def silent(self) -> bool:
        """Whether there is anything to look at each second."""


class Watch:
    """A subscription. Reads in the running event loop until closed."""

    def __init__(
        self, watched: Watched, events: Events | None, notify: Callable[[Hint], None], *, poll: float = POLL
    ) -> None:
        self._watched = watched
        self._events = events
        self._notify = notify
        self._poll = poll
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._rest: asyncio.TimerHandle | None = None
        if events is not None:
            self._loop.add_reader(events.fileno(), self._readable)

    def close(self) -> None:
        """No hint comes after this."""
        for timer in (self._timer, self._rest):
            if timer is not None:
                timer.cancel()
        self._timer = self._rest = None
        if self._events is not None:
            with contextlib.suppress(ValueError, OSError):
                self._loop.remove_reader(self._events.fileno())
            self._events.close()

    def arm(self) -> None:
        """Start or stop the timer, as there is something to look at or not. To be called after each
        pass."""
        if not self._watched.silent:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            self._timer = self._loop.call_later(self._poll, self._tick)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._poll, self._tick)
        self._tell(self._watched.drifted(silent=True), time.monotonic())

    def _readable(self) -> None:
        assert self._events is not None
        now = time.monotonic()
        moved = others = False
        keys: set[Path] = set()
        try:
            while messages := self._events.read():
                for message in messages:
                    key = named(message, self._watched.interface)
                    if key is not None:
                        keys.add(key)
                    else:
                        others = True
                        moved = moved or self._moves(message)
        except (Overrun, WireError):
            # What was lost, or can't be read, may have told of anything.
            self._notify(Hint(None, at=now))
            return
        except OSError:
            self._notify(Hint(None, at=now, broken=True))
            return
        if moved:
            self._tell(self._watched.interfaces_moved(), now)
        if others:
            self._tell(self._watched.drifted(), now)
        elif keys:
            if _FORWARDING in keys:
                keys.add(_IP_FORWARD)
            if len(keys) == 1:
                hint = self._watched.alone(keys.pop(), now)
                if hint is not None:
                    self._notify(hint)
            else:
                self._tell(self._watched.drifted(only=keys), now)
            # Events are hints: what else they may be about is looked for, too, when this is healed.
            if self._rest is None:
                self._rest = self._loop.call_later(REST, self._look_at_the_rest)

    def _look_at_the_rest(self) -> None:
        self._rest = None
        self._tell(self._watched.drifted(), time.monotonic())

    def _moves(self, message: Message) -> bool:
        """Whether an event tells of an interface, or of its part in a protocol, that came or went."""
        match message.type:
            case wire.RTM_DELLINK | wire.RTM_DELNETCONF:
                return True
            case wire.RTM_NEWLINK:
                attributes = wire.attr_map(message.buf, message.start + _IFINFOMSG, message.end)
                name = attributes.get(wire.IFLA_IFNAME)
                return name is None or not self._watched.knows(wire.text_of(name))
            case wire.RTM_NEWNETCONF:
                # One that comes tells all its attributes, a change tells one.
                return len(wire.attr_map(message.buf, message.start + _NETCONFMSG, message.end)) > 2
        return False

    def _tell(self, keys: Iterable[Key], at: float) -> None:
        for key in keys:
            self._notify(Hint(key, at=at))
