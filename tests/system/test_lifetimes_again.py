# SPDX-License-Identifier: MIT
"""Containers that end and begin again at once, when their scope's daemon still runs, ends or starts: systemd
looks once at what a unit wants, as that starts, and each of them has to have its network all the same."""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Iterator

import pytest

from tests.system.bed import Machine
from tests.system.boxes import (
    LIVES,
    Nspawn,
    address,
    declare,
    eventually,
    host,
    host_end,
    is_gone,
    is_up,
    payload_of,
    pulling,
    started,
    state,
    stopped,
    unit_of,
)
from tests.system.follow import Journal

KILLS = int(os.environ.get("LINXD_KILLS", "8"))
SEED = int(os.environ.get("LINXD_SEED", "1"))
_numbers = itertools.count(1)


@pytest.fixture(scope="module", autouse=True)
def bridge(machine: Machine) -> Iterator[None]:
    with host(machine):
        yield


@pytest.fixture
def name(machine: Machine) -> Iterator[str]:
    name = f"again{next(_numbers)}"
    yield name
    machine.run("systemctl", "kill", "--signal=KILL", f"{name}.scope")
    machine.run("systemctl", "stop", f"{name}.service", unit_of(name))
    machine.run("rm", "-rf", f"/run/linxd/netns/{name}.toml", f"/run/linxd-state/{name}")
    machine.run("rm", "-rf", f"/run/systemd/system/{name}.service", f"/run/systemd/system/{unit_of(name)}.d")
    machine.do("systemctl", "daemon-reload")
    machine.run("systemctl", "reset-failed", f"linx-*@{name}.*")


def service(machine: Machine, name: str, *more: str) -> str:
    """A container that is a service with a file, which pulls its network in."""
    declare(machine, name, netns=f"unit:{name}.service")
    wants = "\n".join(word.removeprefix("--property=") for word in pulling(name))
    lines = "\n".join(("PrivateNetwork=yes", "ExecStart=/bin/sleep infinity", *more))
    machine.write(
        f"/run/systemd/system/{name}.service",
        f"[Unit]\n{wants}\nStartLimitIntervalSec=0\n[Service]\n{lines}\n",
    )
    machine.do("systemctl", "daemon-reload")
    return f"{name}.service"


def serves(machine: Machine, name: str, unit: str) -> None:
    """Fails unless what runs in the unit now has its network."""
    is_up(machine, name)
    pid = payload_of(machine, unit)
    assert address(1) in machine.do("nsenter", "-t", pid, "-n", "ip", "-o", "address", "show", "dev", "eth0")


def test_a_service_that_is_restarted_has_its_network_again(machine: Machine, name: str) -> None:
    """What it wants is started along with the restart, and runs then already: for the life before."""
    unit = service(machine, name)
    machine.do("systemctl", "start", unit)
    eventually(lambda: serves(machine, name, unit))
    for _ in range(3):
        machine.do("systemctl", "restart", unit)
        eventually(lambda: serves(machine, name, unit))
    machine.do("systemctl", "stop", unit)
    eventually(lambda: is_gone(machine, name))


SLOW = ("ExecStartPre=/bin/sleep 0.5", "ExecStop=/bin/sh -c 'kill $MAINPID; sleep 0.5'")


def test_a_service_that_takes_its_time_to_end_and_to_start_has_its_network_again(
    machine: Machine, name: str
) -> None:
    unit = service(
        machine, name, "ExecStartPre=/bin/sleep 0.5", "ExecStop=/bin/sh -c 'kill $MAINPID; sleep 0.5'"
    )
    machine.do("systemctl", "start", unit)
    for _ in range(2):
        eventually(lambda: serves(machine, name, unit))
        machine.do("systemctl", "restart", unit)
    eventually(lambda: serves(machine, name, unit))
    machine.do("systemctl", "stop", unit)
    eventually(lambda: is_gone(machine, name))


def test_a_service_that_systemd_starts_again_has_its_network_again(machine: Machine, name: str) -> None:
    unit = service(machine, name, "Restart=always", "RestartSec=0")
    machine.do("systemctl", "start", unit)
    for _ in range(3):
        eventually(lambda: serves(machine, name, unit))
        machine.do("systemctl", "kill", "--signal=KILL", unit)
    eventually(lambda: serves(machine, name, unit))
    machine.do("systemctl", "stop", unit)
    eventually(lambda: is_gone(machine, name))


def test_who_stops_a_network_by_hand_that_was_pulled_in_wants_it_stopped(
    machine: Machine, name: str
) -> None:
    unit = service(machine, name)
    with Journal(machine) as journal:
        machine.do("systemctl", "start", unit)
        started(journal, name)
        machine.do("systemctl", "stop", unit_of(name))
        stopped(journal, name)
        assert state(machine, unit_of(name)) == "inactive"
        assert state(machine, unit_of(name), "Job") in ("", "0")
        # In its next life the container has it again.
        machine.do("systemctl", "restart", unit)
        started(journal, name)
    eventually(lambda: serves(machine, name, unit))


def test_containers_that_come_and_go_are_no_daemon_that_crashes(machine: Machine, name: str) -> None:
    """However often that is, the unit is started; a daemon that crashes as often is given up."""
    unit = service(machine, name)
    machine.write(
        f"/run/systemd/system/{unit_of(name)}.d/limit.conf",
        "[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=3\n",
    )
    machine.do("systemctl", "daemon-reload")
    for _ in range(5):
        machine.do("systemctl", "start", unit)
        eventually(lambda: serves(machine, name, unit))
        machine.do("systemctl", "stop", unit)
        eventually(lambda: is_gone(machine, name))
    machine.do("systemctl", "start", unit)
    with Journal(machine) as journal:
        for _ in range(3):
            eventually(lambda: serves(machine, name, unit))
            machine.do("systemctl", "kill", "--signal=KILL", unit_of(name))
            journal.of(unit_of(name), "Failed with result 'signal'")
        eventually(lambda: given_up(machine, name))


