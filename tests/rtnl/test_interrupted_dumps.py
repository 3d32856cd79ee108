# SPDX-License-Identifier: MIT
"""Dumps of what keeps changing: addresses of a thousand links that have just come up do so for seconds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator

import pytest

from linxd.ledger import MemoryLedger
from linxd.netlink import rt, wire
from linxd.netlink.errors import DumpInterrupted
from linxd.netlink.socket import Chunk, Requests, open_netlink
from linxd.source import Pass
from linxd.sources.rtnl.dumps import AT_ONCE, ATTEMPTS, Dumps
from linxd.sources.rtnl.model import AF_INET, Desired

from .harness import batch, ip

MANY = 2000


class Disturbed(Requests):
    """An address goes and comes while a dump is read, so many times."""

    netns = ""
    times = 0

    def dump(self, type: int, payload: bytes, flags: int = 0) -> Generator[Chunk, None, None]:
        for number, chunk in enumerate(super().dump(type, payload, flags)):
            if number == 1 and self.times:
                self.times -= 1
                ip(self.netns, "addr del 10.0.3.1/32 dev v0")
                ip(self.netns, "addr add 10.0.3.1/32 dev v0")
            yield chunk


@pytest.mark.parametrize("times", [1, AT_ONCE, ATTEMPTS - 1, ATTEMPTS])
def test_what_changes_for_a_while_is_read_in_the_end_and_others_have_their_turn(
    netns: str, times: int
) -> None:
    batch(
        netns, "link add v0 type veth peer name v1", "link set v0 up",
        *(f"addr add 10.0.{n >> 8}.{n & 255}/32 dev v0" for n in range(MANY)),
    )  # fmt: skip
    fd = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
    turns = 0

    async def checkpoint() -> None:
        nonlocal turns
        turns += 1
        await asyncio.sleep(0)

    async def read(requests: Requests) -> list[object]:
        work = Pass(Desired(), MemoryLedger(), checkpoint=checkpoint)
        return await Dumps(requests).whole(
            wire.RTM_GETADDR, rt.query_addrs(family=AF_INET), lambda *at: rt.decode_addr(*at), work
        )

    try:
        with Disturbed(open_netlink(netns_fd=fd)) as requests:
            requests.netns, requests.times = netns, times
            if times == ATTEMPTS:
                with pytest.raises(DumpInterrupted):
                    asyncio.run(read(requests))
            else:
                assert len(asyncio.run(read(requests))) == MANY
            assert requests.times == 0
            assert turns > times
    finally:
        os.close(fd)
