# SPDX-License-Identifier: MIT
"""What is set in a namespace: keys whose values are not those that a fresh one has.

It reads what it is given a way to, and knows neither how a namespace is made nor how a file is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from linxd.sources.sysctl.cascades import partner, rank, write
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
    chosen: dict[Path, Setting] = {}
    usual = {path: fresh[like] for path in here if (like := _alike(path, fresh, model)) in fresh}
    # Of two forms of one thing the shorter key is meant, or the finer unit.
    own = [
        path
        for path in sorted(usual, key=lambda path: (len(path), not path[-1].endswith("_ms"), path))
        if not is_secret(path)
        and (*path[:3], path[-1]) not in _FOLLOWING
        and (host or per_namespace(path) is None)
    ]
    now = dict(usual)
    # Then those that are as in a fresh one, but would not be any more once the others are written.
    for _ in range(2):
        for path in own:
            if path not in chosen and partner(path) not in chosen and not same(here[path], now[path]):
                chosen[path] = Setting(path, " ".join(here[path].split()))
        for path in sorted(chosen, key=lambda path: rank(path, here[path])):
            write(now, path, here[path])
    return Desired(tuple(sorted(chosen.values(), key=lambda setting: setting.path)), host=host)


def _alike(path: Path, fresh: Mapping[Path, str], model: str) -> Path:
    """The key of a fresh namespace that this one is compared with."""
    name = interface_of(path)
    if name is None or name == LOOPBACK:
        return path
    like = (*path[:3], model, *path[4:])
    return like if model and like in fresh else (*path[:3], ALL_AND_DEFAULT[1], *path[4:])
