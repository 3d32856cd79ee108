# SPDX-License-Identifier: MIT
"""Dumps of a namespace in slices, made again when what is dumped changes meanwhile.

It must not know what is dumped.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from linxd.netlink.errors import DumpInterrupted, NetlinkError
from linxd.netlink.socket import Chunk, Requests
from linxd.source import Pass

T = TypeVar("T")

ATTEMPTS = 14
"""Tries at a dump that changes while it is read."""
AT_ONCE = 4
"""Tries without a rest between them. Whatever keeps changing after that gets one that doubles each time: a
thousand links that have just come up change their addresses for a second or two."""
FIRST_REST, LAST_REST = 0.01, 0.5
"""Seconds."""
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
        again, and read to its end before anything is decoded, so that less can change."""
        for attempt in range(ATTEMPTS):
            found: list[T] = []
            if attempt >= AT_ONCE:
                await asyncio.sleep(min(FIRST_REST * 2 ** (attempt - AT_ONCE), LAST_REST))
                await work.checkpoint()
            try:
                chunks: Iterable[Chunk] = self._requests.dump(kind, payload)
                if attempt:
                    chunks = await _all(chunks, work)
                for number, (buf, bounds) in enumerate(chunks):
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


async def _all(chunks: Iterable[Chunk], work: Pass[Any]) -> list[Chunk]:
    found = []
    for chunk in chunks:
        found.append(chunk)
        await work.checkpoint()
    return found
