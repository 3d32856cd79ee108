# SPDX-License-Identifier: MIT
"""What a container's scope has in the host's namespace: it is kept from the container's loop, touches nobody
else's, and goes with the container, at whatever moment that ends."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from linxd.nswatch import WAIT
from tests.system.bed import Machine
from tests.system.boxes import (
    Box,
    Nspawn,
    address,
    declare,
    eventually,
    host,
    host_end,
    is_gone,
    is_up,
    pulling,
    started,
    state,
    stopped,
    unit_of,
)
from tests.system.follow import PATIENCE, Journal, Lines

KILLS = int(os.environ.get("LINXD_KILLS", "8"))
SEED = int(os.environ.get("LINXD_SEED", "1"))
_numbers = itertools.count(1)


@pytest.fixture(scope="module", autouse=True)
def bridge(machine: Machine) -> Iterator[None]:
    with host(machine):
        yield


@pytest.fixture
def names(machine: Machine) -> Iterator[Callable[[], str]]:
    """Makes names of containers, of which nothing is left when the test ends."""
    made: list[str] = []

    def make() -> str:
        made.append(f"l{next(_numbers)}")
        return made[-1]

    yield make
    for name in made:
        machine.run("rm", "-f", f"/run/linxd/netns/{name}.toml")
        machine.run("systemctl", "stop", unit_of(name))
        machine.run("rm", "-rf", f"/run/linxd-state/{name}")


@pytest.fixture
def name(names: Callable[[], str]) -> str:
    return names()


def pulled_in(machine: Machine, name: str, *, number: int = 1, payload: tuple[str, ...] = ()) -> Box:
    """A container that has its network's unit started."""
    unit = f"pulls-{name}.scope"
    declare(machine, name, netns=f"unit:{unit}", number=number)
    more = {"payload": payload} if payload else {}
    return Box(machine, name, unit=unit, properties=pulling(name), **more)


# -- two on one bridge --------------------------------------------------------------------------------------

ANSWERS = (
    "python3",
    "-c",
    "import socket as s; t = s.create_server(('', 7))\nwhile 1: t.accept()[0].close()",
)
REACHES = "import socket, sys; socket.create_connection((sys.argv[1], 7), 20).close()"


def test_two_containers_on_one_bridge_reach_each_other_and_the_host_and_drift_in_one_is_its_own_affair(
    machine: Machine, names: Callable[[], str]
) -> None:
    one, two = names(), names()
    with (
        Journal(machine) as journal,
        pulled_in(machine, one, number=1, payload=ANSWERS) as first,
        Box(machine, "host", unit="answers.scope", payload=ANSWERS, inside=()),
    ):
        started(journal, one)
        with pulled_in(machine, two, number=2, payload=ANSWERS) as second:
            started(journal, two)
            host_address = "10.7.255.254"
            for where, to in (
                (first, address(2)), (second, address(1)), (first, host_address), (second, host_address)
            ):  # fmt: skip
                inside = ("nsenter", "-t", where.pid, "-n")
                eventually(lambda inside=inside, to=to: machine.do(*inside, "python3", "-c", REACHES, to))
            eventually(lambda: machine.do("python3", "-c", REACHES, address(1)))
            with listening(machine, "-t", second.pid, "-n") as other, listening(machine) as outside:
                for drift in (
                    ("address", "delete", f"{address(1)}/16", "dev", "eth0"),
                    ("route", "delete", "10.7.0.0/16"),
                    ("address", "flush", "dev", "eth0"),
                ):
                    first.ip(*drift)
                    journal.of(unit_of(one), "^.*: restored ") if drift[0] != "route" else None
                assert said(machine, other, "-t", second.pid, "-n") == []
                assert said(machine, outside) == []
            # Its status is written a moment after the journal is.
            eventually(lambda: is_up(machine, one))
            is_up(machine, two)
        stopped(journal, two)
        # The one that is left has noticed nothing.
        eventually(lambda: is_gone(machine, two))
        is_up(machine, one)
        machine.do("python3", "-c", REACHES, address(1))


@contextlib.contextmanager
def listening(machine: Machine, *where: str) -> Iterator[Lines]:
    """`ip monitor` somewhere, when it has said all of what was before."""
    inside = ("nsenter", *where) if where else ()
    with Lines(machine, *inside, "ip", "monitor", "link", "address", "route") as lines:
        lines.heard(lambda number: mark(machine, where, f"203.0.113.{number}"))
        eventually(lambda: settled(machine, where))
        mark(machine, where, "198.18.0.1")
        lines.until(r"local 198\.18\.0\.1 ")
        try:
            yield lines
        finally:
            machine.run(*inside, "ip", "address", "flush", "dev", "lo", "scope", "global")


