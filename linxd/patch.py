# SPDX-License-Identifier: MIT
"""Ops, patches and reports: what a pass means to change, and what became of it.

The same objects serve the plan, the journal, D-Bus and the command line. This module knows no kernel
subsystem, does no I/O and imports nothing of linxd.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Protocol, TypeAlias

from linxd.records import dataclass, field

Key: TypeAlias = tuple[str | int, ...]
"""Identity of an object within a scope. The first member is its kind, the rest is what SPEC calls identity:
``("link", "eth0")``, ``("route", 4, 254, "10.0.0.0/24", 0, 100)``. JSON scalars only, so that it can be
stored."""


class Verb(enum.StrEnum):
    """What an op does to its object."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    RECREATE = "recreate"

    # Equal as text, and hashed as text: Enum's own hash is a function in Python, and asked for each op.
    __hash__ = str.__hash__


class State(enum.StrEnum):
    """Condition of one object after a pass. ``noted`` counts as done: the kernel keeps another form."""

    DONE = "done"
    PENDING = "pending"
    FAILED = "failed"
    CONFLICT = "conflict"
    CONTENDED = "contended"
    NOTED = "noted"

    __hash__ = str.__hash__


class Trigger(enum.StrEnum):
    """Why a pass ran."""

    RESYNC = "resync"
    EVENT = "event"
    REQUEST = "request"
    CONFIG = "config"
    START = "start"


class Named(Protocol):
    """An object of the desired or observed state, as far as a patch has to know it."""

    @property
    def key(self) -> Key:
        """Its identity."""

    def words(self) -> str:
        """Itself as its own tool writes it, without the kind: ``10.0.0.5/24 dev eth0``."""


@dataclass(frozen=True, slots=True)
class Change:
    """One attribute of one object: what the kernel has and what is wanted. ``None`` is "not there"."""

    attribute: str
    have: str | None
    want: str | None

    def words(self) -> str:
        """``mtu 1400 -> 1500``; an attribute that only comes or goes shows one side."""
        if self.have is None:
            return f"{self.attribute} {self.want}"
        if self.want is None:
            return f"{self.attribute} {self.have} -> (none)"
        return f"{self.attribute} {self.have} -> {self.want}"


@dataclass(frozen=True, slots=True)
class Op:
    """One change of one object.

    ``want`` is absent from a delete, ``have`` from a create; a recreate has both and names in ``changes``
    the immutable attributes that force it. ``needs`` are the objects that must be there first: when one of
    them fails, the op is held and its object is pending. ``after`` is the ledger entry that holds once the
    kernel has acknowledged, as decided by linxd.ownership; ``None`` is "not ours any more". ``given``: what
    else was observed that decides whether the kernel accepts the op ("dev eth0 up", the gateway's address):
    an op that failed for good is tried again when the words of its patch or these change.
    """

    verb: Verb
    want: Named | None
    have: Named | None
    changes: tuple[Change, ...] = ()
    needs: tuple[Key, ...] = ()
    after: Entry | None = None
    given: tuple[str, ...] = ()
    key: Key = field(init=False, compare=False, repr=False)
    """Identity of the object."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.subject.key)

    @property
    def subject(self) -> Named:
        """The desired object, or the observed one where none is desired."""
        subject = self.want or self.have
        assert subject is not None
        return subject

    @property
    def name(self) -> str:
        """Kind and words: ``address 10.0.0.5/24 dev eth0``."""
        subject = self.subject
        return f"{subject.key[0]} {subject.words()}"

    def describe(self) -> str:
        """One line for people: ``update link eth0: mtu 1400 -> 1500``."""
        line = f"{self.verb} {self.name}"
        if self.changes and self.verb in (Verb.UPDATE, Verb.RECREATE):
            line += ": " + ", ".join(change.words() for change in self.changes)
        return line

    def attributes(self) -> dict[str, str]:
        """The changes as wanted values by attribute (empty string: withdrawn), for the bus and the
        journal."""
        return {change.attribute: change.want or "" for change in self.changes}


class Claim(enum.StrEnum):
    """How an object came to be ours. ``found``: it stood there, as desired, before we came."""

    MADE = "made"
    TAKEN = "taken"
    FOUND = "found"

    __hash__ = str.__hash__


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger keeps of one object.

    ``original``: what stood there first, as far as it must be given back (a sysctl's value, the protocol of
    a found route). ``settled``: attribute -> the form that the kernel gave back right after our own write,
    with ``asked`` the value that it answers; both hold until the declaration asks for something else.
    ``facts``: what identifies the object besides its key (a link's ifindex, a rule's chosen priority).
    ``sure`` is False while a write is in flight: after a crash such an entry counts only with a kernel mark.
    """

    claim: Claim
    original: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, str] = field(default_factory=dict)
    settled: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, int | str] = field(default_factory=dict)
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Condition:
    """An object that is not simply done: what, and why in words an operator can act on.

    ``errno`` is the kernel's (0: none), ``text`` holds its extended-ack words where there were any.
    ``transient`` failures are retried with backoff; others wait until desired or observed changes.
    ``paused``: it has drifted, and is left so because somebody asked for that; it waits for nothing else.
    """

    key: Key
    name: str
    state: State
    text: str
    errno: int = 0
    transient: bool = False
    needs: tuple[Key, ...] = ()
    paused: bool = False


def left(op: Op, why: str = "paused") -> Condition:
    """The condition of an object that has drifted and is left so for now, because somebody asked for
    that."""
    return Condition(op.key, op.name, State.PENDING, f"has drifted; {why}", paused=True)


@dataclass(frozen=True, slots=True)
class Patch:
    """An ordered list of ops, and the conditions of the objects for which there is nothing that may be done.

    ``adopt``: ledger entries that change without any write to the kernel (found, forgotten).
    """

    ops: tuple[Op, ...] = ()
    conditions: tuple[Condition, ...] = ()
    adopt: tuple[tuple[Key, Entry | None], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ops)


@dataclass(frozen=True, slots=True)
class Culprit:
    """The process whose write caused a drift, as far as the kernel tells. ``confirmed`` False: a guess."""

    pid: int
    comm: str | None = None
    unit: str | None = None
    confirmed: bool = False

    def words(self) -> str:
        """``ip[1689] in session-3.scope``, or ``process 2 of the container (unconfirmed)``."""
        if not self.confirmed:
            if self.comm is None:
                return f"process {self.pid} of the container (unconfirmed)"
            return f"{self.comm}[{self.pid}] (unconfirmed)"
        text = f"{self.comm or 'process'}[{self.pid}]"
        return f"{text} in {self.unit}" if self.unit else text


@dataclass(frozen=True, slots=True)
class Report:
    """What one pass found and did.

    ``drifted``: the ops that were needed; ``applied``: those that the kernel acknowledged (fewer on failure
    or while paused). ``total``: objects declared. ``complete``: the pass looked at everything; else
    ``looked`` names what it looked at (left empty: the hinted objects and those it speaks of). ``usec``:
    duration of the pass; ``heal_usec``: from reading the event to the kernel's last acknowledgement, 0
    without an event.
    """

    trigger: Trigger
    drifted: tuple[Op, ...] = ()
    applied: tuple[Op, ...] = ()
    conditions: tuple[Condition, ...] = ()
    total: int = 0
    complete: bool = True
    culprits: Mapping[Key, Culprit] = field(default_factory=dict)
    usec: int = 0
    heal_usec: int = 0
    looked: frozenset[Key] = frozenset()

    @property
    def converged(self) -> bool:
        """Everything the pass looked at is done (or noted)."""
        return all(condition.state is State.NOTED for condition in self.conditions)
