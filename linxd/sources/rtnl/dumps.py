# SPDX-License-Identifier: MIT
"""Dumps of a namespace in slices, made again when what is dumped changes meanwhile.

It must not know what is dumped.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, TypeVar

from linxd.netlink.errors import DumpInterrupted, NetlinkError
from linxd.netlink.socket import Requests
from linxd.source import Pass

T = TypeVar("T")

ATTEMPTS = 8
"""Tries at a dump that changes while it is read."""
NOT_HERE = frozenset({errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.ENODEV, errno.ENOENT})
"""A kernel without IPv6 or policy rules has none to list, a device that went has nothing on it, and a table
that nobody has used yet (ENOENT, net/ipv4/fib_frontend.c inet_dump_fib) has no routes."""


class Dumps:
    """Dumps through one request socket. Raises NetlinkError and DumpInterrupted."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def collect(
        self, kind: int, payload: bytes, decode: Callable[[bytes, int, int], T | None], work: Pass[Any]
    ) -> list[T]:
        """A whole dump, decoded, with a breath after it."""
        found = await self.whole(kind, payload, decode, work)
        await work.checkpoint()
        return found

    async def whole(
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
