# SPDX-License-Identifier: MIT
"""The examples run as they stand, from outside, and do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def example(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-X", "dev", str(ROOT / "examples" / name), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)


def test_the_custom_source_converges_and_heals(tmp_path: Path) -> None:
    done = example("custom_source.py", "--once", str(tmp_path), "a=/x", "b=/y")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"start: create symlink {tmp_path}/a -> /x",
        f"start: create symlink {tmp_path}/b -> /y",
        f"request: create symlink {tmp_path}/a -> /x",
        "converged: 2 objects, 1 drifted and healed",
    ]
    assert {path.name: os.readlink(path) for path in tmp_path.iterdir()} == {"a": "/x", "b": "/y"}


def test_by_hand_it_does_the_same_once(tmp_path: Path) -> None:
    (tmp_path / "b").symlink_to("/theirs")
    done = example("by_hand.py", "--once", str(tmp_path), "a=/x", "b=/y")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"resync: create symlink {tmp_path}/a -> /x",
        f"resync: symlink {tmp_path}/b -> /y is conflict: "
        f"there is {tmp_path}/b -> /theirs, which is not ours",
    ]


def test_the_loop_brings_no_third_party_along() -> None:
    program = (
        "import asyncio, sys; before = set(sys.modules); import linxd.loop, linxd.ledger, linxd.objects; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; print(*sorted(new))"
    )
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {program}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "linxd" in modules
    assert modules <= {"linxd", *sys.stdlib_module_names}
    assert not modules & {"ssl", "random", "hashlib", "multiprocessing", "http", "urllib"}
