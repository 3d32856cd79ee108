# SPDX-License-Identifier: MIT
"""linxd in a machine, file by file as the package puts it there: for tests of what runs, rather than of the
package."""

from __future__ import annotations

import shutil
from pathlib import Path

from bed import ROOT, Machine

SYSTEM = "usr/lib/systemd/system"
_COMMAND = """#!/usr/bin/python3
import sys
from linxd.cli.{module} import main
sys.exit(main())
"""


def copy(root: Path) -> None:
    """Put the files there."""
    shutil.copytree(
        ROOT / "linxd",
        root / "usr/lib/python3/dist-packages/linxd",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for name, module in (("linxd", "daemon"), ("linxctl", "linxctl")):
        command = root / "usr/bin" / name
        command.write_text(_COMMAND.format(module=module))
        command.chmod(0o755)
    units = ROOT / "units"
    for unit in units.iterdir():
        if unit.suffix in (".service", ".socket", ".slice", ".target"):
            _put(unit, root / SYSTEM / unit.name)
    _put(units / "linxd.sysusers", root / "usr/lib/sysusers.d/linxd.conf")
    _put(units / "linxd.tmpfiles", root / "usr/lib/tmpfiles.d/linxd.conf")
    _put(units / "linxd.catalog", root / "usr/lib/systemd/catalog/linxd.catalog")
    _put(units / "netns-link", root / "usr/lib/linxd/netns-link")


def settle(machine: Machine) -> None:
    """What the package does after its files are there."""
    machine.do("systemd-sysusers", "linxd.conf")
    machine.do("systemd-tmpfiles", "--create", "linxd.conf")
    machine.do("journalctl", "--update-catalog")
    machine.do("systemctl", "daemon-reload")


def _put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
