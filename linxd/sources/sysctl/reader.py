# SPDX-License-Identifier: MIT
"""Reading many keys again and again for little, and writing one soon: descriptors are held, and what was
read last is known.

It knows which keys it reads and what was in them, not what ought to be.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Collection, Iterable, Mapping
from typing import TypeAlias

from linxd.sources.sysctl.model import Path, interface_of
from linxd.sources.sysctl.procfs import Procfs, read_at, text_of

Raw: TypeAlias = bytes | int
"""What a look found: the bytes, or the errno."""

_ENOUGH = 256
"""Bytes to ask for at first: the kernel allocates as many as are asked for."""
_DEAD = (errno.ENOENT, errno.ENODEV, errno.EBADF)


def descriptors() -> int:
    """How many may be held: half of what this process may open, the rest is for others."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 16 if soft == resource.RLIM_INFINITY else max(16, soft // 2)


class Reader:
    """Looks at keys. A held descriptor of a key that went away is dead, even if another one of the same
    name stands there by then: it is opened anew."""

    def __init__(self, procfs: Procfs, *, most: int | None = None) -> None:
        self.procfs = procfs
        self.seen: dict[Path, Raw] = {}
        """What `remember` was told last."""
        self.renewed: set[str] = set()
        """Interfaces of which a held key went away since it was asked last: they may be others now."""
        self._most = descriptors() if most is None else most
        self._fds: dict[Path, int] = {}
        self._mute: set[Path] = set()
        """Keys whose held descriptors are for reading alone."""
        self._modes: dict[Path, int] = {}

    def close(self) -> None:
        """Close all descriptors."""
        self.keep(())

    def keep(self, paths: Collection[Path]) -> None:
        """Let go of all other keys."""
        for path in [path for path in self._fds if path not in paths]:
            os.close(self._fds.pop(path))
            self._mute.discard(path)
        if len(self.seen) > len(paths):
            self.seen = {path: raw for path, raw in self.seen.items() if path in paths}
            self._modes = {path: mode for path, mode in self._modes.items() if path in paths}

    @property
    def crowded(self) -> bool:
        """Whether there are keys for which no descriptor is held."""
        return len(self._fds) >= self._most

    def remember(self, raws: Mapping[Path, Raw]) -> None:
        """From now on `changed` compares with these."""
        self.seen.update(raws)

    def changed(self, paths: Iterable[Path]) -> list[Path]:
        """Those of the keys in which something else is than was remembered."""
        seen = self.seen
        return [path for path, raw in self.read(paths).items() if seen.get(path) != raw]

    def readonly(self, paths: Iterable[Path]) -> frozenset[Path]:
        """Those of the keys, once read, that have no permission bit for writing."""
        modes = self._modes
        return frozenset(path for path in paths if not modes.get(path, 0o200) & 0o222)

    def mode(self, path: Path) -> int | None:
        """Permission bits of a key, None if it is not there."""
        try:
            return self.procfs.mode(path)
        except OSError:
            return None

    def look(self, path: Path) -> Raw:
        """Look at one key."""
        return self.read((path,))[path]

    def read(self, paths: Iterable[Path]) -> dict[Path, Raw]:
        """Look at these keys."""
        raws: dict[Path, Raw] = {}
        closed: list[Path] = []
        fds, pread = self._fds, os.pread
        for path in paths:
            fd = fds.get(path)
            if fd is None:
                raws[path] = errno.ENOENT  # holds its place in the order
                closed.append(path)
                continue
            try:
                raw = pread(fd, _ENOUGH, 0)
                raws[path] = raw if len(raw) < _ENOUGH else read_at(fd, 16 * _ENOUGH)
            except OSError as error:
                raws[path] = error.errno or errno.EIO
                if error.errno in _DEAD:
                    os.close(fds.pop(path))
                    self._mute.discard(path)
                    closed.append(path)
                    name = interface_of(path)
                    if name is not None:
                        self.renewed.add(name)
        if closed:
            with self.procfs.inside():
                for path in closed:
                    raws[path] = self._open(path)
        return raws

    def write(self, path: Path, value: str) -> None:
        """Write to a key; one that is held and has gone is not taken for another of its name. Raises
        OSError."""
        held = None if path in self._mute else self._fds.get(path)
        self.procfs.write(path, value, held=held)

    def _open(self, path: Path) -> Raw:
        mute = False
        try:
            try:
                fd, mode = self.procfs.open(path, os.O_RDWR)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
                mute = True
                fd, mode = self.procfs.open(path)
        except OSError as error:
            self._modes.pop(path, None)
            if error.errno in (errno.EACCES, errno.EPERM):
                with contextlib.suppress(OSError):
                    if not self.procfs.mode(path) & 0o444:
                        return errno.ENODATA
            return errno.ENOENT if error.errno == errno.ENOTDIR else error.errno or errno.EIO
        self._modes[path] = mode
        try:
            raw: Raw = read_at(fd, _ENOUGH)
        except OSError as error:
            raw = error.errno or errno.EIO
        if len(self._fds) < self._most and raw not in _DEAD:
            self._fds[path] = fd
            if mute:
                self._mute.add(path)
        else:
            os.close(fd)
        return raw


def texts(raws: Mapping[Path, Raw]) -> tuple[dict[Path, str], dict[Path, int], frozenset[Path]]:
    """Values, troubles, and which of the values are unset: the kernel says EIO of a stable_secret that
    nobody set (addrconf_sysctl_stable_secret)."""
    values: dict[Path, str] = {}
    troubles: dict[Path, int] = {}
    unset: set[Path] = set()
    for path, raw in raws.items():
        if not isinstance(raw, int):
            values[path] = text_of(raw)
        elif raw == errno.EIO and path[-1] == "stable_secret":
            values[path] = ""
            unset.add(path)
        else:
            troubles[path] = raw
    return values, troubles, frozenset(unset)
