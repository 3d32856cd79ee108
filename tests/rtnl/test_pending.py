# SPDX-License-Identifier: MIT
"""What lacks something is pending and says what; everything else converges; and when it comes, its event
heals."""

from __future__ import annotations

import asyncio
from pathlib import Path

from linxd.patch import State

from .harness import World, batch, ip
from .test_healed_on_the_event import as_declared

DECLARED = """
[link.e0]
addresses = ["10.0.0.1/24"]

[link.far0]
master = "br9"

[link.late0]
addresses = ["10.5.0.1/24", "fd05::1/64"]

[link.mv0]
kind = "macvlan"
parent = "late0"
mode = "bridge"

[[route]]
to = "192.0.2.0/24"
via = "10.0.0.2"

[[route]]
to = "198.51.100.0/24"
via = "10.77.0.1"

[[route]]
to = "203.0.113.0/24"
via = "10.5.0.2"
dev = "late0"

[[neighbour]]
address = "10.5.0.9"
dev = "late0"
lladdr = "02:00:00:00:00:09"
"""


def test_the_rest_converges_and_what_waits_is_healed_when_it_can_be(netns: str, tmp_path: Path) -> None:
    batch(
        netns, "link set lo up", "link add e0 type veth peer name far0", "link set far0 up", "link set e0 up"
    )

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            async with world.kept(DECLARED):
                assert world.loop is not None
                said = {condition.name: condition for condition in world.loop.conditions.values()}
                assert {condition.state for condition in said.values()} == {State.PENDING}
                assert said["link late0"].text == "is not there, and its kind is not declared"
                assert said["link mv0"].text == "needs link late0, which is not there"
                assert said["address 10.5.0.1/24 dev late0"].text == "needs link late0, which is not there"
                assert (
                    said["route 203.0.113.0/24 via 10.5.0.2 dev late0"].text
                    == "needs link late0, which is not there"
                )
                assert (
                    "needs a way to its gateway 10.77.0.1"
                    in said["route 198.51.100.0/24 via 10.77.0.1"].text
                )
                assert "via 10.0.0.2" in ip(netns, "route show 192.0.2.0/24")

                await world.sabotage("link add late0 type veth peer name far1", "link set far1 up")
                await world.until(lambda: len(world.loop.conditions) == 2, what="late0 is there")  # type: ignore[union-attr]
                said = {condition.name: condition for condition in world.loop.conditions.values()}
                assert said["link far0"].text == "needs link br9 as its master, which is not there"
                assert "10.5.0.1/24" in ip(netns, "address show late0")
                assert "via 10.5.0.2" in ip(netns, "route show 203.0.113.0/24")
                assert "late0" in ip(netns, "link show mv0")

                await world.sabotage("link add br9 type bridge", "address add 10.77.0.9/24 dev e0")
                await as_declared(world, "all is there")
                assert "master br9" in ip(netns, "link show far0")
                assert "via 10.77.0.1" in ip(netns, "route show 198.51.100.0/24")
                assert world.loop.conditions == {}

                await world.sabotage("link del late0")
                await world.until(lambda: len(world.loop.conditions) >= 4, what="late0 is gone")  # type: ignore[union-attr]
                await world.sabotage("link add late0 type veth peer name far1", "link set far1 up")
                await as_declared(world, "late0 is back")
            await world.quiet()
        finally:
            world.close()

    asyncio.run(story())


def test_ipv6_waits_for_an_mtu_it_can_live_with(netns: str, tmp_path: Path) -> None:
    batch(netns, "link set lo up", "link add e0 type veth peer name far0", "link set far0 up")

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            async with world.kept('[link.e0]\naddresses = ["fd00::1/64", "10.0.0.1/24"]\n') as kept:
                assert kept.loop is not None
                loop = kept.loop
                ip(netns, "link set e0 mtu 1000")
                await kept.until(lambda: bool(loop.conditions))
                [condition] = loop.conditions.values()
                assert condition.state is State.PENDING
                assert condition.text == "needs an MTU of at least 1280 on e0, which has 1000"
                ip(netns, "link set e0 mtu 1400")
                await kept.until(lambda: not loop.conditions)
                assert "fd00::1/64" in ip(netns, "address show dev e0")
            # an MTU that is declared is raised in the same pass
            await world.settle('[link.e0]\nmtu = 1280\naddresses = ["fd00::1/64", "10.0.0.1/24"]\n')
            ip(netns, "link set e0 mtu 1000")
            await world.settle()
            assert "fd00::1/64" in ip(netns, "address show dev e0")
        finally:
            world.close()

    asyncio.run(story())
