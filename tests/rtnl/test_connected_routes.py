# SPDX-License-Identifier: MIT
"""The routes that the kernel makes with an address: flushed or deleted they come back, as the kernel had
made them, and what others put in their place stays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from .harness import World, batch, ip

DECLARED = """
[link.e0]
addresses = [
  "192.0.2.5/24",
  "192.0.2.6/24",
  "198.51.100.5/32",
  { address = "10.3.0.1/24", scope = "link", metric = 9 },
  { address = "10.4.0.1/24", noprefixroute = true },
  { address = "10.6.0.1/24", peer = "10.7.0.1/24" },
  { address = "fd00::5/64", nodad = true },
  { address = "fd01::5/64", nodad = true, metric = 77 },
  { address = "fd02::5/128", nodad = true },
]

[link.e1]
up = false
addresses = ["10.9.0.1/24"]

[[route]]
to = "default"
via = "192.0.2.1"

[[route]]
to = "default"
via = "fd00::1"
dev = "e0"
"""


IN_VRF = """
[link.v0]
kind = "vrf"
table = 700

[link.e0]
master = "v0"
addresses = ["10.8.0.1/24", { address = "fd08::1/64", nodad = true }]
"""


def play(netns: str, directory: Path, story: Callable[[World], Awaitable[None]]) -> None:
    """Tell a story of a namespace with two pairs of links."""
    batch(netns, "link set lo up", "link add e0 type veth peer name e0p", "link set e0p up")
    batch(netns, "link add e1 type veth peer name e1p", "link set e1p up")

    async def told() -> None:
        world = World(netns, directory)
        try:
            await story(world)
        finally:
            world.close()

    asyncio.run(told())


def table(world: World) -> str:
    """Every route but link-local and multicast ones, line by line."""
    lines = "\n".join(ip(world.netns, f"{family} route show table all") for family in ("-4", "-6"))
    kept = (line.rstrip() for line in lines.splitlines())
    others = ("fe80::", "multicast ", "local ", "broadcast ", "anycast ")
    return "\n".join(sorted(line for line in kept if not line.startswith(others)))


def test_flushed_tables_are_as_they_were(netns: str, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async with world.kept(DECLARED):
            before = table(world)
            assert "192.0.2.0/24 dev e0 proto kernel scope link src 192.0.2.5" in before
            await world.sabotage("route flush table main", "-6 route flush table main")
            await world.until(lambda: table(world) == before, what=before)
            await world.quiet()
            assert table(world) == before

    play(netns, tmp_path, story)


@pytest.mark.parametrize(
    "route",
    [
        "192.0.2.0/24 dev e0",
        "10.3.0.0/24 dev e0 metric 9",
        "10.7.0.0/24 dev e0",
        "fd00::/64 dev e0",
        "fd01::/64 dev e0 metric 77",
        "fd02::5/128 dev e0",
    ],
)
def test_each_comes_back_on_the_event(netns: str, tmp_path: Path, route: str) -> None:
    async def story(world: World) -> None:
        async with world.kept(DECLARED):
            before = table(world)
            await world.sabotage(f"{'-6' if '::' in route else '-4'} route del {route}")
            await world.until(lambda: table(world) == before, what=route)
            await world.quiet()
            assert table(world) == before

    play(netns, tmp_path, story)


def test_in_a_vrf_it_comes_back_to_its_table(
    netns: str, tmp_path: Path, has_kind: Callable[..., None]
) -> None:
    has_kind("vrf", "table", "700")

    async def story(world: World) -> None:
        async with world.kept(IN_VRF):
            before = table(world)
            assert "10.8.0.0/24 dev e0 table 700" in before
            await world.sabotage("route del 10.8.0.0/24 dev e0 table 700")
            await world.until(lambda: table(world) == before, what=before)
            await world.sabotage("-6 route del fd08::/64 dev e0 table 700")
            await world.until(lambda: table(world) == before, what=before)
            await world.quiet()

    play(netns, tmp_path, story)


def test_the_patch_says_so(netns: str, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.settle(DECLARED)
        before = table(world)
        # With its network the gateway of the default route has gone.
        ip(netns, "route del 192.0.2.0/24 dev e0")
        report = await world.settle()
        [op] = [op for op in report.applied if op.key[0] == "address"]
        [change] = op.changes
        assert (change.attribute, change.have, change.want) == ("connected route", None, "192.0.2.0/24")
        await world.quiet()
        assert table(world) == before

    play(netns, tmp_path, story)


def test_what_somebody_puts_in_its_place_stays(netns: str, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.settle(DECLARED)
        ip(netns, "route del 192.0.2.0/24 dev e0")
        ip(netns, "route add 192.0.2.0/24 dev e0 src 192.0.2.6 proto static")
        before = table(world)
        await world.quiet()
        assert table(world) == before

    play(netns, tmp_path, story)


def test_without_a_connected_route_none_is_made(netns: str, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.settle(DECLARED)
        for unconnected in ("10.4.0", "10.9.0", "198.51.100"):
            assert unconnected not in table(world)

    play(netns, tmp_path, story)


def test_two_links_to_one_network_have_one_each(netns: str, tmp_path: Path) -> None:
    text = """
    [link.e0]
    addresses = ["192.0.2.5/24"]
    [link.e1]
    addresses = ["192.0.2.9/24"]
    """

    async def story(world: World) -> None:
        async with world.kept(text):
            before = table(world)
            assert before.count("192.0.2.0/24") == 2
            await world.sabotage("route flush table main")
            await world.until(lambda: table(world) == before, what=before)
            await world.quiet()

    play(netns, tmp_path, story)


def test_a_deleted_address_takes_its_route_along_and_brings_it_back(netns: str, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async with world.kept(DECLARED):
            before = table(world)
            for address in ("10.3.0.1/24", "fd00::5/64", "192.0.2.5/24"):
                world.forgive()
                await world.sabotage(f"addr del {address} dev e0")
                await world.until(lambda: sorted(table(world)) == sorted(before), what=address)
            await world.quiet()

    play(netns, tmp_path, story)
