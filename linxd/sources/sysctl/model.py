# SPDX-License-Identifier: MIT
"""Desired sysctls as declared. Knows neither procfs nor the files a declaration came from."""

from __future__ import annotations

from dataclasses import dataclass, field

from linxd.sources.rtnl.model import Where


@dataclass(frozen=True, slots=True)
class Setting:
    """One declared key or glob.

    ``path``: the members of the key below /proc/sys, an interface's name (dots and all) or "*" being one
    member: ``("net", "ipv4", "conf", "eth0.100", "rp_filter")``. ``value``: the text to write, lists joined
    by a blank. ``restore``: give the original value back when un-declared (on-release), else keep ours.
    """

    path: tuple[str, ...]
    value: str
    restore: bool = True
    where: Where | None = field(default=None, compare=False, repr=False)

    @property
    def dotted(self) -> str:
        """``net.ipv4.conf.eth0/100.rp_filter``: as sysctl(8) writes it."""
        return ".".join(member.replace(".", "/") for member in self.path)


@dataclass(frozen=True, slots=True)
class Desired:
    """All that one scope declares. An exact key beats a glob; ``*`` never means ``all`` or ``default``.
    ``host``: the host's scope, where keys outside net.* are allowed."""

    settings: tuple[Setting, ...] = ()
    host: bool = False
