# SPDX-License-Identifier: MIT
"""The host's links that a scope refers to: parents of its links, found by name and never changed, and the
host ends of its veths. All that a scope may do in the host's namespace is done here, and nowhere else.

It knows neither loops nor how the host's namespace was reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterable

from linxd.netlink import rt, wire
from linxd.netlink.errors import NetlinkError, Overrun
from linxd.netlink.rt import LinkMsg
from linxd.netlink.socket import Events, Requests
from linxd.netlink.wire import Message, WireError
from linxd.patch import Change
from linxd.sources.rtnl.kind import IFF_UP
from linxd.sources.rtnl.model import Link, Peer
from linxd.sources.rtnl.table import LinkTable

GROUPS = (wire.RTNLGRP_LINK,)
POLL = 1.0
"""Seconds between looks at the host's links where no events of theirs can be had."""
_SIOCGSKNS = 0x894C
"""The network namespace of a socket, as a file descriptor (include/uapi/linux/sockios.h)."""
PEER = "peer."
"""What attributes of the host end are called, beside those of the link itself."""
_ABSENT = frozenset({errno.ENODEV, errno.EINVAL})


def refers(link: Link) -> bool:
    """Whether a link has a parent or its other end in the host's namespace."""
    return bool(
        (link.parent is not None and link.parent.scope) or (link.peer is not None and link.peer.scope)
    )


