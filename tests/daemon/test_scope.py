# SPDX-License-Identifier: MIT
"""Three loops in one scope: who begins when, what they come to together, and that none takes another
down."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from linxd import scope as scope_module
from linxd.config.model import NetnsRef, ScopeConfig
from linxd.ledger import FileLedger
from linxd.log import Entry
from linxd.loop import LoopState
from linxd.part import Opened
from linxd.patch import Op, Patch
from linxd.reporter import Reporter
from linxd.scope import Access, Scope, ScopeState
from linxd.source import Gone, Owned
from linxd.sources.netfilter.model import Desired as NetfilterDesired
from tests.core.fakes import Look, Things, World, things


class Toy(World):
    """A world that takes any source's empty declaration for none."""

    def diff(self, observed: Look, desired: Things, owned: Owned) -> Patch:
        return super().diff(observed, desired if isinstance(desired, dict) else {}, owned)


class Bed:
    """A scope over three toy worlds."""

    def __init__(self, path: Path) -> None:
        self.worlds: dict[str, Toy] = {
            name: type("Toy", (Toy,), {"name": name})() for name in ("netfilter", "sysctl", "rtnl")
        }
        self.entries: list[Entry] = []
        self.refuse: dict[str, Exception] = {}
        self.opened: list[str] = []
        self.path = path
        self.reporter = Reporter(self.entries.append)

    def open(self, name: str, hold: Callable[[], str]) -> Opened:
        if name in self.refuse:
            raise self.refuse[name]
        self.opened.append(name)
        return Opened(self.worlds[name], lambda: None)

    def ledger(self, name: str) -> FileLedger:
        return FileLedger(self.path, boot_id="boot", cookie=1, source=name)

    def scope(self, config: ScopeConfig, *ledgers: str) -> Scope:
        return Scope(config, Access(self.open, self.ledger, ledgers), self.reporter)

    @contextlib.asynccontextmanager
    async def running(self, config: ScopeConfig, *ledgers: str) -> AsyncIterator[Scope]:
        self.reporter = Reporter(self.entries.append)
        scope = self.scope(config, *ledgers)
        tasks = [asyncio.create_task(scope.run()), asyncio.create_task(self.reporter.run())]
        try:
            yield scope
        finally:
            scope.end()
            await tasks[0]
            await self.reporter.drain()
            tasks[1].cancel()

    @property
    def said(self) -> list[str]:
        return [entry.text for entry in self.entries]


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


def config(**sections: Any) -> ScopeConfig:
    rtnl = sections.pop("rtnl", things(address="1"))
    return ScopeConfig("c1", netns=NetnsRef("path", "/run/netns/c1"), resync=0, rtnl=rtnl, **sections)


ALL: dict[str, Any] = {"netfilter": things(table="1"), "sysctl": things(forwarding="1")}


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.001)


def test_first_passes_run_one_after_the_other_filter_first(bed: Bed) -> None:
    gate = bed.worlds["netfilter"].gate = asyncio.Event()

    async def work() -> None:
        async with bed.running(config(**ALL)) as scope:
            await bed.worlds["netfilter"].halted.wait()
            assert bed.opened == ["netfilter"]
            assert str(scope.state) == "starting"
            gate.set()
            await scope.ready.wait()
            assert bed.opened == ["netfilter", "sysctl", "rtnl"]
            assert str(scope.state) == "converged"
            assert {name: len(world.things) for name, world in bed.worlds.items()} == {
                "netfilter": 1,
                "sysctl": 1,
                "rtnl": 1,
            }

    run(work())


def test_a_first_pass_that_hangs_holds_up_the_others_for_a_bounded_time(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scope_module, "FIRST_PASS", 0.01)
    bed.worlds["netfilter"].gate = asyncio.Event()

    async def work() -> None:
        async with bed.running(config(**ALL)) as scope:
            await scope.ready.wait()
            assert bed.worlds["rtnl"].things
            assert scope.state is ScopeState.STARTING

    run(work())


@pytest.mark.parametrize("trouble", [OSError(5, "broken"), ValueError("a fault of ours")])
def test_a_fault_in_one_loop_stops_no_other(bed: Bed, trouble: Exception) -> None:
    bed.worlds["netfilter"].trouble = trouble
    bed.refuse["sysctl"] = trouble

    async def work() -> None:
        async with bed.running(config(**ALL)) as scope:
            await scope.ready.wait()
            assert scope.parts["rtnl"].state is LoopState.CONVERGED
            assert scope.parts["netfilter"].state is LoopState.BLOCKED
            assert scope.parts["sysctl"].state is LoopState.BLOCKED
            assert scope.state is ScopeState.BLOCKED
            bed.refuse.clear()
            bed.worlds["netfilter"].trouble = None
            await until(lambda: scope.state is ScopeState.CONVERGED)

    run(work())
    assert any(text.startswith("c1/sysctl: blocked: ") for text in bed.said)
    assert "c1/sysctl: converged: 1 object" in bed.said


def test_a_declaration_is_reached_when_declare_returns(bed: Bed) -> None:
    async def work() -> None:
        states: list[ScopeState] = []
        scope = bed.scope(config())
        scope._notify = lambda: states.append(scope.state)
        task = asyncio.create_task(scope.run())
        await scope.ready.wait()
        await scope.declare(config(rtnl=things(address="2"), sysctl=things(forwarding="1")))
        assert bed.worlds["rtnl"].things == things(address="2")
        assert bed.worlds["sysctl"].things == things(forwarding="1")
        assert ScopeState.RELOADING in states
        assert str(scope.state) == "converged"
        scope.end()
        await task
        assert str(scope.state) == "stopping"

    run(work())


