# SPDX-License-Identifier: MIT
"""Very many things gone through, and let go of, some at a time, so that the event loop turns in between.

It knows nothing of what they are.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

Held = list[Any] | dict[Any, Any] | set[Any]

BREATH = 1000
"""Things after which the event loop has its turn: some milliseconds, where a thing takes microseconds."""
_FEW = 2000
"""Things that may go at once."""
_TURN = 0.002
"""Seconds of a turn of the event loop in which things are let go of."""
_STEP = 100


def chunks(things: Iterable[T], size: int = BREATH) -> Iterator[list[T]]:
    """``things`` in lists of ``size``, made when asked for."""
    rest = iter(things)
    while some := list(itertools.islice(rest, size)):
        yield some


class slices(AsyncIterator[list[T]]):  # noqa: N801 - used as the generator that it stands for
    """As `chunks`, with a turn of the event loop between two of them, and ``step`` called before it.
    ``things`` must stay as they are meanwhile.

    No asynchronous generator: asyncio keeps account of each of these, and a heal goes through a dozen lists
    of one thing.
    """

    __slots__ = ("_begun", "_rest", "_size", "_step")

    def __init__(
        self, things: Iterable[T], size: int = BREATH, *, step: Callable[[], object] | None = None
    ) -> None:
        self._rest = iter(things)
        self._size = size
        self._step = step
        self._begun = False

    async def __anext__(self) -> list[T]:
        some = list(itertools.islice(self._rest, self._size))
        if not some:
            raise StopAsyncIteration
        if self._begun:
            # Few things, no turn: whoever goes through them is not held up by others.
            if self._step is not None:
                self._step()
            await asyncio.sleep(0)
        self._begun = True
        return some


def let_go(*containers: Collection[Any]) -> None:
    """Keep what large containers hold a little longer, and let go of it in steps.

    What is freed as a whole, because nobody needs it any more, is freed with everybody waiting: 100,000 ops
    take 50 ms. The containers themselves are not touched, and may be in use elsewhere. To be called by each
    owner that gives them up; where no event loop runs, nobody waits, and nothing is kept.
    """
    large = [one for one in containers if len(one) > _FEW]
    if (large or _held) and _turning():
        for one in large:
            _held.append(list(one))
            if isinstance(one, Mapping):
                _held.append(list(one.values()))
        _go_on()


def give_up(*containers: Held) -> None:
    """As `let_go`, of containers that nobody else has: they are emptied, and nothing is copied first."""
    large = [one for one in containers if len(one) > _FEW]
    if (large or _held) and _turning():
        _held.extend(large)
        _go_on()


def _turning() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_held: list[Held] = []
_scheduled: asyncio.AbstractEventLoop | None = None
"""The event loop that is to go on letting go."""


def _go_on() -> None:
    global _scheduled
    loop = asyncio.get_running_loop()
    if _scheduled is not loop:
        _scheduled = loop
        loop.call_soon(_let_some_go)


def _let_some_go() -> None:
    global _scheduled
    _scheduled = None
    until = time.monotonic() + _TURN
    while _held:
        last = _held[-1]
        if isinstance(last, list):
            del last[-_STEP:]
        else:
            take = last.popitem if isinstance(last, dict) else last.pop
            for _ in range(min(_STEP, len(last))):
                take()
        if not last:
            _held.pop()
        if time.monotonic() >= until:
            break
    if _held:
        _go_on()
