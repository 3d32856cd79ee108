# SPDX-License-Identifier: MIT
"""The ownership table on the real kernel: each row for each kind of object that it can meet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from linxd.ledger import MemoryLedger
from linxd.patch import Claim, Key, State

from .harness import TIMERS, World, batch, ip, pair

BASE = """
[link.e0]
addresses = ["10.0.0.1/24"]
"""


@dataclass(frozen=True)
class Kind:
    """One kind of object: how it is declared, made alike, made different, and by another daemon."""

    name: str
    declared: str
    key: Key
    alike: str
    different: str
    show: str
    shown: str
    shown_different: str
    delete: str
    base: str = BASE
    daemon: str = ""
    """Made different, with the protocol of another daemon; "" where the kind carries none."""
    owner: str = ""


KINDS = [
    Kind(
        "route",
        '[[route]]\nto = "192.0.2.0/24"\nvia = "10.0.0.2"\n',
        ("route", 2, 254, "192.0.2.0/24", 0, 0),
        "route add 192.0.2.0/24 via 10.0.0.2 proto static",
        "route replace 192.0.2.0/24 via 10.0.0.3 proto static",
        "route show 192.0.2.0/24",
        "via 10.0.0.2",
        "via 10.0.0.3",
        "route del 192.0.2.0/24",
        daemon="route replace 192.0.2.0/24 via 10.0.0.3 proto bird",
        owner="protocol bird",
    ),
    Kind(
        "route6",
        '[[route]]\nto = "fd01::/64"\ndev = "e0"\n',
        ("route", 10, 254, "fd01::/64", 0, 1024),
        "-6 route add fd01::/64 dev e0 proto static",
        "-6 route replace fd01::/64 dev e0 mtu 1400 proto static",
        "-6 route show fd01::/64",
        "dev e0",
        "mtu 1400",
        "-6 route del fd01::/64",
        daemon="-6 route replace fd01::/64 dev e0 mtu 1400 proto bird",
        owner="protocol bird",
    ),
    Kind(
        "address",
        "",
        ("address", "e0", "10.9.0.1", 24),
        "address add 10.9.0.1/24 dev e0",
        "address add 10.9.0.1/24 dev e0 label e0:theirs",
        "address show dev e0 to 10.9.0.0/24",
        "10.9.0.1/24",
        "e0:theirs",
        "address del 10.9.0.1/24 dev e0",
        base='[link.e0]\naddresses = ["10.0.0.1/24", "10.9.0.1/24"]\n',
    ),
    Kind(
        "neighbour",
        '[[neighbour]]\naddress = "10.0.0.9"\ndev = "e0"\nlladdr = "02:00:00:00:00:09"\n',
        ("neighbour", "e0", "10.0.0.9", 0),
        "neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev e0 nud permanent",
        "neigh replace 10.0.0.9 lladdr 02:00:00:00:00:0a dev e0 nud permanent",
        "neigh show 10.0.0.9",
        "02:00:00:00:00:09",
        "02:00:00:00:00:0a",
        "neigh del 10.0.0.9 dev e0",
        daemon="neigh replace 10.0.0.9 lladdr 02:00:00:00:00:0a dev e0 nud permanent protocol zebra",
        owner="protocol zebra",
    ),
    Kind(
        "rule",
        '[[rule]]\nfrom = "10.7.0.0/16"\ntable = 100\npriority = 700\n',
        ("rule", 2, 700, "ipv4 from 10.7.0.0/16 lookup 100"),
        "rule add from 10.7.0.0/16 lookup 100 priority 700",
        "rule add from 10.7.0.0/16 lookup 100 priority 700 suppress_prefixlength 0",
        "rule show priority 700",
        "from 10.7.0.0/16 lookup 100",
        "suppress_prefixlength 0",
        "rule del priority 700",
        daemon="rule add from 10.7.0.0/16 lookup 100 priority 700 suppress_prefixlength 0 protocol bird",
        owner="protocol bird",
    ),
    Kind(
        "link",
        '[link.b0]\nkind = "bridge"\nforward_delay = 900\n',
        ("link", "b0"),
        "link add b0 type bridge forward_delay 900",
        "link add b0 type ifb",
        "-d link show b0",
        "bridge forward_delay 900",
        "ifb",
        "link del b0",
    ),
]  # fmt: skip
OBJECTS = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
MARKED = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.daemon], ids=lambda kind: kind.name)

Story = Callable[[World, Kind], Awaitable[None]]


def tell(story: Story, kind: Kind, netns: str, directory: Path) -> None:
    """Run a story in a namespace with a link e0 that is up."""
    pair(netns)

    async def run() -> None:
        world = World(netns, directory)
        try:
            await story(world, kind)
        finally:
            world.close()

    asyncio.run(run())


def there(world: World, kind: Kind) -> str:
    """What ip shows of the object, "" when there is none."""
    try:
        return TIMERS.sub("", ip(world.netns, kind.show))
    except AssertionError:
        return ""


def make_different(world: World, kind: Kind, command: str = "") -> None:
    """Put a different one in its place, whatever stands there."""
    if kind.name in ("address", "rule", "link") and kind.shown in there(world, kind):
        ip(world.netns, kind.delete)
    ip(world.netns, command or kind.different)


def claim(world: World, kind: Kind) -> Claim | None:
    entry = world.ledger.get(kind.key)
    return None if entry is None else entry.claim


@OBJECTS
def test_row_1_absent_is_created_and_made(kind: Kind, netns: str, tmp_path: Path) -> None:
    async def story(world: World, kind: Kind) -> None:
        await world.settle(kind.base + kind.declared)
        assert kind.shown in there(world, kind)
        assert claim(world, kind) is Claim.MADE

    tell(story, kind, netns, tmp_path)


@OBJECTS
def test_rows_2_and_9_equal_is_found_and_left(kind: Kind, netns: str, tmp_path: Path) -> None:
    async def story(world: World, kind: Kind) -> None:
        await world.settle(BASE)
        ip(world.netns, kind.alike)
        if kind.name == "link":
            ip(world.netns, "link set b0 up")
        before = there(world, kind)
        await world.settle(kind.base + kind.declared)
        assert there(world, kind) == before
        assert claim(world, kind) is Claim.FOUND
        await world.settle(BASE)
        assert there(world, kind) == before
        assert claim(world, kind) is None

    tell(story, kind, netns, tmp_path)


@OBJECTS
def test_row_3_a_different_one_is_a_conflict_and_left(kind: Kind, netns: str, tmp_path: Path) -> None:
    async def story(world: World, kind: Kind) -> None:
        await world.settle(BASE)
        ip(world.netns, kind.daemon or kind.different)
        before = world.snapshot()
        for _ in range(3):
            report = await world.go(kind.base + kind.declared)
            assert [c.key for c in report.conditions if c.state is State.CONFLICT] == [kind.key]
            assert kind.owner in report.conditions[0].text
        assert world.snapshot() == before
        assert claim(world, kind) is None
        await world.settle(BASE)
        assert world.snapshot() == before

    tell(story, kind, netns, tmp_path)


@OBJECTS
def test_rows_4_and_8_take_makes_it_ours(kind: Kind, netns: str, tmp_path: Path) -> None:
    async def story(world: World, kind: Kind) -> None:
        await world.settle(BASE)
        ip(world.netns, kind.daemon or kind.different)
        await world.settle('[scope]\non-conflict = "take"\n' + kind.base + kind.declared)
        assert kind.shown in there(world, kind)
        assert kind.shown_different not in there(world, kind)
        assert claim(world, kind) is Claim.TAKEN
        await world.settle(BASE)
        assert kind.shown not in there(world, kind)
        assert kind.shown_different not in there(world, kind)

    tell(story, kind, netns, tmp_path)


@OBJECTS
def test_row_6_ours_is_restored_when_deleted_and_when_a_hand_changed_it(
    kind: Kind, netns: str, tmp_path: Path
) -> None:
    async def story(world: World, kind: Kind) -> None:
        await world.settle(kind.base + kind.declared)
        ip(world.netns, kind.delete)
        await world.settle()
        assert kind.shown in there(world, kind)
        if kind.name != "link":  # a link made anew under our name is another one: row 3
            make_different(world, kind)
            await world.settle()
            assert kind.shown_different not in there(world, kind)
        assert claim(world, kind) is Claim.MADE

    tell(story, kind, netns, tmp_path)


@OBJECTS
def test_row_6_found_is_restored_with_the_protocol_it_had(kind: Kind, netns: str, tmp_path: Path) -> None:
    async def story(world: World, kind: Kind) -> None:
        await world.settle(BASE)
        ip(world.netns, kind.alike)
        await world.settle(kind.base + kind.declared)
        ip(world.netns, kind.delete)
        await world.settle()
        assert kind.shown in there(world, kind)
        if kind.name.startswith("route"):
            assert "proto static" in there(world, kind)
        assert claim(world, kind) is Claim.FOUND
        await world.settle(BASE)
        assert kind.shown in there(world, kind)

    tell(story, kind, netns, tmp_path)


@MARKED
def test_rows_7_and_8_another_daemons_is_left_and_forgotten(kind: Kind, netns: str, tmp_path: Path) -> None:
    async def story(world: World, kind: Kind) -> None:
        await world.settle(kind.base + kind.declared)
        make_different(world, kind, kind.daemon)
        before = there(world, kind)
        report = await world.go()
        if kind.name == "rule":  # another rule beside which ours is missing
            assert kind.owner in report.conditions[0].text
        assert [c.state for c in report.conditions] == [State.CONFLICT]
        assert kind.owner in report.conditions[0].text
        assert there(world, kind) == before
        await world.settle(BASE)
        assert there(world, kind) == before
        assert claim(world, kind) is None

    tell(story, kind, netns, tmp_path)


@MARKED
def test_row_7_another_daemons_is_restored_with_take(kind: Kind, netns: str, tmp_path: Path) -> None:
    async def story(world: World, kind: Kind) -> None:
        text = '[scope]\non-conflict = "take"\n' + kind.base + kind.declared
        await world.settle(text)
        make_different(world, kind, kind.daemon)
        await world.settle()
        assert kind.shown in there(world, kind)
        assert kind.shown_different not in there(world, kind)

    tell(story, kind, netns, tmp_path)


@OBJECTS
def test_row_8_made_is_deleted_when_un_declared(kind: Kind, netns: str, tmp_path: Path) -> None:
    async def story(world: World, kind: Kind) -> None:
        await world.settle(BASE)
        before = there(world, kind)
        await world.settle(kind.base + kind.declared)
        await world.settle(BASE)
        assert there(world, kind) == before
        assert claim(world, kind) is None

    tell(story, kind, netns, tmp_path)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name != "link"], ids=lambda kind: kind.name)
def test_row_10_marked_and_the_ledger_lost_is_deleted(kind: Kind, netns: str, tmp_path: Path) -> None:
    async def story(world: World, kind: Kind) -> None:
        await world.settle(kind.base + kind.declared)
        world.ledger = MemoryLedger()
        world.restart()
        await world.settle(BASE)
        assert kind.shown not in there(world, kind)

    tell(story, kind, netns, tmp_path)


@OBJECTS
def test_row_11_what_nobody_declared_or_owns_is_left(kind: Kind, netns: str, tmp_path: Path) -> None:
    async def story(world: World, kind: Kind) -> None:
        await world.settle(BASE)
        ip(world.netns, kind.alike)
        before = world.snapshot()
        await world.quiet()
        world.restart()
        await world.quiet()
        assert world.snapshot() == before

    tell(story, kind, netns, tmp_path)


def test_row_11_remove_reaches_what_it_may_and_no_more(netns: str, tmp_path: Path) -> None:
    text = """
    [scope]
    foreign = "remove"
    [link.e0]
    addresses = ["10.0.0.1/24"]
    [[route]]
    to = "192.0.2.0/24"
    via = "10.0.0.2"
    [[route]]
    to = "192.0.2.0/24"
    type = "blackhole"
    table = 100
    """
    goes = (
        "address add 10.8.0.1/24 dev e0",
        "route add 198.51.100.0/24 via 10.0.0.3",
        "route add 198.51.100.0/24 via 10.0.0.3 table 100 proto bird",
        "rule add from 10.7.0.0/16 lookup 100 priority 700",
        "neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev e0 nud permanent",
    )
    stays = (
        "link add b0 type bridge",
        "address add 10.6.0.1/24 dev far0",
        "address add 10.5.0.1/24 dev e0 valid_lft 3000 preferred_lft 2000",
        "address add 10.4.0.1/32 dev lo",
        "route add 198.51.100.0/24 dev e0 table 200",
        "route add 203.0.113.0/24 via 10.0.0.3 proto dhcp",
        "route add 203.0.113.0/24 via 10.0.0.3 proto ra metric 5",
        "neigh add 10.6.0.9 lladdr 02:00:00:00:00:09 dev far0 nud permanent",
    )

    async def story(world: World, kind: Kind) -> None:
        batch(world.netns, "address add 10.0.0.1/24 dev e0", *stays)
        ip(world.netns, "address add fe80::99/64 dev e0")
        before = world.snapshot()
        batch(world.netns, *goes)
        report = await world.settle(text)
        assert len([op for op in report.applied if op.verb == "delete"]) == len(goes)
        await world.settle("")
        assert world.snapshot() == before

    tell(story, KINDS[0], netns, tmp_path)


@OBJECTS
def test_row_12_a_restart_changes_nothing(kind: Kind, netns: str, tmp_path: Path) -> None:
    async def story(world: World, kind: Kind) -> None:
        await world.settle(kind.base + kind.declared)
        before = world.snapshot()
        world.restart()
        await world.quiet()
        assert world.snapshot() == before
        assert claim(world, kind) is Claim.MADE

    tell(story, kind, netns, tmp_path)


def test_a_link_of_the_declared_kind_is_taken_on_and_left(netns: str, tmp_path: Path) -> None:
    """Row 5: its differences are set, it is `found`, and it stays when un-declared."""

    async def story(world: World, kind: Kind) -> None:
        ip(world.netns, "link add b0 type bridge forward_delay 700")
        index = ip(world.netns, "link show b0").split(":")[0]
        await world.settle(kind.declared)
        assert "forward_delay 900" in ip(world.netns, "-d link show b0")
        entry = world.ledger.get(("link", "b0"))
        assert entry is not None
        assert entry.claim is Claim.FOUND
        assert entry.original["forward_delay"] == "700"
        await world.settle("")
        assert ip(world.netns, "link show b0").split(":")[0] == index

    tell(story, KINDS[-1], netns, tmp_path)


def test_a_stranger_under_the_name_of_a_link_of_ours_is_not_destroyed(netns: str, tmp_path: Path) -> None:
    async def story(world: World, kind: Kind) -> None:
        await world.settle(kind.declared)
        batch(world.netns, "link del b0", "link add b0 type ifb")
        before = world.snapshot()
        report = await world.go()
        assert [c.state for c in report.conditions] == [State.CONFLICT]
        assert "kind is 'ifb', want 'bridge'" in report.conditions[0].text
        await world.settle("")
        assert world.snapshot() == before

    tell(story, KINDS[-1], netns, tmp_path)
