# SPDX-License-Identifier: MIT
"""A link that can't be changed in place is made anew, and with it comes back what others had put on it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from .harness import World, batch, ip

DECLARED = """
[link.br9]
kind = "bridge"

[link.x0]
kind = "vxlan"
id = {id}
dstport = 4789
local = "192.0.2.1"
addresses = ["10.5.0.1/24"]

[[route]]
to = "198.51.100.0/24"
via = "10.5.0.2"
"""
THEIRS = (
    "address add 10.6.0.1/24 dev x0 label x0:theirs",
    "address add fd06::1/64 dev x0 nodad",
    "neigh add 10.6.0.9 lladdr 02:00:00:00:06:09 dev x0 nud permanent",
    "route add 172.30.0.0/24 via 10.6.0.2 proto bird metric 7",
    "route add 172.31.0.0/24 proto bird nexthop via 10.6.0.3 nexthop via 10.5.0.3",
    "route add 172.29.0.0/24 dev x0 table 77",
    "route add fd66::/64 via fd06::2 proto static",
)
SHOWN = (
    "-4 -o address show dev x0",
    "-6 -o address show dev x0 scope global",
    "route show proto bird",
    "route show table 77",
    "-6 route show fd66::/64",
    "neigh show dev x0 nud permanent",
    "route show 198.51.100.0/24",
)


def shown(netns: str) -> str:
    lines = "\n".join(ip(netns, command) for command in SHOWN).splitlines()
    # by index, which is another one
    return "\n".join(sorted(line.partition(": ")[2] or line for line in lines))


def test_what_others_put_on_it_comes_back(netns: str, tmp_path: Path) -> None:
    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            await world.settle(DECLARED.format(id=7))
            batch(netns, *THEIRS)
            before = shown(netns)
            assert "x0:theirs" in before
            index = ip(netns, "link show x0").partition(":")[0]
            await world.settle(DECLARED.format(id=8))
            assert ip(netns, "link show x0").partition(":")[0] != index
            assert shown(netns) == before
            # ours are still ours, theirs still theirs
            await world.settle("")
            assert "x0" not in ip(netns, "link show")
        finally:
            world.close()

    asyncio.run(story())


def test_a_bridge_made_anew_has_its_foreign_ports_again(netns: str, tmp_path: Path) -> None:
    batch(netns, "link add p0 type veth peer name p1", "link add br0 type vxlan id 5 dstport 4790")

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            text = '[scope]\non-conflict = "take"\n[link.br0]\nkind = "bridge"\n'
            await world.settle(text)
            batch(netns, "link set p0 master br0")
            # of another kind suddenly: somebody's doing, undone with a link made anew
            await world.settle(text + "numtxqueues = 2\n")
            assert "master br0" in ip(netns, "link show p0")
        finally:
            world.close()

    asyncio.run(story())
