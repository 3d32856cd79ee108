# SPDX-License-Identifier: MIT
"""The edge: opening, reading, writing and listing below /proc/sys, in the namespace it was made for.

It knows no desired state and no key by name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from linxd.sources.sysctl.model import Path

_CLONE_NEWNET = 0x40000000
_SIOCGIFNAME = 0x8910
_SIOCGIFINDEX = 0x8933
_IFREQ = struct.Struct("16si20x")
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_FIRST_READ = 256
_MOST = 1 << 20


class Procfs:
    """/proc/sys as a namespace sees it.

    Which namespace's keys a name below net leads to is decided by the thread that opens it, at that moment;
    the file stays with them (fs/proc/proc_sysctl.c, sysctl_follow_link). Without ``netns_fd`` that is the
    namespace of the calling thread; with it the thread goes there to open something, and comes back, which
    needs CAP_SYS_ADMIN. ``netns_fd`` stays the caller's. An open key does not keep its namespace alive.

    Nothing outside ``root`` is ever opened: no member of a path may be ``..`` or hold a slash, symbolic
    links are not followed, and what is opened must lie on the file system that ``root`` lies on.
    """

    def __init__(self, netns_fd: int | None = None, *, root: str = "/proc/sys") -> None:
        self._netns_fd = netns_fd
        self._depth = 0
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._device = os.fstat(self._root).st_dev

    def close(self) -> None:
        """Let go of it."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread is in the namespace; to be put around several calls to spare the ways."""
        if self._netns_fd is None or self._depth:
            yield
            return
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self._netns_fd)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                _setns(home)
        finally:
            os.close(home)

    def open(self, path: Path, access: int = os.O_RDONLY) -> tuple[int, int]:
        """A key for reading, for writing, or for both (O_RDWR): the descriptor, and the key's permission
        bits. Raises OSError."""
        name = _checked(path)
        with self.inside():
            fd = os.open(name, _FLAGS | access, dir_fd=self._root)
        try:
            seen = os.fstat(fd)
            if stat.S_ISDIR(seen.st_mode):
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(seen.st_mode) or seen.st_dev != self._device:
                raise OSError(errno.EXDEV, "is not a sysctl")
        except BaseException:
            os.close(fd)
            raise
        return fd, stat.S_IMODE(seen.st_mode)

    def mode(self, path: Path) -> int:
        """The permission bits of a key. Raises OSError."""
        with self.inside():
            seen = os.stat(_checked(path), dir_fd=self._root, follow_symlinks=False)
        return stat.S_IMODE(seen.st_mode)

    def write(self, path: Path, value: str, *, held: int | None = None) -> None:
        """Write a value in one piece, through a descriptor of the key if one is ``held``. Raises OSError."""
        # An empty write changes nothing, a bare line break is the empty value.
        text = value.encode(errors="surrogateescape") + b"\n"
        if held is not None:
            os.pwrite(held, text, 0)
            return
        fd, _ = self.open(path, os.O_WRONLY)
        try:
            os.write(fd, text)
        finally:
            os.close(fd)

    def read(self, path: Path) -> str:
        """The value as text, without the line break. Raises OSError."""
        fd, _ = self.open(path)
        try:
            return text_of(read_at(fd))
        finally:
            os.close(fd)

    def listing(self, path: Path) -> frozenset[str] | None:
        """Names in a directory (``()``: in all of /proc/sys), None if it is not there. Raises OSError."""
        # Listed from outside the namespace, the kernel finds none of the names in its cache, and makes each
        # anew (proc_sys_fill_cache): a hundred times as slow.
        with self.inside():
            try:
                name = _checked(path) if path else "."
                fd = os.open(name, _FLAGS | os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._root)
            except (FileNotFoundError, NotADirectoryError):
                return None
            try:
                return frozenset(os.listdir(fd))
            except FileNotFoundError:
                return None  # taken down meanwhile
            finally:
                os.close(fd)

    def keys(self, below: Path) -> Iterator[tuple[Path, int]]:
        """All keys below a directory, with their permission bits, in order. Raises OSError."""
        with self.inside():
            fd = os.open(_checked(below), _FLAGS | os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._root)
            found = list(_walk(fd, below))
        return iter(found)

    def indices(self, names: Iterable[str]) -> dict[str, int]:
        """Index of each interface, without those that are gone."""
        found: dict[str, int] = {}
        with self.inside(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            for name in names:
                request = _IFREQ.pack(os.fsencode(name)[:15], 0)
                with contextlib.suppress(OSError):
                    found[name] = _IFREQ.unpack(fcntl.ioctl(sock, _SIOCGIFINDEX, request))[1]
        return found

    def exists(self, indices: Iterable[int]) -> bool:
        """Whether any of these interfaces is there, under whatever name."""
        with self.inside(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            for index in indices:
                with contextlib.suppress(OSError):
                    fcntl.ioctl(sock, _SIOCGIFNAME, _IFREQ.pack(b"", index))
                    return True
        return False


def read_at(fd: int, size: int = _FIRST_READ) -> bytes:
    """The whole of an open key. It must come in one read, for the kernel gives nothing behind offset 0.
    Raises OSError."""
    while True:
        raw = os.pread(fd, size, 0)
        if len(raw) < size or size >= _MOST:
            return raw
        size *= 8


def text_of(raw: bytes) -> str:
    """A value as text."""
    return raw.decode(errors="surrogateescape").strip()


def _walk(fd: int, below: Path) -> Iterator[tuple[Path, int]]:
    try:
        for name in sorted(os.listdir(fd)):
            try:
                seen = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISREG(seen.st_mode):
                    yield (*below, name), stat.S_IMODE(seen.st_mode)
                elif stat.S_ISDIR(seen.st_mode):
                    inner = os.open(name, _FLAGS | os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
                    yield from _walk(inner, (*below, name))
            except FileNotFoundError:
                continue
    finally:
        os.close(fd)


def _checked(path: Path) -> str:
    if not path or any(m in ("", ".", "..") or "/" in m or "\0" in m for m in path):
        raise OSError(errno.EINVAL, "is no path below /proc/sys")
    return "/".join(path)


def _setns(fd: int) -> None:
    # the type is named because units restrict setns(2) to it
    if sys.version_info >= (3, 12):
        os.setns(fd, _CLONE_NEWNET)
    else:
        import ctypes  # a daemon that systemd put into its namespace never needs it

        if _libc().setns(fd, _CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


@functools.cache
def _libc() -> Any:
    """Each loading of it makes a class, which costs more than the call."""
    import ctypes

    return ctypes.CDLL(None, use_errno=True)
