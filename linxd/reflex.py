# SPDX-License-Identifier: MIT
"""What an event tells of one object, answered ahead of the pass that accounts for it: with the op that the
pass would find, carried out as the pass would do it, only sooner.

It takes on what is simple alone: one object, and one op of which the ledger need not be told. Whatever else
there may be is left to the pass. It knows no subsystem.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from linxd.patch import Change, Condition, Entry, Key, Op, Report
from linxd.records import dataclass, ready, replace
from linxd.source import Hint, is_news

R = TypeVar("R")
"""What a source makes of an op that it has carried out."""


class Planned(Protocol):
    """What a comparison came to."""

    @property
    def ops(self) -> Sequence[Op]: ...
    @property
    def conditions(self) -> Sequence[Condition]: ...
    @property
    def adopt(self) -> Sequence[tuple[Key, Entry | None]]: ...


def alone(plan: Planned) -> Op | None:
    """The op that a plan comes to, if it is one, and all."""
    return None if len(plan.ops) != 1 or plan.conditions or plan.adopt else plan.ops[0]


@dataclass(frozen=True, slots=True)
class Answered(Generic[R]):
    """An op that was carried out for an event: the declaration that it was for, what became of it, and since
    when that is so (CLOCK_MONOTONIC seconds)."""

    hint: Hint
    op: Op
    declared: object
    result: R
    at: float


class Reflex(Generic[R]):
    """The op that was carried out ahead of its pass, if there is one. ``settled``: whether there is only the
    account of it to be made, and that may wait."""

    def __init__(self, settled: Callable[[Op, R], bool]) -> None:
        self._settled = settled
        self._answered: Answered[R] | None = None
        ready(Hint, Change, Op, Answered)

    def act(
        self,
        hint: Hint,
        op: Op,
        known: Entry | None,
        declared: object,
        admits: Callable[[Op], bool],
        carry_out: Callable[[Op], R | None],
    ) -> Hint:
        """Carry out the one op that a hint calls for, if it is admitted, and the ledger need not be told:
        ``known`` is what it holds. ``carry_out`` may find that there is nothing to tell of: None. Returns
        the hint to be told."""
        if self._answered is None and not is_news(known, op.after) and admits(op):
            result = carry_out(op)
            if result is not None:
                at = time.monotonic()
                if self._settled(op, result):
                    hint = replace(hint, may_wait=True)
                self._answered = Answered(hint, op, declared, result, at)
        return hint

    async def accounted(self, run: Callable[[Answered[R] | None], Awaitable[Report]]) -> Report:
        """Run a pass that accounts for what is done. Another one that runs within it has nothing to account
        for; if it does not come to its end, the next one has."""
        answered, self._answered = self._answered, None
        try:
            return await run(answered)
        except BaseException:
            self._answered = answered or self._answered
            raise
