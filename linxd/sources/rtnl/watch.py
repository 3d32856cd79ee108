# SPDX-License-Identifier: MIT
"""What the loop holds of a subscription: events of the scope's namespace, and of the host's links where some
of the scope's refer to them. It reads neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from linxd.source import Hint
from linxd.sources.rtnl.events import EventReader
from linxd.sources.rtnl.hostside import HostSide, HostWatch
from linxd.sources.rtnl.routereader import RouteReader


class Watch:
    """A subscription to the events of the scope's namespace and, where links refer to the host's, to those
    of its links."""

    def __init__(self, events: EventReader, notify: Callable[[Hint], None], reader: RouteReader) -> None:
        self._events = events
        self._notify = notify
        self._reader = reader
        reader.told = True
        self._host: HostWatch | None = None

    def follow(self, host: HostSide | None) -> None:
        """From now on the host's links count too."""
        if host is not None and self._host is None:
            self._host = host.subscribe(self._told)

    def sift(self) -> None:
        """Something else is declared."""
        if self._reader.told:
            self._events.sift()

    def overlook(self, *, ours: bool) -> None:
        """Very many routes are about to be made, or have been: nothing need be told of those."""
        if self._reader.told:
            self._events.overlook(ours=ours)

    def close(self) -> None:
        """No hint comes after this."""
        self._reader.told = False
        self._events.close()
        if self._host is not None:
            self._host.close()

    def identify(self) -> None:
        """Look up who wrote what was read last."""
        self._events.writers.look()

    def _told(self, links: list[str]) -> None:
        now = time.monotonic()
        for name in links:
            self._notify(Hint(("link", name), at=now))
