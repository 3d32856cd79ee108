# SPDX-License-Identifier: MIT
"""When a namespace comes to be, and when it ends: told by the kernel, without asking it again and again.

It runs in an event loop and knows nothing of what is done in the namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import time
from collections.abc import Callable
from typing import TypeVar

from linxd.culprit import netns_of
from linxd.inotify import CREATE, DELETE, DELETE_SELF, MOVE_SELF, MOVED_FROM, MOVED_TO, Inotify
from linxd.netns import (
    Namespace,
    NotThere,
    Ref,
    Refused,
    ended,
    is_replaced,
    locate,
    path_inode,
    processes,
    unit_cgroup,
)

WAIT = 60.0
"""Seconds for which a namespace that is not there yet is waited for."""

Found = TypeVar("Found")

_UNIT_POLL = 0.1
_POLL = 0.5
"""Seconds between two looks where nothing tells."""
_REST = 0.1
"""Seconds after word of a mount in which no more of it is heard: a container begins with dozens of them, and
every scope of the machine would wake up for each."""
_LOOKS = 3
"""A process may fork and end between two lines of a list."""
_ENTRIES = MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF


class _Mounts:
    """Rings when something is mounted or unmounted.

    mountinfo says so by POLLPRI, which asyncio does not wait for; an epoll descriptor of its own does, and
    is itself readable then.
    """

    def __init__(self) -> None:
        self._file = open("/proc/self/mountinfo", "rb")  # noqa: SIM115 - open as long as this is
        self._epoll = select.epoll()
        self._epoll.register(self._file.fileno(), select.EPOLLPRI)
        self.fd = self._epoll.fileno()

    def drain(self) -> None:
        self._epoll.poll(0)

    def close(self) -> None:
        self._epoll.close()
        self._file.close()


class _Priority(_Mounts):
    """The same for another file of the kernel's that rings so: a cgroup's cgroup.events."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb")  # noqa: SIM115
        self._epoll = select.epoll()
        self._epoll.register(self._file.fileno(), select.EPOLLPRI)
        self.fd = self._epoll.fileno()

    def drain(self) -> None:
        super().drain()
        # Until it is read, it goes on ringing.
        with contextlib.suppress(OSError):
            self._file.seek(0)
            self._file.read()


