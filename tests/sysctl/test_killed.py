# SPDX-License-Identifier: MIT
"""Killed before any write, of a key or of the ledger, then started again and un-declared: the value found
first comes back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ..rtnl.harness import batch
from .harness import flip, value

KEYS = {
    "net.ipv4.ip_forward": 1,
    "net.ipv4.conf.e0.forwarding": 0,
    "net.ipv4.conf.*.arp_ignore": 1,
    "net.core.somaxconn": 1000,
    "net.ipv4.conf.all.accept_redirects": 1,
}
SHOWN = [key for key in KEYS if "*" not in key] + [
    "net.ipv4.conf.e0.arp_ignore", "net.ipv4.conf.far0.arp_ignore", "net.ipv4.conf.far0.forwarding",
    "net.ipv4.conf.default.forwarding",
]  # fmt: skip
CHILD = Path(__file__).with_name("killed_child.py")
ROOT = CHILD.parents[2]


def child(netns: str, keys: dict[str, int], state: Path, at: int) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(CHILD), netns, json.dumps(keys), str(state), str(at)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout


def shown(netns: str) -> dict[str, str]:
    return {key: value(netns, key) for key in SHOWN}


def prepared(make: Callable[[], str], tmp_path: Path) -> tuple[str, Path]:
    netns = make()
    batch(netns, "link set lo up", "link add e0 type veth peer name far0")
    flip(netns, "net.ipv4.conf.e0.arp_ignore", "2")
    state = tmp_path / netns
    state.mkdir(mode=0o700)
    return netns, state


@pytest.mark.parametrize("when", ["while declaring", "while giving back"])
def test_the_first_value_comes_back(when: str, netns_factory: Callable[[], str], tmp_path: Path) -> None:
    netns, state = prepared(netns_factory, tmp_path)
    _, first = child(netns, KEYS, state, 0)
    _, last = child(netns, {}, state, 0)
    steps = int(first if when == "while declaring" else last)
    assert steps > 3
    for at in range(1, steps + 1):
        netns, state = prepared(netns_factory, tmp_path)
        before = shown(netns)
        if when == "while declaring":
            code, _ = child(netns, KEYS, state, at)
            assert code == -signal.SIGKILL
            assert child(netns, KEYS, state, 0)[0] == 0
            assert value(netns, "net.ipv4.ip_forward") == "1"
            assert value(netns, "net.ipv4.conf.far0.arp_ignore") == "1"
            child(netns, {}, state, 0)
        else:
            child(netns, KEYS, state, 0)
            code, _ = child(netns, {}, state, at)
            assert code == -signal.SIGKILL
            child(netns, {}, state, 0)
        assert shown(netns) == before, at
        # nothing is left to do, or remembered
        assert child(netns, {}, state, 0)[1].strip() == "0", at
