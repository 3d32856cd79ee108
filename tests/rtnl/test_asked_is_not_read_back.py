# SPDX-License-Identifier: MIT
"""What the kernel keeps in another form than it was asked for never makes it be written again: a hundred
passes without a message that changes anything, for each such attribute.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from linxd.patch import State

from .harness import World, batch, ip

PASSES = 100
E0 = '[link.e0]\naddresses = ["10.0.0.1/24", "fd00::1/64"]\n'
CASES = {
    "IPv6 route without a metric": E0 + '[[route]]\nto = "fd01::/64"\nvia = "fd00::2"\n',
    "IPv6 route with metric 0": E0 + '[[route]]\nto = "fd01::/64"\nvia = "fd00::2"\nmetric = 0\n',
    "IPv6 route with scope link": E0 + '[[route]]\nto = "fd01::/64"\ndev = "e0"\nscope = "link"\n',
    "second IPv4 address in a subnet": "[link.e0]\n"
    'addresses = ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24"]\n',
    "IPv6 address while it is checked": '[link.e0]\naddresses = ["fd00::7/64"]\n',
    "IPv6 blackhole": E0 + '[[route]]\nto = "fd01::/64"\ntype = "blackhole"\n',
    "IPv6 prohibit": E0 + '[[route]]\nto = "fd01::/64"\ntype = "prohibit"\n',
    "IPv6 multipath in another order": E0
    + '[[route]]\nto = "fd01::/64"\nnexthops = [{ via = "fd00::9", weight = 3 }, { via = "fd00::2" }]\n',
    "bridge ageing_time in jiffies": '[link.b0]\nkind = "bridge"\nageing_time = 12345\n',
    "MAC in capitals": '[link.e0]\nmac = "02:AB:CD:00:00:01"\n',
    "uncompressed IPv6": '[link.e0]\naddresses = ["FD00:0:0:0:0:0:0:5/64"]\n'
    '[[route]]\nto = "FD01:0::/64"\nvia = "FD00:0:0::6"\n',
    "IPv4 gateway of the other family": E0 + '[[route]]\nto = "192.0.2.0/24"\nvia = "fd00::9"\ndev = "e0"\n',
    "rule without a priority, twice": '[[rule]]\nfrom = "10.1.0.0/16"\ntable = 100\n'
    '[[rule]]\nfrom = "10.2.0.0/16"\ntable = 100\n',
    "rule of both families": '[[rule]]\nfamily = "both"\nfwmark = "0x1/0xf"\ntable = 100\n',
    "same address, other length": '[link.e0]\naddresses = ["10.0.0.1/24", "10.0.0.1/25"]\n',
    "label, broadcast, peer and scope": "[link.e0]\naddresses = ["
    '{ address = "10.0.0.1/24", label = "e0:a", broadcast = "10.0.0.255", scope = "link" }, '
    '{ address = "10.5.0.1", peer = "10.5.0.2/32" }]\n',
    "vxlan remote and local": '[link.x0]\nkind = "vxlan"\nid = 5\ndstport = 4789\n'
    'remote = "10.0.0.9"\nlocal = "10.0.0.1"\n',
    "default route of both families": E0 + '[[route]]\nto = "default"\nvia = "10.0.0.2"\n'
    '[[route]]\nto = "default"\nvia = "fd00::2"\n',
    "route metrics": E0
    + '[[route]]\nto = "192.0.2.0/24"\nvia = "10.0.0.2"\nmtu = 1300\nadvmss = 1200\nhoplimit = 7\n',
    "proxy neighbour": '[link.e0]\n[[neighbour]]\naddress = "10.0.0.5"\ndev = "e0"\nproxy = true\n',
}


@pytest.mark.parametrize("text", CASES.values(), ids=CASES.keys())
def test_it_is_not_written_again(text: str, netns: str, tmp_path: Path) -> None:
    batch(
        netns, "link set lo up", "link add e0 type veth peer name far0", "link set far0 up", "link set e0 up"
    )

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            report = await world.go(text)
            assert report.converged, report.conditions
            sent = len(world.sent)
            for _ in range(PASSES):
                report = await world.go()
                assert report.drifted == ()
            assert world.writes(sent) == []
            world.restart()
            for _ in range(3):
                await world.quiet()
        finally:
            world.close()

    asyncio.run(story())


def test_a_rounded_value_is_said_and_still_healed_when_somebody_changes_it(
    netns: str, tmp_path: Path
) -> None:
    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            report = await world.go(CASES["bridge ageing_time in jiffies"])
            noted = [c for c in report.conditions if c.state is State.NOTED]
            assert [c.text for c in noted] == ["ageing_time: asked 12345, kernel has 12344"]
            ip(netns, "link set b0 type bridge ageing_time 20000")
            await world.settle()
            assert "ageing_time 12344" in ip(netns, "-d link show b0")
            report = await world.settle('[link.b0]\nkind = "bridge"\nageing_time = 20000\n')
            assert report.conditions == ()
        finally:
            world.close()

    asyncio.run(story())


def test_a_route_appended_to_ours_is_taken_out_again(netns: str, tmp_path: Path) -> None:
    """IPv6 merges it into one multipath route that carries our protocol."""
    batch(netns, "link add e0 type veth peer name far0", "link set far0 up", "link set e0 up")

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            await world.settle(CASES["IPv6 route without a metric"])
            ip(netns, "-6 route append fd01::/64 via fd00::3")
            await world.settle()
            assert "fd00::3" not in ip(netns, "-6 route show fd01::/64")
        finally:
            world.close()

    asyncio.run(story())
