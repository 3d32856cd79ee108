# SPDX-License-Identifier: MIT
"""Others' routes by the hundred thousand: events are lost, and that is counted; one look tells what became
of ours; memory stays what it was.

`LINXD_FLOOD_ROUTES` is how many there are in all; `LINXD_MILLION=1` puts a million beside ten of ours.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.bed import Daemon, Namespace, linxctl, run, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces are made")

ROUTES = int(os.environ.get("LINXD_FLOOD_ROUTES", 100_000))
BURSTS = 4
OURS = [f"192.0.2.{n}" for n in range(1, 11)]
DECLARED = "[link.e0]\nmtu = 1400\n" + "".join(f'[[route]]\nto = "{to}"\ndev = "e0"\n' for to in OURS)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace() as one:
        one.batch(
            ["link set lo up", "link add e0 type veth peer name f0", "link set f0 up", "link set e0 up"]
        )
        yield one


def daemon_of(namespace: Namespace, directory: Path, module: str) -> Daemon:
    file = directory / "scope.toml"
    file.write_text(DECLARED)
    file.chmod(0o600)
    return Daemon(namespace.name, file, directory, module=module).started()


def batch(directory: Path, name: str, verb: str, count: int, first: int = 0) -> str:
    """A file for `ip -batch` about so many foreign routes."""
    path = directory / name
    path.write_text(
        "".join(
            f"route {verb} 10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255} dev lo proto bird table 500\n"
            if n < 1 << 24
            else ""
            for n in range(first, first + count)
        )
    )
    return str(path)


def ours(namespace: Namespace) -> list[str]:
    return sorted(one["dst"] for one in json.loads(namespace.ip("-j", "route", "show", "dev", "e0")))


def test_events_that_are_lost_cost_one_look(namespace: Namespace, tmp_path: Path) -> None:
    each = ROUTES // BURSTS
    add, delete = (batch(tmp_path, verb, verb, each) for verb in ("add", "del"))
    with daemon_of(namespace, tmp_path, "tests.torture.deaf") as daemon:
        memory, fds, cpu, began = daemon.memory(), daemon.fds(), daemon.cpu(), time.monotonic()
        peak = 0
        for number in range(BURSTS):
            flood = namespace.start(f"ip -batch {add}; ip -batch {delete}")
            # Ours goes while nobody can hear it.
            namespace.sh(f"ip route del {OURS[number]}; ip link set e0 mtu 1300; ip route flush dev e0")
            while flood.poll() is None:
                peak = max(peak, daemon.memory())
                time.sleep(0.02)
            until(
                lambda: ours(namespace) == sorted(OURS) and "mtu 1400" in namespace.ip("link", "show", "e0"),
                lambda: f"not healed: {ours(namespace)}\n{daemon.said}",
            )
        until(lambda: daemon.loop("rtnl")["overruns"] >= 1, lambda: str(daemon.word()))
        loop = daemon.loop("rtnl")
        print(
            f"{2 * ROUTES} events in {time.monotonic() - began:.1f} s: {loop['overruns']} overruns, "
            f"{loop['passes']} passes, {daemon.cpu() - cpu:.1f} s of CPU, "
            f"memory {memory >> 20} MB, {peak >> 20} MB at most"
        )
        # Passes follow each other while it goes on, and end with it.
        passes = loop["passes"]
        assert passes <= loop["overruns"] + 20
        assert peak < memory + (48 << 20)
        assert daemon.fds() == fds
        done = linxctl("diff", namespace.name, "--file", str(daemon.file), state=daemon.state)
        assert done.returncode == 0, done.stdout
        assert daemon.stop() == 0
    assert len(daemon.said.splitlines()) < 400


def test_what_is_heard_of_a_flood_is_let_go_by(namespace: Namespace, tmp_path: Path) -> None:
    """With the receive buffer as it is: foreign routes leave no trace, and heals go on."""
    add, delete = (batch(tmp_path, verb, verb, ROUTES // 2) for verb in ("add", "del"))
    with daemon_of(namespace, tmp_path, "linxd.cli.daemon") as daemon:
        memory, cpu = daemon.memory(), daemon.cpu()
        flood = namespace.start(f"ip -batch {add}; ip -batch {delete}")
        rounds = 0
        while flood.poll() is None:
            namespace.ip("route", "del", OURS[rounds % len(OURS)], check=False)
            rounds += 1
            until(
                lambda: ours(namespace) == sorted(OURS),
                lambda: f"not healed: {ours(namespace)}\n{daemon.said}",
            )
            time.sleep(0.2)
        until(
            lambda: ours(namespace) == sorted(OURS), lambda: f"not healed: {ours(namespace)}\n{daemon.said}"
        )
        print(f"{ROUTES} events: {rounds} heals meanwhile, {daemon.cpu() - cpu:.1f} s of CPU")
        assert daemon.memory() < memory + (48 << 20)
        assert daemon.stop() == 0


@pytest.mark.skipif("LINXD_MILLION" not in os.environ, reason="LINXD_MILLION=1 asks for it: a minute, 1 GB")
def test_a_million_foreign_routes_beside_ten_of_ours(namespace: Namespace, tmp_path: Path) -> None:
    add = batch(tmp_path, "add", "add", 1_000_000)
    with daemon_of(namespace, tmp_path, "linxd.cli.daemon") as daemon:
        memory = daemon.memory()
        began = time.monotonic()
        run("ip", "netns", "exec", namespace.name, "timeout", "500", "ip", "-batch", add)
        print(
            f"made in {time.monotonic() - began:.0f} s, memory {memory >> 20} → {daemon.memory() >> 20} MB"
        )
        for to in OURS:
            namespace.ip("route", "del", to)
            until(lambda to=to: to in ours(namespace), lambda: daemon.said)  # type: ignore[misc]
        cpu, began = daemon.cpu(), time.monotonic()
        assert daemon.ask("reload").done
        print(
            f"a look at everything: {time.monotonic() - began:.1f} s, {daemon.cpu() - cpu:.1f} s of CPU, "
            f"heals {daemon.loop('rtnl')['heal_usec']} µs, memory {daemon.memory() >> 20} MB"
        )
        assert ours(namespace) == sorted(OURS)
        assert daemon.memory() < memory + (128 << 20)
        assert daemon.stop() == 0
