# SPDX-License-Identifier: MIT
"""A source's events on their way to its loop: subscribed to, again when they break off, merged while they
wait.

It knows that events are hints and may be lost; what is done about them is the loop's business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from linxd.clock import Clock
from linxd.gate import BACKOFF_LAST, backoff
from linxd.patch import Key
from linxd.records import replace
from linxd.source import Gone, Hint, Source, Subscription, Unsupported

log = logging.getLogger(__name__)

MOST_HINTS = 10_000
"""Objects that may wait to be looked at one by one; beyond that, one look at everything is cheaper."""


class Feed:
    """The subscription to one source, and what it brought. ``wake`` is called when there is something
    new, ``later`` when that may wait."""

    def __init__(
        self,
        source: Source[Any, Any],
        *,
        clock: Clock,
        random: Callable[[], float],
        wake: Callable[[], None],
        later: Callable[[], None],
    ) -> None:
        self.retry_at: float | None = None
        """When to `open` again; None: not at all."""
        self.missed = False
        """Whether something may have happened without a hint, so that a look at everything is due. The loop
        clears it."""
        self.overruns = 0
        """How often events were lost."""
        self.error = ""
        """Why there is no subscription though there should be."""
        self._source = source
        self._clock = clock
        self._random = random
        self._wake = wake
        self._wake_later = later
        self._hints: dict[Key, Hint] = {}
        self._subscription: Subscription | None = None
        self._since = 0.0
        self._failures = 0

    def __bool__(self) -> bool:
        """Whether there are hints."""
        return bool(self._hints)

    @property
    def live(self) -> bool:
        """Whether events come."""
        return self._subscription is not None

    def open(self) -> None:
        """Subscribe, if the source can. Raises Gone; any other failure is tried again at `retry_at`."""
        self.close()
        self.error = ""
        try:
            self._subscription = self._source.subscribe(self._notify)
        except Unsupported:
            return
        except Gone:
            raise
        except Exception as exc:
            if not isinstance(exc, OSError):
                log.debug("%s: subscribing failed", self._source.name, exc_info=True)
            self._later(f"no events: {exc.strerror if isinstance(exc, OSError) and exc.strerror else exc}")
            return
        self._since = self._clock.now()
        # What happened before this moment came to nobody's ears.
        self.missed = True

    def close(self) -> None:
        """End the subscription. Hints that have come stay."""
        self.retry_at = None
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def again(self, hint: Hint) -> None:
        """Have an object looked at (again), unless there is a newer hint of it."""
        if hint.key is not None:
            self._hints.setdefault(hint.key, hint)
            self._limit()

    def take(self) -> tuple[Hint, ...]:
        """All hints, one for each object."""
        hints = tuple(self._hints.values())
        self._hints.clear()
        return hints

    def _notify(self, hint: Hint) -> None:
        if hint.broken:
            lasted = self.live and self._clock.now() - self._since >= BACKOFF_LAST
            self.close()
            if lasted:
                self._failures = 0
            self._later("no events: the subscription ended")
        elif hint.key is None:
            self.overruns += 1
            self.missed = True
        else:
            self._hints[hint.key] = _merged(self._hints.get(hint.key), hint)
            self._limit()
        (self._wake_later if hint.may_wait else self._wake)()

    def _limit(self) -> None:
        if len(self._hints) > MOST_HINTS:
            self._hints.clear()
            self.missed = True

    def _later(self, error: str) -> None:
        self._failures += 1
        self.retry_at = self._clock.now() + backoff(self._failures, self._random)
        self.error = error


def _merged(before: Hint | None, hint: Hint) -> Hint:
    """What the later event carried, since the earlier one was read."""
    if before is None:
        return hint
    moments = [at for at in (before.at, hint.at) if at]
    at = min(moments, default=0.0)
    if hint.culprit is None and hint.writer is None:
        return replace(hint, culprit=before.culprit, writer=before.writer, at=at)
    return replace(hint, at=at)
