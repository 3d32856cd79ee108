# SPDX-License-Identifier: MIT
"""A world in which something may happen between what is done at once and the pass that accounts for it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import tests.bed.between
from linxd.loop import Loop
from linxd.netlink.errors import NetlinkError
from linxd.netlink.socket import Request
from linxd.patch import Key, Report
from linxd.sources.rtnl.events import Identify
from linxd.sources.rtnl.model import Desired

from .harness import World, ip, pair

DECLARED = """
[link.e0]
mtu = 1400
addresses = ["10.1.0.5/24", "10.2.0.5/24", "10.2.0.6/24", { address = "fd00::5/64", nodad = true }]

[[route]]
to = "20.0.0.0/24"
via = "10.1.0.1"
dev = "e0"

[[route]]
to = "fd01::/64"
via = "fd00::1"
dev = "e0"

[[rule]]
from = "10.77.0.1/32"
table = 100
priority = 20

[[neighbour]]
address = "10.1.0.9"
dev = "e0"
lladdr = "02:00:00:00:00:09"
"""
ROUTE: Key = ("route", 2, 254, "20.0.0.0/24", 0, 0)
DRIFT = "route del 20.0.0.0/24"
BACK = "20.0.0.0/24 via 10.1.0.1 dev e0 proto 76"


async def rest(world: World) -> None:
    """Until nothing has been sent for a while."""
    before = -1
    while before != len(world.sent):
        before = len(world.sent)
        await asyncio.sleep(0.1)


def refuse(world: World, kind: int, times: int = 1000) -> None:
    """Have requests of a type refused, as those of a radio that is switched off are."""
    request, batch = world.requests.request, world.requests.batch
    left = times

    def refused(kinds: Iterable[int]) -> bool:
        nonlocal left
        if left and set(kinds) == {kind}:
            left -= 1
            return True
        return False

    def one(type: int, flags: int, payload: bytes, **more: Any) -> Any:
        if refused([type]):
            raise NetlinkError(errno.ERFKILL, "Operation not possible due to RF-kill")
        return request(type, flags, payload, **more)

    def many(messages: Iterable[Request], **more: Any) -> Any:
        messages = list(messages)
        if refused(message[0] for message in messages):
            return [NetlinkError(errno.ERFKILL, "Operation not possible due to RF-kill")] * len(messages)
        return batch(messages, **more)

    world.requests.request = one  # type: ignore[method-assign]
    world.requests.batch = many  # type: ignore[method-assign]


def keep(
    netns: str,
    directory: Path,
    text: str,
    story: Callable[[World], Awaitable[None]],
    *,
    identify: Identify = lambda port: None,
) -> None:
    """Run a story on a world of e0 that is kept as a text declares and has come to rest."""
    pair(netns)

    async def run() -> None:
        world = World(netns, directory, identify=identify)
        try:
            async with world.kept(text):
                assert world.loop is not None
                await rest(world)
                await world.loop.request()
                await rest(world)
                await story(world)
        finally:
            world.close()

    asyncio.run(run())


class Between(tests.bed.between.Between):
    """A world in which something may happen between what is done at once and the pass that accounts for
    it."""

    def __init__(self, world: World, loop: Loop[Desired, Any]) -> None:
        super().__init__(loop, lambda: len(world.sent))
        self.world = world

    async def drift(self, command: str) -> list[Report]:
        """Break something and wait for all that comes of it: the reports."""
        await self.begin()
        before = len(self.world.reports)
        await self.world.sabotage(command)
        await self.world.until(lambda: len(self.world.reports) > before, what=command)
        await self.rest()
        return self.world.reports[before:]

    def routes(self) -> str:
        return ip(self.world.netns, "route show")


@contextlib.asynccontextmanager
async def between(netns: str, directory: Path) -> AsyncIterator[Between]:
    world = World(netns, directory)
    try:
        async with world.kept(DECLARED):
            assert world.loop is not None
            made = Between(world, world.loop)
            await made.rest()
            yield made
    finally:
        world.close()


def tell(netns: str, directory: Path, story: Callable[[Between], Awaitable[None]]) -> None:
    """Run a story on a world that has come to rest; at its end all is as declared."""
    pair(netns)

    async def run() -> None:
        async with between(netns, directory) as made:
            await story(made)
            made.then = made.before = lambda: None
            made.world.desired = made.loop.desired
            await made.rest()
        # A source that remembers nothing sees it the same way.
        world = World(netns, directory, ledger=made.world.ledger)
        try:
            world.desired = made.world.desired
            await world.quiet()
        finally:
            world.close()

    asyncio.run(run())
