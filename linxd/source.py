# SPDX-License-Identifier: MIT
"""The contract between a loop and the adapter of one kernel subsystem: observe, diff, reconcile, subscribe.

Public and stable: a caller can write a source of their own in a few lines. It knows neither the loop that
drives a source nor any particular subsystem.
"""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Protocol, TypeVar

from linxd.patch import Condition, Culprit, Entry, Key, Op, Patch, Report, Trigger

D = TypeVar("D")
"""A source's desired state: immutable."""
O = TypeVar("O")  # noqa: E741 - the contract speaks of D and O
"""A source's observed state."""


class Unsupported(Exception):
    """Raised by `Source.subscribe`: there are no events here, run on the timer alone."""


class Gone(Exception):
    """The namespace ended under the source. The loop stops and writes nowhere any more."""


class Blocked(Exception):
    """The pass can't run at all (observation failed, a ruleset does not load). Its text is for people."""


@dataclass(frozen=True, slots=True)
class Hint:
    """A kernel event that says "look now, here".

    ``key`` None means "something, look at everything" (a lost event, say). ``seen`` is the source's own form of
    what the event carried, None when the object went. ``at``: CLOCK_MONOTONIC seconds at which it was read.
    """

    key: Key | None
    seen: object = None
    culprit: Culprit | None = None
    at: float = 0.0


class Owned(Protocol):
    """The ledger as a source sees it. Every change is durable when the call returns."""

    def get(self, key: Key) -> Entry | None:
        """The entry of one object."""

    def of(self, kind: str) -> Mapping[Key, Entry]:
        """All entries of one kind; a snapshot that stays as it is."""

    def intend(self, entries: Iterable[tuple[Key, Entry | None]]) -> None:
        """Write ahead what will hold once the kernel has done what is about to be asked (None: gone)."""

    def settle(self, keys: Iterable[Key]) -> None:
        """The kernel did it: the intended entries hold."""

    def revert(self, keys: Iterable[Key]) -> None:
        """The kernel refused: what held before the intention holds."""

    def put(self, entries: Iterable[tuple[Key, Entry | None]]) -> None:
        """Change entries for which nothing is written to the kernel."""


async def _no_checkpoint() -> None:
    """Outside a loop nobody waits for the event loop."""


@dataclass(slots=True)
class Pass(Generic[D]):
    """One run of a source: what it is to reach, with what it owns, and why it runs.

    ``hints`` empty means "look at everything". ``checkpoint`` must be awaited between slices of work of at most
    10 ms or so: it keeps the process responsive, counts as progress for the watchdog, and may run a short
    hinted pass of the same source before it returns. ``admit`` is asked before each op is tried: None is "go
    ahead", a condition is "leave it, the object stays as this says" (backoff, a fight).
    """

    desired: D
    owned: Owned
    trigger: Trigger = Trigger.RESYNC
    hints: tuple[Hint, ...] = ()
    admit: Callable[[Op], Condition | None] = field(default=lambda op: None)
    checkpoint: Callable[[], Awaitable[None]] = field(default=_no_checkpoint)
    write: bool = True
    """False while paused: observe, diff and report only."""


class Subscription(Protocol):
    """A running subscription."""

    def close(self) -> None:
        """End it; no notification comes after this returns."""


class Source(abc.ABC, Generic[D, O]):
    """The adapter for one kernel subsystem in one namespace."""

    name: ClassVar[str]
    """``rtnl``, ``netfilter``, ``sysctl``, or the caller's own."""
    watch: ClassVar[str] = "timer"
    """``event``, ``event+poll``, ``poll`` or ``timer``: how drift is noticed between two resyncs."""

    @abc.abstractmethod
    async def observe(self, work: Pass[D]) -> O:
        """Read what the kernel has now, as far as ``work`` needs it. Writes nothing."""

    @abc.abstractmethod
    def diff(self, observed: O, desired: D, owned: Owned) -> Patch:
        """The minimal patch. Pure: no I/O, no clock, the same answer for the same arguments."""

    @abc.abstractmethod
    async def reconcile(self, work: Pass[D]) -> Report:
        """The whole pass. Raises `Gone` or `Blocked`; what fails per object stands in the report."""

    def subscribe(self, notify: Callable[[Hint], None]) -> Subscription:
        """Have ``notify`` called in the running event loop for each hint. Raises `Unsupported`, or OSError."""
        raise Unsupported(self.name)
