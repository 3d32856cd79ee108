# SPDX-License-Identifier: MIT
"""Fixtures of the configuration's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Three empty directories to look files up in."""
    for name in ("etc", "run", "lib"):
        (tmp_path / name).mkdir(mode=0o755)
    return Tree(tmp_path)