def test_a_section_that_went_while_away_is_undeclared(bed: Bed) -> None:
    async def first() -> None:
        async with bed.running(config(**ALL)) as scope:
            await scope.ready.wait()

    async def second() -> None:
        async with bed.running(config(), "netfilter", "sysctl", "rtnl") as scope:
            await scope.ready.wait()
            assert bed.worlds["sysctl"].things == {}
            assert bed.worlds["rtnl"].things == things(address="1")

    run(first())
    assert bed.worlds["sysctl"].things == things(forwarding="1")
    run(second())


def test_release_gives_everything_back_in_the_order_of_a_teardown(bed: Bed) -> None:
    order: list[str] = []
    for name, world in bed.worlds.items():

        def apply(op: Op, name: str = name, world: Toy = world) -> None:
            order.append(f"{name} {op.verb}")
            World.apply(world, op)

        world.apply = apply  # type: ignore[method-assign]

    async def work() -> None:
        async with bed.running(config(**ALL)) as scope:
            await scope.ready.wait()
            order.clear()
            assert await scope.release() == []

    run(work())
    assert order == ["rtnl delete", "sysctl delete", "netfilter delete"]
    assert list(bed.path.iterdir()) == []


def test_what_can_not_be_given_back_is_told_and_stays_known(bed: Bed) -> None:
    async def work() -> None:
        async with bed.running(config(**ALL)) as scope:
            await scope.ready.wait()
            bed.worlds["rtnl"].refuse = dict.fromkeys(things(address="1"), 22)
            left = await scope.release()
            assert len(left) == 1
            assert left[0].startswith("rtnl: thing address=1 failed: refused")

    run(work())
    assert [path.name for path in bed.path.iterdir()] == ["rtnl.ledger"]


def test_the_end_of_the_namespace_under_a_source_ends_the_scope(bed: Bed) -> None:
    async def work() -> None:
        scope = bed.scope(config(**ALL))
        task = asyncio.create_task(scope.run())
        await scope.ready.wait()
        bed.worlds["rtnl"].trouble = Gone("gone")
        bed.worlds["rtnl"].drift("address")
        await task
        assert scope.gone

    run(work())


def test_no_address_before_a_required_filter_has_loaded(bed: Bed) -> None:
    """What is held is for the source to decide; the scope says why, and has it look again."""

    async def work() -> None:
        wanted = NetfilterDesired(required=True)
        bed.worlds["netfilter"].trouble = OSError(5, "does not load")
        async with bed.running(config(netfilter=wanted)) as scope:
            await scope.ready.wait()
            assert "waits for the netfilter ruleset" in scope.hold()
            passes = len(bed.worlds["rtnl"].passes)
            bed.worlds["netfilter"].trouble = None
            await until(lambda: not scope.hold())
            await until(lambda: len(bed.worlds["rtnl"].passes) > passes)
            # Once is enough: a filter that breaks later takes no address away.
            bed.worlds["netfilter"].trouble = OSError(5, "does not load")
            assert scope.hold() == ""

    run(work())


def test_another_namespace_takes_a_restart(bed: Bed) -> None:
    async def work() -> None:
        async with bed.running(config()) as scope:
            await scope.ready.wait()
            other = ScopeConfig("c1", netns=NetnsRef("path", "/run/netns/c2"), resync=0, rtnl=config().rtnl)
            await scope.declare(other)

    run(work())
    assert (
        "c1: netns is /run/netns/c2 now; that takes a restart, until then it stays /run/netns/c1" in bed.said
    )


def test_events_that_can_not_be_had_are_no_reason_to_stop(bed: Bed) -> None:
    bed.worlds["rtnl"].no_events = OSError(24, "Too many open files")

    async def work() -> None:
        async with bed.running(config()) as scope:
            await scope.ready.wait()
            assert scope.parts["rtnl"].status.subscription_error == "no events: Too many open files"

    run(work())


def test_paused_nothing_is_written_whatever_begins_meanwhile(bed: Bed) -> None:
    async def work() -> None:
        async with bed.running(config()) as scope:
            await scope.ready.wait()
            scope.pause(600)
            assert scope.state is ScopeState.PAUSED
            assert scope.paused_until > 0
            bed.worlds["rtnl"].drift("address")
            await until(lambda: bool(scope.parts["rtnl"].conditions))
            assert not bed.worlds["rtnl"].things
            # A loop that a reload adds is paused with the others.
            await scope.declare(config(sysctl=things(forwarding="1")))
            assert scope.parts["sysctl"].state is LoopState.PAUSED
            assert not bed.worlds["sysctl"].things
            scope.resume()
            assert scope.paused_until == 0
            await until(lambda: scope.state is ScopeState.CONVERGED)
            assert bed.worlds["rtnl"].things
            assert bed.worlds["sysctl"].things

    run(work())


def test_a_pause_ends_by_itself_and_outlives_a_loop_that_breaks(bed: Bed) -> None:
    async def work() -> None:
        async with bed.running(config()) as scope:
            await scope.ready.wait()
            scope.pause(600)
            part = scope.parts["rtnl"]
            first = part.loop
            assert first is not None
            first.stop()
            await until(lambda: part.loop is not first)
            assert part.state is LoopState.PAUSED
            scope.pause(0.05)
            await until(lambda: scope.state is ScopeState.CONVERGED)
            assert scope.paused_until == 0

    run(work())
