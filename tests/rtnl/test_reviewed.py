# SPDX-License-Identifier: MIT
"""What a second pair of eyes found: cases between the rows of the ownership table and between two looks."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from linxd.netlink import rt, wire
from linxd.patch import Claim, Key, Report, State, Trigger
from linxd.source import Hint, Pass
from linxd.sources.rtnl import events
from linxd.sources.rtnl.model import AF_INET

from .harness import World, batch, ip, ipj


def run(netns: str, path: Path, story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    """Tell a story of one world."""
    with contextlib.closing(World(netns, path)) as world:
        asyncio.run(asyncio.wait_for(story(world), 60))


def said(report: Report) -> list[tuple[State, str]]:
    return [(condition.state, condition.name) for condition in report.conditions]


def test_a_rule_without_a_priority_goes_though_a_hand_made_it_anew(netns: str, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.settle('[[rule]]\nfrom = "10.9.0.0/24"\ntable = 100\n')
        batch(netns, "rule del from 10.9.0.0/24", "rule add from 10.9.0.0/24 table 100 priority 32765")
        await world.settle()
        await world.settle("")
        assert "10.9.0.0/24" not in ip(netns, "rule show")

    run(netns, tmp_path, story)


@pytest.mark.parametrize(
    ("declared", "in_the_way", "out_of_it"),
    [
        (
            'to = "fd77::/64"\nvia = "fd00::2"',
            ["address add fd00::2/64 dev e0 nodad"],
            ["address del fd00::2/64 dev e0"],
        ),
        # Without any address there is no table of local ones, and every address counts as a broadcast.
        (
            'to = "192.0.2.0/24"\nvia = "10.0.0.2"\ndev = "e0"\nonlink = true',
            [],
            ["address add 10.9.9.9/32 dev e0"],
        ),
    ],
)
def test_a_gateway_that_can_be_none_now_is_waited_for(
    declared: str, in_the_way: list[str], out_of_it: list[str], netns: str, tmp_path: Path
) -> None:
    async def story(world: World) -> None:
        batch(netns, "link add e0 type veth peer name far0", "link set far0 up", "link set e0 up")
        ip(netns, "address add fd00::1/64 dev e0 nodad")
        for command in in_the_way:
            ip(netns, command)
        async with world.kept(f"[[route]]\n{declared}\n"):
            assert [state for state, _ in said(world.reports[-1])] == [State.PENDING]
            await world.sabotage(*out_of_it)
            await world.until(lambda: "proto 76" in ip(netns, "route") + ip(netns, "-6 route"))
        await world.quiet()

    run(netns, tmp_path, story)


def test_a_link_with_the_highest_index_is_not_counted_on_from(netns: str, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ip(netns, "link add x index 2147483647 type bridge")
        await world.settle('[link.br0]\nkind = "bridge"\n')

    run(netns, tmp_path, story)


def test_a_foreign_rule_goes_on_its_event_where_no_rule_is_declared(netns: str, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async with world.kept('[scope]\nforeign = "remove"\n[link.lo]\n'):
            await world.sabotage("rule add from 10.0.0.0/8 table 55")
            await world.until(lambda: "10.0.0.0/8" not in ip(netns, "rule show"))

    run(netns, tmp_path, story)


def test_a_route_for_one_source_is_another_one(netns: str, tmp_path: Path) -> None:
    declared = """
    [link.e0]
    addresses = [{ address = "fd00::1/64", nodad = true }]
    [[route]]
    to = "default"
    family = "inet6"
    via = "fd00::2"
    """

    async def story(world: World) -> None:
        batch(netns, "link add e0 type veth peer name far0", "link set far0 up", "link set e0 up")
        ip(netns, "address add fd00::1/64 dev e0 nodad")
        narrow = "default from fd99::/64 via fd00::9"
        ip(netns, f"-6 route add {narrow} dev e0 metric 1024 proto 42")
        await world.settle(declared)
        assert narrow in ip(netns, "-6 route show default")
        async with world.kept():
            writes = len(world.sent)
            await world.sabotage(
                f"-6 route replace {narrow} dev e0 metric 1024 proto 42 mtu 1400",
                f"-6 route del {narrow} dev e0 metric 1024 proto 42",
                f"-6 route add {narrow} dev e0 metric 1024",
                "-6 route del default via fd00::2",
            )
            await world.until(lambda: "via fd00::2 dev e0 proto 76" in ip(netns, "-6 route show default"))
            assert len(world.writes(writes)) == 1
            assert narrow in ip(netns, "-6 route show default")
        await world.settle('[scope]\nforeign = "remove"\n' + declared)
        assert narrow not in ip(netns, "-6 route show default")

    run(netns, tmp_path, story)


SWAP = ("link set dev la name lt", "link set dev lb name la", "link set dev lt name lb")


@pytest.mark.parametrize("kind", ["bridge", "ifb"])
def test_links_that_swapped_their_names_stay_ours(kind: str, netns: str, tmp_path: Path) -> None:
    declared = f"""
    [link.la]
    kind = "bridge"
    addresses = ["10.0.1.1/24"]
    [link.lb]
    kind = "{kind}"
    addresses = ["10.0.2.1/24"]
    """

    async def story(world: World) -> None:
        await world.settle(declared)
        batch(netns, "link set dev la down", "link set dev lb down", *SWAP)
        await world.settle()
        for name in ("la", "lb"):
            entry = world.ledger.get(("link", name))
            assert entry is not None
            assert (entry.claim, entry.facts) == (Claim.MADE, {"ifindex": index(netns, name)})
        await world.settle("")
        assert "la" not in ip(netns, "-br link") + ip(netns, "-br address")
        assert "lb" not in ip(netns, "-br link")

    run(netns, tmp_path, story)


def test_a_link_of_ours_goes_with_its_claim_though_its_name_is_taken(netns: str, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.settle('[link.la]\nkind = "bridge"\n')
        batch(netns, "link set dev la down", "link set dev la name zz", "link add la type bridge")
        await world.settle()
        await world.settle("")
        assert "zz" not in ip(netns, "-br link")
        assert "la " in ip(netns, "-br link")

    run(netns, tmp_path, story)


def index(netns: str, name: str) -> int:
    return int(ip(netns, f"-o link show {name}").split(":")[0])


@pytest.mark.parametrize(
    ("at", "others", "interrupted"),
    # among 80 others, while the links themselves are read, once and when they have to be read again
    [(1, 0, False), (2, 0, False), (6, 0, False), (2, 80, False), (5, 80, True)],
)
def test_a_link_made_anew_while_a_pass_looks_is_the_one_that_is_known(
    at: int, others: int, interrupted: bool, netns: str, tmp_path: Path
) -> None:
    hints: list[Hint] = []

    async def story(world: World) -> None:
        batch(netns, *(f"link add x{number} type bridge" for number in range(others)))
        batch(netns, "link add e1 type bridge", "link set e1 up")
        await world.settle('[link.e1]\naddresses = ["10.0.0.1/24"]\n')
        subscription = world.source.subscribe(hints.append)
        breaths = -1 if interrupted else 0

        async def told(count: int) -> tuple[Hint, ...]:
            """What events say, one hint for each object."""
            while len(keys := {hint.key: hint for hint in hints}) < count:
                await asyncio.sleep(0.001)
            hints.clear()
            return tuple(keys.values())

        async def breathe() -> None:
            nonlocal breaths
            breaths += 1
            if breaths == 0:
                await world.sabotage("link add y type bridge")
            elif breaths == at:
                await world.sabotage("link del e1", "link add e1 index 99 type bridge", "link set e1 up")
                work = Pass(world.desired, world.ledger, Trigger.EVENT, await told(2))
                await world.source.reconcile(work)

        report = await world.source.reconcile(Pass(world.desired, world.ledger, checkpoint=breathe))
        assert (report.applied, report.conditions) == ((), ())
        await asyncio.sleep(0)
        hints.clear()
        assert breaths >= at
        assert world.source.links.index("e1") == 99
        await world.settle()
        await world.sabotage("address del 10.0.0.1/24 dev e1")
        assert ("address", "e1", "10.0.0.1", 24) in [hint.key for hint in await told(1)]
        subscription.close()

    run(netns, tmp_path, story)


def test_an_address_that_goes_takes_no_foreign_one_along(netns: str, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        batch(netns, "link add e0 type bridge", "link set e0 up")
        await world.settle('[link.e0]\naddresses = ["10.0.0.1/24", "10.0.0.2/24"]\n')
        batch(
            netns,
            "address add 10.0.0.9/24 dev e0 label e0:x",
            "address add 10.0.0.8/24 dev e0 valid_lft 1000 preferred_lft 1000",
            "route add 192.0.2.0/24 via 10.0.0.77",
        )
        # made anew with a label, then given up
        await world.settle('[link.e0]\naddresses = [{ address = "10.0.0.1/24", label = "e0:l" }]\n')
        assert addresses(netns) == {"10.0.0.1", "10.0.0.8", "10.0.0.9"}
        await world.settle("[link.e0]\n")
        assert addresses(netns) == {"10.0.0.8", "10.0.0.9"}
        assert "192.0.2.0/24 via 10.0.0.77" in ip(netns, "route")
        kept = await asyncio.to_thread(
            subprocess.run,
            ["ip", "netns", "exec", netns, "sysctl", "-n", "net.ipv4.conf.e0.promote_secondaries"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert kept.stdout == "0\n"

    run(netns, tmp_path, story)


def addresses(netns: str) -> set[str]:
    return {entry["local"] for entry in ipj(netns, "-4 address show dev e0")[0]["addr_info"]}


def test_an_ipv6_address_of_another_prefix_length_is_in_the_way(netns: str, tmp_path: Path) -> None:
    declared = '[link.e0]\naddresses = [{ address = "fd00::5/64", nodad = true }]\n'

    async def story(world: World) -> None:
        batch(netns, "link add e0 type bridge", "link set e0 up", "address add fd00::5/128 dev e0 nodad")
        report = await world.go(declared)
        assert said(report) == [(State.CONFLICT, "address fd00::5/64 dev e0")]
        assert "prefix length is '128', want '64' (owner: no protocol" in report.conditions[0].text
        assert (await world.go()).conditions == report.conditions
        await world.settle('[scope]\non-conflict = "take"\n' + declared)
        assert "fd00::5/64" in ip(netns, "-br address show e0")
        # a hand's work, and so is undone
        batch(netns, "address del fd00::5/64 dev e0", "address add fd00::5/96 dev e0 nodad")
        await world.settle()
        assert "fd00::5/64" in ip(netns, "-br address show e0")
        # declared otherwise, ours goes and comes in one patch
        await world.settle(declared.replace("/64", "/80"))
        assert "fd00::5/80" in ip(netns, "-br address show e0")
        await world.settle("[link.e0]\n")
        assert "fd00::5" not in ip(netns, "-br address show e0")

    run(netns, tmp_path, story)


def test_nothing_is_put_on_a_stranger_in_the_place_of_a_link(netns: str, tmp_path: Path) -> None:
    declared = """
    [link.br0]
    kind = "bridge"
    addresses = ["10.0.0.1/24"]
    [[route]]
    to = "192.0.2.0/24"
    dev = "br0"
    """

    async def story(world: World) -> None:
        ip(netns, "link add br0 up type ifb")
        report = await world.go(declared)
        assert report.applied == ()
        assert sorted(said(report)) == [
            (State.CONFLICT, "link br0"),
            (State.PENDING, "address 10.0.0.1/24 dev br0"),
            (State.PENDING, "route 192.0.2.0/24 dev br0"),
        ]
        async with world.kept():
            await world.sabotage("link del br0")
            await world.until(lambda: "192.0.2.0/24" in ip(netns, "route"))
        await world.quiet()

    run(netns, tmp_path, story)


def test_our_own_event_about_a_rival_does_not_hide_that_ours_was_deleted(netns: str, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        batch(netns, "link add e0 type bridge", "link set e0 up", "address add 10.0.0.1/24 dev e0")
        await world.settle('[[route]]\nto = "192.0.2.0/24"\nvia = "10.0.0.2"\n')
        hints: list[Hint] = []
        subscription = world.source.subscribe(hints.append)
        # all this happens before the first of it is read
        batch(
            netns,
            "route prepend 192.0.2.0/24 via 10.0.0.9",
            "route del 192.0.2.0/24 via 10.0.0.2",
        )
        rival = rt.encode_route(
            family=AF_INET, dst="192.0.2.0/24", table=254, gateway="10.0.0.9", scope=0, type=1
        )
        world.requests.request(wire.RTM_DELROUTE, 0, rival)
        while not hints:
            await asyncio.sleep(0.001)
        await world.source.reconcile(Pass(world.desired, world.ledger, Trigger.EVENT, tuple(hints)))
        assert "192.0.2.0/24 via 10.0.0.2" in ip(netns, "route")
        subscription.close()

    run(netns, tmp_path, story)


async def hinted(world: World, hints: list[Hint]) -> Report:
    """The pass that follows the first hints, which are those of one turn of the event loop."""
    while not hints:
        await asyncio.sleep(0)
    return await world.source.reconcile(Pass(world.desired, world.ledger, Trigger.EVENT, tuple(hints)))


def test_a_link_of_ours_keeps_its_claim_when_its_name_is_taken_in_one_burst(
    netns: str, tmp_path: Path
) -> None:
    async def story(world: World) -> None:
        await world.settle('[link.la]\nkind = "bridge"\nmtu = 1400\n')
        hints: list[Hint] = []
        subscription = world.source.subscribe(hints.append)
        # the last word on la is of an attribute
        batch(
            netns,
            "link set dev la down",
            "link set dev la name zz",
            "link add la type bridge",
            "link set dev la mtu 1300",
        )
        await hinted(world, hints)
        subscription.close()
        await world.settle()
        await world.settle("")
        assert "zz" not in ip(netns, "-br link")
        assert "la " in ip(netns, "-br link")

    run(netns, tmp_path, story)


def test_what_is_not_the_last_word_on_a_link_writes_nothing(
    netns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST", 1)
    monkeypatch.setattr(events, "AT_ONCE", 1)

    async def story(world: World) -> None:
        batch(netns, "link add e0 type bridge", "link set e0 up")
        await world.settle("[link.e0]\nup = true\n")
        hints: list[Hint] = []
        subscription = world.source.subscribe(hints.append)
        # more than one turn reads: the first hears of it down, and it is up again
        batch(netns, "link set e0 down", "link set e0 up")
        writes = len(world.sent)
        report = await hinted(world, hints)
        assert report.looked >= {("link", "e0")}
        assert report.drifted == ()
        assert world.writes(writes) == []
        subscription.close()

    run(netns, tmp_path, story)


def test_a_rule_that_went_and_is_not_declared_any_more_is_no_error(netns: str, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.settle('[[rule]]\nfrom = "10.9.0.0/24"\ntable = 100\npriority = 1000\n')
        hints: list[Hint] = []
        subscription = world.source.subscribe(hints.append)
        await world.settle()
        batch(netns, "rule del priority 1000")
        while not hints:
            await asyncio.sleep(0)
        world.declare("")
        report = await hinted(world, hints)
        assert (report.drifted, report.conditions) == ((), ())
        assert world.ledger.of("rule") == {}
        subscription.close()

    run(netns, tmp_path, story)


def test_a_connected_route_is_kept_though_its_address_came_back_while_it_was_not_declared(
    netns: str, tmp_path: Path
) -> None:
    declared = '[link.e0]\naddresses = ["10.0.0.1/24"]\n'
    back = ["link add e0 type bridge", "link set e0 up", "address add 10.0.0.1/24 dev e0"]

    async def story(world: World) -> None:
        batch(netns, *back)
        await world.settle(declared)
        hints: list[Hint] = []
        subscription = world.source.subscribe(hints.append)

        async def read(command: str, key: Key) -> None:
            await world.sabotage(command)
            while key not in [hint.key for hint in hints]:
                await asyncio.sleep(0.001)

        await read("link del e0", ("link", "e0"))
        await world.settle("")
        batch(netns, *back)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await world.settle(declared)
        hints.clear()
        await world.sabotage("route del 10.0.0.0/24 dev e0")
        await read("link set e0 mtu 1400", ("link", "e0"))
        assert ("address", "e0", "10.0.0.1", 24) in [hint.key for hint in hints]
        subscription.close()

    run(netns, tmp_path, story)
