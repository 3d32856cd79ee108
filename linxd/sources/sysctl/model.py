# SPDX-License-Identifier: MIT
"""Declared sysctls, and a key as an object of a patch. Knows neither procfs nor the files a declaration came
from."""

from __future__ import annotations

from typing import TypeAlias

from linxd.patch import Key
from linxd.records import dataclass, field
from linxd.sources.rtnl.model import Where

Path: TypeAlias = tuple[str, ...]
"""Members of a key below /proc/sys, an interface's name (dots and all) or ``*`` being one member:
``("net", "ipv4", "conf", "eth0.100", "rp_filter")``."""

KIND = "sysctl"
ALL_AND_DEFAULT = ("all", "default")
"""What stands in the place of an interface and is none."""
_PER_INTERFACE = ("conf", "neigh")


def dotted(path: Path) -> str:
    """``net.ipv4.conf.eth0/100.rp_filter``: as sysctl(8) writes it, a member's own dots as slashes."""
    return ".".join(path) if "." not in "".join(path) else ".".join(m.replace(".", "/") for m in path)


def key_of(path: Path) -> Key:
    """Identity of a key: one for each spelling that a file may have used."""
    return (KIND, dotted(path))


def path_of(key: Key) -> Path:
    """The way back."""
    return tuple(member.replace("/", ".") for member in str(key[1]).split("."))


def place_of(path: Path) -> str | None:
    """What stands in the place of an interface: its name, ``all``, ``default``, ``*``; None if there is no
    such place."""
    if len(path) > 4 and path[2] in _PER_INTERFACE and path[0] == "net":
        return path[3]
    return None


def interface_of(path: Path) -> str | None:
    """The interface that the key belongs to and goes with."""
    place = place_of(path)
    return None if place in ALL_AND_DEFAULT else place


@dataclass(frozen=True, slots=True)
class Setting:
    """One declared key or glob.

    ``value``: the text to write, lists joined by a blank. ``restore``: give the original value back when
    un-declared (on-release), else keep ours.
    """

    path: Path
    value: str
    restore: bool = True
    where: Where | None = field(default=None, compare=False, repr=False)

    @property
    def dotted(self) -> str:
        """As sysctl(8) writes it."""
        return dotted(self.path)


@dataclass(frozen=True, slots=True)
class Desired:
    """All that one scope declares. An exact key beats a glob; ``*`` never means ``all`` or ``default``.
    ``host``: the host's scope, where keys outside net.* are allowed."""

    settings: tuple[Setting, ...] = ()
    host: bool = False


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A key with the value it has or is to have, as an object of a patch.

    ``via``: another key and what to write there, where that is how this one gets its value (a first value
    of 0 that the kernel takes back only through the other key of the pair).
    """

    path: Path
    value: str
    via: tuple[Path, str] | None = None

    @property
    def key(self) -> Key:
        """Its identity."""
        return key_of(self.path)

    def words(self) -> str:
        """The key alone: what it has and shall have stands in the changes."""
        return dotted(self.path)
