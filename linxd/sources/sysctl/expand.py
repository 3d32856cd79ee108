# SPDX-License-Identifier: MIT
"""What is declared, key by key: globs spread over the interfaces that there are, exact keys beating them.

Pure; which interfaces there are is told by the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from linxd.patch import Key
from linxd.records import dataclass
from linxd.sources.sysctl.cascades import contradictions, rank
from linxd.sources.sysctl.model import (
    ALL_AND_DEFAULT,
    Desired,
    Path,
    Setting,
    interface_of,
    key_of,
)
from linxd.sources.sysctl.namespaced import per_namespace


@dataclass(frozen=True, slots=True)
class Want:
    """One key and what it is to have. ``glob``: the glob that says so, if one does."""

    path: Path
    key: Key
    value: str
    restore: bool
    rank: int
    glob: Path | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """All keys that are declared.

    ``refused``: why one of them can't be kept at all. ``globs``: each with the number of its keys.
    """

    of: Mapping[Path, Want]
    refused: Mapping[Path, str]
    globs: Mapping[Path, int]


def directories(paths: Iterable[Path]) -> set[Path]:
    """Where the interfaces of these keys and globs stand."""
    return {path[:3] for path in paths if interface_of(path) is not None}


def expand(desired: Desired, listing: Mapping[Path, frozenset[str] | None]) -> Wanted:
    """Spread globs over ``listing``: the names in each directory of interfaces, None for one that is not
    there."""
    of: dict[Path, Want] = {}
    refused: dict[Path, str] = {}
    globs: dict[Path, int] = {}
    for setting in desired.settings:
        reason = None if desired.host else per_namespace(setting.path)
        if reason is not None:
            refused[setting.path] = reason
        if "*" not in setting.path:
            of[setting.path] = _want(setting, setting.path)
    for setting in desired.settings:
        if "*" not in setting.path:
            continue
        globs[setting.path] = 0
        if setting.path in refused:
            continue
        at = setting.path.index("*")
        head, tail = setting.path[:at], setting.path[at + 1 :]
        names = listing.get(head) or ()
        count = 0
        for name in sorted(names):
            path = (*head, name, *tail)
            if name not in ALL_AND_DEFAULT and path not in of:
                of[path] = _want(setting, path)
                count += 1
        globs[setting.path] = count
    for found in contradictions({path: want.value for path, want in of.items()}):
        for path in (found.one, found.other):
            refused.setdefault(path, found.text)
    return Wanted(of, refused, globs)


def _want(setting: Setting, path: Path) -> Want:
    glob = setting.path if path is not setting.path else None
    return Want(path, key_of(path), setting.value, setting.restore, rank(path, setting.value), glob)
