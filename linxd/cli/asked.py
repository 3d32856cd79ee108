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

    The interpreter writes to a socket that the event loop reads. asyncio does the same, but looks at each
    handler with `inspect`, a megabyte that a daemon needs for nothing else. What was asked is noted beside
    it: a socket that is full of one signal takes no other.
    """

    def __init__(self) -> None:
        self.stop, self.hurry, self.reload = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._events = asyncio.get_running_loop()
        self._noted: list[int] = []
        self._heard, self._bell = socket.socketpair()
        for end in (self._heard, self._bell):
            end.setblocking(False)
        self._events.add_reader(self._heard.fileno(), self._hear)
        signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        for number in (*STOP, signal.SIGHUP):
            signal.signal(number, self._note)
            # What is under way is not ended by one with EINTR.
            signal.siginterrupt(number, False)
        # One that came before this has waited.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Called between any two lines of the program, and always before what it wrote is read."""
        if self._noted.count(number) < 2:
            self._noted.append(number)

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._heard.recv(4096)
        while self._noted:
            if self._noted.pop(0) == signal.SIGHUP:
                self.reload.set()
            else:
                if self.stop.is_set():
                    self.hurry.set()
                self.stop.set()

    def close(self) -> None:
        """Hear no more. A process that ends is not to be ended by a signal on top of that."""
        signal.set_wakeup_fd(-1)
        self._events.remove_reader(self._heard.fileno())
        self._heard.close()
        self._bell.close()
