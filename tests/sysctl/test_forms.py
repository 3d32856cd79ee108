# SPDX-License-Identifier: MIT
"""Keys that are one value in two forms, or follow one another, declared and un-declared in any order, on the
real kernel: what was first comes back."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from ..rtnl.harness import batch
from .harness import World, flip, value

FORWARDING = ("net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding")
REACHABLE = ("net.ipv4.neigh.e0.base_reachable_time", "net.ipv4.neigh.e0.base_reachable_time_ms")
RETRANS = ("net.ipv6.neigh.e0.retrans_time_ms", "net.ipv6.neigh.e0.retrans_time")
QUEUE = ("net.ipv4.neigh.e0.unres_qlen", "net.ipv4.neigh.e0.unres_qlen_bytes")
GC = ("net.ipv6.route.gc_min_interval", "net.ipv6.route.gc_min_interval_ms")


def rows(one: dict[str, int], other: dict[str, int]) -> list[list[dict[str, int]]]:
    """Rows of declarations: one form, the other, both, in every order and number."""
    each = [one, other, {**one, **other}]
    return [list(row) for length in (1, 2, 3) for row in itertools.permutations(each, length)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({FORWARDING[0]: 1}, {FORWARDING[1]: 1}),
        ({REACHABLE[0]: 17}, {REACHABLE[1]: 17000}),
        ({GC[0]: 3}, {GC[1]: 3000}),
    ],
    ids=["forwarding", "base_reachable_time", "gc_min_interval"],
)
def test_one_value_under_two_names(one: dict[str, int], other: dict[str, int], netns: str) -> None:
    batch(netns, "link set lo up", "link add e0 type veth peer name far0")
    keys = [*one, *other]
    if "_ms" in keys[1]:
        flip(netns, keys[1], "30500")  # nothing that the other form could say
    first = {key: value(netns, key) for key in keys}

    async def story() -> None:
        world = World(netns)
        try:
            for row in rows(one, other):
                for declared in row:
                    await world.settle(declared)
                    assert {key: value(netns, key) for key in declared} == {
                        key: str(each) for key, each in declared.items()
                    }
                await world.go({})
                await world.settle({})
                assert {key: value(netns, key) for key in keys} == first, row
                assert not world.owned.of("sysctl")
        finally:
            world.close()

    asyncio.run(story())


@pytest.mark.parametrize("keys", [RETRANS, QUEUE], ids=["retrans_time", "unres_qlen"])
def test_one_value_in_two_units_that_depend_on_the_machine(keys: tuple[str, str], netns: str) -> None:
    """Declared in one form after the other."""
    batch(netns, "link set lo up", "link add e0 type veth peer name far0")
    first = {key: value(netns, key) for key in keys}

    async def story() -> None:
        world = World(netns)
        try:
            for row in (keys, keys[::-1], (keys[0], keys[1], keys[0])):
                for key in row:
                    await world.settle({key: int(first[key]) * 2})
                await world.go({})
                await world.settle({})
                assert {key: value(netns, key) for key in keys} == first, row
        finally:
            world.close()

    asyncio.run(story())


def test_a_key_that_another_one_brought_to_its_value_has_its_first_one_again(netns: str) -> None:
    """Both declared at once: one write does for both, and one of them is un-declared."""
    batch(netns, "link set lo up", "link add e0 type veth peer name far0")
    root, leaf = "net.ipv4.ip_forward", "net.ipv4.conf.e0.forwarding"

    async def story() -> None:
        world = World(netns)
        try:
            await world.settle({root: 1, leaf: 1})
            assert world.procfs.writes == [(("net", "ipv4", "ip_forward"), "1")]
            await world.settle({root: 1})
            assert (value(netns, root), value(netns, leaf)) == ("1", "0")
            await world.settle({})
            assert (value(netns, root), value(netns, leaf)) == ("0", "0")
        finally:
            world.close()

    asyncio.run(story())


def test_any_row_of_declarations_ends_where_it_began(netns: str) -> None:
    batch(netns, "link set lo up", "link add e0 type veth peer name far0")
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    choices = {
        **dict.fromkeys(FORWARDING, (0, 1)),
        REACHABLE[0]: (17, 18),
        REACHABLE[1]: (17000, 18000, 18500),
        "net.ipv6.conf.all.forwarding": (0, 1),
        "net.ipv6.conf.all.disable_ipv6": (0, 1),
        "net.ipv4.conf.e0.forwarding": (0, 1),
        "net.core.somaxconn": (100, 200),
    }
    roots = [key for key in choices if ".e0.forwarding" not in key]
    flip(netns, REACHABLE[1], "30500")
    first = {key: value(netns, key) for key in roots}

    async def story() -> None:
        world = World(netns)
        try:
            for _ in range(40):
                for _ in range(rng.randrange(1, 5)):
                    keys = rng.sample(sorted(choices), rng.randrange(1, len(choices)))
                    await world.go({key: rng.choice(choices[key]) for key in keys})
                    await world.quiet()
                    if rng.random() < 0.3:
                        world.restart()
                await world.go({})
                await world.settle({})
                assert {key: value(netns, key) for key in roots} == first, seed
        finally:
            world.close()

    asyncio.run(story())
