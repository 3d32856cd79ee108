# SPDX-License-Identifier: MIT
"""One dump between its request and its end: what has come of it, and how it ended.

Only book-keeping over bytes; it must not know the socket.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from linxd.netlink.errors import DumpInterrupted, NetlinkError, ack_error
from linxd.netlink.wire import (
    HEADER,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSG_HDRLEN,
    NLMSG_MIN_TYPE,
    WireError,
)

Chunk: TypeAlias = tuple[bytes, list[tuple[int, int]]]
"""One datagram of a dump: the buffer, and start and end of each message's payload in it."""


class Dump:
    """A dump under way, or given up but not yet at its end in the kernel."""

    __slots__ = ("done", "error", "given_up", "ready", "request", "seq")

    def __init__(self, seq: int, request: bytes) -> None:
        self.seq = seq
        self.request = request
        self.ready: deque[Chunk] = deque()
        self.done = False
        self.given_up = False
        self.error: NetlinkError | DumpInterrupted | None = None

    def fail(self, error: NetlinkError | DumpInterrupted) -> None:
        self.error = error
        self.give_up()

    def give_up(self) -> None:
        self.given_up = True
        self.ready.clear()

    def take(self, buf: bytes) -> None:
        """Add a datagram of the dump."""
        bounds: list[tuple[int, int]] = []
        offset = seen = 0
        size = len(buf)
        while offset + NLMSG_HDRLEN <= size:
            length, type_, flags, _, _ = HEADER.unpack_from(buf, offset)
            end = offset + length
            if length < NLMSG_HDRLEN or end > size:
                raise WireError(
                    f"message at offset {offset}: length is {length}, {size - offset} bytes are left"
                )
            seen |= flags
            if type_ >= NLMSG_MIN_TYPE:
                bounds.append((offset + NLMSG_HDRLEN, end))
            elif type_ in (NLMSG_DONE, NLMSG_ERROR):
                self.done = True
                error = ack_error(type_, flags, buf, offset + NLMSG_HDRLEN, end, self.request)
                if error is not None:
                    self.fail(error)
            offset = (end + 3) & ~3
        if seen & NLM_F_DUMP_INTR and self.error is None:
            self.fail(DumpInterrupted("changed while it was read"))
        if bounds and not self.given_up:
            self.ready.append((buf, bounds))
