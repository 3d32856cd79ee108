# SPDX-License-Identifier: MIT
"""What others break is put right because of the kernel's event, not of a timer (there is none here): each
row of the table of events and of the table of silent losses, and every handled attribute modified in place.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from linxd.patch import State

from .harness import World, batch, ip

DECLARED = """
[link.e0]
mtu = 1400
alias = "ours"
txqueuelen = 500
group = 7
mac = "02:00:00:00:00:e0"
altnames = ["e0-in-full"]
addresses = [
  "10.0.0.5/24",
  "10.0.0.6/24",
  { address = "10.3.0.1/24", label = "e0:x", broadcast = "10.3.0.255", scope = "link", metric = 9 },
  { address = "fd00::5/64", nodad = true },
  { address = "fd03::1/64", nodad = true, noprefixroute = true, metric = 77 },
]

[link.br0]
kind = "bridge"
forward_delay = 900
mcast_snooping = false

[link.p0]
kind = "veth"
peer = { name = "p1" }
master = "br0"
port = { cost = 42, hairpin = true }

[link.p1]
addresses = ["10.5.0.1/24"]

[link.mv0]
kind = "macvlan"
parent = "p1"
mode = "private"

[[route]]
to = "192.0.2.0/24"
via = "10.0.0.1"
mtu = 1300

[[route]]
to = "198.51.100.0/24"
nexthops = [{ via = "10.0.0.3", weight = 2 }, { via = "10.5.0.3", dev = "p1" }]

[[route]]
to = "203.0.113.0/24"
type = "blackhole"
table = 100

[[route]]
to = "default"
via = "10.0.0.1"
dev = "e0"
table = 100
src = "10.0.0.6"

[[route]]
to = "fd01::/64"
via = "fd00::1"

[[route]]
to = "fd02::/64"
type = "unreachable"

[[rule]]
from = "10.0.0.0/24"
table = 100
priority = 1000

[[rule]]
fwmark = "0x1/0xff"
family = "inet6"
table = 100

[[neighbour]]
address = "10.0.0.9"
dev = "e0"
lladdr = "02:00:00:00:00:09"

[[neighbour]]
address = "fd00::9"
dev = "e0"
lladdr = "02:00:00:00:00:09"

