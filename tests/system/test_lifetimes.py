# SPDX-License-Identifier: MIT
"""Networks that come and go with their containers, under a real systemd: systemd-nspawn's machines, and
processes in scopes as other managers make them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.system.bed import Machine
from tests.system.boxes import (
    ATTACH,
    LIVES,
    Box,
    Nspawn,
    address,
    declare,
    declared,
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
from tests.system.follow import Journal, Lines

_numbers = itertools.count(1)

WAYS = ("scope that pulls it in", "nspawn that pulls it in", "scope that is found", "nspawn that is found")


@pytest.fixture(scope="module", autouse=True)
def bridge(machine: Machine) -> Iterator[None]:
    with host(machine, ATTACH):
        yield


@pytest.fixture
def names(machine: Machine) -> Iterator[Callable[[str], str]]:
    """Makes names of containers, of which nothing is left when the test ends."""
    made: list[str] = []

    def make(prefix: str = "t") -> str:
        made.append(f"{prefix}{next(_numbers)}")
        return made[-1]

    yield make
    for name in made:
        machine.run("rm", "-f", f"/run/linxd/netns/{name}.toml")
        machine.run("systemctl", "stop", unit_of(name))
        machine.run("ip", "netns", "delete", name)
        machine.run("rm", "-rf", f"/run/linxd-state/{name}")


@pytest.fixture
def name(names: Callable[[str], str]) -> str:
    return names("t")


def box(machine: Machine, name: str, way: str, *, payload: Sequence[str] = LIVES, number: int = 1) -> Box:
    """A container whose namespace has no name."""
    pulled = way.endswith("pulls it in")
    properties = pulling(name) if pulled else ()
    if way.startswith("nspawn"):
        declare(machine, name, netns=f"unit:machine-{name}.scope", number=number)
        return Nspawn(machine, name, properties=properties, payload=payload)
    unit = f"{'pulls' if pulled else 'found'}-{name}.scope"
    declare(machine, name, netns=f"unit:{unit}", number=number)
    return Box(machine, name, unit=unit, properties=properties, payload=payload)


# -- with its container -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_network_is_there_exactly_while_its_container_lives(
    machine: Machine, names: Callable[[str], str], way: str
) -> None:
    name = names("found" if way == "nspawn that is found" else "t")
    # Each begins anew: of the one before nothing is left.
    for end in ("stopped", "killed", "by itself"):
        with Journal(machine) as journal, box(machine, name, way) as container:
            started(journal, name)
            is_up(machine, name)
            assert address(1) in container.ip("-o", "address", "show", "dev", "eth0")
            assert "master br0" in machine.do("ip", "link", "show", host_end(name))
            match end:
                case "stopped":
                    container.stop()
                case "killed":
                    container.kill()
                case "by itself":
                    machine.do("kill", "-KILL", container.pid)
            stopped(journal, name)
            eventually(lambda: is_gone(machine, name))
        assert state(machine, unit_of(name), "Result") == "success"
    assert machine.do("systemctl", "--failed", "--plain", "--no-legend", "list-units", "linx*") == ""


# -- restarts, with the namespace pinned by the container, and by something else ----------------------------


@contextlib.contextmanager
def listening(machine: Machine, name: str) -> Iterator[Lines]:
    """`ip monitor` in a named namespace, when it has said all of what was before."""
    with Lines(machine, "ip", "-n", name, "monitor", "link", "address", "route", "neigh") as lines:
        lines.heard(lambda number: mark(machine, name, f"203.0.113.{number}"))
        # The kernel looks for others with a link's own address first, and says when it has found none.
        eventually(lambda: settled(machine, name))
        mark(machine, name, "198.18.0.1")
        lines.until(r"local 198\.18\.0\.1 ")
        yield lines


def settled(machine: Machine, name: str) -> None:
    assert "tentative" not in machine.do("ip", "-n", name, "address")


def mark(machine: Machine, name: str, address: str) -> None:
    """Something foreign, to be heard of."""
    machine.do("ip", "-n", name, "address", "add", f"{address}/32", "dev", "lo")


@pytest.mark.parametrize("end", ["stopped", "killed"])
@pytest.mark.parametrize("holder", ["a name", "a pause process"])
def test_a_namespace_that_outlives_its_container_is_entered_again_and_nothing_is_written(
    machine: Machine, name: str, holder: str, end: str
) -> None:
    machine.do("ip", "netns", "add", name)
    with contextlib.ExitStack() as stack:
        stack.callback(machine.run, "ip", "netns", "delete", name)
        netns = f"/run/netns/{name}"
        inside = ("nsenter", f"--net={netns}")
        if holder == "a pause process":
            pause = stack.enter_context(Box(machine, name, unit=f"pause-{name}.scope", inside=inside))
            eventually(lambda: pause.pid)
            netns = f"unit:pause-{name}.scope"
        declare(machine, name, netns=netns)
        # The payload begins when its network is READY.
        properties = (*pulling(name), f"--property=After={unit_of(name)}")

        def begin() -> Box:
            return Box(machine, name, unit=f"pulls-{name}.scope", properties=properties, inside=inside)

        journal = stack.enter_context(Journal(machine))
        with begin() as container:
            started(journal, name)
            eventually(lambda: container.pid)
            monitor = stack.enter_context(listening(machine, name))
            container.stop() if end == "stopped" else container.kill()
            stopped(journal, name)
        # What was declared stays, as do the routes that hang on it.
        assert address(1) in machine.do("ip", "-n", name, "address")
        assert "10.7.0.0/16" in machine.do("ip", "-n", name, "route")
        with begin():
            started(journal, name)
            is_up(machine, name)
            mark(machine, name, "198.18.0.2")
            assert monitor.until(r"198\.18\.0\.2") == []
        stopped(journal, name)
    eventually(lambda: is_gone(machine, name))


def test_a_supervisor_that_begins_its_payload_anew_has_the_new_one_kept_too(
    machine: Machine, name: str
) -> None:
    """The unit lives on, and so does nothing of the first namespace: as when systemd-nspawn reboots."""
    unit = f"pulls-{name}.scope"
    declare(machine, name, netns=f"unit:{unit}")
    payload = ("sh", "-c", "while :; do unshare --net sleep infinity; done")
    with (
        Journal(machine) as journal,
        Box(machine, name, unit=unit, properties=pulling(name), payload=payload, inside=()) as container,
    ):
        for _ in range(2):
            started(journal, name)
            is_up(machine, name)
            assert address(1) in container.ip("-o", "address", "show", "dev", "eth0")
            machine.do("kill", "-KILL", container.pid)
            journal.of(unit_of(name), "has left its namespace and runs on")
        started(journal, name)
        container.stop()
        stopped(journal, name)
        eventually(lambda: is_gone(machine, name))


def test_a_process_that_leaves_others_in_its_namespace_does_not_end_it(machine: Machine, name: str) -> None:
    unit = f"pulls-{name}.scope"
    declare(machine, name, netns=f"unit:{unit}")
    payload = ("sh", "-c", "sleep infinity & exec sleep infinity")
    with (
        Journal(machine) as journal,
        Box(machine, name, unit=unit, properties=pulling(name), payload=payload) as container,
    ):
        started(journal, name)
        before = state(machine, unit_of(name), "MainPID")
        machine.do("kill", "-KILL", container.pid)
        machine.do("nsenter", "-t", container.pid, "-n", "ip", "address", "flush", "dev", "eth0")
        journal.of(unit_of(name), "restored address")
        assert state(machine, unit_of(name), "MainPID") == before
        machine.do("kill", "-KILL", container.pid)
        stopped(journal, name)
        eventually(lambda: is_gone(machine, name))


def test_a_container_that_ends_while_its_namespace_is_waited_for_leaves_nobody_waiting(
    machine: Machine, name: str
) -> None:
    unit = f"pulls-{name}.scope"
    declare(machine, name, netns=f"unit:{unit}")
    # No namespace of its own, for now.
    with (
        Journal(machine) as journal,
        Box(machine, name, unit=unit, properties=pulling(name), inside=()) as container,
    ):
        journal.of(unit_of(name), "waits for unit:")
        assert state(machine, f"linx-netns@{name}.service", "StatusText").startswith("waits for unit:")
        container.kill()
        journal.of(unit_of(name), f"and {unit} has ended")
        eventually(lambda: is_gone(machine, name))
    assert machine.do("systemctl", "--failed", "--plain", "--no-legend", "list-units", "linx*") == ""


def test_a_container_that_ends_before_it_was_asked_who_wants_its_network_leaves_nobody_waiting(
    machine: Machine, names: Callable[[str], str]
) -> None:
    """Nobody can tell any more who that was: systemd has forgotten the scope."""
    ended = [names("t") for _ in range(5)]
    with Journal(machine) as journal:
        for name in ended:
            unit = f"pulls-{name}.scope"
            declare(machine, name, netns=f"unit:{unit}")
            machine.do("systemd-run", "--quiet", "--scope", f"--unit={unit}", *pulling(name), "true")
            journal.of(unit_of(name), f"and {unit} has ended")
            eventually(lambda name=name: is_gone(machine, name))
    assert machine.do("systemctl", "--failed", "--plain", "--no-legend", "list-units", "linx*") == ""


def test_who_starts_a_network_by_hand_has_it_wait_for_its_container(machine: Machine, name: str) -> None:
    unit = f"pulls-{name}.scope"
    declare(machine, name, netns=f"unit:{unit}")
    with Journal(machine) as journal:
        # Of a container that was stopped while its namespace was waited for, nothing is remembered.
        with Box(machine, name, unit=unit, properties=pulling(name), inside=()) as container:
            journal.of(unit_of(name), "waits for unit:")
            container.stop()
            eventually(lambda: is_gone(machine, name))
        machine.do("systemctl", "start", "--no-block", unit_of(name))
        journal.of(unit_of(name), "waits for unit:")
        with Box(machine, name, unit=unit, properties=pulling(name)):
            started(journal, name)
            is_up(machine, name)
        stopped(journal, name)
        eventually(lambda: is_gone(machine, name))


def write_slowly(machine: Machine, path: str, text: str) -> None:
    """Line by line, as somebody does who has to work them out."""
    script = 'while read -r line; do echo "$line"; sleep 0.1; done > "$1"'
    machine.do("sh", "-c", script, "sh", path, stdin=text)


# -- linxd.service, which need not be there -----------------------------------------------------------------


def found(machine: Machine, name: str, *, number: int = 1) -> Box:
    return box(machine, name, "scope that is found", number=number)


def pids(machine: Machine, names: Sequence[str]) -> list[str]:
    return [state(machine, unit_of(name), "MainPID") for name in names]


def test_what_began_and_ended_while_linxd_service_was_down_is_caught_up_with(
    machine: Machine, names: Callable[[str], str]
) -> None:
    staying, ending, coming, again = ([names("t") for _ in range(count)] for count in (2, 4, 4, 2))
    # Of one that ends the namespace stays, so that nothing but its end can end its unit.
    held = ending[0]
    machine.do("ip", "netns", "add", held)
    boxes: dict[str, Box] = {}

    def begin(name: str, number: int) -> None:
        if name == held:
            declare(machine, name, number=number)
            boxes[name] = stack.enter_context(
                Box(machine, name, inside=("nsenter", f"--net=/run/netns/{name}"))
            )
        else:
            boxes[name] = stack.enter_context(found(machine, name, number=number))

    with contextlib.ExitStack() as stack:
        first = [*staying, *ending, *again]
        for number, name in enumerate(first, 1):
            begin(name, number)
        for name in first:
            eventually(lambda name=name: is_up(machine, name))
        running = pids(machine, staying)
        machine.do("systemctl", "stop", "linxd.service")
        for name in (*ending, *again):
            boxes[name].kill()
            boxes[name].ended()
        for number, name in enumerate((*coming, *again), 20):
            begin(name, number)
        # Nobody has noticed: one scope is held by its name, and of those that came none has begun.
        assert state(machine, unit_of(held)) == "active"
        assert {state(machine, unit_of(name)) for name in coming} == {"inactive"}
        machine.do("systemctl", "start", "linxd.service")
        for name in (*coming, *again):
            eventually(lambda name=name: is_up(machine, name))
        eventually(lambda: not_active(machine, held))
        for name in ending[1:]:
            eventually(lambda name=name: is_gone(machine, name))
        assert pids(machine, staying) == running
        for name in staying:
            is_up(machine, name)


def not_active(machine: Machine, name: str) -> None:
    assert state(machine, unit_of(name)) == "inactive"


def test_who_stops_a_scope_by_hand_wants_it_stopped(machine: Machine, name: str) -> None:
    with Journal(machine) as journal:
        with found(machine, name):
            started(journal, name)
            machine.do("systemctl", "stop", unit_of(name))
            machine.do("systemctl", "restart", "linxd.service")
            # Something else that is found, by whoever looks then.
            other = f"{name}b"
            with found(machine, other, number=2):
                started(journal, other)
            machine.do("rm", f"/run/linxd/netns/{other}.toml")
            assert state(machine, unit_of(name)) == "inactive"
        # The next one is another matter.
        eventually(lambda: left_alone(machine, name))
        with found(machine, name):
            started(journal, name)


def left_alone(machine: Machine, name: str) -> None:
    assert name not in machine.do("cat", "/run/linxd-state/host/attach.json")


@pytest.mark.parametrize("what", ["dbus.service", "systemd", "daemon-reload", "linxd.service"])
def test_units_are_followed_after_a_restart_of(
    machine: Machine, names: Callable[[str], str], what: str
) -> None:
    staying, coming = names("t"), names("t")
    with Journal(machine) as journal, found(machine, staying) as container:
        started(journal, staying)
        before = pids(machine, [staying])
        match what:
            case "systemd":
                machine.do("systemctl", "daemon-reexec")
            case "daemon-reload":
                machine.do("systemctl", "daemon-reload")
            case _:
                machine.do("systemctl", "restart", what)
        with found(machine, coming, number=2):
            started(journal, coming)
            assert pids(machine, [staying]) == before
            container.kill()
            stopped(journal, staying)
            eventually(lambda: is_gone(machine, staying))
            is_up(machine, coming)
        stopped(journal, coming)


def test_a_rule_that_comes_with_a_reload_finds_what_runs(machine: Machine, name: str) -> None:
    declare(machine, name, netns=f"unit:late-{name}.scope")
    file = "/run/linxd/host.toml.d/late.toml"
    with Journal(machine) as journal, Box(machine, name, unit=f"late-{name}.scope") as container:
        machine.write(file, '[[attach]]\nunit = "late-(?P<name>.+)\\\\.scope"\nscope = "{name}"\n')
        machine.do("systemctl", "reload", "linxd.service")
        started(journal, name)
        # The rule goes, and what was begun by it is seen to its end all the same.
        machine.do("rm", file)
        machine.do("systemctl", "reload", "linxd.service")
        container.kill()
        journal.of("linxd.service", f"late-{name}.scope has ended")
        stopped(journal, name)
        eventually(lambda: is_gone(machine, name))


def test_a_service_that_is_restarted_is_another_container(machine: Machine, name: str) -> None:
    unit = f"found-{name}.service"
    declare(machine, name, netns=f"unit:{unit}")
    with Journal(machine) as journal:
        again = ("--property=Restart=always", "--property=RestartSec=0", "--property=StartLimitBurst=100")
        network = "--property=PrivateNetwork=yes"
        machine.do("systemd-run", "--quiet", f"--unit={unit}", *again, network, "sleep", "infinity")
        try:
            started(journal, name)
            for _ in range(2):
                machine.do("systemctl", "kill", "--signal=KILL", unit)
                started(journal, name)
                is_up(machine, name)
            machine.do("systemctl", "stop", unit)
            stopped(journal, name)
            eventually(lambda: is_gone(machine, name))
        finally:
            machine.run("systemctl", "stop", unit)


def test_without_a_file_nothing_begins(machine: Machine, names: Callable[[str], str]) -> None:
    undeclared, masked, known = names("t"), names("t"), names("t")
    machine.do("ln", "-s", "/dev/null", f"/run/linxd/netns/{masked}.toml")
    with (
        Journal(machine) as journal,
        Box(machine, undeclared),
        Box(machine, masked),
        found(machine, known),
    ):
        started(journal, known)
        for name in (undeclared, masked):
            assert state(machine, unit_of(name)) == "inactive"
            left_alone(machine, name)
        # One that is written later counts as soon as it is written to its end.
        text = declared(undeclared, netns=f"unit:found-{undeclared}.scope", number=2)
        write_slowly(machine, f"/run/linxd/netns/{undeclared}.toml", text)
        started(journal, undeclared)
        is_up(machine, undeclared)
        # What masked the other goes, and a link to a file comes.
        elsewhere = f"/run/linxd/{masked}.is"
        machine.write(elsewhere, declared(masked, netns=f"unit:found-{masked}.scope", number=3))
        machine.do("ln", "-sfn", elsewhere, f"/run/linxd/netns/{masked}.toml")
        started(journal, masked)
        machine.do("rm", elsewhere)
        said = machine.do(
            "journalctl", "--no-pager", "-o", "cat", "-p", "warning", f"LINX_SCOPE={undeclared}"
        )
        assert said == ""


def test_files_count_whose_directory_comes_after_their_container(machine: Machine, name: str) -> None:
    machine.do("rm", "-r", "/etc/linxd")
    with Journal(machine) as journal, Box(machine, name):
        # Nobody has looked at a unit before that was heard of after it.
        with found(machine, other := f"{name}b"):
            started(journal, other)
        text = declared(name, netns=f"unit:found-{name}.scope")
        machine.write(f"/etc/linxd/netns/{name}.toml", text)
        try:
            started(journal, name)
        finally:
            machine.do("rm", f"/etc/linxd/netns/{name}.toml", f"/run/linxd/netns/{other}.toml")
