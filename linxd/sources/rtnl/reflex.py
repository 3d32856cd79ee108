# SPDX-License-Identifier: MIT
"""What an event tells of one object, answered ahead of the pass that accounts for it: with the op that the
pass would find, and the requests that it would make, only sooner.

It takes on what is simple alone: one object, and one op of which the ledger need not be told. Whatever else
there may be is left to the pass, to which the kernel's answers go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from linxd.netlink.socket import NetlinkError, Requests
from linxd.patch import Key, Op, Verb
from linxd.records import NamedTuple, replace
from linxd.source import Hint, Owned, is_news
from linxd.sources.rtnl.diff import Plan, View
from linxd.sources.rtnl.kind import Message
from linxd.sources.rtnl.look import Index, Look
from linxd.sources.rtnl.plan import KINDS


class Answered(NamedTuple):
    """An op that was carried out for an event: its requests, what became of each, the declaration that it
    was for, and when the kernel had it (CLOCK_MONOTONIC seconds)."""

    hint: Hint
    op: Op
    declared: Index
    messages: list[Message]
    answers: Sequence[NetlinkError | None]
    at: float


class Reflex:
    """The op that was carried out ahead of its pass, if there is one. ``sent`` is called when requests are
    on their way, before their answers are read. ``after``: where to look after an event of an object."""

    def __init__(self, requests: Requests, sent: Callable[[], object], after: Callable[[Key], Look]) -> None:
        self._requests = requests
        self._sent = sent
        self._after = after
        self._answered: Answered | None = None

    def act(
        self, hint: Hint, plan: Plan, view: View, index: Index, owned: Owned, admits: Callable[[Op], bool]
    ) -> Hint:
        """Carry out what the plan for one object comes to, if that is simple and admitted. Returns the hint
        to be told."""
        if len(plan.ops) != 1 or plan.conditions or plan.adopt or self._answered is not None:
            return hint
        op = plan.ops[0]
        kind = KINDS[str(op.key[0])]
        if op.needs or op.verb not in (Verb.UPDATE, Verb.CREATE) or is_news(owned.get(op.key), op.after):
            return hint
        if kind.name == "link" and (
            op.verb is Verb.CREATE or any(c.attribute == "name" for c in op.changes)
        ):
            # One by one: what its index, or its name, is then decides what follows.
            return hint
        if admits(op):
            messages = kind.messages(op, view)
            answers = self._ask(messages)
            at = time.monotonic()
            if not any(answers) and not self._after(op.key):
                hint = replace(hint, may_wait=True)
            self._answered = Answered(hint, op, index, messages, answers, at)
        return hint

    def _ask(self, messages: list[Message]) -> Sequence[NetlinkError | None]:
        if len(messages) > 1:
            return self._requests.batch(messages, sent=self._sent)
        try:
            self._requests.request(*messages[0], sent=self._sent)
        except NetlinkError as error:
            return [error]
        return [None]

    @property
    def answered(self) -> Answered | None:
        """What is done, and not accounted for yet."""
        return self._answered

    def accounted(self) -> None:
        """A pass has come to its end, with what was done in its report."""
        self._answered = None
