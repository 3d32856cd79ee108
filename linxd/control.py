# SPDX-License-Identifier: MIT
"""The way to a running daemon that needs no bus: a socket in its state directory, for it and for root alone.

A request is one line, a word and perhaps what it is about; the answer one line of JSON. What a word does is
its caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping

from linxd.records import dataclass

NAME = "control"
LONGEST = 4096
"""Bytes of a request."""
_SECONDS = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(?: (.+))?")
_PEER = struct.Struct("=iII")  # struct ucred: pid, uid, gid


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request: whether it was done, and lines about it."""

    done: bool
    lines: tuple[str, ...] = ()


class Control:
    """Answers requests as long as it is open. ``verbs``: what each word does; ``about``: what those do that
    something follows, and which are given that."""

    def __init__(
        self,
        directory: str,
        verbs: Mapping[str, Callable[[], Awaitable[Answer]]],
        about: Mapping[str, Callable[[str], Awaitable[Answer]]] | None = None,
    ) -> None:
        self._path = os.path.join(directory, NAME)
        self._verbs = verbs
        self._about = about or {}
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Begin to answer. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(_short(self._path))
            os.chmod(self._path, 0o600)
        except BaseException:
            sock.close()
            raise
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=LONGEST)

    def close(self) -> None:
        """Answer nobody any more."""
        if self._server is not None:
            self._server.close()
            self._server = None
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            peer = writer.get_extra_info("socket")
            _, uid, _ = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            line = (await asyncio.wait_for(reader.readline(), 5)).decode("utf-8", "replace").strip()
            if uid not in (0, os.geteuid()):
                answer = Answer(False, ("not permitted",))
            else:
                answer = await self._do(line)
            writer.write(json.dumps({"done": answer.done, "lines": answer.lines}).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError, TimeoutError):
            pass  # whoever asked has gone, or does not ask as we do
        finally:
            writer.close()

    async def _do(self, line: str) -> Answer:
        word, _, rest = line.partition(" ")
        if not rest and word in self._verbs:
            return await self._verbs[word]()
        if rest and word in self._about:
            return await self._about[word](rest)
        return Answer(False, (f"knows no {line!r}",))


def span(text: str) -> tuple[float, str] | None:
    """A number of seconds and what follows it; None where there is no number."""
    found = _SECONDS.fullmatch(text)
    return None if found is None else (float(found[1]), found[2] or "")


def ask(directory: str, word: str, *, seconds: float) -> Answer:
    """Ask the daemon whose state is in ``directory``, and wait. ``word``: a line, with what it is about.
    Raises OSError where none answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(seconds)
        sock.connect(_short(os.path.join(directory, NAME)))
        sock.sendall(f"{word}\n".encode())
        data = b""
        while not data.endswith(b"\n"):
            more = sock.recv(1 << 16)
            if not more:
                raise ConnectionResetError("the daemon ended")
            data += more
    answer = json.loads(data)
    return Answer(bool(answer["done"]), tuple(answer["lines"]))


def _short(path: str) -> str:
    """A path to the same file that fits into a socket's address of 107 bytes."""
    relative = os.path.relpath(path)
    return min(path, relative, key=len)
