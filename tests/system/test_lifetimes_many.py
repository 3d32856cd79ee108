# SPDX-License-Identifier: MIT
"""Containers that come and go all day, and many at once: nothing is left behind by any of them.

``LINXD_CYCLES`` and ``LINXD_SCOPES`` say how many."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.system.bed import Machine
from tests.system.boxes import (
    ATTACH,
    address,
    declare_all,
    eventually,
    host,
    host_end,
    is_gone,
    state,
    unit_of,
)
from tests.system.follow import PATIENCE

CYCLES = int(os.environ.get("LINXD_CYCLES", "50"))
SCOPES = int(os.environ.get("LINXD_SCOPES", "20"))
TOGETHER = 10
"""Containers that start and end together in one round of cycles."""
GROWTH = 1024
"""KiB by which linxd.service may have grown over all cycles: what an allocator keeps in hand."""


@pytest.fixture(scope="module", autouse=True)
def bridge(machine: Machine) -> Iterator[None]:
    with host(machine, ATTACH):
        yield


BEGIN = """
for name; do
  systemd-run --quiet --scope --unit=found-$name.scope unshare --net sleep infinity >/dev/null 2>&1 &
done
"""


def begin(machine: Machine, names: list[str]) -> None:
    machine.do("sh", "-c", f"{{ {BEGIN} }} </dev/null >/dev/null 2>&1", "sh", *names)


def end(machine: Machine, names: list[str], *, kill: bool) -> None:
    units = [f"found-{name}.scope" for name in names]
    if kill:
        machine.run("systemctl", "kill", "--signal=KILL", *units)
    else:
        machine.do("systemctl", "stop", *units)


def all_are_up(machine: Machine, names: list[str]) -> None:
    units = [unit_of(name) for name in names]
    said = machine.do("systemctl", "show", "-P", "StatusText", *units).split("\n\n")
    assert [line for line in map(str.strip, said) if not line.startswith("converged: ")] == []
    assert set(machine.do("systemctl", "is-active", *units).split()) == {"active"}
    links = machine.do("ip", "-o", "link", "show", "master", "br0")
    assert [name for name in names if f" {host_end(name)}@" not in links] == []


def all_are_gone(machine: Machine, names: list[str]) -> None:
    assert machine.do("ip", "-o", "link", "show", "master", "br0") == ""
    left = machine.do("systemctl", "list-units", "--all", "--plain", "--no-legend", "linx-*@*")
    assert [line for line in left.splitlines() if " inactive " not in line] == []
    for name in names[:3]:
        is_gone(machine, name)


def what_there_is(machine: Machine) -> dict[str, object]:
    """All that a cycle might leave behind."""
    pid = state(machine, "linxd.service", "MainPID")

    def lines(*words: str) -> list[str]:
        return sorted(machine.do(*words).splitlines())

    return {
        "processes": lines("ps", "-eo", "comm="),
        "namespaces": lines(
            "sh", "-c", "readlink /proc/[0-9]*/ns/net | sort -u | wc -l; ls /run/netns || :"
        ),
        "mounts": [line for line in lines("cat", "/proc/self/mountinfo") if "nsfs" in line],
        "links": [line.split()[0] for line in lines("ip", "-br", "link")],
        "descriptors": len(lines("sh", "-c", f"ls /proc/{pid}/fd")),
        "bus names": [
            name for name in lines("busctl", "list", "--acquired", "--no-legend") if "linxd" in name
        ],
        "units": lines("systemctl", "list-units", "--all", "--plain", "--no-legend", "linx-*@*", "found-*"),
        "namespaces found": lines("ls", "-A", "/run/linxd-netns"),
        "locks": lines("ls", "/run/linxd-state/.lock"),
        # By lines: numbers in them may have come to be longer.
        "state": lines(
            "sh", "-c", "cd /run/linxd-state && find . -type f ! -name status.json -exec wc -l {} +"
        ),
        "followed": machine.do("cat", "/run/linxd-state/host/attach.json"),
    }


def memory(machine: Machine) -> int:
    """What linxd.service has of its own, in KiB: what is shared varies with who else runs."""
    pid = state(machine, "linxd.service", "MainPID")
    said = machine.do("cat", f"/proc/{pid}/smaps_rollup")
    return next(int(line.split()[1]) for line in said.splitlines() if line.startswith("Anonymous:"))


def test_cycles_leave_nothing_behind(machine: Machine) -> None:
    names = [f"cycle{number}" for number in range(TOGETHER)]
    declare_all(machine, names)

    def cycle(*, kill: bool) -> None:
        begin(machine, names)
        eventually(lambda: all_are_up(machine, names))
        end(machine, names, kill=kill)
        eventually(lambda: all_are_gone(machine, names))

    # What is made once and for all is there after the first rounds.
    for kill in (True, False):
        cycle(kill=kill)
    before, taken = what_there_is(machine), memory(machine)
    for done in range(TOGETHER, CYCLES, TOGETHER):
        cycle(kill=bool(done % (2 * TOGETHER)))
    eventually(lambda: same(what_there_is(machine), before))
    grown = memory(machine) - taken
    print(f"linxd.service: {taken} KiB, and {grown} KiB more after {CYCLES} cycles")
    assert grown < GROWTH
    machine.do("rm", *(f"/run/linxd/netns/{name}.toml" for name in names))


def same(now: dict[str, object], before: dict[str, object]) -> None:
    assert {key: (before[key], value) for key, value in now.items() if value != before[key]} == {}


def test_many_that_start_at_once(machine: Machine) -> None:
    names = [f"many{number}" for number in range(SCOPES)]
    declare_all(machine, names)
    began = time.monotonic()
    begin(machine, names)
    eventually(lambda: all_are_up(machine, names), seconds=PATIENCE + 4 * SCOPES)
    up = time.monotonic()
    pid = machine.do("systemctl", "show", "-P", "MainPID", unit_of(names[-1])).strip()
    assert address(SCOPES) in machine.do("nsenter", "-t", pid, "-n", "ip", "address")
    assert state(machine, "linxd.service", "NRestarts") == "0"
    ending = time.monotonic()
    end(machine, names, kill=True)
    eventually(lambda: all_are_gone(machine, names), seconds=PATIENCE + 4 * SCOPES)
    gone = time.monotonic() - ending
    print(f"{SCOPES} scopes: all up after {up - began:.0f} s, all gone after {gone:.0f} s")
    machine.do("rm", *(f"/run/linxd/netns/{name}.toml" for name in names))
