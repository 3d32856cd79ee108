# SPDX-License-Identifier: MIT
"""The package, built once out of this tree, and put into machines as a user would."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.system.bed import ROOT, Machine, Unavailable

BUILD_SECONDS = 300.0
PARTS = (
    "linxd",
    "units",
    "dbus",
    "docs",
    "examples",
    "packaging",
    "tools",
    "pyproject.toml",
    "setup.cfg",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
)
"""What a package is made of."""


@functools.cache
def package() -> Path:
    """The package. Raises Unavailable."""
    for tool in ("dpkg-buildpackage", "dh", "pybuild"):
        if shutil.which(tool) is None:
            raise Unavailable(f"the package can't be built: there is no {tool}")
    made = Path(_directory().name)
    done = subprocess.run(
        [ROOT / "packaging/build", made], capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@functools.cache
def next_package() -> Path:
    """The same as a later version."""
    base = Path(_directory().name)
    opened = base / "opened"
    subprocess.run(["dpkg-deb", "-R", package(), opened], check=True)
    control = opened / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: (.*)$", r"Version: \1+later", control.read_text()))
    later = base / "linxd_later_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-b", opened, later], check=True, stdout=subprocess.DEVNULL
    )
    return later


@functools.cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    """Removed when the tests end."""
    return tempfile.TemporaryDirectory(prefix=f"linxd-package-{os.getpid()}-")


def forget() -> None:
    """Remove what was built."""
    if _directory.cache_info().currsize:
        _directory().cleanup()
    for made in (_directory, package, next_package):
        made.cache_clear()


def install(machine: Machine, package: Path) -> str:
    """Install a package by apt; what that prints."""
    name = f"root/{package.name}"
    shutil.copy(package, machine.root / name)
    return machine.do("apt-get", "install", "-y", f"/{name}")
