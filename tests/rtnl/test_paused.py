# SPDX-License-Identifier: MIT
"""What a pause means to a pass that runs when it begins, or when it ends: what is not written is not
done."""

from __future__ import annotations

import asyncio
from pathlib import Path

from linxd.patch import State, Trigger
from linxd.source import Pass
from linxd.sources.rtnl.model import Desired

from .harness import World, batch, ip

MANY = 2000


def declaration(count: int) -> str:
    routes = "".join(
        f'[[route]]\nto = "172.{16 + (n >> 8)}.{n & 255}.0/24"\ndev = "e0"\n' for n in range(count)
    )
    return f'[link.e0]\naddresses = ["10.0.0.1/24"]\n{routes}'


def test_a_pause_within_a_long_patch_stops_it_and_the_rest_is_said_to_be_paused(
    netns: str, tmp_path: Path
) -> None:
    batch(netns, "link add e0 type veth peer name far0", "link set far0 up", "link set e0 up")

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            desired = world.declare(declaration(MANY))
            work: Pass[Desired] = Pass(desired, world.ledger, Trigger.START)

            async def checkpoint() -> None:
                if "172.16.0.0/24" in ip(netns, "route show 172.16.0.0/24"):
                    work.write = False

            work.checkpoint = checkpoint
            report = await world.source.reconcile(work)
            made = sum(line.startswith("172.") for line in ip(netns, "route show").splitlines())
            assert 0 < made < MANY
            left = [one for one in report.conditions if one.state is State.PENDING]
            assert len(left) == MANY - made
            assert all(one.paused for one in left)
            await world.settle()
        finally:
            world.close()

    asyncio.run(story())


def test_a_pass_that_began_paused_calls_nothing_done_that_it_did_not_do(netns: str, tmp_path: Path) -> None:
    """Even if the pause has ended meanwhile, so that nobody holds back its ops."""
    batch(netns, "link add e0 type veth peer name far0", "link set far0 up", "link set e0 up")

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            await world.settle(declaration(3))
            ip(netns, "route del 172.16.1.0/24")
            report = await world.go(write=False)
            assert [one.name for one in report.conditions] == ["route 172.16.1.0/24 dev e0"]
            assert not report.converged
            assert report.applied == ()
        finally:
            world.close()

    asyncio.run(story())
