# SPDX-License-Identifier: MIT
"""What one event alone calls for is in the kernel before the pass begins that accounts for it; and whatever
comes between the two, nothing is written twice, nothing is lost, and nothing is said that is not so.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from linxd.clock import BOOT
from linxd.netlink import wire
from linxd.patch import Report

from .ahead import BACK, DECLARED, DRIFT, ROUTE, Between, tell
from .harness import ip


@pytest.mark.parametrize(
    ("drift", "write"),
    [
        ("address del 10.1.0.5/24 dev e0", wire.RTM_NEWADDR),
        ("address del fd00::5/64 dev e0", wire.RTM_NEWADDR),
        (DRIFT, wire.RTM_NEWROUTE),
        ("route replace 20.0.0.0/24 via 10.1.0.2 dev e0", wire.RTM_NEWROUTE),
        ("-6 route del fd01::/64", wire.RTM_NEWROUTE),
        ("link set e0 mtu 1300", wire.RTM_NEWLINK),
        ("rule del priority 20", wire.RTM_NEWRULE),
        ("neigh del 10.1.0.9 dev e0", wire.RTM_NEWNEIGH),
    ],
)
def test_it_is_in_the_kernel_before_the_pass_begins(
    netns: str, tmp_path: Path, drift: str, write: int
) -> None:
    async def story(made: Between) -> None:
        before = len(made.world.sent)
        reports = await made.drift(drift)
        sent = [m.type for datagram in made.world.sent[before:] for m in wire.messages(datagram)]
        assert sent[0] == write
        assert made.begun[0] == before + 1
        assert len(made.admitted) == 1
        told = [op for report in reports for op in report.applied if op.key == made.admitted[0].key]
        assert [op.describe() for op in told] == [op.describe() for op in made.admitted]
        assert sum(kind == write for kind in sent) == 1

    tell(netns, tmp_path, story)


def test_of_several_addresses_of_a_network_the_pass_sees_the_order(netns: str, tmp_path: Path) -> None:
    async def story(made: Between) -> None:
        await made.drift("address del 10.2.0.5/24 dev e0")
        assert not [op for op in made.admitted if op.key[:3] == ("address", "e0", "10.2.0.5")]

    tell(netns, tmp_path, story)


def test_what_was_done_before_a_pause_is_told_as_done(netns: str, tmp_path: Path) -> None:
    async def story(made: Between) -> None:
        made.then = lambda: made.loop.pause(BOOT.now() + 3600)
        reports = await made.drift(DRIFT)
        assert [op.key for report in reports for op in report.applied] == [ROUTE]
        assert [one for report in reports for one in report.conditions] == []
        assert BACK in made.routes()
        before = len(made.world.sent)
        await made.drift(DRIFT)
        assert made.admitted == []
        assert made.world.writes(before) == []
        made.then = lambda: None
        made.loop.resume()
        await made.world.until(lambda: BACK in made.routes())

    tell(netns, tmp_path, story)


def test_what_is_declared_no_more_goes_though_it_was_just_made(netns: str, tmp_path: Path) -> None:
    async def story(made: Between) -> None:
        desired = made.world.declare(DECLARED.replace('to = "20.0.0.0/24"', 'to = "30.0.0.0/24"'))
        made.then = lambda: made.loop.declare(desired)
        await made.drift(DRIFT)
        assert "20.0.0.0/24" not in made.routes()
        assert made.world.ledger.get(ROUTE) is None

    tell(netns, tmp_path, story)


def test_who_asks_for_a_look_at_everything_hides_no_heal(netns: str, tmp_path: Path) -> None:
    async def story(made: Between) -> None:
        asked: list[asyncio.Task[Report]] = []
        made.then = lambda: asked.append(asyncio.ensure_future(made.loop.request()))
        reports = await made.drift(DRIFT)
        assert [op.key for report in reports for op in report.applied] == [ROUTE]
        assert [(await one).converged for one in asked] == [True]

    tell(netns, tmp_path, story)


def test_what_the_kernel_refuses_is_a_matter_of_the_pass(netns: str, tmp_path: Path) -> None:
    """The gateway's network goes just before: said as pending, and healed with the address."""

    async def story(made: Between) -> None:
        made.before = lambda: (
            made.admitted[0].key == ROUTE and ip(netns, "address del 10.1.0.5/24 dev e0"),
            None,
        )[1]
        reports = await made.drift(DRIFT)
        await made.world.until(lambda: BACK in made.routes())
        refused = [one for one in reports[0].conditions if one.key == ROUTE]
        assert len(refused) == 1
        assert "gateway" in refused[0].text

    tell(netns, tmp_path, story)


def test_somebody_who_is_faster_is_met_by_the_pass(netns: str, tmp_path: Path) -> None:
    async def story(made: Between) -> None:
        made.before = lambda: (ip(netns, "route add 20.0.0.0/24 via 10.1.0.1 dev e0 proto static"), None)[1]
        await made.drift(DRIFT)
        assert made.routes().count("20.0.0.0/24") == 1

    tell(netns, tmp_path, story)


def test_an_object_that_is_left_alone_is_not_touched(netns: str, tmp_path: Path) -> None:
    async def story(made: Between) -> None:
        made.loop.leave(ROUTE, BOOT.now() + 3600)
        before = len(made.world.sent)
        await made.drift(DRIFT)
        assert made.admitted == []
        assert made.world.writes(before) == []
        made.loop.take_up(ROUTE)
        await made.world.until(lambda: BACK in made.routes())

    tell(netns, tmp_path, story)


def test_what_is_fought_over_waits(netns: str, tmp_path: Path) -> None:
    async def story(made: Between) -> None:
        await made.drift(DRIFT)
        for _ in range(4):
            await made.world.sabotage(DRIFT)
            await made.world.until(lambda: BACK in made.routes())
        assert len(made.admitted) == 5
        assert made.loop.fights
        await made.world.sabotage(DRIFT)
        await made.rest()
        assert len(made.admitted) == 5
        made.world.forgive()
        await made.loop.request()

    tell(netns, tmp_path, story)


def test_an_object_that_goes_again_at_once_is_healed_again(netns: str, tmp_path: Path) -> None:
    async def story(made: Between) -> None:
        def again() -> None:
            made.then = lambda: None
            ip(netns, DRIFT)

        made.then = again
        reports = await made.drift(DRIFT)
        assert BACK in made.routes()
        assert [op.key for report in reports for op in report.applied] == [ROUTE, ROUTE]

    tell(netns, tmp_path, story)


@pytest.mark.parametrize(
    "after", ["link set e0 mtu 1300", "link set e0 down", "address flush dev e0", "rule del priority 20"]
)
def test_what_else_happens_before_the_pass_is_healed_as_well(netns: str, tmp_path: Path, after: str) -> None:
    async def story(made: Between) -> None:
        def more() -> None:
            made.then = lambda: None
            ip(netns, after)

        made.then = more
        reports = await made.drift(DRIFT)
        await made.world.until(lambda: BACK in made.routes())
        applied = [op.key for report in reports for op in report.applied]
        assert applied[0] == ROUTE
        assert len(applied) > 1

    tell(netns, tmp_path, story)
