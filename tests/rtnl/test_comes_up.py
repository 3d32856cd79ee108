# SPDX-License-Identifier: MIT
"""A link that is set up takes nothing along, but what stands on it may come up with it, as a vlan does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from linxd.netlink import wire

from .harness import World, batch, ip

DECLARED = """
[link.e0]
up = true

[link.v0]
kind = "vlan"
parent = "e0"
id = 7
up = false
"""
IN_A_BRIDGE = """
[link.br0]
kind = "bridge"

[link.e0]
master = "br0"
up = false
"""


@pytest.fixture
def world(netns: str, tmp_path: Path) -> Iterator[World]:
    batch(netns, "link add e0 type veth peer name far0", "link set far0 up")
    made = World(netns, tmp_path)
    yield made
    made.close()


def test_a_vlan_that_is_to_stay_down_is_down_after_one_pass(
    world: World, has_kind: Callable[..., None]
) -> None:
    has_kind("vlan", "id", "7", parent=True)
    ip(world.netns, "link add link e0 name v0 type vlan id 7")

    async def story() -> None:
        with_it = await world.go(DECLARED)
        assert with_it.converged
        assert ",UP" not in ip(world.netns, "link show v0")
        await world.quiet()

    asyncio.run(story())


def test_what_comes_up_with_a_link_goes_down_in_the_same_pass(world: World) -> None:
    """On kernels without vlans: somebody else sets up what stands on the link, just when that is."""
    batch(world.netns, "link add br0 type bridge", "link set e0 master br0")
    done: list[str] = []

    def meanwhile(datagram: bytes) -> None:
        if not done and any(message.type == wire.RTM_NEWLINK for message in wire.messages(datagram)):
            done.append(ip(world.netns, "link set e0 up"))

    async def story() -> None:
        world.requests.tap = meanwhile
        assert (await world.go(IN_A_BRIDGE)).converged
        world.requests.tap = world.sent.append
        assert done
        assert ",UP" not in ip(world.netns, "link show e0")
        await world.quiet()

    asyncio.run(story())
