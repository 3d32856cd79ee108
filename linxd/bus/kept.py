# SPDX-License-Identifier: MIT
"""What is given out in pages, kept while somebody reads on in it: its pages belong together, and are not
made anew for each.

It knows nothing of what that is.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

MOST = 4
"""Senders for whom something is kept."""
SECONDS = 60.0
"""After which nobody reads on."""


class Kept(Generic[T]):
    """One thing for each of the senders that asked last. ``let_go`` is called with what is given up."""

    def __init__(self, let_go: Callable[[T], None]) -> None:
        self._let_go = let_go
        self._things: OrderedDict[str, T] = OrderedDict()
        self._expiry: asyncio.TimerHandle | None = None

    def get(self, sender: str) -> T | None:
        """What is kept for a sender, who reads on in it."""
        thing = self._things.get(sender)
        if thing is not None:
            self._things.move_to_end(sender)
            self._renew()
        return thing

    def put(self, sender: str, thing: T) -> None:
        """Keep this for a sender from now on."""
        self.drop(sender)
        self._things[sender] = thing
        while len(self._things) > MOST:
            self.drop(next(iter(self._things)))
        self._renew()

    def drop(self, sender: str) -> None:
        """Keep nothing for a sender any more."""
        thing = self._things.pop(sender, None)
        if thing is not None:
            self._let_go(thing)

    def close(self) -> None:
        """Keep nothing any more."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        for sender in list(self._things):
            self.drop(sender)

    def _renew(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(SECONDS, self.close)
