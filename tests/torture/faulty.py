# SPDX-License-Identifier: MIT
"""`linxd` on a kernel that fails: the real one, with a hand at the sockets in between.

A request that is to fail is sent with a type that no kernel knows, so that it is not carried out, and the
refusal gets another errno on its way back; what a dump comes to is changed on its way. Which, how often and
how is told in the file that LINXD_TEST_FAULTS names; each fault is noted, with its time, in the same place.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from collections.abc import Iterable
from typing import Any

from linxd.cli.daemon import main
from linxd.netlink import wire
from linxd.netlink.socket import Requests
from linxd.sources.sysctl.procfs import Procfs

HEADER = struct.Struct("=IHHII")
ERROR = struct.Struct("=i")
NOBODYS = {0: 0x3FC, 12: (10 << 8) | 0xFF}
"""A type that is refused, by netlink family."""
NLM_F_DUMP = 0x300
NLM_F_DUMP_INTR = 0x10
PATH = os.environ["LINXD_TEST_FAULTS"]

with open(PATH) as _file:
    PLAN: list[dict[str, Any]] = json.load(_file)
"""Each: ``family``, ``types``, ``errno``, ``times``; ``dump``: "intr" or "error". ``key``: of a sysctl, with
``how``: "open" or "write"."""


def planned(family: int, kind: int, *, dump: bool) -> dict[str, Any] | None:
    """The fault that is due for a message, if any."""
    for fault in PLAN:
        fits = fault.get("family") == family and kind in fault["types"] and ("dump" in fault) == dump
        if fits and fault["times"] > 0:
            fault["times"] -= 1
            note({"family": family, "type": kind, "errno": fault.get("errno"), "dump": dump})
            return fault
    return None


def note(what: dict[str, Any]) -> None:
    """Put down what was done."""
    with open(f"{PATH}.done", "a") as file:
        file.write(json.dumps({**what, "at": time.monotonic()}) + "\n")


class Faulty:
    """A netlink socket with a hand in between."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._errors: dict[int, int] = {}
        self._dumps: dict[int, dict[str, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def send(self, data: bytes) -> int:
        """Spoil what is to fail."""
        buffer = bytearray(data)
        for start, kind, flags, seq in _headers(buffer):
            dump = (flags & NLM_F_DUMP == NLM_F_DUMP and kind % 4 == 2) or _nft_get(kind)
            fault = planned(self._sock.proto, kind, dump=dump)
            if fault is None:
                continue
            if dump:
                self._dumps[seq] = fault
            else:
                self._errors[seq] = fault["errno"]
                struct.pack_into("=H", buffer, start + 4, NOBODYS[self._sock.proto])
        return self._sock.send(buffer)

    def recvmsg(self, *arguments: Any) -> Any:
        """Spoil the answers."""
        data, *rest = self._sock.recvmsg(*arguments)
        buffer = bytearray(data)
        for start, kind, flags, seq in _headers(buffer):
            if kind == wire.NLMSG_ERROR and seq in self._errors:
                ERROR.pack_into(buffer, start + 16, -self._errors[seq])
            elif seq in self._dumps:
                fault = self._dumps[seq]
                if fault["dump"] == "intr":
                    struct.pack_into("=H", buffer, start + 6, flags | NLM_F_DUMP_INTR)
                elif kind == wire.NLMSG_DONE:
                    ERROR.pack_into(buffer, start + 16, -fault["errno"])
        return bytes(buffer), *rest


def _nft_get(kind: int) -> bool:
    return kind >> 8 == 10 and kind & 0xFF in (1, 4, 7, 10, 13, 19, 23)


def _headers(buffer: bytearray) -> Iterable[tuple[int, int, int, int]]:
    start = 0
    while start + HEADER.size <= len(buffer):
        length, kind, flags, seq, _ = HEADER.unpack_from(buffer, start)
        yield start, kind, flags, seq
        start += (length + 3) & ~3


_init = Requests.__init__


def _made(self: Requests, sock: socket.socket, **options: Any) -> None:
    _init(self, sock, **options)
    self.sock = Faulty(sock)  # type: ignore[assignment]


_write, _open = Procfs.write, Procfs.open


def _due(path: tuple[str, ...], how: str) -> None:
    for fault in PLAN:
        if fault.get("key") == ".".join(path) and fault["how"] == how and fault["times"] > 0:
            fault["times"] -= 1
            note({"key": fault["key"], "how": how, "errno": fault["errno"]})
            raise OSError(fault["errno"], os.strerror(fault["errno"]))


def _written(self: Procfs, path: tuple[str, ...], value: str, *, held: int | None = None) -> None:
    _due(path, "write")
    _write(self, path, value, held=held)


def _opened(self: Procfs, path: tuple[str, ...], access: int = os.O_RDONLY) -> tuple[int, int]:
    if access != os.O_WRONLY:
        _due(path, "open")
    return _open(self, path, access)


if __name__ == "__main__":
    Requests.__init__ = _made  # type: ignore[method-assign]
    Procfs.write = _written  # type: ignore[method-assign]
    Procfs.open = _opened  # type: ignore[method-assign]
    sys.exit(main())
