# SPDX-License-Identifier: MIT
"""What signals ask of the daemon.

It knows no scope: somebody waits for what is set here.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from types import FrameType

STOP = (signal.SIGTERM, signal.SIGINT)


class Asked:
    """What signals ask for, in the running event loop. ``hurry``: a second one to stop, which does not wait
    for things to be given back.

    The interpreter writes the number of a signal to a socket that the event loop reads. asyncio does the
    same, but looks at each handler with `inspect`, a megabyte that a daemon needs for nothing else.
    """

    def __init__(self) -> None:
        self.stop, self.hurry, self.reload = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._events = asyncio.get_running_loop()
        self._heard, self._bell = socket.socketpair()
        for end in (self._heard, self._bell):
            end.setblocking(False)
        self._events.add_reader(self._heard.fileno(), self._hear)
        signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        for number in (*STOP, signal.SIGHUP):
            signal.signal(number, _rings)
            # What is under way is not ended by one with EINTR.
            signal.siginterrupt(number, False)

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in self._heard.recv(4096):
                if number == signal.SIGHUP:
                    self.reload.set()
                elif number in STOP:
                    if self.stop.is_set():
                        self.hurry.set()
                    self.stop.set()

    def close(self) -> None:
        """Hear no more. A process that ends is not to be ended by a signal on top of that."""
        signal.set_wakeup_fd(-1)
        self._events.remove_reader(self._heard.fileno())
        self._heard.close()
        self._bell.close()


def _rings(number: int, frame: FrameType | None) -> None:
    """Python's part of a signal; ours is done when the bell is heard."""
