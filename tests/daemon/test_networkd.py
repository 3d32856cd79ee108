# SPDX-License-Identifier: MIT
"""What networkd.conf(5) says, read as networkd reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from linxd.systemd.networkd import ROUTES, RULES, manages


def written(root: Path, files: dict[str, str]) -> tuple[str, ...]:
    """The directories in which FILES are looked up, the one of an administrator first."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tuple(str(root / name) for name in ("etc", "run", "lib"))


ALONE = "[Network]\nManageForeignRoutes=no\n"
MINE = "[Network]\nManageForeignRoutes=yes\n"
DROP_IN = "networkd.conf.d/{}.conf"


@pytest.mark.parametrize(
    ("files", "managed"),
    [
        ({}, True),
        ({"etc/networkd.conf": ""}, True),
        ({"etc/networkd.conf": "[Network]\n#ManageForeignRoutes=no\n"}, True),
        ({"etc/networkd.conf": ALONE}, False),
        ({"lib/networkd.conf": ALONE}, False),
        ({"etc/networkd.conf": "", "lib/networkd.conf": ALONE}, True),
        ({"etc/networkd.conf": "[DHCPv4]\nManageForeignRoutes=no\n"}, True),
        ({"etc/networkd.conf": "[Network]\n ManageForeignRoutes = OFF \n[DHCPv4]\nx=y\n"}, False),
        ({"etc/networkd.conf": "[Network]\nManageForeignRoutes=\nManageForeignRoutes=perhaps\n"}, True),
        ({"etc/networkd.conf": ALONE + "ManageForeignRoutes=perhaps\n"}, False),
        ({"etc/" + DROP_IN.format("linxd"): ALONE}, False),
        ({"lib/" + DROP_IN.format("linxd"): ALONE}, False),
        ({"etc/networkd.conf": ALONE, "lib/" + DROP_IN.format("a"): MINE}, True),
        ({"lib/" + DROP_IN.format("a"): ALONE, "etc/" + DROP_IN.format("b"): MINE}, True),
        ({"etc/" + DROP_IN.format("a"): MINE, "lib/" + DROP_IN.format("b"): ALONE}, False),
        ({"etc/" + DROP_IN.format("a"): "", "lib/" + DROP_IN.format("a"): ALONE}, True),
        ({"etc/networkd.conf.d/linxd": ALONE}, True),
        ({"etc/networkd.conf": "\0\n[\n]\n[Network]\n=\nManageForeignRoutes\n"}, True),
    ],
)
def test_routes_of_others_are_managed(files: dict[str, str], managed: bool, tmp_path: Path) -> None:
    roots = written(tmp_path, files)
    assert manages(ROUTES, roots) is managed
    assert manages(RULES, roots) is True
