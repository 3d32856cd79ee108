# SPDX-License-Identifier: MIT
"""A slice of `make fuzz`: everything is as declared after whatever happened, and the fuzzer itself finds
what is not.

`LINXD_FUZZ_SEED` and `LINXD_FUZZ_N` choose the run; a failure prints the seed and a short script.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from tests.torture.bed import Namespace
from tests.torture.drifts import declaration
from tests.torture.fuzzer import Round, World, Wrong, _reduced, fuzz

SEED = int(os.environ.get("LINXD_FUZZ_SEED", random.randrange(1 << 32)))
DRIFTS = int(os.environ.get("LINXD_FUZZ_N", 1500))

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces are made"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]


def test_whatever_happens_it_ends_as_declared(tmp_path: Path) -> None:
    print(f"seed {SEED}, {DRIFTS} drifts")
    print(fuzz(SEED, DRIFTS, tmp_path).words())


def test_what_is_not_healed_is_found(tmp_path: Path) -> None:
    """A fuzzer that finds nothing may be blind. Here linxd is paused, so that nothing is healed."""
    declared = declaration(random.Random(1))
    with Namespace() as namespace:
        world = World(namespace, tmp_path, declared, healed=1.0)
        try:
            assert world.daemon.ask("pause 3600").done
            with pytest.raises(Wrong, match=r"table inet guarded: is None"):
                world.run(Round((("nft delete table inet guarded",),)))
        finally:
            world.close()


def test_foreign_things_that_change_are_found(tmp_path: Path) -> None:
    with Namespace() as namespace:
        world = World(namespace, tmp_path, declaration(random.Random(1)))
        try:
            with pytest.raises(Wrong, match="foreign things changed"):
                world.run(Round((("ip route del 172.30.0.0/24",),)))
        finally:
            world.close()


def test_a_failure_is_shrunk_to_what_it_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two lines of different writers are what it takes here."""

    def fails(declared: object, rounds: list[Round], directory: Path, *, tries: int = 2) -> str:
        lines = [line for round_ in rounds for writer in round_.writers for line in writer]
        return "wrong" if {"a", "b"} <= set(lines) else ""

    monkeypatch.setattr("tests.torture.fuzzer.fails", fails)
    rounds = [Round((("x", "a", "y"), ("z",) * 9)), Round((("b", "x"),))]
    kept = _reduced(declaration(random.Random(1)), rounds, tmp_path)
    assert [line for round_ in kept for writer in round_.writers for line in writer] == ["a", "b"]
