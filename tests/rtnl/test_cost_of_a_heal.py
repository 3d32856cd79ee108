# SPDX-License-Identifier: MIT
"""What a heal asks of the kernel before it writes: nothing, where the event says all that is to be known. In
messages on the wire, which are the same on every machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from linxd.netlink import wire
from linxd.patch import Culprit, Key
from linxd.sources.rtnl.alike import Alike

from .harness import World, batch, ip

MANY = 40
"""Objects of each kind: what is read before the one that has gone is seen by its size, too."""
NAMES = [f"d{number}" for number in range(MANY)]
ADDRESSES = ", ".join(
    f'"10.1.{n}.5/24", {{ address = "fd00:0:0:{n + 1:x}::5/64", nodad = true }}' for n in range(MANY)
)


def each(lines: str) -> str:
    """Some lines for each number that stands in them as N, and as M in hexadecimal."""
    return "".join(lines.replace("N", str(n)).replace("M", f"{n:x}").replace("|", "\n") for n in range(MANY))


DECLARED = f"""
[link.e0]
addresses = [{ADDRESSES}]
{each("[link.dN]|mtu = 1400|up = true|")}
{each('[[route]]|to = "20.0.N.0/24"|via = "10.1.0.1"|dev = "e0"|')}
{each('[[route]]|to = "fd01:0:0:M::/64"|via = "fd00:0:0:1::1"|dev = "e0"|')}
{each('[[rule]]|from = "10.77.0.N/32"|table = 100|priority = 2N|')}
{each('[[neighbour]]|address = "10.1.2.N"|dev = "e0"|lladdr = "02:00:00:00:00:09"|')}
"""


@dataclass(frozen=True)
class Heal:
    """One kind's drift: the command, and the type of the only message with which it is put right. ``told``:
    whether every kernel says whose write it was."""

    name: str
    drift: str
    write: int
    told: bool = True

    def __str__(self) -> str:
        return self.name


HEALS = (
    Heal("IPv4 address", "address del 10.1.7.5/24 dev e0", wire.RTM_NEWADDR),
    Heal("IPv6 address", "address del fd00:0:0:8::5/64 dev e0", wire.RTM_NEWADDR, told=False),
    Heal("IPv4 route", "route del 20.0.7.0/24", wire.RTM_NEWROUTE),
    Heal("IPv4 route, another way", "route replace 20.0.7.0/24 via 10.1.0.2 dev e0", wire.RTM_NEWROUTE),
    Heal("IPv6 route", "-6 route del fd01:0:0:7::/64", wire.RTM_NEWROUTE),
    Heal("mtu", "link set d7 mtu 1300", wire.RTM_NEWLINK, told=False),
    Heal("link down", "link set d7 down", wire.RTM_NEWLINK, told=False),
    Heal("rule", "rule del priority 27", wire.RTM_NEWRULE),
    Heal("neighbour", "neigh del 10.1.2.7 dev e0", wire.RTM_NEWNEIGH),
)


class Asked:
    """How many messages had been sent when somebody was asked for."""

    def __init__(self) -> None:
        self.at: list[int] = []
        self.unread = False
        """Whether the answer to the last of them was still to be read."""
        self.world: World | None = None

    def __call__(self, port: int) -> Callable[[], Culprit | None]:
        return partial(self.look, port)

    def look(self, port: int) -> Culprit | None:
        assert self.world is not None
        self.at.append(len(self.world.sent))
        with contextlib.suppress(BlockingIOError):
            # The kernel answers before send(2) returns.
            sock = self.world.requests.sock
            self.unread = bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        return Culprit(port, "somebody", confirmed=True)


@contextlib.asynccontextmanager
async def kept(netns: str, directory: Path, text: str) -> AsyncIterator[tuple[World, Asked]]:
    """A world whose loop has come to rest, and who asks it for writers."""
    asked = Asked()
    world = asked.world = World(netns, directory, identify=asked)
    try:
        async with world.kept(text):
            await rest(world)
            yield world, asked
    finally:
        world.close()


async def rest(world: World) -> None:
    """Until nothing has been sent for a while."""
    before = -1
    while before != len(world.sent):
        before = len(world.sent)
        await asyncio.sleep(0.1)


async def healed(world: World, drift: str) -> list[int]:
    """Break something; the types of all that was sent until the first report that something was applied."""
    reports, before = len(world.reports), len(world.sent)
    await world.sabotage(drift)
    for _ in range(500):
        if any(report.applied for report in world.reports[reports:]):
            break
        await asyncio.sleep(0.01)
    else:
        raise AssertionError(f"{drift}: not healed")
    await rest(world)
    return [message.type for datagram in world.sent[before:] for message in wire.messages(datagram)]


def tell(netns: str, directory: Path, text: str, story: Callable[[World, Asked], Awaitable[None]]) -> None:
    """Run a story on a world that has come to rest."""
    lines = ["link set lo up", "link add e0 type veth peer name far0", "link set e0 up", "link set far0 up"]
    batch(netns, *lines, *(f"link add {name} type veth peer name far-{name}" for name in NAMES))

    async def run() -> None:
        async with kept(netns, directory, text) as (world, asked):
            await story(world, asked)

    asyncio.run(run())


def test_one_message_and_nothing_before_it(netns: str, tmp_path: Path) -> None:
    """Nothing is read first, however many there are; and who did it is looked up right behind the message
    that heals, before anything is read then."""

    async def story(world: World, asked: Asked) -> None:
        for heal in HEALS:
            world.forgive()
            asked.at.clear()
            asked.unread = False
            before, reports = len(world.sent), len(world.reports)
            types = await healed(world, heal.drift)
            assert types[0] == heal.write, (heal.name, types)
            assert asked.at == [before + 1] or not (heal.told or asked.at), heal.name
            assert asked.unread == bool(asked.at), heal.name
            first = next(report for report in world.reports[reports:] if report.applied)
            assert len(first.drifted) == 1, heal.name
            named = {culprit.comm for culprit in first.culprits.values()}
            assert named == ({"somebody"} if asked.at else set()), heal.name

    tell(netns, tmp_path, DECLARED, story)


def test_an_address_that_goes_names_no_other_though_its_route_goes_too(netns: str, tmp_path: Path) -> None:
    """The kernel tells of its connected route; those of the other networks of that length are not meant."""

    async def story(world: World, asked: Asked) -> None:
        for address in ("10.1.7.5/24", "fd00:0:0:8::5/64"):
            reports = len(world.reports)
            await healed(world, f"address del {address} dev e0")
            looked: set[Key] = set().union(*(report.looked for report in world.reports[reports:]))
            assert {key for key in looked if key[0] == "address"} == {
                ("address", "e0", address.partition("/")[0], int(address.partition("/")[2]))
            }

    tell(netns, tmp_path, DECLARED, story)


def test_a_connected_route_that_goes_alone_comes_back_with_its_address(netns: str, tmp_path: Path) -> None:
    async def story(world: World, asked: Asked) -> None:
        for family, network in (("-4", "10.1.7.0/24"), ("-6", "fd00:0:0:8::/64")):
            await healed(world, f"{family} route del {network} dev e0")
            assert network in ip(netns, f"{family} route show proto kernel")

    tell(netns, tmp_path, DECLARED, story)


ALONE = """
[[rule]]
from = "10.77.0.1/32"
table = 100
priority = 1000
"""


def test_a_rule_that_may_be_one_of_several_is_looked_for_first(netns: str, tmp_path: Path) -> None:
    """Somebody's rule that differs from ours in its protocol alone is of the same identity: after an event
    of the going of one of the two only a look tells which one is left."""

    async def story(world: World, asked: Asked) -> None:
        await world.sabotage("rule add from 10.77.0.1 table 100 priority 1000 protocol static")
        await rest(world)
        before = len(world.sent)
        await world.sabotage("rule del from 10.77.0.1 table 100 priority 1000 protocol static")
        await rest(world)
        assert world.writes(before) == []
        assert ip(netns, "rule show").count("10.77.0.1") == 1
        # The look has shown that it is alone again.
        world.forgive()
        assert await healed(world, "rule del priority 1000") == [wire.RTM_NEWRULE]

    tell(netns, tmp_path, ALONE, story)


def test_an_event_that_heals_nothing_is_looked_into_all_the_same(netns: str, tmp_path: Path) -> None:
    async def story(world: World, asked: Asked) -> None:
        await world.sabotage("rule add from 10.77.0.1 table 100 priority 1000 protocol static")
        await rest(world)
        assert len(asked.at) == 1

    tell(netns, tmp_path, ALONE, story)


RULE: Key = ("rule", 2, 1000, "from 10.77.0.1/32")


def test_nothing_is_known_before_the_first_dump_nor_after_a_loss() -> None:
    alike = Alike()
    assert not alike.alone(RULE)
    alike.told(alike.asked(), [])
    assert alike.alone(RULE)
    alike.lost()
    assert not alike.alone(RULE)
    alike.told(alike.asked(), [RULE])
    assert not alike.alone(RULE)


def test_what_came_while_a_dump_was_made_counts_though_the_dump_lacks_it() -> None:
    alike = Alike()
    asked = alike.asked()
    alike.came(RULE)
    alike.told(asked, [])
    assert not alike.alone(RULE)
    alike.told(alike.asked(), [])
    assert alike.alone(RULE)


def test_a_dump_that_began_before_a_loss_or_a_later_dump_counts_for_nothing() -> None:
    alike = Alike()
    asked = alike.asked()
    alike.lost()
    alike.told(asked, [])
    assert not alike.alone(RULE)
    alike.told(alike.asked(), [])
    outer = alike.asked()
    alike.came(RULE)
    alike.told(alike.asked(), [RULE])
    alike.told(outer, [])
    assert not alike.alone(RULE)
