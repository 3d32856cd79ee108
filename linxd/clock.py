# SPDX-License-Identifier: MIT
"""Time that goes on while the machine sleeps, with an alarm that rings in the event loop.

Everything that is timed in a loop takes its clock from here or, in tests, from the caller. It knows no loop.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable
from typing import Protocol


class Alarm(Protocol):
    """One alarm, in the hands of one owner."""

    def set(self, when: float | None) -> None:
        """Ring once at ``when`` (seconds of the clock; in the past: at once), instead of what was set
        before. None: don't ring."""

    def close(self) -> None:
        """Never ring again."""


class Clock(Protocol):
    """A clock whose seconds only ever grow."""

    def now(self) -> float:
        """Seconds since a fixed moment."""

    def alarm(self, ring: Callable[[], None]) -> Alarm:
        """A new alarm, silent at first, that calls ``ring`` in the running event loop."""


class BootClock:
    """CLOCK_BOOTTIME: CLOCK_MONOTONIC plus the time spent in suspend.

    asyncio's own timers wait on CLOCK_MONOTONIC, so a 30 s timer set before a night's suspend still has its
    30 s to go in the morning. A timerfd on CLOCK_BOOTTIME has expired by then and wakes the event loop at
    once.
    """

    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def alarm(self, ring: Callable[[], None]) -> Alarm:
        try:
            return _TimerFd(ring)
        except OSError:
            return _CallLater(self, ring)


class _Itimerspec(ctypes.Structure):
    """struct itimerspec of timerfd_settime(2): interval, then value."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "value_s", "value_ns")]


_TFD_TIMER_ABSTIME = 1


class _TimerFd:
    # os.timerfd_create is there from Python 3.13 on; two calls of the C library serve every version.

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(time.CLOCK_BOOTTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._events = asyncio.get_running_loop()
        self._events.add_reader(self._fd, self._expired)

    def _expired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # set anew between its expiry and this call
        self._ring()

    def set(self, when: float | None) -> None:
        # A value of zero would disarm, and a negative one is refused.
        ns = 0 if when is None else max(1, int(when * 1e9))
        spec = _Itimerspec(0, 0, ns // 1_000_000_000, ns % 1_000_000_000)
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        if self._fd >= 0:
            self._events.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


class _CallLater:
    # Where timerfd is forbidden (a system call filter): right but for suspend, after which the alarm comes
    # late by as much as was left of it.

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._events = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None

    def set(self, when: float | None) -> None:
        self.close()
        if when is not None:
            self._handle = self._events.call_later(max(0.0, when - self._clock.now()), self._ring)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


BOOT = BootClock()