class _Bells:
    """Descriptors that ring in the running event loop when it is time to look again."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._open: list[tuple[int, Callable[[], None], Callable[[], None]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._resting: dict[int, asyncio.TimerHandle] = {}

    def hang(
        self, fd: int, drain: Callable[[], None], close: Callable[[], None], *, rest: float = 0.0
    ) -> None:
        """``rest``: seconds after it has rung in which it is not heard. Whatever came meanwhile, it rings
        once afterwards: to begin to listen is to ask the kernel, which tells of a mount once, and the event
        loop, which asks again, would be told of none."""

        def again() -> None:
            del self._resting[fd]
            self._loop.add_reader(fd, rung)
            self._ring()

        def rung() -> None:
            drain()
            if rest:
                self._loop.remove_reader(fd)
                self._resting[fd] = self._loop.call_later(rest, again)
            self._ring()

        self._open.append((fd, drain, close))
        self._loop.add_reader(fd, rung)

    def take_down(self, fd: int) -> None:
        """Let one of them ring no more."""
        for bell in [bell for bell in self._open if bell[0] == fd]:
            self._open.remove(bell)
            self._silence(bell)

    def _silence(self, bell: tuple[int, Callable[[], None], Callable[[], None]]) -> None:
        fd, _, close = bell
        if (resting := self._resting.pop(fd, None)) is not None:
            resting.cancel()
        self._loop.remove_reader(fd)
        close()

    def hang_mounts(self) -> None:
        """Ring when something is mounted or unmounted."""
        mounts = _Mounts()
        self.hang(mounts.fd, mounts.drain, mounts.close, rest=_REST)

    def hang_path(self, path: str) -> None:
        """Ring when an entry comes or goes on the way to a path, and when something is mounted."""
        self.hang_mounts()
        try:
            inotify = Inotify()
        except OSError:
            # A user may have 128 of these, and all of their processes share them.
            self.hang_timer(_POLL)
            return
        directory = os.path.dirname(path)
        while inotify.add(directory, _ENTRIES) < 0 and directory != "/":
            directory = os.path.dirname(directory)
        self.hang(inotify.fd, inotify.drain, inotify.close)

    def hang_timer(self, seconds: float) -> None:
        """Ring again and again."""

        def rung() -> None:
            self._timer = self._loop.call_later(seconds, rung)
            self._ring()

        self._timer = self._loop.call_later(seconds, rung)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for bell in self._open:
            self._silence(bell)
        self._open.clear()


async def wait_for(
    ref: Ref,
    look: Callable[[Ref], Found],
    *,
    seconds: float = WAIT,
    wanted: Callable[[], bool] | None = None,
) -> Found:
    """What ``look`` (`find`, `locate`) finds, as soon as the namespace is there. Raises as it does, NotThere
    when the time is up, or when it is not ``wanted`` any more.

    A process is not waited for: a pid names one that runs, or by now a stranger.
    """
    end = time.monotonic() + seconds
    changed = asyncio.Event()
    while True:
        bells = _Bells(changed.set)
        try:
            changed.clear()
            if ref.kind == "path":
                # First listen, then look: nothing falls in between.
                bells.hang_path(ref.value)
            try:
                return look(ref)
            except NotThere:
                left = end - time.monotonic()
                if left <= 0 or ref.kind not in ("path", "unit"):
                    raise
                if wanted is not None and not wanted():
                    raise
            # No event tells that a process of a unit has gone into another namespace.
            polled = ref.kind == "unit" or wanted is not None
            pause = min(left, _UNIT_POLL) if polled else left
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), pause)
        finally:
            bells.close()


class Watch:
    """Calls ``gone`` once, in the running event loop, when the namespace ends: its path is unlinked or names
    another one, its process has ended, its unit has no process in it any more."""

    def __init__(self, namespace: Namespace, gone: Callable[[], None]) -> None:
        self._ref = namespace.ref
        self._inode = namespace.inode
        self._cgroup = namespace.cgroup
        self._number = namespace.number
        self._pidfd = -1
        self._gone: Callable[[], None] | None = gone
        self._bells = _Bells(self._look)
        try:
            self._hang(namespace)
        except BaseException:
            self.close()
            raise
        self._look()

    def _hang(self, namespace: Namespace) -> None:
        match self._ref.kind:
            case "path":
                self._bells.hang_mounts()
                # What is mounted at a path can't go from there without being unmounted; a link to it can.
                if path_inode(self._ref.value, follow=False) != self._inode:
                    self._bells.hang_timer(_POLL)
            case "pid":
                self._hang_process(os.dup(namespace.pidfd))
            case "unit":
                assert self._cgroup is not None
                # A unit may outlive its container: there may be a supervisor, who begins another one.
                self._hang_process(os.dup(namespace.pidfd))
                # The old hierarchy has no such file; the process tells then.
                with contextlib.suppress(OSError):
                    events = _Priority(os.path.join(self._cgroup, "cgroup.events"))
                    self._bells.hang(events.fd, events.drain, events.close)

    def _hang_process(self, pidfd: int) -> None:
        if self._pidfd >= 0:
            self._bells.take_down(self._pidfd)
            os.close(self._pidfd)
        self._pidfd = pidfd
        self._bells.hang(self._pidfd, lambda: None, lambda: None)

    def close(self) -> None:
        """Watch no more."""
        self._gone = None
        self._bells.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _look(self) -> None:
        gone = self._gone
        if gone is not None and self._has_ended():
            self.close()
            gone()

    def _has_ended(self) -> bool:
        left = self._pidfd >= 0 and ended(self._pidfd)
        match self._ref.kind:
            case "path":
                return path_inode(self._ref.value) != self._inode
            case "unit":
                assert self._cgroup is not None
                return not _populated(self._cgroup) or (left and not self._another(self._cgroup))
        return left

    def _another(self, cgroup: str) -> bool:
        """Whether another process of the unit is in the namespace; that one is watched from then on."""
        for _ in range(_LOOKS):
            for pid in processes(cgroup):
                with contextlib.suppress(OSError):
                    pidfd = os.pidfd_open(pid)
                    # In this order: it is the one that was opened.
                    if netns_of(f"/proc/{pid}") == self._number and not ended(pidfd):
                        self._hang_process(pidfd)
                        return True
                    os.close(pidfd)
        return False


async def comes_again(namespace: Namespace, *, seconds: float) -> bool:
    """Whether a unit whose container has ended has another one, or may have: it has not ended itself within
    so many seconds."""
    assert namespace.cgroup is not None
    return await _goes_on(namespace.cgroup, lambda: is_replaced(namespace), seconds)


async def begins(ref: Ref, *, seconds: float) -> bool:
    """The same of a unit of which no process was in a namespace of its own."""

    def there() -> bool:
        with contextlib.suppress(NotThere, Refused, OSError):
            return bool(locate(ref))
        return False

    cgroup = unit_cgroup(ref.value) if ref.kind == "unit" else None
    return cgroup is not None and await _goes_on(cgroup, there, seconds)


async def _goes_on(cgroup: str, again: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    # Between what a service starts with (ExecStartPre=) and what it runs there may be nobody in it.
    while os.path.isdir(cgroup):
        there = _populated(cgroup)
        if there and again():
            return True
        if time.monotonic() >= end:
            return there
        await asyncio.sleep(_UNIT_POLL / 4)
    return False


def _populated(cgroup: str) -> bool:
    try:
        with open(os.path.join(cgroup, "cgroup.events")) as file:
            return "populated 1" in file.read()
    except FileNotFoundError:
        return os.path.isdir(cgroup) and next(processes(cgroup), None) is not None
    except OSError:
        return False  # ENODEV: the cgroup was removed under the open file
