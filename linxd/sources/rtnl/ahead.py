# SPDX-License-Identifier: MIT
"""Which ops are simple enough to be carried out ahead of their pass, and the requests that do it. What the
kernel's answers mean is for the pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from linxd.netlink.socket import NetlinkError, Requests
from linxd.patch import Op, Verb
from linxd.sources.rtnl.diff import View
from linxd.sources.rtnl.kind import Message
from linxd.sources.rtnl.plan import KINDS

Answers: TypeAlias = tuple[list[Message], Sequence[NetlinkError | None]]
"""The requests of an op, and what became of each."""


def simple(op: Op) -> bool:
    """Whether an op stands alone: it needs nothing else, and nothing else follows from it at once."""
    if op.needs or op.verb not in (Verb.UPDATE, Verb.CREATE):
        return False
    # One by one: what a link's index, or its name, is then decides what follows.
    return op.key[0] != "link" or (
        op.verb is Verb.UPDATE and all(change.attribute != "name" for change in op.changes)
    )


def ask(requests: Requests, sent: Callable[[], object], op: Op, view: View) -> Answers:
    """Carry out an op. ``sent`` is called when its requests are on their way, before their answers are
    read."""
    messages = KINDS[str(op.key[0])].messages(op, view)
    if len(messages) > 1:
        return messages, requests.batch(messages, sent=sent)
    try:
        requests.request(*messages[0], sent=sent)
    except NetlinkError as error:
        return messages, [error]
    return messages, [None]
