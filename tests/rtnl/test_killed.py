# SPDX-License-Identifier: MIT
"""SIGKILL before each write of a pass, then a start: the same end as without it, and nothing foreign
claimed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .harness import TIMERS, batch, ip

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = (
    "link set lo up",
    "link add e0 type veth peer name far0",
    "link set far0 up",
    "link set e0 up",
    "link add foreign0 type bridge",
    "address add 10.0.0.1/24 dev e0",
    "address add 10.8.0.1/24 dev e0",
    "route add 198.51.100.0/24 via 10.0.0.3 proto bird",
    "route add 203.0.113.0/24 via 10.0.0.3 proto static",
    "rule add from 10.7.0.0/16 lookup 100 priority 700",
)
DECLARED = """
[link.e0]
addresses = ["10.0.0.1/24", "10.9.0.1/24", { address = "fd00::1/64", nodad = true }]

[link.b0]
kind = "bridge"
forward_delay = 900

[link.p0]
kind = "veth"
peer = { name = "p1" }
master = "b0"

[[route]]
to = "192.0.2.0/24"
via = "10.0.0.2"

[[route]]
to = "203.0.113.0/24"
via = "10.0.0.3"

[[rule]]
from = "10.1.0.0/16"
table = 100

[[neighbour]]
address = "10.0.0.9"
dev = "e0"
lladdr = "02:00:00:00:00:09"
"""
SHOWN = (
    "-o link show",
    "-4 -o address show",
    "-6 -o address show scope global",
    "-4 route show table all",
    "rule show",
    "-6 route show table all proto 76",
    "neigh show nud permanent",
)


def child(netns: str, directory: Path, text: str, at: int) -> tuple[int, str]:
    """Run the child; its status and output."""
    file = directory / "scope.toml"
    file.write_text(text)
    file.chmod(0o600)
    script = Path(__file__).with_name("killed_child.py")
    done = subprocess.run(
        [sys.executable, str(script), netns, str(file), str(directory / "state"), str(at)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout


def shown(netns: str) -> str:
    """All of it, but for timers and for the carrier, which follows a change by its own clock."""
    text = "\n".join(TIMERS.sub("", ip(netns, command)) for command in SHOWN)
    return re.sub(r"NO-CARRIER,|,LOWER_UP| state \w+| linkdown", "", text)


def prepared(make: Callable[[], str], tmp_path: Path) -> tuple[str, Path]:
    netns = make()
    batch(netns, *FOREIGN)
    directory = tmp_path / netns
    (directory / "state").mkdir(mode=0o700, parents=True)
    return netns, directory


@pytest.mark.parametrize("killed_while", ["making", "un-declaring"])
def test_killed_before_any_write(
    killed_while: str, netns_factory: Callable[[], str], tmp_path: Path
) -> None:
    netns, directory = prepared(netns_factory, tmp_path)
    making = int(child(netns, directory, DECLARED, 0)[1].split()[0])
    undoing = int(child(netns, directory, "", 0)[1].split()[0])
    steps = making if killed_while == "making" else undoing
    assert steps >= 6
    for at in range(1, steps + 1):
        netns, directory = prepared(netns_factory, tmp_path)
        before = shown(netns)
        if killed_while == "making":
            status, _ = child(netns, directory, DECLARED, at)
        else:
            assert child(netns, directory, DECLARED, 0)[0] == 0
            status, _ = child(netns, directory, "", at)
        assert status == -signal.SIGKILL, at
        if killed_while == "making":
            assert child(netns, directory, DECLARED, 0)[0] == 0
            assert "via 10.0.0.2" in ip(netns, "route show 192.0.2.0/24"), at
            assert "master b0" in ip(netns, "link show p0"), at
            # What is left to write is nothing: another start finds all as declared.
            _, said = child(netns, directory, DECLARED, 0)
            assert said.split()[1] == "0", (at, said)
        assert child(netns, directory, "", 0)[0] == 0
        assert shown(netns) == before, at