[[neighbour]]
address = "10.0.0.77"
dev = "e0"
proxy = true
"""

DRIFTS = [
    "address del 10.0.0.5/24 dev e0",
    "address del 10.0.0.6/24 dev e0",
    "address del 10.3.0.1/24 dev e0",
    "address del fd00::5/64 dev e0",
    "address del fd03::1/64 dev e0",
    "address flush dev e0",
    "-4 address flush dev e0",
    "-6 address flush dev e0 scope global",
    "address replace 10.0.0.5/24 dev e0",
    "address change fd03::1/64 dev e0 metric 5",
    "address change 10.0.0.5/24 dev e0 valid_lft 300 preferred_lft 200",
    "route del 192.0.2.0/24",
    "route replace 192.0.2.0/24 via 10.0.0.2",
    "route change 192.0.2.0/24 via 10.0.0.1 mtu 1200",
    "route replace blackhole 192.0.2.0/24",
    "route replace 198.51.100.0/24 via 10.0.0.3",
    "route del 198.51.100.0/24",
    "route flush table 100",
    "route replace default via 10.0.0.1 dev e0 table 100",
    "-6 route del fd01::/64",
    "-6 route replace fd01::/64 via fd00::2",
    "-6 route append fd01::/64 via fd00::2",
    "-6 route del fd02::/64",
    "-6 route flush proto 76",
    "route flush proto 76",
    "rule del priority 1000",
    "-6 rule del priority 32765",
    "neigh del 10.0.0.9 dev e0",
    "neigh replace 10.0.0.9 lladdr 02:00:00:00:00:10 dev e0 nud permanent",
    "neigh change 10.0.0.9 lladdr 02:00:00:00:00:09 dev e0 nud stale",
    "neigh del fd00::9 dev e0",
    "neigh flush dev e0 nud permanent",
    "link set e0 down",
    "link set e0 mtu 1300",
    "link set e0 mtu 1200",
    "link set e0 alias theirs",
    "link set e0 txqueuelen 77",
    "link set e0 group 3",
    "link set e0 address 02:00:00:00:00:ee",
    "link set e0 name stolen",
    "link property del dev e0 altname e0-in-full",
    "link property add dev e0 altname another-name",
    "link set br0 down",
    "link set br0 type bridge forward_delay 1200",
    "link set br0 type bridge mcast_snooping 1",
    "link set p0 nomaster",
    "link set p0 type bridge_slave cost 3",
    "link set p0 type bridge_slave hairpin off",
    "link set p0 down",
    "link set p1 down",
    "link del br0",
    "link del p0",
    "link del mv0",
    "link set mv0 type macvlan mode vepa",
]  # fmt: skip


def prepare(netns: str) -> None:
    """What exists by itself: e0, whose other end is up as well."""
    batch(netns, "link set lo up", "link add e0 type veth peer name far0", "link set far0 up")


async def as_declared(world: World, what: str) -> None:
    """Until a look at everything, through another socket, finds nothing to do and nothing is pending.

    An object may count as contended: `ip route flush` flushes again and again until nothing is left.
    """
    assert world.loop is not None
    for _ in range(250):
        await asyncio.sleep(0.02)
        patch = await world.plan()
        conditions = [c for c in world.loop.conditions.values() if c.state is not State.CONTENDED]
        if not patch.ops and not conditions:
            return
    left = [op.describe() for op in patch.ops]
    said = [(r.trigger, [o.describe() for o in r.drifted], len(r.applied)) for r in world.reports[-6:]]
    raise AssertionError(f"{what}: not healed: {left} {conditions} {said}\n{world.snapshot()}")


def test_every_drift_is_healed_on_its_event(netns: str, tmp_path: Path) -> None:
    prepare(netns)

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            async with world.kept(DECLARED):
                await as_declared(world, "at first")
                for drift in DRIFTS:
                    world.forgive()
                    await world.sabotage(drift)
                    await as_declared(world, drift)
            await world.quiet()
        finally:
            world.close()

    asyncio.run(story())


@pytest.mark.parametrize("key", ["disable_ipv6", "keep_addr_on_down"])
def test_ipv6_switched_off_and_on_again_brings_addresses_and_routes_back(
    key: str, netns: str, tmp_path: Path
) -> None:
    prepare(netns)

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            async with world.kept(DECLARED):
                await as_declared(world, "at first")
                if key == "disable_ipv6":
                    await world.sysctl("net.ipv6.conf.e0.disable_ipv6", 1)
                    await world.sysctl("net.ipv6.conf.e0.disable_ipv6", 0)
                else:
                    await world.sysctl("net.ipv6.conf.e0.keep_addr_on_down", 1)
                    await world.sabotage("link set e0 down")
                await as_declared(world, key)
        finally:
            world.close()

    asyncio.run(story())


def test_flushed_rules_come_back_without_the_kernels_own(netns: str, tmp_path: Path) -> None:
    """`ip rule flush` takes those that look up main and default, too, which are not ours to bring back."""
    prepare(netns)

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            async with world.kept(DECLARED):
                await as_declared(world, "at first")
                await world.sabotage("rule flush", "-6 rule flush")
                await as_declared(world, "rule flush")
                assert "lookup main" not in ip(netns, "rule show")
        finally:
            world.close()

    asyncio.run(story())


def test_an_mtu_below_1280_takes_ipv6_away_and_it_comes_back(netns: str, tmp_path: Path) -> None:
    prepare(netns)

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            async with world.kept(DECLARED):
                await as_declared(world, "at first")
                await world.sabotage("link set e0 mtu 1000")
                await as_declared(world, "mtu 1000")
                assert "fd00::5/64" in ip(netns, "-6 address show dev e0")
                assert "fd01::/64" in ip(netns, "-6 route show")
        finally:
            world.close()

    asyncio.run(story())


def test_a_deleted_proxy_neighbour_comes_back_with_the_resync(netns: str, tmp_path: Path) -> None:
    """The kernel sends no event for it (net/core/neighbour.c pneigh_delete)."""
    prepare(netns)

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            await world.go(DECLARED)
            await world.go()
            ip(netns, "neigh del proxy 10.0.0.77 dev e0")
            report = await world.go()
            assert [op.describe() for op in report.applied] == ["create neighbour proxy 10.0.0.77 dev e0"]
            await world.quiet()
        finally:
            world.close()

    asyncio.run(story())
