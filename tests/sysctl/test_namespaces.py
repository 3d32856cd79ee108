# SPDX-License-Identifier: MIT
"""Interfaces that are renamed, replaced or go while their keys are kept; two namespaces kept at once beside
the machine's own keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from linxd.patch import State
from linxd.source import Pass
from linxd.sources.sysctl.capture import values
from linxd.sources.sysctl.procfs import Procfs

from ..rtnl.harness import batch
from .harness import World, flip, value

PAIR = ("link set lo up", "link add e0 type veth peer name far0")


def test_an_interface_takes_its_first_value_with_it_under_a_new_name(netns: str) -> None:
    batch(netns, *PAIR)
    flip(netns, "net.ipv4.conf.e0.arp_ignore", "2")

    async def story() -> None:
        world = World(netns)
        try:
            await world.settle({"net.ipv4.conf.*.arp_ignore": 1})
            batch(netns, "link set e0 name new0")
            await world.settle()
            assert value(netns, "net.ipv4.conf.new0.arp_ignore") == "1"
            await world.settle({})
            assert value(netns, "net.ipv4.conf.new0.arp_ignore") == "2"
            assert value(netns, "net.ipv4.conf.far0.arp_ignore") == "0"
            assert not world.owned.of("sysctl")
        finally:
            world.close()

    asyncio.run(story())


def test_an_interface_that_is_renamed_while_it_is_looked_at_keeps_its_first_value(netns: str) -> None:
    """It is listed under one name, and has another by the time its index is asked for."""
    key = "net.ipv4.conf.e0.rp_filter"
    batch(netns, "link add e0 type veth peer name far0")
    world = World(netns)

    async def story() -> None:
        flip(netns, key, "2")
        await world.settle({"net.ipv4.conf.*.rp_filter": 1})
        batch(netns, "link set e0 name x0")
        indices = world.procfs.indices

        def renamed(names: Iterable[str]) -> dict[str, int]:
            world.procfs.indices = indices  # type: ignore[method-assign]
            batch(netns, "link set x0 name e0")
            return indices(names)

        world.procfs.indices = renamed  # type: ignore[method-assign]
        await world.settle()
        assert value(netns, key) == "1"
        await world.settle({})
        assert value(netns, key) == "2"

    try:
        asyncio.run(story())
    finally:
        world.close()


def test_a_stranger_under_the_old_name_is_not_given_what_another_link_had(netns: str) -> None:
    batch(netns, *PAIR)
    key = "net.ipv4.conf.e0.arp_ignore"
    flip(netns, key, "2")

    async def story() -> None:
        world = World(netns)
        try:
            await world.settle({key: 1})
            batch(netns, "link del e0", *PAIR[1:])
            await world.settle({key: 1})
            assert value(netns, key) == "1"
            await world.settle({})
            # a new link has 0: the 2 was another one's
            assert value(netns, key) == "0"
        finally:
            world.close()

    asyncio.run(story())


def test_a_stranger_that_has_the_declared_value_already_keeps_it(netns: str) -> None:
    batch(netns, *PAIR)
    key = "net.ipv4.conf.e0.arp_ignore"
    flip(netns, key, "2")

    async def story() -> None:
        world = World(netns)
        try:
            await world.settle({key: 1})
            batch(netns, "link del e0", *PAIR[1:])
            flip(netns, key, "1")
            await world.quiet()
            await world.settle({})
            assert value(netns, key) == "1"
        finally:
            world.close()

    asyncio.run(story())


def test_it_is_replaced_between_the_look_and_the_write(netns: str) -> None:
    batch(netns, *PAIR)
    key = "net.ipv4.conf.e0.arp_ignore"
    flip(netns, key, "2")

    async def story() -> None:
        world = World(netns)
        moments = 0

        async def checkpoint() -> None:
            """The second one is right before the write."""
            nonlocal moments
            moments += 1
            if moments == 2:
                batch(netns, "link del e0", *PAIR[1:])
                flip(netns, key, "3")

        try:
            await world.settle({key: 1})
            flip(netns, key, "0")
            report = await world.source.reconcile(Pass(world.desired, world.owned, checkpoint=checkpoint))
            assert moments >= 2
            assert value(netns, key) == "3"
            assert report.applied == ()
            await world.settle()
            assert value(netns, key) == "1"
            await world.settle({})
            assert value(netns, key) == "3"
        finally:
            world.close()

    asyncio.run(story())


def test_it_is_replaced_between_two_looks_and_nobody_was_told(netns: str) -> None:
    """After a restart too: the ledger knows whose value it was."""
    batch(netns, *PAIR)
    key = "net.ipv4.conf.e0.arp_ignore"
    flip(netns, key, "2")

    async def story() -> None:
        world = World(netns)
        try:
            await world.settle({key: 1})
            batch(netns, "link del e0", *PAIR[1:])
            flip(netns, key, "3")
            world.restart()
            await world.settle({})
            assert value(netns, key) == "3"
            assert world.procfs.writes == [(("net", "ipv4", "conf", "e0", "arp_ignore"), "1")]
        finally:
            world.close()

    asyncio.run(story())


def test_two_namespaces_are_healed_at_once_and_the_machines_keys_never_change(
    netns_factory: Callable[[], str],
) -> None:
    one, two = netns_factory(), netns_factory()
    for name in (one, two):
        batch(name, *PAIR)
    machine = Procfs()
    before = values(machine)

    def keys(number: int) -> dict[str, int]:
        return {
            "net.ipv4.ip_forward": number,
            "net.ipv4.conf.*.rp_filter": 1 + number,
            "net.core.somaxconn": 500 + number,
            "net.ipv6.conf.e0.accept_ra": number,
        }

    shown: dict[str, Callable[[int], int]] = {
        "net.ipv4.ip_forward": lambda number: number,
        "net.ipv4.conf.e0.rp_filter": lambda number: 1 + number,
        "net.ipv4.conf.far0.rp_filter": lambda number: 1 + number,
        "net.core.somaxconn": lambda number: 500 + number,
        "net.ipv6.conf.e0.accept_ra": lambda number: number,
    }

    def right(netns: str, number: int) -> bool:
        return all(value(netns, key) == str(want(number)) for key, want in shown.items())

    async def story() -> None:
        worlds = [World(one), World(two)]
        try:
            async with worlds[0].kept(keys(0)), worlds[1].kept(keys(1)):
                assert right(one, 0)
                assert right(two, 1)
                # each is given the values of the other one
                for netns, other in ((one, 1), (two, 0)):
                    for key, want in shown.items():
                        flip(netns, key, str(want(other)))
                await worlds[0].until(lambda: right(one, 0))
                await worlds[1].until(lambda: right(two, 1))
            for world in worlds:
                await world.quiet()
        finally:
            for world in worlds:
                world.close()

    try:
        asyncio.run(story())
        assert values(machine) == before
    finally:
        machine.close()


def test_pending_keys_come_to_be_with_what_they_wait_for(netns: str) -> None:
    batch(netns, "link set lo up")
    exact, glob = "net.ipv6.conf.late0.accept_ra", "net.ipv4.neigh.*.gc_stale_time"

    async def story() -> None:
        world = World(netns)
        try:
            async with world.kept({exact: 0, glob: 77}):
                assert world.loop is not None
                [condition] = world.loop.conditions.values()
                assert (condition.state, condition.text) == (State.PENDING, "needs link late0")
                batch(netns, "link add late0 type veth peer name far0")
                await world.until(lambda: not world.loop.conditions, what="done")
                assert value(netns, exact) == "0"
                assert value(netns, "net.ipv4.neigh.far0.gc_stale_time") == "77"
        finally:
            world.close()

    asyncio.run(story())
