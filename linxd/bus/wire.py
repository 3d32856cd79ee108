# SPDX-License-Identifier: MIT
"""One connection to a message bus as bytes: frames cut from what comes, and the unsent rest kept until there
is room for it.

It knows neither names nor objects, nor what a message says; the library for that stands in `connection`.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from collections import deque
from collections.abc import Callable

LONGEST_CALL = 1 << 12
"""Bytes of a body that anybody may send us. What is longer is never decoded: in Python an array of variants
takes 1 ms for each kilobyte or so, and anybody could keep a watchdog waiting that way."""
LONGEST_HEAD = 1 << 16
"""Bytes of a header. A path may be as long as a message; what is longer is passed over altogether."""
LONGEST_SIGNAL = 1 << 16
"""The same for signals, to those who listen to them and serve nobody."""
LONGEST_REPLY = 16 << 20
"""The same for answers to what we have asked."""
MOST_UNSENT = 64 << 20
"""Bytes that may wait to be sent. A bus that takes none of so many is as good as gone."""
_RECEIVE = 1 << 16
_SLICE = 0.005
"""Seconds for which messages are dealt with before others have their turn."""
_METHOD_RETURN, _ERROR = 2, 3
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")
_LINE = 1024


class Frame:
    """A message as it came. ``body`` is empty where it was too long, and ``cut`` says so."""

    __slots__ = ("cut", "data")

    def __init__(self, data: bytes, *, cut: bool) -> None:
        self.data = data
        self.cut = cut


def paths(address: str) -> list[str]:
    """The sockets that an address of the D-Bus specification names, those in the abstract namespace with a
    NUL in front. Raises ValueError where it names none."""
    found = []
    for one in address.split(";"):
        transport, _, rest = one.partition(":")
        options = dict(pair.partition("=")[::2] for pair in rest.split(","))
        if transport == "unix" and "path" in options:
            found.append(_unescaped(options["path"]))
        elif transport == "unix" and "abstract" in options:
            found.append("\0" + _unescaped(options["abstract"]))
    if not found:
        raise ValueError(f"{address!r} names no socket")
    return found


def _unescaped(value: str) -> str:
    """A value with the bytes that may not stand in an address."""
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), os.fsencode(value)))


async def connected(address: str) -> socket.socket:
    """A socket on which the bus has accepted us, by our uid. Raises OSError, ValueError. It may take for
    ever: a bus that has enough connections accepts and says nothing."""
    trouble: OSError | None = None
    for path in paths(address):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            await asyncio.get_running_loop().sock_connect(sock, path)
            await _authenticate(sock)
            return sock
        except OSError as error:
            trouble = error
            sock.close()
        except BaseException:
            sock.close()
            raise
    assert trouble is not None
    raise trouble


async def _authenticate(sock: socket.socket) -> None:
    """SASL's EXTERNAL: the kernel tells the bus who we are."""
    events = asyncio.get_running_loop()
    uid = str(os.geteuid()).encode().hex()
    await events.sock_sendall(sock, f"\0AUTH EXTERNAL {uid}\r\n".encode())
    line = b""
    while not line.endswith(b"\r\n"):
        more = await events.sock_recv(sock, _LINE)
        line += more
        if not more or len(line) > _LINE:
            raise ConnectionRefusedError("the bus closed the connection")
    if not line.startswith(b"OK "):
        raise ConnectionRefusedError(f"the bus refused us: {line.decode('ascii', 'replace').strip()}")
    await events.sock_sendall(sock, b"BEGIN\r\n")


