# SPDX-License-Identifier: MIT
"""inotify(7) by the C library: that entries of directories come, go and change.

It knows no event loop and nothing of what the files are.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator

from linxd.records import dataclass

MODIFY, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF, UNMOUNT, OVERFLOW, IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
ISDIR = 0x40000000
_ONLYDIR = 0x01000000
_HEAD = struct.Struct("=iIII")
_READ = 1 << 16
"""More than the 16384 events that may be queued (fs.inotify.max_queued_events) are not read at a time."""


@dataclass(frozen=True, slots=True)
class Event:
    """What happened (``mask``) to the entry ``name`` of a watched directory, "" for the directory itself.
    ``watch`` is -1 when events were lost."""

    watch: int
    mask: int
    name: str


class Inotify:
    """An instance, of which a user may have 128. Raises OSError."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")

    def add(self, path: str, mask: int) -> int:
        """Watch a directory: returns its number, the one that it has if it is watched already. -1: it isn't
        there, or can't be watched."""
        number: int = self._libc.inotify_add_watch(self.fd, os.fsencode(path), mask | _ONLYDIR)
        return number

    def remove(self, watch: int) -> None:
        """Watch it no more; it may be gone."""
        self._libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> Iterator[Event]:
        """The events that have come, in their order."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self.fd, _READ)
            at = 0
            while at < len(data):
                watch, mask, _, length = _HEAD.unpack_from(data, at)
                at += _HEAD.size + length
                name = data[at - length : at].rstrip(b"\0")
                yield Event(watch, mask, os.fsdecode(name))

    def drain(self) -> None:
        """Let go of all that has come."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.fd, _READ):
                pass

    def close(self) -> None:
        """Watch nothing more."""
        os.close(self.fd)
