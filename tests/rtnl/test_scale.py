# SPDX-License-Identifier: MIT
"""What healing costs does not grow with the number of objects: counted in messages and bytes, not in
time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from linxd.netlink import rt
from linxd.patch import Trigger
from linxd.source import Hint, Pass
from linxd.sources.rtnl.kind import GONE

from .ahead import rest
from .harness import World, batch, ip

COUNTS = (10, 1_000, 10_000)


def declaration(count: int) -> str:
    """So many routes through one gateway."""
    text = ['[link.e0]\naddresses = ["10.0.0.1/24"]\n']
    for number in range(count):
        text.append(f'[[route]]\nto = "172.{16 + (number >> 8)}.{number & 255}.0/24"\nvia = "10.0.0.2"\n')
    return "".join(text)


@pytest.mark.parametrize("count", COUNTS)
def test_healing_a_route_takes_one_message_whatever_else_is_declared(
    count: int, netns: str, tmp_path: Path
) -> None:
    batch(netns, "link set lo up", "link add e0 type veth peer name far0", "link set far0 up")
    batch(netns, "link set e0 up")

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            async with world.kept(declaration(count)):
                await rest(world)  # links may still be coming up
                ip(netns, "route del 172.16.3.0/24")
                before = len(world.sent)
                await world.until(lambda: "172.16.3.0" in ip(netns, "route show 172.16.3.0/24"))
                sent = world.sent[before:]
                assert len(sent) == 1
                assert len(sent[0]) < 100
                report = world.reports[-1]
                assert [op.name for op in report.applied] == ["route 172.16.3.0/24 via 10.0.0.2"]
            await world.quiet()
        finally:
            world.close()

    asyncio.run(story())


def test_a_first_apply_is_batched_and_a_quiet_resync_reads_without_asking_for_each(
    netns: str, tmp_path: Path
) -> None:
    batch(netns, "link set lo up", "link add e0 type veth peer name far0", "link set far0 up")

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            await world.go(declaration(10_000), trigger=Trigger.START)
            assert len(world.sent) < 100  # some 500 routes a datagram
            before = len(world.sent)
            await world.quiet()
            assert len(world.sent) - before < 15
        finally:
            world.close()

    asyncio.run(story())


@pytest.mark.parametrize("dev", ["", 'dev = "e0"\n'], ids=["by its gateway", "through a link"])
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
@pytest.mark.parametrize("carrier", [True, False], ids=["", "without a carrier"])
def test_what_is_read_back_as_it_was_asked_for_is_not_taken_apart(
    carrier: bool, family: str, dev: str, netns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch(netns, "link set lo up", "link add e0 type veth peer name far0")
    batch(netns, f"link set far0 {'up' if carrier else 'down'}", "link set e0 up")
    to, via, address = (
        ("172.16.{}.0/24", "10.0.0.2", "10.0.0.1/24")
        if family == "IPv4"
        else ("fd01:{}::/64", "fd00::2", "fd00::1/64")
    )
    text = f'[link.e0]\naddresses = ["{address}"]\n'
    text += "".join(f'[[route]]\nto = "{to.format(n + 1)}"\nvia = "{via}"\n{dev}' for n in range(100))
    decoded: list[rt.RouteMsg] = []
    decode = rt.decode_route

    def counted(buf: bytes, start: int, end: int) -> rt.RouteMsg:
        decoded.append(decode(buf, start, end))
        return decoded[-1]

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            await world.go(text)  # e0 gets its address
            ip(netns, f"-{family[-1]} route flush protocol 76")
            monkeypatch.setattr(rt, "decode_route", counted)
            report = await world.go()
            assert len(report.applied) == 100
            await world.quiet()
            assert decoded == []
            monkeypatch.undo()
            world.restart()
            await world.quiet()
        finally:
            world.close()

    asyncio.run(story())


def test_a_pass_over_100_000_foreign_routes_lets_others_have_their_turn(netns: str, tmp_path: Path) -> None:
    batch(netns, "link set lo up", "link add e0 type veth peer name far0", "link set far0 up")
    batch(netns, "link set e0 up", "address add 10.0.0.1/24 dev e0")
    numbers = (f"11.{n >> 16}.{(n >> 8) & 255}.{n & 255}" for n in range(100_000))
    batch(netns, *(f"route add {to} via 10.0.0.2 proto bird" for to in numbers))

    async def story() -> None:
        world = World(netns, tmp_path)
        turns = 0

        async def checkpoint() -> None:
            nonlocal turns
            turns += 1
            await asyncio.sleep(0)

        try:
            world.declare(declaration(50))
            for trigger in (Trigger.START, Trigger.REQUEST):
                turns = 0
                work = Pass(world.desired, world.ledger, trigger, checkpoint=checkpoint)
                report = await world.source.reconcile(work)
                assert report.converged
                assert turns > 100
            # at a quiet resync the kernel sorts out ours: the crowd is not even read
            turns = 0
            await world.source.reconcile(Pass(world.desired, world.ledger, checkpoint=checkpoint))
            assert turns < 50
        finally:
            world.close()

    asyncio.run(story())


def test_a_hint_is_healed_without_a_single_read(netns: str, tmp_path: Path) -> None:
    batch(netns, "link set lo up", "link add e0 type veth peer name far0", "link set far0 up")

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            await world.settle(declaration(10))
            ip(netns, "route del 172.16.3.0/24")
            key = next(key for key in world.desired.routes if "172.16.3.0/24" in key)
            before = len(world.sent)
            work = Pass(world.desired, world.ledger, Trigger.EVENT, hints=(Hint(key, GONE),))
            report = await world.source.reconcile(work)
            assert len(report.applied) == 1
            assert len(world.sent) - before == 1
        finally:
            world.close()

    asyncio.run(story())
