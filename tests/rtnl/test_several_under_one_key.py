# SPDX-License-Identifier: MIT
"""The kernel can hold several routes of one table, destination and metric: what stands in front of ours is
in force in its place and goes; what stands behind it is somebody's, and stays."""

from __future__ import annotations

import asyncio
from pathlib import Path

from linxd.patch import State

from .harness import World, batch, ip

DECLARED = """
[link.e0]
addresses = ["10.0.0.1/24", { address = "fd00::1/64", nodad = true }]

[[route]]
to = "192.0.2.0/24"
via = "10.0.0.2"

[[route]]
to = "fd11::/64"
via = "fd00::2"
"""


def prepared(netns: str) -> None:
    batch(netns, "link set lo up", "link add e0 type veth peer name far0", "link set far0 up")


def ways(netns: str, to: str = "192.0.2.0/24") -> list[str]:
    """How packets to ``to`` go, the first in force."""
    family = "-6 " if ":" in to else ""
    return [line.split(" dev ")[0] for line in ip(netns, f"{family}route show {to}").splitlines()]


def test_one_in_front_is_removed_on_its_event_and_one_behind_stays(netns: str, tmp_path: Path) -> None:
    prepared(netns)

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            async with world.kept(DECLARED):
                ip(netns, "route append 192.0.2.0/24 via 10.0.0.9")
                ip(netns, "route prepend 192.0.2.0/24 via 10.0.0.7")
                await world.until(lambda: len(ways(netns)) == 2)
                assert ways(netns) == ["192.0.2.0/24 via 10.0.0.2", "192.0.2.0/24 via 10.0.0.9"]
                last = world.reports[-1].drifted[-1].describe()
                assert "other route of this key 192.0.2.0/24 via 10.0.0.7 dev e0 ->" in last
                await world.quiet()
                # ours goes, and the other one is where it was: the same to the kernel as a replace by hand
                ip(netns, "route del 192.0.2.0/24 via 10.0.0.2")
                await world.until(lambda: ways(netns) == ["192.0.2.0/24 via 10.0.0.2"])
            await world.quiet()
        finally:
            world.close()

    asyncio.run(story())


def test_a_look_at_everything_finds_it_too(netns: str, tmp_path: Path) -> None:
    prepared(netns)

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            await world.settle(DECLARED)
            for _ in range(3):
                ip(netns, "route prepend 192.0.2.0/24 via 10.0.0.7")
                await world.settle()
                assert ways(netns) == ["192.0.2.0/24 via 10.0.0.2"]
            # a daemon's is a conflict, and named
            ip(netns, "route prepend 192.0.2.0/24 via 10.0.0.7 proto bird")
            report = await world.go()
            [condition] = report.conditions
            assert condition.state is State.CONFLICT
            assert "owner: protocol bird" in condition.text
            assert len(ways(netns)) == 2
            # another declaration: ours is changed, theirs is left
            ip(netns, "route del 192.0.2.0/24 via 10.0.0.7 proto bird")
            ip(netns, "route prepend 192.0.2.0/24 via 10.0.0.7")
            await world.settle(DECLARED.replace('"10.0.0.2"', '"10.0.0.3"'))
            assert ways(netns) == ["192.0.2.0/24 via 10.0.0.3"]
            # not declared any more: ours alone goes
            ip(netns, "route prepend 192.0.2.0/24 via 10.0.0.7")
            await world.settle(DECLARED.partition("[[route]]")[0])
            assert ways(netns) == ["192.0.2.0/24 via 10.0.0.7"]
        finally:
            world.close()

    asyncio.run(story())


def test_ipv6_routes_that_do_not_merge(netns: str, tmp_path: Path) -> None:
    """A prohibit and a gateway route of one metric stand side by side, and a replace takes the place of its
    own sort."""
    prepared(netns)

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            prohibit = DECLARED.replace('via = "fd00::2"', 'type = "prohibit"')
            await world.settle(prohibit)
            ip(netns, "-6 route append fd11::/64 via fd00::7")
            await world.settle(prohibit)
            assert len(ways(netns, "fd11::/64")) == 2
            await world.settle(DECLARED)
            assert ways(netns, "fd11::/64") == ["fd11::/64 via fd00::2"]
        finally:
            world.close()

    asyncio.run(story())


def test_among_a_crowd_every_tenth_resync_looks_for_them(netns: str, tmp_path: Path) -> None:
    prepared(netns)
    batch(netns, "link set e0 up", "address add 10.0.0.1/24 dev e0")
    batch(
        netns, *(f"route add 172.{n >> 8}.{n & 255}.0/24 via 10.0.0.2 proto bird" for n in range(4100, 5400))
    )

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            await world.settle(DECLARED)
            ip(netns, "route prepend 192.0.2.0/24 via 10.0.0.7")
            for _ in range(10):
                await world.go()
            assert ways(netns) == ["192.0.2.0/24 via 10.0.0.2"]
        finally:
            world.close()

    asyncio.run(story())


def test_among_a_crowd_a_conflict_is_not_forgotten_by_the_next_resync(netns: str, tmp_path: Path) -> None:
    prepared(netns)
    batch(netns, "link set e0 up", "address add 10.0.0.1/24 dev e0")
    batch(
        netns, *(f"route add 172.{n >> 8}.{n & 255}.0/24 via 10.0.0.2 proto bird" for n in range(4100, 5400))
    )

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            await world.settle(DECLARED)
            ip(netns, "route prepend 192.0.2.0/24 via 10.0.0.7 proto bird")
            found = [await world.go() for _ in range(25)]
            first = next(n for n, report in enumerate(found) if report.conditions)
            assert all(report.conditions[0].state is State.CONFLICT for report in found[first:])
            ip(netns, "route del 192.0.2.0/24 via 10.0.0.7 proto bird")
            assert (await world.go()).conditions == ()
        finally:
            world.close()

    asyncio.run(story())


def test_foreign_remove_reaches_those_behind(netns: str, tmp_path: Path) -> None:
    prepared(netns)

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            await world.settle('[scope]\nforeign = "remove"\n' + DECLARED)
            ip(netns, "route append 192.0.2.0/24 via 10.0.0.9")
            await world.settle()
            assert ways(netns) == ["192.0.2.0/24 via 10.0.0.2"]
        finally:
            world.close()

    asyncio.run(story())
