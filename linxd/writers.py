# SPDX-License-Identifier: MIT
"""Who caused events, where that is still to be looked up: as soon as what heals is on its way, and at the
next turn of the event loop in any case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from linxd.source import Writer


class Writers:
    """Those of one subscription."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Writer] = []
        self._asked = False

    def add(self, writers: Iterable[Writer]) -> None:
        """An event was read that these have caused."""
        self._waiting += writers

    def soon(self) -> None:
        """Have them looked up at the next turn of the event loop. To be called when hints have been told:
        the pass that these have woken comes first, if it can begin at once, and heals first."""
        if self._waiting and not self._asked:
            self._asked = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._asked = False
        self.look()

    def look(self) -> None:
        """Look them up now: something is on its way to the kernel, or has to be read first."""
        if self._waiting:
            writers, self._waiting = self._waiting, []
            for writer in writers:
                writer.look()
