# SPDX-License-Identifier: MIT
"""A throw-away network namespace on the running kernel, and sockets in it."""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
from typing import Any

from linxd.netlink.rt import decode_link
from linxd.netlink.socket import Events, Requests, open_netlink
from linxd.netlink.wire import NETLINK_ROUTE, RTM_NEWLINK, RTNLGRP_LINK

IF_OPER_UP = 6

_NUMBER = itertools.count()


class Netns:
    """A network namespace of this test's own."""

    def __init__(self) -> None:
        self.name = f"lx-{os.getpid()}-{next(_NUMBER)}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        self._sockets: list[Requests | Events] = []

    def delete(self) -> None:
        """Delete it, leaving alone the sockets that a test opened itself."""
        for sock in self._sockets:
            sock.close()
        os.close(self.fd)
        self.fd = -1
        subprocess.run(["ip", "netns", "del", self.name], check=True)

    def ip(self, words: str, stdin: str | None = None) -> str:
        """Run ip(8) in it and return what it printed."""
        command = ["ip", "-n", self.name, *words.split()]
        return subprocess.run(command, check=True, text=True, input=stdin, stdout=subprocess.PIPE).stdout

    def json(self, words: str) -> list[dict[str, Any]]:
        """What ip(8) says, numbers instead of names."""
        found: list[dict[str, Any]] = json.loads(self.ip(f"-j -d -N {words}") or "[]")
        return [entry for entry in found if entry]

    def requests(self, protocol: int = NETLINK_ROUTE, **options: Any) -> Requests:
        """A request socket in it, closed when the test ends."""
        requests = Requests(open_netlink(protocol, netns_fd=self.fd), **options)
        self._sockets.append(requests)
        return requests

    def events(self, *groups: int, protocol: int = NETLINK_ROUTE, **options: Any) -> Events:
        """An event socket in it, closed when the test ends."""
        events = Events(open_netlink(protocol, netns_fd=self.fd), groups, **options)
        self._sockets.append(events)
        return events

    def wire(self) -> None:
        """lo and a veth pair v0 (index 100, 192.0.2.1/24, 2001:db8::1/64) and v1 (101), all up.

        Without link-local addresses, and only when the kernel has told that both ends are operational: it
        finds that out, and sets IPv6 up, some time after it answered the request (net/core/link_watch.c).
        """
        self.ip("link set lo up")
        self.ip("link add v0 index 100 type veth peer name v1 index 101")
        self.ip("link set v0 addrgenmode none")
        self.ip("link set v1 addrgenmode none")
        with Events(open_netlink(netns_fd=self.fd), [RTNLGRP_LINK]) as events:
            self.ip("link set v0 up")
            self.ip("link set v1 up")
            waiting = {100, 101}
            while waiting:
                wait_for(events.fileno())
                for message in events.read():
                    if message.type == RTM_NEWLINK:
                        link = decode_link(message.buf, message.start, message.end)
                        if link.operstate == IF_OPER_UP:
                            waiting.discard(link.ifindex)
        self.ip("addr add 192.0.2.1/24 dev v0")
        self.ip("addr add 2001:db8::1/64 dev v0 nodad")


def wait_for(fd: int) -> None:
    """Wait until there is something to read."""
    assert select.select([fd], [], [], 10)[0], "nothing came"
