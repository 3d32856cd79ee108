# SPDX-License-Identifier: MIT
"""What a second pair of eyes found: a daemon that is told to change its mind before it has made it up, and
two of one name."""

from __future__ import annotations

import asyncio
from pathlib import Path

from linxd.scope import ScopeState
from tests.core.fakes import things
from tests.daemon.test_scope import ALL, Bed, config, run


def test_a_loop_that_a_reload_brought_does_not_begin_twice(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    gate = bed.worlds["netfilter"].gate = asyncio.Event()

    async def work() -> None:
        async with bed.running(config(netfilter=ALL["netfilter"])) as scope:
            await bed.worlds["netfilter"].halted.wait()
            reload = asyncio.create_task(scope.declare(config(**ALL)))
            await asyncio.sleep(0)
            gate.set()
            await reload
            await scope.ready.wait()
            assert sorted(bed.opened) == ["netfilter", "rtnl", "sysctl"]
            assert scope.state is ScopeState.CONVERGED

    run(work())


def test_what_has_not_begun_when_all_is_to_go_does_not_begin_with_what_was_declared(tmp_path: Path) -> None:
    bed = Bed(tmp_path)

    async def first() -> None:
        async with bed.running(config(**ALL)) as scope:
            await scope.ready.wait()

    run(first())
    assert bed.worlds["rtnl"].things == things(address="1")
    gate = bed.worlds["netfilter"].gate = asyncio.Event()

    async def second() -> None:
        async with bed.running(config(rtnl=things(address="2"), **ALL), *ALL, "rtnl") as scope:
            await bed.worlds["netfilter"].halted.wait()
            release = asyncio.create_task(scope.release())
            await scope.parts["rtnl"].answered.wait()
            gate.set()
            assert await release == []

    run(second())
    assert {name: world.things for name, world in bed.worlds.items()} == {
        "netfilter": {},
        "sysctl": {},
        "rtnl": {},
    }
    assert not any("address=2" in text for text in bed.said)


def test_a_reload_while_all_is_given_back_brings_nothing_back(tmp_path: Path) -> None:
    bed = Bed(tmp_path)

    async def work() -> None:
        async with bed.running(config(**ALL)) as scope:
            await scope.ready.wait()
            gate = bed.worlds["sysctl"].gate = asyncio.Event()
            release = asyncio.create_task(scope.release())
            await bed.worlds["sysctl"].halted.wait()
            await scope.declare(config(**ALL))
            gate.set()
            assert await release == []
            assert scope.state is ScopeState.STOPPING

    run(work())
    assert not any(world.things for world in bed.worlds.values())
