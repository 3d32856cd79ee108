# SPDX-License-Identifier: MIT
"""What a second pair of eyes found: a daemon that is told to change its mind before it has made it up, and
two of one name."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from linxd.scope import ScopeState
from tests.core.fakes import things
from tests.daemon.running import ROOT, Daemon, ip
from tests.daemon.test_scope import ALL, Bed, config, run


def linxctl(*words: str) -> subprocess.CompletedProcess[str]:
    """`linxctl WORDS`."""
    command = [sys.executable, "-m", "linxd.cli.linxctl", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


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


LO = '[link.lo]\naddresses = ["192.0.2.1/32"]\n'


def in_namespace(path: Path, netns: str, text: str = LO) -> Path:
    """A file of a scope that says where it is."""
    path.write_text(f'[scope]\nnetns = "/run/netns/{netns}"\n{text}')
    return path


def test_a_scope_is_in_one_namespace_at_a_time(netns_factory: Callable[[], str], tmp_path: Path) -> None:
    first, second = netns_factory(), netns_factory()
    state = tmp_path / "state"
    with Daemon("c1", in_namespace(tmp_path / "1.toml", first), state) as daemon:
        daemon.converged()
        with Daemon("c1", in_namespace(tmp_path / "2.toml", second), state) as other:
            assert other.end() == 69
        assert (
            f"scope c1 is served by linxd[{daemon.process.pid}] already, in another network namespace"
            in other.text
        )
        assert "192.0.2.1" not in ip(second, "address")
        done = linxctl("release", "c1", "--netns", f"/run/netns/{second}", "--state-dir", str(state))
        assert (done.returncode, done.stdout) == (2, "")
        assert "a linxd serves c1, and knows its namespace: leave --netns out" in done.stderr
        assert daemon.stop() == 0


def test_release_in_the_wrong_namespace_forgets_nothing(
    netns_factory: Callable[[], str], tmp_path: Path
) -> None:
    right, wrong = netns_factory(), netns_factory()
    state = tmp_path / "state"
    with Daemon("c1", in_namespace(tmp_path / "c1.toml", right), state) as daemon:
        daemon.converged()
        assert daemon.stop() == 0
    done = linxctl("release", "c1", "--netns", f"/run/netns/{wrong}", "--state-dir", str(state))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"c1 owns nothing in /run/netns/{wrong}: " in done.stderr
    done = linxctl("release", "c1", "--netns", f"/run/netns/{right}", "--state-dir", str(state))
    assert (done.returncode, done.stdout) == (
        0,
        "- ip address delete 192.0.2.1/32 dev lo\nc1: released, 1 op\n",
    )
