# SPDX-License-Identifier: MIT
"""Who may touch what: the ownership table as one pure function, the same for every kind of object.

It turns (what the kernel has, what the ledger says, what is declared) into what to do, and knows no kind,
no kernel and no file.
"""

from __future__ import annotations

import enum
import functools

from linxd.patch import Claim, State
from linxd.records import dataclass


class Seen(enum.Enum):
    """The kernel's object beside the declared one. Undeclared and there is ``DIFFERENT``."""

    ABSENT = enum.auto()
    EQUAL = enum.auto()
    DIFFERENT = enum.auto()

    # Each is there once. Enum's own hash is a function in Python, and asked for with each decision.
    __hash__ = object.__hash__


class Origin(enum.Enum):
    """Whose hand the kernel's object shows.

    ``MARK``: our protocol. ``HAND``: none, boot, static, or a kind that carries no protocol.
    ``DAEMON``: another daemon's protocol.
    """

    MARK = enum.auto()
    HAND = enum.auto()
    DAEMON = enum.auto()

    __hash__ = object.__hash__


class Action(enum.Enum):
    """What to do with the object."""

    NOTHING = enum.auto()
    CREATE = enum.auto()
    CHANGE = enum.auto()
    """Change or recreate, as the kind and the attribute allow."""
    SET = enum.auto()
    """Set what is declared, never recreate."""
    DELETE = enum.auto()
    GIVE_BACK = enum.auto()
    """Leave the object; restore what it had originally where the kind keeps that (sysctl)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Row of the table that applied, what to do, the object's condition and the claim that holds
    afterwards."""

    row: int
    action: Action
    state: State | None
    claim: Claim | None


@functools.cache  # a few hundred combinations at most, and it is asked for every object
def decide(
    *,
    seen: Seen,
    origin: Origin,
    claim: Claim | None,
    declared: bool,
    take: bool = False,
    adoptable: bool = False,
    reach: bool = False,
) -> Decision:
    """Apply the ownership table to one object.

    ``claim``: the ledger's; ``None`` both when the ledger lacks the object and when an entry was left unsure
    by a crash and no mark bears it out. ``take``: on-conflict = "take" for this object. ``adoptable``: row
    5, a link of the declared kind (or none declared) or a sysctl, whose differences may simply be set.
    ``reach``: foreign = "remove" covers this object. A mark without a ledger entry stands for ``made``.
    """
    if claim is None and origin is Origin.MARK and seen is not Seen.ABSENT:
        claim = Claim.MADE
        if not declared:
            return Decision(10, Action.DELETE, None, None)
    if declared:
        return _declared(seen=seen, origin=origin, claim=claim, take=take, adoptable=adoptable)
    if seen is Seen.ABSENT:
        return Decision(8, Action.NOTHING, None, None)
    if claim in (Claim.MADE, Claim.TAKEN):
        action = Action.NOTHING if origin is Origin.DAEMON else Action.DELETE
        return Decision(8, action, None, None)
    if claim is Claim.FOUND:
        return Decision(9, Action.GIVE_BACK, None, None)
    return Decision(11, Action.DELETE if reach else Action.NOTHING, None, None)


def _declared(*, seen: Seen, origin: Origin, claim: Claim | None, take: bool, adoptable: bool) -> Decision:
    if claim is None:
        if seen is Seen.ABSENT:
            return Decision(1, Action.CREATE, State.DONE, Claim.MADE)
        if seen is Seen.EQUAL:
            return Decision(2, Action.NOTHING, State.DONE, Claim.FOUND)
        if adoptable:
            return Decision(5, Action.SET, State.DONE, Claim.FOUND)
        if take:
            return Decision(4, Action.CHANGE, State.DONE, Claim.TAKEN)
        return Decision(3, Action.NOTHING, State.CONFLICT, None)
    if seen is Seen.EQUAL:
        return Decision(6, Action.NOTHING, State.DONE, claim)
    if seen is Seen.ABSENT:
        return Decision(6, Action.CREATE, State.DONE, claim)
    if origin is Origin.DAEMON and not take:
        return Decision(7, Action.NOTHING, State.CONFLICT, claim)
    return Decision(7 if origin is Origin.DAEMON else 6, Action.CHANGE, State.DONE, claim)
