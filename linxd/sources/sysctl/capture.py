# SPDX-License-Identifier: MIT
"""What is set in a namespace: keys whose values are not those that a fresh one has.

It reads what it is given a way to, and knows neither how a namespace is made nor how a file is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from linxd.sources.sysctl.cascades import partner
from linxd.sources.sysctl.model import ALL_AND_DEFAULT, Desired, Path, Setting, interface_of
from linxd.sources.sysctl.namespaced import per_namespace
from linxd.sources.sysctl.procfs import Procfs
from linxd.sources.sysctl.values import is_secret, same

LOOPBACK = "lo"
_FOLLOWING = frozenset({("net", "ipv6", "conf", "mtu")})
"""Keys, without their interface, that are another form of what a link has."""


def values(procfs: Procfs) -> dict[Path, str]:
    """All keys below net that can be read and written."""
    found: dict[Path, str] = {}
    with procfs.inside():
        for path, mode in procfs.keys(("net",)):
            if mode & 0o200 and mode & 0o400:
                with contextlib.suppress(OSError):
                    found[path] = procfs.read(path)
    return found


def capture(
    here: Mapping[Path, str], fresh: Mapping[Path, str], model: str, *, host: bool = False
) -> Desired:
    """What of ``here`` is to be declared. ``fresh``: the keys of a new namespace, in which ``model`` is an
    interface that was just made; "" where none could be."""
    settings: list[Setting] = []
    chosen: set[Path] = set()
    # Of two forms of one thing the shorter key is meant, or the finer unit.
    for path in sorted(here, key=lambda path: (len(path), not path[-1].endswith("_ms"), path)):
        if is_secret(path) or (*path[:3], path[-1]) in _FOLLOWING or partner(path) in chosen:
            continue
        if not host and per_namespace(path) is not None:
            continue
        usual = fresh.get(_alike(path, fresh, model))
        if usual is not None and not same(here[path], usual):
            chosen.add(path)
            settings.append(Setting(path, " ".join(here[path].split())))
    return Desired(tuple(sorted(settings, key=lambda setting: setting.path)), host=host)


def _alike(path: Path, fresh: Mapping[Path, str], model: str) -> Path:
    """The key of a fresh namespace that this one is compared with."""
    name = interface_of(path)
    if name is None or name == LOOPBACK:
        return path
    like = (*path[:3], model, *path[4:])
    return like if model and like in fresh else (*path[:3], ALL_AND_DEFAULT[1], *path[4:])
