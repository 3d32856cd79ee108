# SPDX-License-Identifier: MIT
"""What importing and loading costs a daemon: nothing that only a person or an editor needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import linxd.config

HEAVY = {
    "asyncio",
    "dbus_next",
    "difflib",
    "jsonschema",
    "linxd.config.reference",
    "linxd.config.schema",
    "linxd.config.write",
    "linxd.netlink",
    "pyroute2",
    "subprocess",
    "systemd",
}


def loaded(code: str) -> set[str]:
    """Modules that a fresh process has after running some code."""
    code += "\nimport sys; print(*sys.modules)"
    top = Path(linxd.config.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=top)
    return set(done.stdout.split())


def test_importing_the_configuration_stays_lean() -> None:
    assert not loaded("import linxd.config") & HEAVY


def test_loading_a_file_without_faults_stays_lean() -> None:
    good = Path(__file__).parent / "good" / "c1.toml"
    code = (
        "from linxd.config import load\n"
        f"assert load('c1', file={str(good)!r}, directories=(), owners=None, check_others=False).rtnl.links"
    )
    assert not loaded(code) & HEAVY
