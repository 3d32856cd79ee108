# SPDX-License-Identifier: MIT
"""A slice of `make soak`. `SOAK_SECONDS` is its length, `LINXD_FUZZ_SEED` chooses the run."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.torture.soak import soak

SEED = int(os.environ.get("LINXD_FUZZ_SEED", random.randrange(1 << 32)))
SECONDS = float(os.environ.get("SOAK_SECONDS", 120))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces are made")
def test_memory_descriptors_and_threads_stay_what_they_were(tmp_path: Path) -> None:
    print(f"seed {SEED}, {SECONDS:.0f} s")
    print(soak(SECONDS, SEED, tmp_path).words())