def given_up(machine: Machine, name: str) -> None:
    assert state(machine, unit_of(name)) == "failed"


AGAIN = """
import os, subprocess, sys
unit, *words = sys.argv[1:]
quiet = {"stdin": -3, "stdout": -3, "stderr": -3}
command = ("systemd-run", "--quiet", "--scope", f"--unit={unit}", *words)
subprocess.run(("systemctl", "kill", "--signal=KILL", unit), **quiet)
read, write = os.pipe()
os.set_inheritable(write, True)
while True:
    # Refused for as long as there is one of that name: then the pipe is closed, and nothing was said.
    script = f"echo >&{write}; exec {write}>&- unshare --net sleep infinity"
    subprocess.Popen((*command, "sh", "-c", script), close_fds=False, start_new_session=True, **quiet)
    os.close(write)
    if os.read(read, 1):
        break
    read, write = os.pipe()
    os.set_inheritable(write, True)
"""


def test_a_scope_that_is_killed_and_comes_again_at_once_at_any_moment_has_its_network_in_the_end(
    machine: Machine, name: str
) -> None:
    """Moments are drawn from some more time than a start takes."""
    unit = f"{name}.scope"
    declare(machine, name, netns=f"unit:{unit}")
    rng = random.Random(SEED)
    for _ in range(KILLS):
        for _ in range(rng.choice((1, 1, 2, 5))):
            machine.do("python3", "-c", AGAIN, unit, *pulling(name))
            # No event to be waited for: the moment is to be any.
            threading.Event().wait(rng.choice((0.0, 0.05, 0.3, 1.0, 3.0)) * rng.random())
        eventually(lambda: serves(machine, name, unit))
    machine.do("systemctl", "kill", "--signal=KILL", unit)
    eventually(lambda: is_gone(machine, name))
    assert machine.do("systemctl", "--failed", "--plain", "--no-legend", "list-units", "linx*") == ""


def test_a_scope_in_a_named_namespace_that_comes_again_at_once_is_looked_after(
    machine: Machine, name: str
) -> None:
    """The namespace stays, the daemon does not: the end of the scope stops it, and the next one has to have
    it started again, whether it waits for that or not."""
    unit = f"{name}.scope"
    declare(machine, name)
    machine.do("ip", "netns", "add", name)
    try:
        for more in ((), (f"--property=After={unit_of(name)}",)):
            for _ in range(3):
                machine.do("python3", "-c", AGAIN, unit, *pulling(name), *more)
                eventually(lambda: is_up(machine, name))
            machine.do("systemctl", "stop", unit_of(name))
            assert state(machine, unit_of(name)) == "inactive"
            machine.do("systemctl", "kill", "--signal=KILL", unit)
        eventually(lambda: not_running(machine, name))
    finally:
        machine.run("ip", "netns", "delete", name)


def not_running(machine: Machine, name: str) -> None:
    assert state(machine, unit_of(name)) == "inactive"


def test_a_daemon_that_was_started_without_its_way_to_the_host_is_started_again(
    machine: Machine, name: str
) -> None:
    """As by a scope that begins while the socket of its last life is being stopped."""
    declare(machine, name)
    machine.do("ip", "netns", "add", name)
    try:
        machine.do("ln", "-s", f"/run/netns/{name}", f"/run/linxd-netns/{name}")
        with Journal(machine) as journal:
            machine.do("systemctl", "start", "--job-mode=ignore-dependencies", unit_of(name))
            journal.of(unit_of(name), "without its way to the host's links, and is started again")
            eventually(lambda: is_up(machine, name))
        assert "master br0" in machine.do("ip", "link", "show", host_end(name))
        machine.do("ip", "netns", "delete", name)
        eventually(lambda: is_gone(machine, name))
    finally:
        machine.run("ip", "netns", "delete", name)


REBOOTS = (
    "python3",
    "-c",
    "import ctypes, signal\nreboot = lambda *_: ctypes.CDLL(None).reboot(0x1234567)\n"
    "signal.signal(signal.SIGUSR1, reboot)\nwhile True: signal.pause()",
)
"""Process 1 of a machine, which systemd-nspawn starts again when told so, in another namespace."""


def test_a_machine_that_reboots_has_its_network_again(machine: Machine, name: str) -> None:
    unit = f"machine-{name}.scope"
    declare(machine, name, netns=f"unit:{unit}")
    with Nspawn(machine, name, properties=pulling(name), payload=REBOOTS):
        for _ in range(3):
            eventually(lambda: serves(machine, name, unit))
            before = payload_of(machine, unit)
            machine.do("kill", "-USR1", before)
            eventually(lambda before=before: is_another(machine, unit, before))
        eventually(lambda: serves(machine, name, unit))
    eventually(lambda: is_gone(machine, name))


def is_another(machine: Machine, unit: str, before: str) -> None:
    assert payload_of(machine, unit) != before


def test_a_machine_that_is_killed_and_started_again_at_once_has_its_network_again(
    machine: Machine, name: str
) -> None:
    unit = f"machine-{name}.scope"
    declare(machine, name, netns=f"unit:{unit}")
    for _ in range(3):
        with Nspawn(machine, name, properties=pulling(name), payload=LIVES) as container:
            eventually(lambda: serves(machine, name, unit))
            container.kill()
            container.ended()
    eventually(lambda: is_gone(machine, name))
