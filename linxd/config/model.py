# SPDX-License-Identifier: MIT
"""What the files of one scope come to: the desired state of each source, and how the scope is run.

Values only; it must not know TOML, files or the kernel.
"""

from __future__ import annotations

import re

from linxd.config.faults import Fault
from linxd.records import dataclass, field
from linxd.sources.netfilter.model import Desired as NetfilterDesired
from linxd.sources.rtnl.model import Desired as RtnlDesired
from linxd.sources.rtnl.model import Where
from linxd.sources.sysctl.model import Desired as SysctlDesired

HOST = "host"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
"""Names of scopes other than the host's."""
NETNS_DIRECTORY = "/run/netns"
RESYNC = 30.0
"""Seconds between two looks at everything, unless declared."""


def valid_name(name: str) -> bool:
    """Whether a scope other than the host's can be called so."""
    return NAME.fullmatch(name) is not None and name != HOST


@dataclass(frozen=True, slots=True)
class NetnsRef:
    """Which namespace a scope is in. ``kind``: "path" (``value`` a file of a namespace), "pid" (a process'),
    "unit" (that of a systemd unit's container), or "host" (``value`` "")."""

    kind: str
    value: str = ""

    def __str__(self) -> str:
        return self.value if self.kind in ("path", "host") else f"{self.kind}:{self.value}"


@dataclass(frozen=True, slots=True)
class Attach:
    """Units whose start and stop a scope follows."""

    unit: re.Pattern[str]
    scope: str
    where: Where | None = field(default=None, compare=False, repr=False)

    def scope_for(self, unit: str) -> str | None:
        """The scope that goes with a unit; None if there is none.

        ``\\x2d`` in a group stands for "-", as in every unit name. A plain "-" stays one: that it may also
        mean "/" is of no use here, since no scope has a slash in its name. The unit of podman's monitor
        never counts."""
        if unit.startswith("libpod-conmon-"):
            return None
        match = self.unit.fullmatch(unit)
        if match is None:
            return None
        import string  # the host's alone needs it

        name = ""
        for literal, group, _, _ in string.Formatter().parse(self.scope):
            name += literal + ("" if group is None else _unescape(match[group] or ""))
        return name if valid_name(name) else None


def _unescape(text: str) -> str:
    decoded = re.sub(
        rb"\\x([0-9a-fA-F]{2})", lambda match: bytes([int(match[1], 16)]), text.encode("utf-8", "replace")
    )
    return decoded.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class ScopeConfig:
    """One scope as declared, complete and checked.

    ``files``: those that were read, the main file first. ``resync``: seconds, 0 for events only.
    ``on_stop``, ``foreign``: "keep" or "remove"; ``on_conflict``: "refuse" or "take". ``netfilter`` and
    ``sysctl`` are None where no section asks for a loop. ``warnings`` did not keep it from loading.
    """

    name: str
    files: tuple[str, ...] = ()
    netns: NetnsRef = NetnsRef(HOST)
    resync: float = RESYNC
    on_stop: str = "keep"
    foreign: str = "keep"
    on_conflict: str = "refuse"
    rtnl: RtnlDesired = field(default_factory=RtnlDesired)
    netfilter: NetfilterDesired | None = None
    sysctl: SysctlDesired | None = None
    attach: tuple[Attach, ...] = ()
    warnings: tuple[Fault, ...] = ()
