# SPDX-License-Identifier: MIT
"""Reading a namespace's tables: dumps, taken in quickly and put together in slices.

A look is of one generation or it is none. It decides nothing.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Awaitable, Callable, Iterable

from linxd.netlink.errors import DumpInterrupted, NetlinkError
from linxd.netlink.nft import generation, nfgen
from linxd.netlink.socket import Requests
from linxd.netlink.wire import NLM_F_DUMP, pack_attr
from linxd.sources.netfilter import names as n
from linxd.sources.netfilter.decode import UNKNOWN, Known, assemble, place, refusing, table
from linxd.sources.netfilter.state import Table, TableId

Checkpoint = Callable[[], Awaitable[None]]
SLICE = 0.002
"""Seconds of work between two checkpoints, which let the event loop turn when that is due."""


class Moved(Exception):  # noqa: N818 - not a fault, a reason to read again
    """The ruleset changed while it was read: what was read is of no generation."""


class Reader:
    """Dumps of the namespace that ``requests`` was opened in."""

    def __init__(self, requests: Requests) -> None:
        self.requests = requests
        self.known: Known = UNKNOWN
        """Rules that need not be taken apart where they are met: those that are declared."""

    def generation(self) -> int:
        """The number of the present generation. Raises NetlinkError."""
        return generation(self.requests)

    def heads(self) -> dict[TableId, Table]:
        """All tables there are, empty. Raises NetlinkError, or Moved."""
        with refusing("a dump of nf_tables"):
            found = [table(payload) for _, payload in self._dump(n.GETTABLE, n.NEWTABLE, nfgen(0))]
        return {head.id: head for head in found}

    async def read(self, wanted: Iterable[TableId], checkpoint: Checkpoint) -> dict[TableId, Table]:
        """These tables, with all that is in them; what is not there is left out.

        Raises NetlinkError, WireError, or Moved; whether the generation stayed the same from before to after
        is for the caller to see.
        """
        heads = {head.id: head for head in self.heads().values()}
        there = [where for where in wanted if where in heads]
        if not there:
            return {}
        found = await self.messages(there, checkpoint)
        return await assembled(found, checkpoint, self.known)

    async def messages(self, tables: Iterable[TableId], checkpoint: Checkpoint) -> list[tuple[int, bytes]]:
        """Everything in these tables, as messages. Raises NetlinkError, or Moved."""
        pace = Pace(checkpoint)
        there = list(tables)
        found = [
            (type, payload)
            for type, payload in [
                *self._dump(n.GETTABLE, n.NEWTABLE, nfgen(0)),
                *self._dump(n.GETCHAIN, n.NEWCHAIN, nfgen(0)),
            ]
            if place(payload)[0] in there
        ]
        for family, name in there:
            within = nfgen(family) + pack_attr(1, name.encode() + b"\0")
            sets = self._dump(n.GETSET, n.NEWSET, within)
            found += sets
            for _, payload in sets:
                of = pack_attr(n.NFTA_SET_ELEM_LIST_SET, place(payload)[1].get(n.NFTA_SET_NAME, b""))
                for part in self._steps(n.GETSETELEM, n.NEWSETELEM, within + of):
                    found += part
                    await pace()
            found += self._dump(n.GETOBJ, n.NEWOBJ, within)
            found += self._dump(n.GETFLOWTABLE, n.NEWFLOWTABLE, within)
            for part in self._steps(n.GETRULE, n.NEWRULE, within):
                found += part
                await pace()
        return found

    def _dump(self, type: int, answer: int, payload: bytes) -> list[tuple[int, bytes]]:
        return [message for part in self._steps(type, answer, payload) for message in part]

    def _steps(self, type: int, answer: int, payload: bytes):  # type: ignore[no-untyped-def]
        try:
            for buf, bounds in self.requests.dump(type, payload, NLM_F_DUMP):
                yield [(answer, buf[start:end]) for start, end in bounds]
        except DumpInterrupted as error:
            raise Moved(str(error)) from None
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                # the table, or the set, went between two dumps
                raise Moved("what was being read is gone") from None
            if error.errno != errno.EOPNOTSUPP:
                raise


class Pace:
    """Awaits the checkpoint when a slice of work is over, and not before."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._until = time.monotonic() + SLICE

    async def __call__(self) -> None:
        if time.monotonic() >= self._until:
            await self._checkpoint()
            self._until = time.monotonic() + SLICE


async def assembled(
    messages: Iterable[tuple[int, bytes]], checkpoint: Checkpoint, known: Known = UNKNOWN
) -> dict[TableId, Table]:
    """Tables put together from messages, in slices. Raises WireError."""
    pace = Pace(checkpoint)
    for tables in assemble(messages, known):
        if tables is not None:
            return tables
        await pace()
    raise AssertionError("assemble ends with the tables")
