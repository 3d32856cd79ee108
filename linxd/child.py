# SPDX-License-Identifier: MIT
"""A program that is begun and waited for: as much of it as is needed here, in a tenth of the memory that
`subprocess` and asyncio's own ways with it take.

It imports next to nothing: it is there before asyncio is.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing takes a while to import
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_KILL, _PIPE = 9, 13
"""SIGKILL and SIGPIPE: `signal` takes a while to import."""


class Child:
    """A program that runs, found on PATH unless it is named with its place.

    ``fds``: which of our files it has as which number; 0, 1 and 2 are /dev/null where nothing is said of
    them, and there are no others. ``env``: its environment, ours unless said. It has a process group of its
    own, which a terminal's Ctrl-C does not reach: that is ours to answer. Raises OSError where it can't be
    begun.
    """

    __slots__ = ("_status", "pid")

    def __init__(
        self,
        words: Sequence[str],
        *,
        fds: Mapping[int, int],
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._status: int | None = None
        # By way of numbers that nobody has: one of ours may be where another one is to be.
        free = max((2, *fds, *fds.values())) + 1
        actions: list[tuple[object, ...]] = []
        for at, ours in enumerate(fds.values()):
            actions.append((os.POSIX_SPAWN_DUP2, ours, free + at))
        for at, number in enumerate(fds):
            actions += [(os.POSIX_SPAWN_DUP2, free + at, number), (os.POSIX_SPAWN_CLOSE, free + at)]
        for name in os.listdir("/proc/self/fd"):
            number = int(name)
            if number > 2 and number not in fds and _inherited(number):
                actions.append((os.POSIX_SPAWN_CLOSE, number))
        actions += [
            (os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0)
            for number in range(3)
            if number not in fds
        ]
        # Python ignores SIGPIPE, and who is begun would, too.
        self.pid = os.posix_spawnp(
            words[0],
            list(words),
            os.environ if env is None else env,
            file_actions=actions,
            setsigdef=(_PIPE,),
            setpgroup=0,
        )

    def result(self) -> int:
        """Wait until it has ended: its exit code, negative for a signal, 255 where nobody can tell."""
        if self._status is None:
            try:
                self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            except ChildProcessError:
                self._status = 255  # whoever began us ignores SIGCHLD, and so do we
        return self._status

    async def wait(self) -> int:
        """The same in the running event loop."""
        if self._status is None:
            import asyncio

            loop = asyncio.get_running_loop()
            try:
                fd = os.pidfd_open(self.pid)
            except ProcessLookupError:
                return self.result()
            ended: asyncio.Future[None] = loop.create_future()
            loop.add_reader(fd, lambda: None if ended.done() else ended.set_result(None))
            try:
                await ended
            finally:
                loop.remove_reader(fd)
                os.close(fd)
        return self.result()

    def kill(self) -> None:
        """End it now, if nobody knows that it has ended."""
        if self._status is None:
            try:
                os.kill(self.pid, _KILL)
            except ProcessLookupError:
                self._status = 255  # it has, and is gone

    async def close(self) -> None:
        """End it now, if it has not ended, and wait for that."""
        self.kill()
        await self.wait()


def _inherited(number: int) -> bool:
    """Whether a program that is begun would have it: what we were handed when we began ourselves."""
    try:
        return os.get_inheritable(number)
    except OSError:
        return False  # that of the listing
