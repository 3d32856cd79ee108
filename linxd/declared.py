# SPDX-License-Identifier: MIT
"""Which scopes have a file now, and word of it as soon as another one may have.

Events are hints: what there is, is listed anew each time. It opens no file and knows nothing of what is in
one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import Callable, Collection, Sequence

from linxd.config.files import DIRECTORIES, declared_names
from linxd.config.model import valid_name
from linxd.inotify import (
    CLOSE_WRITE,
    CREATE,
    DELETE,
    DELETE_SELF,
    IGNORED,
    ISDIR,
    MODIFY,
    MOVE_SELF,
    MOVED_FROM,
    MOVED_TO,
    OVERFLOW,
    UNMOUNT,
    Event,
    Inotify,
)

LONGEST = 30.0
"""Seconds for which a file is taken to be still written that was begun and not closed."""
PAUSE = 0.1
"""Seconds between two times that events are listened to: whatever writes there, this is no work."""
_FOLDER = "netns"
_FILES = CREATE | MODIFY | CLOSE_WRITE | MOVED_FROM | MOVED_TO | DELETE | DELETE_SELF | MOVE_SELF
_WAY = CREATE | MOVED_TO | DELETE_SELF | MOVE_SELF
_ITSELF = DELETE_SELF | MOVE_SELF | UNMOUNT | IGNORED
_TRIES = 8
"""How often it is begun anew when a directory comes to be just then."""

Changed = Callable[[Collection[str] | None], None]
"""Told the scopes of which a file came, went or was written; None: of any."""


class Declared:
    """The scopes that have files in these directories."""

    def __init__(self, directories: Sequence[str] = DIRECTORIES) -> None:
        self._directories = tuple(directories)
        self._changed: Changed | None = None
        self._inotify: Inotify | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._watched: dict[int, tuple[str, set[str] | None]] = {}
        """By number of the watch: the directory, and which of its entries are waited for; None: its files
        are meant."""
        self._writing: dict[str, float] = {}
        """Scopes whose file is being written, and since when."""

    async def names(self) -> frozenset[str]:
        """Those that have a file now, without those whose file is just being written."""
        found = frozenset(await asyncio.to_thread(declared_names, self._directories))
        # In this order: of what was listed, it is known by then whether it was complete.
        self._read()
        now = time.monotonic()
        self._writing = {name: at for name, at in self._writing.items() if now - at < LONGEST}
        return found - self._writing.keys()

    def watch(self, changed: Changed) -> None:
        """From now on, or still, tell of changes in the running event loop. To be called again now and
        then: directories that were replaced unheard are found so. Where nothing can be watched, nothing is
        told."""
        self._changed = changed
        if self._inotify is None:
            try:
                self._inotify = Inotify()
            except OSError:
                # A user may have 128 of these, and all of their processes share them.
                return
            self._loop = asyncio.get_running_loop()
            self._listen()
        self._hang()

    def close(self) -> None:
        """Tell of nothing more."""
        if self._pause is not None:
            self._pause.cancel()
        if self._inotify is not None and self._loop is not None:
            self._loop.remove_reader(self._inotify.fd)
            self._inotify.close()
        self._inotify = self._loop = self._pause = self._changed = None
        self._watched.clear()
        self._writing.clear()

    # -- directories ----------------------------------------------------------------------------------------

    def _hang(self) -> None:
        """Watch the directories or, of those that are not there, what is there on the way."""
        assert self._inotify is not None
        found: dict[int, tuple[str, set[str] | None]] = {}
        for base in self._directories:
            for _ in range(_TRIES):
                missing = self._hang_one(self._inotify, os.path.join(base, _FOLDER), found)
                # It may have come between the one step and the other.
                if not missing or not os.path.isdir(missing):
                    break
        for watch in self._watched.keys() - found.keys():
            self._inotify.remove(watch)
        self._watched = found

    @staticmethod
    def _hang_one(inotify: Inotify, folder: str, found: dict[int, tuple[str, set[str] | None]]) -> str:
        """Returns the first directory on the way that is missing, if any."""
        watch = inotify.add(folder, _FILES)
        if watch >= 0:
            found[watch] = (folder, None)
            return ""
        at = folder
        while at != os.path.dirname(at):
            missing, at = at, os.path.dirname(at)
            watch = inotify.add(at, _WAY)
            if watch >= 0:
                waited = found.setdefault(watch, (at, set()))[1]
                if waited is not None:
                    waited.add(os.path.basename(missing))
                return missing
        return ""

    # -- events ---------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._pause = None
        if self._inotify is not None and self._loop is not None:
            self._loop.add_reader(self._inotify.fd, self._rung)

    def _rung(self) -> None:
        self._read()
        if self._inotify is not None and self._loop is not None:
            self._loop.remove_reader(self._inotify.fd)
            self._pause = self._loop.call_later(PAUSE, self._listen)

    def _read(self) -> None:
        if self._inotify is None:
            return
        changed: set[str] = set()
        anew = False
        for event in self._inotify.read():
            directory, waited = self._watched.get(event.watch, ("", set()))
            if event.mask & OVERFLOW or (directory and event.mask & _ITSELF):
                anew = True
            elif waited is not None:
                anew = anew or event.name in waited
            else:
                changed |= self._take(directory, event)
        if anew:
            self._writing.clear()
            self._hang()
        if self._changed is not None and (anew or changed):
            self._changed(None if anew else changed)

    def _take(self, directory: str, event: Event) -> set[str]:
        """The scope that a file's event tells something of, if it is over."""
        name = event.name.removesuffix(".toml")
        if name == event.name or event.mask & ISDIR or not valid_name(name):
            return set()
        if event.mask & MODIFY or (event.mask & CREATE and _is_opened(os.path.join(directory, event.name))):
            # It is complete when it is closed, and that is told.
            self._writing[name] = time.monotonic()
            return set()
        self._writing.pop(name, None)
        return {name}


def _is_opened(path: str) -> bool:
    """Whether an entry that came is one that somebody has made to write to it, and not a link."""
    with contextlib.suppress(OSError):
        seen = os.lstat(path)
        return stat.S_ISREG(seen.st_mode) and seen.st_nlink == 1
    return False
