# SPDX-License-Identifier: MIT
"""The diff of a source whose desired and observed states are objects by key: the ownership table, row by
row.

Pure, and free of any subsystem: what differs between two objects, and whose hand one shows, the caller says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from linxd.ownership import Action, Decision, Origin, Seen, decide
from linxd.patch import Change, Condition, Entry, Key, Named, Op, Patch, State, Verb
from linxd.records import replace
from linxd.source import Owned, noted

N = TypeVar("N", bound=Named)


def compare(
    observed: Mapping[Key, N],
    desired: Mapping[Key, N],
    owned: Owned,
    *,
    kind: str,
    changes: Callable[[N, N], tuple[Change, ...]],
    origin: Callable[[N], Origin] = lambda have: Origin.HAND,
    take: bool = False,
    only: Collection[Key] | None = None,
) -> Patch:
    """The patch that takes the observed objects of ``kind`` to the desired ones, touching only what it may.

    ``changes(have, want)`` names what differs; both have the same key. ``origin`` reads an object's mark, if
    its kind bears one. ``take``: on-conflict = "take". ``only``: the keys that were looked at, where that
    was not everything. Deletions stand first, so that what they free can be used;
    desired objects keep their order, which is for the caller to choose. Observed objects that are neither
    desired nor owned nor marked are left alone. Entries in doubt claim nothing, and stay for
    `settle_unsure`.
    """
    claims = owned.of(kind)
    deletes: list[Op] = []
    ops: list[Op] = []
    conditions: list[Condition] = []
    adopt: list[tuple[Key, Entry | None]] = []
    for key in dict.fromkeys([*claims, *observed]):
        if key in desired or (only is not None and key not in only):
            continue
        have, entry = observed.get(key), claims.get(key)
        decision = decide(
            seen=Seen.ABSENT if have is None else Seen.DIFFERENT,
            origin=Origin.HAND if have is None else origin(have),
            claim=entry.claim if entry is not None and entry.sure else None,
            declared=False,
        )
        if have is not None and decision.action is Action.DELETE:
            deletes.append(Op(Verb.DELETE, None, have))
        elif entry is not None and entry.sure:
            adopt.append((key, None))
    for key, want in desired.items():
        if only is not None and key not in only:
            continue
        have, entry = observed.get(key), claims.get(key)
        found = () if have is None else changes(have, want)
        differ = _unsettled(found, entry)
        decision = decide(
            seen=Seen.ABSENT if have is None else Seen.DIFFERENT if differ else Seen.EQUAL,
            origin=Origin.HAND if have is None else origin(have),
            claim=entry.claim if entry is not None and entry.sure else None,
            declared=True,
            take=take,
        )
        after = _entry(entry, decision)
        if decision.action is Action.CREATE:
            ops.append(Op(Verb.CREATE, want, None, after=after))
        elif decision.action is Action.CHANGE:
            ops.append(Op(Verb.UPDATE, want, have, differ, after=after))
        elif decision.state is State.CONFLICT:
            assert have is not None
            name = f"{kind} {want.words()}"
            conditions.append(
                Condition(key, name, State.CONFLICT, f"there is {have.words()}, which is not ours")
            )
        else:
            if after != entry and (entry is None or entry.sure):
                adopt.append((key, after))
            if found:
                conditions.append(Condition(key, f"{kind} {want.words()}", State.NOTED, noted(found)))
    return Patch((*deletes, *ops), tuple(conditions), tuple(adopt))


def leave_settled(patch: Patch, owned: Owned) -> Patch:
    """Take out of a patch what the kernel has settled on for what was asked; what is left of nothing is
    noted.

    For a diff of a source's own making; `compare` does it by itself.
    """
    ops: list[Op] = []
    conditions = list(patch.conditions)
    for op in patch.ops:
        entry = owned.get(op.key)
        if op.verb is Verb.UPDATE and entry is not None and entry.settled:
            left = _unsettled(op.changes, entry)
            if not left:
                conditions.append(Condition(op.key, op.name, State.NOTED, noted(op.changes)))
                continue
            op = replace(op, changes=left)
        ops.append(op)
    return replace(patch, ops=tuple(ops), conditions=tuple(conditions))


def _unsettled(changes: tuple[Change, ...], entry: Entry | None) -> tuple[Change, ...]:
    if entry is None or not entry.settled:
        return changes
    return tuple(
        change
        for change in changes
        if entry.asked.get(change.attribute) != (change.want or "")
        or entry.settled.get(change.attribute) != (change.have or "")
    )


def _entry(entry: Entry | None, decision: Decision) -> Entry | None:
    if decision.claim is None:
        return None
    if entry is None:
        return Entry(decision.claim)
    return entry if entry.claim is decision.claim else replace(entry, claim=decision.claim)
