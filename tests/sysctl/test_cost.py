# SPDX-License-Identifier: MIT
"""What a quiet pass and a quiet second ask of the kernel, counted by strace(1)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ..rtnl.harness import batch

PAIRS = 100
COUNT = 5
CHILD = Path(__file__).with_name("quiet_child.py")
ROOT = CHILD.parents[2]


def calls(netns: str, keys: dict[str, int], log: Path) -> tuple[int, list[Counter[str]]]:
    """How many keys there were, and the calls of the passes and of the looks, each divided by `COUNT`."""
    done = subprocess.run(
        ["strace", "-qq", "-o", str(log), sys.executable, str(CHILD), netns, json.dumps(keys), str(COUNT)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if "Operation not permitted" in done.stderr and "ptrace" in done.stderr.lower():
        pytest.skip("processes can't be traced here")
    assert done.returncode == 0, done.stderr
    parts: list[Counter[str]] = [Counter()]
    for line in log.read_text(errors="replace").splitlines():
        name = line.partition("(")[0]
        if name == "getppid":
            parts.append(Counter())
        else:
            parts[-1][name] += 1
    _, passes, looks, _ = parts
    return int(done.stdout), [
        Counter({name: -(-number // COUNT) for name, number in part.items()}) for part in (passes, looks)
    ]


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_quiet_pass_reads_each_key_once_and_does_next_to_nothing_else(netns: str, tmp_path: Path) -> None:
    batch(netns, *(f"link add v{n} type veth peer name w{n}" for n in range(PAIRS)))
    keys = {"net.ipv4.conf.*.arp_ignore": 1, "net.core.somaxconn": 1000, "net.ipv4.ip_forward": 1}
    count, (quiet, look) = calls(netns, keys, tmp_path / "trace")
    assert count == 2 * PAIRS + 1 + 2
    reads = quiet.pop("pread64", 0)
    assert reads == count
    # the way into the namespace and back, one directory listed: however many keys there are
    assert quiet["setns"] == 2
    assert quiet["openat"] == 2
    assert quiet["write"] == quiet["pwrite64"] == 0
    assert quiet.total() <= 24, quiet
    # each second the keys without events are read, from what is held open, and that is all
    assert look.pop("pread64") == count - 1
    assert look.total() == 0, look