def said(machine: Machine, lines: Lines, *where: str) -> list[str]:
    """What was heard since, marks aside."""
    mark(machine, where, "198.18.0.2")
    return lines.until(r"198\.18\.0\.2")


def mark(machine: Machine, where: tuple[str, ...], foreign: str) -> None:
    inside = ("nsenter", *where) if where else ()
    machine.do(*inside, "ip", "address", "replace", f"{foreign}/32", "dev", "lo")


def settled(machine: Machine, where: tuple[str, ...]) -> None:
    inside = ("nsenter", *where) if where else ()
    assert "tentative" not in machine.do(*inside, "ip", "address")


# -- the host's end -----------------------------------------------------------------------------------------

END_DRIFTS = (
    ("link", "set", "{end}", "nomaster"),
    ("link", "set", "{end}", "down"),
    ("link", "set", "{end}", "name", "{end}x"),
    ("link", "delete", "{end}"),
)


def test_the_hosts_end_is_healed_from_the_containers_loop(machine: Machine, name: str) -> None:
    end = host_end(name)

    def whole() -> None:
        seen = machine.do("ip", "-o", "link", "show", end)
        assert "master br0" in seen
        assert ",UP" in seen

    with Journal(machine) as journal, pulled_in(machine, name) as container:
        started(journal, name)
        for drift in END_DRIFTS:
            machine.do("ip", *(word.format(end=end) for word in drift))
            journal.of(unit_of(name), "restored ")
            eventually(whole)
            assert address(1) in container.ip("address")
        container.kill()
        stopped(journal, name)
        eventually(lambda: is_gone(machine, name))


def test_the_hosts_bridge_taken_down_and_up_gone_and_back(machine: Machine, name: str) -> None:
    """It is another loop's, or nobody's: the container waits for it, and never touches it."""
    bridge = f"br-{name}"
    machine.do("ip", "link", "add", bridge, "up", "type", "bridge")
    try:
        unit = f"pulls-{name}.scope"
        declare(machine, name, netns=f"unit:{unit}", bridge=bridge)
        with (
            Journal(machine) as journal,
            Box(machine, name, unit=unit, properties=pulling(name)) as container,
        ):
            started(journal, name)
            with listening(machine) as outside:
                machine.do("ip", "link", "set", bridge, "down")
                outside.until(f"{bridge}: .*state DOWN")
            is_up(machine, name)
            assert ",UP" not in machine.do("ip", "-o", "link", "show", bridge)
            machine.do("ip", "link", "set", bridge, "up")
            machine.do("ip", "link", "delete", bridge)
            journal.of(unit_of(name), f"pending.*{bridge}|{bridge}.*pending|degraded")
            machine.do("ip", "link", "add", bridge, "up", "type", "bridge")
            eventually(lambda: is_up(machine, name))
            assert f"master {bridge}" in machine.do("ip", "link", "show", host_end(name))
            assert address(1) in container.ip("address")
    finally:
        machine.run("ip", "link", "delete", bridge)


def test_a_parent_of_the_hosts_taken_down_and_up_gone_and_back(machine: Machine, name: str) -> None:
    parent, unit = f"p-{name}", f"pulls-{name}.scope"
    made = machine.run("ip", "link", "add", "probe", "link", "br0", "type", "macvlan")
    if made.returncode:
        pytest.skip(f"the kernel has no macvlan: {made.stderr}")
    machine.do("ip", "link", "delete", "probe")

    def add() -> None:
        machine.do("ip", "link", "add", parent, "up", "type", "bridge")

    add()
    try:
        machine.write(
            f"/run/linxd/netns/{name}.toml",
            f'[scope]\nnetns = "unit:{unit}"\n[link.eth0]\nkind = "macvlan"\nparent = "host:{parent}"\n'
            f'mode = "bridge"\naddresses = ["{address(1)}/16"]\n',
        )
        with (
            Journal(machine) as journal,
            Box(machine, name, unit=unit, properties=pulling(name)) as container,
        ):
            started(journal, name)
            is_up(machine, name)
            machine.do("ip", "link", "set", parent, "down")
            machine.do("ip", "link", "set", parent, "up")
            eventually(lambda: is_up(machine, name))
            machine.do("ip", "link", "delete", parent)
            journal.of(unit_of(name), parent)
            assert state(machine, unit_of(name)) == "active"
            add()
            eventually(lambda: is_up(machine, name))
            assert address(1) in container.ip("address", "show", "dev", "eth0")
            container.kill()
            stopped(journal, name)
        assert parent in machine.do("ip", "link", "show", parent)
    finally:
        machine.run("ip", "link", "delete", parent)


