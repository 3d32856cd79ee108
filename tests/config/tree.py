# SPDX-License-Identifier: MIT
"""Directories such as /etc/linxd, /run/linxd and /usr/lib/linxd, made anew for a test."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from linxd.config import ConfigError, ScopeConfig, load


@dataclass(frozen=True)
class Tree:
    """Three directories of files; ``etc`` wins over ``run``, ``run`` over ``lib``."""

    top: Path

    @property
    def directories(self) -> tuple[str, str, str]:
        """As `load` takes them."""
        etc, run, lib = (str(self.top / name) for name in ("etc", "run", "lib"))
        return etc, run, lib

    def write(self, path: str, text: str) -> Path:
        """A file such as ``etc/netns/c1.toml``, with directories on the way."""
        file = self.top / path
        for parent in reversed(file.relative_to(self.top).parents):
            (self.top / parent).mkdir(exist_ok=True)
            (self.top / parent).chmod(0o755)
        file.write_text(text)
        file.chmod(0o644)
        return file

    def load(self, name: str = "c1", *, file: Path | None = None, check_others: bool = True) -> ScopeConfig:
        """Load out of this tree, whose owner is whoever runs the test."""
        return load(
            name,
            file=None if file is None else str(file),
            directories=self.directories,
            check_others=check_others,
            owners=(0, os.geteuid()),
        )

    def faults(self, name: str = "c1", *, file: Path | None = None) -> list[str]:
        """What is said when loading fails, with file names below the tree."""
        with pytest.raises(ConfigError) as error:
            self.load(name, file=file)
        return [str(fault).replace(f"{self.top}/", "") for fault in error.value.faults]

    def warnings(self, name: str = "c1") -> list[str]:
        """What is said though loading succeeds."""
        return [str(fault).replace(f"{self.top}/", "") for fault in self.load(name).warnings]
