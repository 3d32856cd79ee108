# SPDX-License-Identifier: MIT
"""Entries into the journal with all their fields, in its native protocol
(systemd.io/JOURNAL_NATIVE_PROTOCOL).

It knows the form of an entry and nothing of what entries are about.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Mapping

from linxd.log import Entry

SOCKET = "/run/systemd/journal/socket"
_LENGTH = struct.Struct("<Q")
_F_ADD_SEALS = 1033
_SEALS = 0xF  # all of them: journald takes a memfd only if nobody can change it


def connected(environment: Mapping[str, str] = os.environ, fd: int = 2) -> bool:
    """Whether what is written to ``fd`` goes to the journal anyway (JOURNAL_STREAM of systemd.exec(5))."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        seen = os.fstat(fd)
        return (seen.st_dev, seen.st_ino) == (int(device), int(inode))
    except (OSError, ValueError):
        return False


class Journal:
    """A sink for entries. What the journal does not take is lost, as it would be on a full disk."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        # A journal that is stuck must not hold up a loop for longer than this.
        self._socket.settimeout(0.02)

    def close(self) -> None:
        """Send nothing more."""
        self._socket.close()

    def __call__(self, entry: Entry) -> None:
        data = b"".join(_lines(entry))
        try:
            self._socket.sendto(data, self._path)
        except TimeoutError:
            pass
        except OSError:
            with contextlib.suppress(OSError):
                self._send_file(data)

    def _send_file(self, data: bytes) -> None:
        """What is too large for a datagram goes in a sealed file."""
        descriptor = os.memfd_create("linxd-entry", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            fcntl.fcntl(descriptor, _F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
            self._socket.sendmsg([], [rights], 0, self._path)
        finally:
            os.close(descriptor)


def _lines(entry: Entry) -> Iterator[bytes]:
    message = "\n".join((entry.text, *(f"  {line}" for line in entry.details)))
    yield _field("MESSAGE", message)
    yield _field("MESSAGE_ID", entry.message_id)
    yield _field("PRIORITY", str(entry.priority))
    yield _field("SYSLOG_IDENTIFIER", "linxd")
    for key, value in entry.fields.items():
        for one in (value,) if isinstance(value, str) else value:
            yield _field(key, one)


def _field(key: str, value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    if b"\n" not in data:
        return b"%s=%s\n" % (key.encode(), data)
    return b"%s\n%s%s\n" % (key.encode(), _LENGTH.pack(len(data)), data)