# -- killed at any moment -----------------------------------------------------------------------------------


def nspawned(machine: Machine, name: str) -> Nspawn:
    """The same by systemd-nspawn, which is killed with it."""
    declare(machine, name, netns=f"unit:machine-{name}.scope")
    return Nspawn(machine, name, properties=pulling(name))


@pytest.mark.parametrize("way", ["scope", "nspawn"])
def test_a_container_that_is_killed_at_any_moment_of_its_first_pass_leaves_nothing(
    machine: Machine, names: Callable[[], str], way: str
) -> None:
    """Moments are drawn from the time that a start takes, and more of them from the end, where it writes."""
    pulled = {"scope": pulled_in, "nspawn": nspawned}[way]
    before = host_links(machine)
    rng = random.Random(SEED)
    name = names()
    with Journal(machine) as journal, pulled(machine, name) as container:
        begun = time.monotonic()
        started(journal, name)
        whole = time.monotonic() - begun
        container.kill()
        stopped(journal, name)
    for _ in range(KILLS):
        name = names()
        # Before that, nothing is begun: somebody waits for a namespace, as when there is no container yet.
        moment = whole * (1 - 0.8 * rng.random() ** 2)
        with pulled(machine, name) as container:
            # No event to be waited for: the moment is to be any.
            threading.Event().wait(moment)
            machine.run("systemctl", "kill", "--signal=KILL", container.unit)
            machine.run("systemctl", "kill", "--signal=KILL", container.unit)
            if way == "scope":
                container.ended()
        # One that ended before anybody knew whose network it is to be is waited for: a minute at most.
        eventually(lambda name=name: is_stopped(machine, name), seconds=PATIENCE + WAIT)
        assert host_links(machine) == before
    assert machine.do("systemctl", "--failed", "--plain", "--no-legend", "list-units", "linx*") == ""


def is_stopped(machine: Machine, name: str) -> None:
    now = state(machine, unit_of(name))
    said = (
        "" if now != "failed" else machine.do("journalctl", "--no-pager", "-n30", f"--unit=linx-*@{name}.*")
    )
    assert now == "inactive", said
    is_gone(machine, name)


def host_links(machine: Machine) -> list[str]:
    return [line.split()[0] for line in machine.do("ip", "-br", "link").splitlines()]


# -- the rules between files --------------------------------------------------------------------------------


def test_the_rules_between_files_hold_at_a_reload_and_at_a_start(
    machine: Machine, names: Callable[[], str]
) -> None:
    one, two = names(), names()
    drop_in = "/run/linxd/host.toml.d/names.toml"
    try:
        with Journal(machine) as journal, pulled_in(machine, one) as container:
            started(journal, one)
            # The host's file comes to name what is the container's: that one is refused, the host's is not.
            machine.write(drop_in, f"[link.{host_end(one)}]\nmtu = 1400\n")
            machine.do("systemctl", "reload", "linxd.service")
            warned = journal.of("linxd.service", "must not depend on a container")["MESSAGE"]
            assert f"{drop_in}:1" in warned
            assert f"{one} is refused while this stands here" in warned
            assert machine.run("systemctl", "reload", unit_of(one)).returncode != 0
            refused = journal.of(unit_of(one), "reload failed, what was active stays active")["MESSAGE"]
            assert f'the host\'s own file names "{host_end(one)}"' in refused
            assert "say here what the end needs: peer = { master = … }" in refused
            machine.do("ip", "link", "set", host_end(one), "nomaster")
            journal.of(unit_of(one), "restored ")
            assert state(machine, unit_of(one)) == "active"
            # Another container wants to hang on it.
            machine.write(
                f"/run/linxd/netns/{two}.toml",
                f'[scope]\nnetns = "unit:{container.unit}"\n'
                f'[link.eth0]\nkind = "macvlan"\nparent = "host:{host_end(one)}"\n',
            )
            assert machine.run("systemctl", "start", unit_of(two)).returncode != 0
            assert state(machine, unit_of(two), "ExecMainStatus") == "78"
            refused = journal.of(unit_of(two), "does not load")["MESSAGE"]
            assert "references go one way, from a container to the host" in refused
    finally:
        machine.run("rm", "-f", drop_in)
        machine.run("systemctl", "reload", "linxd.service")
        machine.run("systemctl", "reset-failed", unit_of(two))
