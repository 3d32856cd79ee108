# SPDX-License-Identifier: MIT
"""How long it takes from an object's going to its coming back, seen from outside: two events of the kernel's
on one socket, whoever brought the object back.

It breaks and watches; it does not know who heals.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence

import bed
from kinds import Case, Sabotage, Seen

from linxd.netlink import wire

SPIN = 0.02
"""Seconds for which the events are read without sleeping: waking up would count as part of the time."""
GIVEN_UP = 3.0
"""Seconds after which an object does not come back any more."""


class Observer:
    """Watches one namespace's events of a group or two."""

    def __init__(self, on: bed.Bed, netns: str, protocol: int, *groups: int) -> None:
        self._sock = on.socket(netns, protocol)
        for group in groups:
            self._sock.setsockopt(wire.SOL_NETLINK, wire.NETLINK_ADD_MEMBERSHIP, group)

    def drain(self) -> None:
        """Forget what has come so far."""
        try:
            while True:
                self._sock.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass

    def time(self, case: Case) -> float | None:
        """Break an object, and wait for it; seconds between the two events. None: it did not come back."""
        return self.time_all(case.sabotage, case.gone, [case.back])

    def time_all(self, sabotage: Sabotage, gone: Seen, backs: Sequence[Seen]) -> float | None:
        """Break something, and wait until all that went with it is back, in whatever order; seconds from the
        event of its going to the last one. None: not all came back."""
        self.drain()
        sabotage()
        sock, began, at, left = self._sock, time.monotonic(), 0.0, list(backs)
        while True:
            try:
                data = sock.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                passed = time.monotonic() - began
                if passed > GIVEN_UP:
                    return None
                if passed > SPIN:
                    select.select([sock], [], [], GIVEN_UP - passed)
                continue
            now = time.monotonic()
            if not at:
                if not seen(data, gone):
                    continue
                at = now
            left = [back for back in left if not seen(data, back)]
            if not left:
                return now - at


def seen(data: bytes, what: Seen) -> bool:
    """Whether one of a datagram's messages is of that type and has those bytes."""
    type, word = what
    at = 0
    while at + wire.NLMSG_HDRLEN <= len(data):
        size, found, _, _, _ = wire.HEADER.unpack_from(data, at)
        if found == type and data.find(word, at, at + size) >= 0:
            return True
        at += max(size + 3 & ~3, wire.NLMSG_HDRLEN)
    return False