class HostSide:
    """The way of one scope to the host's links.

    ``requests`` is a socket in the host's namespace, ``home`` one in the scope's own; both stay the
    caller's. ``events`` opens a socket for the host's events; where it is None, or fails, the links referred
    to are looked at every second. Raises OSError.
    """

    def __init__(
        self, requests: Requests, home: Requests, events: Callable[[], Events] | None = None
    ) -> None:
        self._requests = requests
        self._home = home
        self._open_events = events
        self.fd = fcntl.ioctl(requests.sock, _SIOCGSKNS)
        self._home_fd = fcntl.ioctl(home.sock, _SIOCGSKNS)
        self.links = LinkTable()
        """Those of the host's links that the scope refers to, as last seen."""
        self._ends: dict[str, int] = {}
        self._names: dict[str, set[str]] = {}
        self.nsid = rt.NOT_ASSIGNED
        """The id that the host's namespace has in the scope's, once `introduce` has seen to it."""
        self._home_nsid = rt.NOT_ASSIGNED

    def close(self) -> None:
        """Let go of the namespaces."""
        for fd in (self.fd, self._home_fd):
            with contextlib.suppress(OSError):
                os.close(fd)

    # -- what is there --------------------------------------------------------------------------------------

    def index(self, name: str) -> int | None:
        """The ifindex of one of the host's links, None when it is not there."""
        return self.links.index(name)

    def name(self, ifindex: int) -> str:
        """The name of one of the host's links."""
        return self.links.name(ifindex)

    def end_of(self, link: str) -> LinkMsg | None:
        """The host end of a veth of ours, None when it has none there."""
        ifindex = self._ends.get(link)
        return None if ifindex is None else self.links.by_index.get(ifindex)

    def look(self, links: Iterable[Link], table: LinkTable) -> None:
        """Bring up to date what these links refer to. ``table``: the scope's own links, just read. Raises
        NetlinkError."""
        for link in links:
            names: set[str] = set()
            if link.parent is not None and link.parent.scope:
                names.add(link.parent.name)
            if link.peer is not None and link.peer.scope:
                names.add(link.peer.name)
                names |= {link.peer.master} if link.peer.master else set()
                self._look_for_end(link.name, table)
            if names:
                self._names[link.name] = names
            for name in names:
                self._look_at(name)

    def forget(self) -> None:
        """Something else is declared."""
        self._names.clear()
        self._ends.clear()
        self.links = LinkTable()

    def _look_at(self, name: str) -> None:
        known = self.links.index(name)
        msg = self._link(name=name)
        if known is not None and (msg is None or msg.ifindex != known):
            again = self._link(ifindex=known)
            if again is None:
                self.links.drop(known)
            else:
                self.links.put(again)
        if msg is not None and msg.name == name:
            self.links.put(msg)

    def _look_for_end(self, name: str, table: LinkTable) -> None:
        """The other end of a veth is the link that names it in turn, seen from there under our id."""
        self._ends.pop(name, None)
        ours = table.find(name)
        if ours is None or not ours.link or ours.link_netnsid is None:
            return
        end = self._link(ifindex=ours.link)
        if end is None or end.kind != "veth" or end.link != ours.ifindex:
            return
        if self._home_nsid < 0:
            self._home_nsid = _ask_nsid(self._requests, self._home_fd)
        if end.link_netnsid == self._home_nsid >= 0:
            self.links.put(end)
            self._ends[name] = end.ifindex
            if end.master:
                master = self._link(ifindex=end.master)
                if master is not None:
                    self.links.put(master)

    def _link(self, *, ifindex: int = 0, name: str = "") -> LinkMsg | None:
        try:
            replies = self._requests.request(
                wire.RTM_GETLINK, 0, rt.query_link(ifindex=ifindex, name=name or None)
            )
        except NetlinkError as error:
            if error.errno in _ABSENT:
                return None
            raise
        return rt.decode_link(replies[0].buf, replies[0].start, replies[0].end) if replies else None

    # -- what may be done -----------------------------------------------------------------------------------

    def introduce(self) -> None:
        """Have the scope's namespace know the host's by an id, which a link with a parent there is made
        with. Raises NetlinkError."""
        if self.nsid < 0:
            self.nsid = _ask_nsid(self._home, self.fd)
        if self.nsid < 0:
            with contextlib.suppress(NetlinkError):  # EEXIST: somebody was faster
                self._home.request(wire.RTM_NEWNSID, 0, rt.encode_nsid(self.fd, give=True))
            self.nsid = _ask_nsid(self._home, self.fd)

    def set(self, link: Link, changes: Iterable[Change]) -> NetlinkError | None:
        """Bring the host end of one of our veths to what is declared. It is the only write to the host's
        namespace, and reaches nothing but that end. Returns the first refusal."""
        end = self.end_of(link.name)
        names = {change.attribute[len(PEER) :] for change in changes if change.attribute.startswith(PEER)}
        if end is None or link.peer is None or not names:
            return None
        for payload in _requests(link.peer, end, names, self.links):
            try:
                self._requests.request(wire.RTM_NEWLINK, 0, payload)
            except NetlinkError as error:
                return error
        return None

    # -- events ---------------------------------------------------------------------------------------------

    def concerned(self, names: Iterable[str] | None, ifindex: int = 0) -> list[str]:
        """Links of ours that refer to a link of the host's; with None, to any."""
        wanted = None if names is None else set(names)
        return [
            link
            for link, referred in self._names.items()
            if wanted is None or not referred.isdisjoint(wanted) or self._ends.get(link) == ifindex
        ]

    def subscribe(self, notify: Callable[[list[str]], None]) -> HostWatch:
        """``notify`` is called with the names of those of our links whose host side may have changed."""
        events: Events | None = None
        if self._open_events is not None:
            with contextlib.suppress(OSError):
                events = self._open_events()
        return HostWatch(self, events, notify)

    def poll(self) -> list[str]:
        """Links of ours whose host side has changed since the last look. Raises NetlinkError."""
        changed: list[str] = []
        for link, names in self._names.items():
            before = [self.links.find(name) for name in sorted(names)]
            now = [self._link(name=name) for name in sorted(names)]
            end = self.end_of(link)
            if before != now or (end is not None and self._link(ifindex=end.ifindex) != end):
                changed.append(link)
        return changed