class Wire:
    """Sends and receives on ``sock``, which is non-blocking and becomes its own.

    ``received`` is told each frame; ``lost`` once, with why, when the connection has ended by itself.
    ``longest``: bytes of the body of a call or signal.
    """

    def __init__(
        self,
        sock: socket.socket,
        received: Callable[[Frame], None],
        lost: Callable[[str], None],
        *,
        longest: int = LONGEST_CALL,
    ) -> None:
        self._sock = sock
        self._longest = longest
        self._received = received
        self._lost = lost
        self._events = asyncio.get_running_loop()
        self._came = bytearray()
        self._skip = 0
        """Bytes of a body that is too long which are still to come."""
        self._unsent: deque[memoryview] = deque()
        self.unsent = 0
        """Bytes that wait to be sent."""
        self._writing = False
        self._flush: asyncio.Handle | None = None
        self._parsing: asyncio.Handle | None = None
        self._held = False
        """Whether nothing is read because there is enough to deal with."""
        self._closed = False
        self._events.add_reader(sock, self._readable)

    def close(self) -> None:
        """Send and receive nothing more; what is unsent is tried once."""
        if not self._closed:
            self._write()
        self._end()

    def send(self, data: bytes) -> None:
        """Send a message, now or as soon as there is room."""
        if self._closed:
            return
        self._unsent.append(memoryview(data))
        self.unsent += len(data)
        if self.unsent > MOST_UNSENT:
            self._break("the bus takes nothing from us any more")
        elif not self._writing and self._flush is None:
            # What is said in one turn goes out together.
            self._flush = self._events.call_soon(self._flushed)

    def _flushed(self) -> None:
        self._flush = None
        self._write()

    def _write(self) -> None:
        try:
            while self._unsent:
                sent = self._sock.sendmsg([part for part, _ in zip(self._unsent, range(64), strict=False)])
                self.unsent -= sent
                while sent and sent >= len(self._unsent[0]):
                    sent -= len(self._unsent.popleft())
                if sent:
                    self._unsent[0] = self._unsent[0][sent:]
        except (BlockingIOError, InterruptedError):
            pass  # the rest is kept
        except OSError as error:
            self._break(error.strerror or str(error))
            return
        if bool(self._unsent) != self._writing and not self._closed:
            self._writing = bool(self._unsent)
            if self._writing:
                self._events.add_writer(self._sock, self._write)
            else:
                self._events.remove_writer(self._sock)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_RECEIVE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._break(error.strerror or str(error))
            return
        if not data:
            self._break("the bus closed the connection")
            return
        self._came += data
        self._parse()

    def _parse(self) -> None:
        self._parsing = None
        until = time.monotonic() + _SLICE
        while not self._closed:
            try:
                frame = self._cut()
            except ValueError as error:
                self._break(str(error))
                return
            if frame is None:
                if self._held:
                    self._held = False
                    self._events.add_reader(self._sock, self._readable)
                return
            self._received(frame)
            if time.monotonic() >= until and not self._closed:
                # Others' turn; nothing more is read until this is dealt with.
                if not self._held:
                    self._held = True
                    self._events.remove_reader(self._sock)
                self._parsing = self._events.call_soon(self._parse)
                return

    def _cut(self) -> Frame | None:
        """The next frame, if all of it has come. Raises ValueError where it can't be one."""
        came = self._came
        if self._skip:
            gone = min(self._skip, len(came))
            del came[:gone]
            self._skip -= gone
        if self._skip or len(came) < 16:
            return None
        order = {0x6C: "little", 0x42: "big"}.get(came[0])
        if order is None:
            raise ValueError("the bus sent what is no message")
        body = int.from_bytes(came[4:8], order)  # type: ignore[arg-type]
        head = 16 + (int.from_bytes(came[12:16], order) + 7 & ~7)  # type: ignore[arg-type]
        if head > 1 << 27 or body > 1 << 27:
            raise ValueError("the bus sent what is no message")
        if head > LONGEST_HEAD:
            self._skip = head + body
            return self._cut()
        cut = body > (LONGEST_REPLY if came[1] in (_METHOD_RETURN, _ERROR) else self._longest)
        if len(came) < (head if cut else head + body):
            return None
        data = bytearray(came[: head if cut else head + body])
        del came[: len(data)]
        if cut:
            data[4:8] = bytes(4)
            self._skip = body
        return Frame(bytes(data), cut=cut)

    def _break(self, why: str) -> None:
        if not self._closed:
            self._end()
            self._lost(why)

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        for handle in (self._flush, self._parsing):
            if handle is not None:
                handle.cancel()
        self._events.remove_reader(self._sock)
        self._events.remove_writer(self._sock)
        self._unsent.clear()
        self._came.clear()
        self._sock.close()
