# SPDX-License-Identifier: MIT
"""What systemd-networkd does to routes and rules that others made, as its configuration says.

It knows networkd.conf(5), and neither whether networkd runs nor what is declared.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence

UNIT = "systemd-networkd.service"
DROP_IN = "/etc/systemd/networkd.conf.d/linxd.conf"
"""The file in which it is told to leave them alone."""
ROUTES, RULES = "ManageForeignRoutes", "ManageForeignRoutingPolicyRules"
"""The settings in question; where nothing is said, both hold (networkd.conf(5))."""
SETTINGS = {"routes": ROUTES, "rules": RULES}
"""Those by what they are about."""
ROOTS = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
_MOST = 1 << 20
_YES, _NO = ("1", "yes", "y", "true", "t", "on"), ("0", "no", "n", "false", "f", "off")


def manages(setting: str, roots: Sequence[str] = ROOTS) -> bool:
    """Whether networkd does what ``setting`` says, as its files are now; they are looked up in ``roots``."""
    said = True
    for path in _files(roots):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            said = _last(file.read(_MOST).splitlines(), setting, said)
    return said


def _files(roots: Sequence[str]) -> Iterator[str]:
    """Its files in the order in which they count: the main one, and drop-ins by name. One of the same name
    in an earlier root hides the others."""
    mains = (os.path.join(root, "networkd.conf") for root in roots)
    yield from [path for path in mains if os.path.exists(path)][:1]
    found: dict[str, str] = {}
    for root in roots:
        directory = os.path.join(root, "networkd.conf.d")
        with contextlib.suppress(OSError):
            for name in os.listdir(directory):
                if name.endswith(".conf"):
                    found.setdefault(name, os.path.join(directory, name))
    for name in sorted(found):
        yield found[name]


def _last(lines: Iterable[str], setting: str, said: bool) -> bool:
    """What a file says last of a setting of [Network], ``said`` where it says nothing that means
    anything."""
    section = ""
    for line in lines:
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif section == "Network":
            key, _, value = line.partition("=")
            if key.rstrip() == setting:
                word = value.strip().lower()
                said = word in _YES or (said and word not in _NO)
    return said