class HostWatch:
    """A subscription to the host's links. Reads in the running event loop until closed."""

    def __init__(self, host: HostSide, events: Events | None, notify: Callable[[list[str]], None]) -> None:
        self._host = host
        self._events = events
        self._notify = notify
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        if events is not None:
            self._loop.add_reader(events.fileno(), self._readable)
        else:
            self._timer = self._loop.call_later(POLL, self._poll)

    def close(self) -> None:
        """No notification comes after this."""
        if self._timer is not None:
            self._timer.cancel()
        if self._events is not None:
            with contextlib.suppress(ValueError, OSError):
                self._loop.remove_reader(self._events.fileno())
            self._events.close()

    def _readable(self) -> None:
        assert self._events is not None
        concerned: dict[str, None] = {}
        try:
            while messages := self._events.read():
                for message in messages:
                    concerned |= dict.fromkeys(self._take(message))
        except (Overrun, WireError):
            concerned = dict.fromkeys(self._host.concerned(None))
        if concerned:
            self._notify(list(concerned))

    def _take(self, message: Message) -> list[str]:
        if message.type not in (wire.RTM_NEWLINK, wire.RTM_DELLINK):
            return []
        msg = rt.decode_link(message.buf, message.start, message.end)
        if msg.family == wire.AF_BRIDGE:
            return []
        before = self._host.links.by_index.get(msg.ifindex)
        if message.type == wire.RTM_NEWLINK and before == msg:
            return []
        names = {msg.name} if before is None else {msg.name, before.name}
        return self._host.concerned(names, msg.ifindex)

    def _poll(self) -> None:
        self._timer = self._loop.call_later(POLL, self._poll)
        with contextlib.suppress(NetlinkError):
            changed = self._host.poll()
            if changed:
                self._notify(changed)


def differences(peer: Peer, end: LinkMsg, links: LinkTable) -> list[Change]:
    """In what the host end differs from what is declared of it."""
    found: list[Change] = []
    if end.name != peer.name:
        found.append(Change(f"{PEER}name", end.name, peer.name))
    if peer.mtu is not None and end.mtu != peer.mtu:
        found.append(Change(f"{PEER}mtu", str(end.mtu), str(peer.mtu)))
    if peer.mac is not None and end.mac != peer.mac:
        found.append(Change(f"{PEER}mac", end.mac, peer.mac))
    if peer.master is not None:
        master = links.name(end.master) if end.master else ""
        if master != peer.master:
            found.append(Change(f"{PEER}master", master or None, peer.master or None))
    if bool(end.flags & IFF_UP) != peer.up:
        states = ("down", "up")
        found.append(Change(f"{PEER}state", states[not peer.up], states[peer.up]))
    return found


def _ask_nsid(requests: Requests, fd: int) -> int:
    """The id of a namespace in that of a socket, negative when it has none."""
    replies = requests.request(wire.RTM_GETNSID, 0, rt.encode_nsid(fd))
    return rt.decode_nsid(replies[0].buf, replies[0].start, replies[0].end) if replies else rt.NOT_ASSIGNED


def _requests(peer: Peer, end: LinkMsg, names: set[str], links: LinkTable) -> list[bytes]:
    """One message for each thing, whether it is up last."""
    messages: list[bytes] = []
    if "name" in names:
        messages.append(rt.encode_link(ifindex=end.ifindex, name=peer.name))
    if "mtu" in names:
        messages.append(rt.encode_link(ifindex=end.ifindex, mtu=peer.mtu))
    if "mac" in names:
        messages.append(rt.encode_link(ifindex=end.ifindex, mac=peer.mac))
    if "master" in names:
        master = links.index(peer.master) if peer.master else 0
        if master is not None:
            messages.append(rt.encode_link(ifindex=end.ifindex, master=master))
    if "state" in names:
        messages.append(rt.encode_link(ifindex=end.ifindex, change=IFF_UP, flags=IFF_UP if peer.up else 0))
    return messages
