# SPDX-License-Identifier: MIT
"""Random declarations, random writes of others at random moments, on the real kernel.

`LINXD_FUZZ_SEED` and `LINXD_FUZZ_N` choose the run; a failure prints both.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

from linxd.patch import State
from linxd.source import Pass
from linxd.sources.sysctl.diff import VALUE

from ..rtnl.harness import batch
from .harness import World, flip, value

SEED = int(os.environ.get("LINXD_FUZZ_SEED", random.randrange(1 << 32)))
DRIFTS = int(os.environ.get("LINXD_FUZZ_N", 100))
CHOICES: dict[str, tuple[str, ...]] = {
    "net.ipv4.ip_forward": ("0", "1"),
    "net.ipv4.conf.default.forwarding": ("0", "1"),
    "net.ipv4.conf.e0.forwarding": ("0", "1"),
    "net.ipv4.conf.e0.rp_filter": ("0", "1", "2"),
    "net.ipv4.conf.e1.rp_filter": ("0", "1", "2"),
    "net.ipv4.conf.e0.accept_local": ("0", "1"),
    "net.ipv4.conf.e1.arp_ignore": ("0", "1", "2"),
    "net.ipv6.conf.all.forwarding": ("0", "1"),
    "net.ipv6.conf.e0.forwarding": ("0", "1"),
    "net.ipv6.conf.e0.accept_ra": ("0", "1", "2"),
    "net.core.somaxconn": ("100", "200", "300"),
    "net.ipv4.tcp_rmem": ("4096 131072 6291456", "4096 87380 6000000"),
    "net.ipv4.ip_local_port_range": ("1024 2000", "32768 60999"),
}
GLOBS = ("net.ipv4.conf.*.arp_announce", "net.ipv6.conf.*.accept_redirects")


def declaration(rng: random.Random) -> dict[str, Any]:
    keys: dict[str, Any] = {key: rng.choice(CHOICES[key]) for key in rng.sample(sorted(CHOICES), 7)}
    keys |= {glob: rng.choice((0, 1)) for glob in GLOBS if rng.random() < 0.7}
    return keys


def test_whatever_happens_it_ends_as_declared(netns: str) -> None:
    print(f"seed {SEED}, {DRIFTS} drifts")
    rng = random.Random(SEED)
    batch(netns, "link set lo up", "link add e0 type veth peer name e1", "link set e0 up")
    every = [*CHOICES, *(glob.replace("*", name) for glob in GLOBS for name in ("e0", "e1"))]

    async def run() -> None:
        world = World(netns)
        try:
            async with world.kept(declaration(rng)):
                assert world.loop is not None
                left = DRIFTS
                story: list[str] = []
                while left > 0:
                    story = []
                    for _ in range(min(left, rng.randrange(1, 8))):
                        left -= 1
                        key = rng.choice(every)
                        to = rng.choice(CHOICES.get(key, ("0", "1")))
                        story.append(f"{key}={to}")
                        await asyncio.to_thread(flip, netns, key, to)
                        await asyncio.sleep(rng.choice((0, 0, 0.005, 0.03)))
                    if rng.random() < 0.3:
                        world.loop.declare(world.declare(declaration(rng)))
                    for attempt in range(200):
                        if not await left_to_do(world):
                            break
                        world.forgive()
                        await asyncio.sleep(0.02)
                        assert attempt < 190, (SEED, story, await left_to_do(world), world.loop.conditions)
                    world.forgive()
            await world.quiet()
            # what the ledger knows as first is what comes back, through all the cascades
            entries = world.owned.of("sysctl").items()
            first = {str(key[1]): entry.original.get(VALUE) for key, entry in entries}
            await world.settle({})
            await world.quiet()
            for key, was in first.items():
                if was is not None:
                    assert value(netns, key) == " ".join(was.split()), (SEED, key)
            assert not world.owned.of("sysctl")
        finally:
            world.close()

    async def left_to_do(world: World) -> list[str]:
        """What another source would do now: it has its own eyes."""
        other = World(netns, ledger=world.owned)
        try:
            work = Pass(world.desired, world.owned, write=False)
            patch = other.source.diff(await other.source.observe(work), world.desired, world.owned)
            assert not [c for c in patch.conditions if c.state is State.FAILED], (SEED, patch.conditions)
            return [op.describe() for op in patch.ops]
        finally:
            other.close()

    asyncio.run(run())
