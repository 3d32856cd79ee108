# SPDX-License-Identifier: MIT
"""The contract between a loop and the adapter of one kernel subsystem: observe, diff, reconcile, subscribe.

Public and stable: a caller can write a source of their own in a few lines, with `ObjectSource` and
`linxd.objects.compare`. It knows neither the loop that drives a source nor any particular subsystem.
"""

from __future__ import annotations

import abc
import errno
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sized
from typing import ClassVar, Generic, Protocol, TypeVar

from linxd.patch import (
    Change,
    Claim,
    Condition,
    Culprit,
    Entry,
    Key,
    Op,
    Patch,
    Report,
    State,
    Trigger,
    left,
)
from linxd.records import NamedTuple, dataclass, field, replace

D = TypeVar("D")
"""A source's desired state: immutable."""
O = TypeVar("O")  # noqa: E741 - the contract speaks of D and O
"""A source's observed state."""


class Unsupported(Exception):  # noqa: N818 - a fact, not an error
    """Raised by `Source.subscribe`: there are no events here, run on the timer alone."""


class Gone(Exception):  # noqa: N818 - a fact, not an error
    """The namespace ended under the source. The loop stops and writes nowhere any more."""


class Blocked(Exception):  # noqa: N818 - a state, as people see it
    """The pass can't run at all (observation failed, a ruleset does not load). Its text is for people."""


class LedgerError(OSError):
    """The ledger can't be written (its directory is full or read-only), so neither may the kernel be.

    A source holds back the objects whose entries have to change (`unrecorded`) and goes on with the others:
    what is ours already and only comes back needs no word in the ledger. One that lets it through has its
    pass blocked, and tried again later.
    """


_TRANSIENT = frozenset(
    {
        # The same request may simply work the next time.
        errno.EAGAIN,
        errno.EINTR,
        errno.EBUSY,  # dumped or torn down meanwhile; an ifindex in use for a moment
        errno.ETIMEDOUT,
        errno.ERESTART,  # nfnetlink: another generation; the kernel's own number reaches us
        errno.ESTALE,
        # Something ran out, and comes back.
        errno.ENOMEM,
        errno.ENOBUFS,  # also: neighbour table overflow
        errno.ENOSPC,
        errno.EMFILE,
        errno.ENFILE,
        # It hangs on another object's state, which changes without a word to us.
        errno.ENETDOWN,  # the link is down
        errno.ENETUNREACH,  # no way to the gateway yet
        errno.EHOSTUNREACH,
        errno.EADDRNOTAVAIL,  # the source address is not there, or still tentative
        errno.ENONET,
        # The world moved between our look and our write: look again.
        errno.ENODEV,
        errno.ENXIO,
        errno.ENOENT,
        errno.ESRCH,
        errno.EEXIST,
    }
)


def transient(number: int) -> bool:
    """Whether an op refused with this errno is worth another try though nothing we know of has changed.

    The others (EINVAL, EOPNOTSUPP, ERANGE, EPERM, EAFNOSUPPORT, ENAMETOOLONG …) say that the request itself
    won't do: it is held until what is declared or observed changes. Where the kernel uses one errno for
    both, the source says which it is, in `Condition.transient`.
    """
    return number in _TRANSIENT


class Writer:
    """Who caused an event, looked up once: as soon as what heals it is on its way, for that takes /proc as
    long as a heal takes, and no later, for a short-lived process is gone within a millisecond.

    A source looks after its first write; whoever makes the report of a pass asks in any case.
    """

    __slots__ = ("_culprit", "_find")

    def __init__(self, find: Callable[[], Culprit | None]) -> None:
        self._find: Callable[[], Culprit | None] | None = find
        self._culprit: Culprit | None = None

    def look(self) -> Culprit | None:
        """The process, None where nothing tells."""
        if self._find is not None:
            find, self._find = self._find, None
            self._culprit = find()
        return self._culprit


@dataclass(frozen=True, slots=True)
class Hint:
    """A kernel event that says "look now, here".

    ``key`` None means "something, look at everything" (a lost event, say). ``seen`` is the source's own form
    of what the event carried (that the object went, too), None when only a look can tell. ``culprit``: who
    caused it, where that is known; ``writer``: where it is still to be looked up. ``at``: CLOCK_MONOTONIC
    seconds at which it was read. ``broken``: the subscription ended by itself; the loop closes it,
    subscribes again and looks at everything. ``may_wait``: what it calls for has been carried out ahead of
    the pass (`Source.admits`), and nothing can have gone with it, so that there is only the account of it
    to be made.
    """

    key: Key | None
    seen: object = None
    culprit: Culprit | None = None
    at: float = 0.0
    broken: bool = False
    writer: Writer | None = None
    may_wait: bool = False

    def caused_by(self) -> Culprit | None:
        """Who caused it, looked up now if nobody has done so yet."""
        return self.writer.look() if self.culprit is None and self.writer is not None else self.culprit


def culprits_of(hints: Iterable[Hint]) -> dict[Key, Culprit]:
    """Who caused what ``hints`` tell of, by object, as far as known."""
    found = ((hint.key, hint.caused_by()) for hint in hints if hint.key is not None)
    return {key: culprit for key, culprit in found if culprit is not None}


class Doubt(NamedTuple):
    """A write of which the ledger does not know whether the kernel did it: the entry that held before, and
    the one that holds if it did (None: gone)."""

    before: Entry | None
    after: Entry | None


class Owned(Protocol):
    """The ledger as a source sees it. Every change is durable when the call returns.

    An ``original`` value, once there, stays the one found first for as long as the entry lives, whatever is
    intended or put later.
    """

    def get(self, key: Key) -> Entry | None:
        """The entry of one object. While a write is in flight, or in doubt after a crash, it is not
        ``sure``: the intended entry then, or the one that held before if the intention is to be gone."""

    def of(self, kind: str) -> Mapping[Key, Entry]:
        """All entries of one kind, as `get` gives them; a snapshot that stays as it is."""

    def in_doubt(self) -> Mapping[Key, Doubt]:
        """The writes in flight, or left so by a crash; a snapshot. `settle_unsure` deals with them."""

    def intend(self, entries: Iterable[tuple[Key, Entry | None]]) -> None:
        """Write ahead what will hold once the kernel has done what is about to be asked (None: gone).

        Raises LedgerError, and then nothing has changed: nothing may be written to the kernel.
        """

    def settle(self, keys: Iterable[Key]) -> None:
        """The kernel did it: the intended entries hold. Never fails; keys without an intention count for
        nothing."""

    def revert(self, keys: Iterable[Key]) -> None:
        """The kernel refused: what held before the intention holds. Never fails, as `settle`."""

    def put(self, entries: Iterable[tuple[Key, Entry | None]]) -> None:
        """Change entries for which nothing is written to the kernel. Raises LedgerError, as `intend`."""


def is_news(entry: Entry | None, after: Entry | None) -> bool:
    """Whether a ledger that has ``entry`` has to be told of ``after``. (Mostly they are one, and to compare
    None with an entry takes as long as all else that a heal has to ask.)"""
    return entry is not after and (entry is None or entry != after)


LEDGER: Key = ("ledger",)
"""What an object needs that can't be recorded; and the object of which it is said that it can't be written
where nothing else waits for that."""


def unrecorded(op: Op, error: LedgerError) -> Condition:
    """The condition of an object whose entry can't be written, so that neither may the kernel be."""
    return Condition(
        op.key,
        op.name,
        State.FAILED,
        f"not tried: {error.strerror}",
        error.errno or errno.EIO,
        transient=True,
        needs=(LEDGER,),
    )


def forgetful(error: LedgerError) -> Condition:
    """The condition of a ledger that can't take in what needs no write to the kernel: an object found as
    declared, a form that the kernel keeps."""
    return Condition(LEDGER, "the ledger", State.FAILED, str(error.strerror), error.errno or errno.EIO)


def settle_unsure(owned: Owned, borne_out: Callable[[Key, Entry], bool | None]) -> tuple[Key, ...]:
    """Decide what became of the writes that a crash, or a pass that was cut short, left in doubt.

    To be called with a complete observation at the start of a pass that looks at everything; a pass that
    runs nested in another's checkpoint must not. ``borne_out`` looks at the kernel's object: True when it
    bears our mark, or when the entry's facts (a link's ifindex) fit; False when it is there without; None
    when it is absent.

    - A ``made`` or ``taken`` entry counts only if borne out; else what held before counts.
    - A ``found`` entry always counts: it claims nothing, and its original value must not be lost.
    - A deletion (or a value given back) is undone if the object is still borne out; else it is forgotten.

    Returns the keys for which what held before counts.
    """
    hold: list[Key] = []
    fall: list[Key] = []
    for key, (before, after) in owned.in_doubt().items():
        if after is None:
            happened = before is None or not borne_out(key, before)
        else:
            happened = after.claim is Claim.FOUND or bool(borne_out(key, after))
        (hold if happened else fall).append(key)
    owned.settle(hold)
    owned.revert(fall)
    return tuple(fall)


async def _no_checkpoint() -> None:
    """Outside a loop nobody waits for the event loop."""


@dataclass(slots=True)
class Pass(Generic[D]):
    """One run of a source: what it is to reach, with what it owns, and why it runs.

    ``hints`` empty means "look at everything". ``checkpoint`` must be awaited between slices of work of at
    most 10 ms or so, with no write in flight: it keeps the process responsive, counts as progress for the
    watchdog, and may run a short hinted pass of the same source before it returns, if that is
    `interruptible`. ``admit`` is asked before each op is tried: None is "go ahead", a condition is "leave
    it, the object stays as this says" (backoff, a fight, a pause that began meanwhile).
    """

    desired: D
    owned: Owned
    trigger: Trigger = Trigger.RESYNC
    hints: tuple[Hint, ...] = ()
    admit: Callable[[Op], Condition | None] = field(default=lambda op: None)
    checkpoint: Callable[[], Awaitable[None]] = field(default=_no_checkpoint)
    write: bool = True
    """False while paused: observe, diff and report only. May become False while the pass runs."""

    @property
    def full(self) -> bool:
        """Whether it is to look at everything: no hint, or one that names no object."""
        return not self.hints or any(hint.key is None for hint in self.hints)


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
    admits: Callable[[Op], bool] = staticmethod(lambda op: False)
    """Asked whether an op that an event calls for may be carried out at once, ahead of the pass that the
    event's hint brings about and that accounts for the op. Set by the loop that drives the source."""
    idle: Callable[[], bool] = staticmethod(lambda: False)
    """Whether nothing runs, and nothing is due, before an event that is read now. Set by the loop."""
    interruptible: ClassVar[bool] = False
    """Whether a hinted pass may run while another awaits its checkpoint, so that healing one object need not
    wait for a look at 100,000."""

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
        """Have ``notify`` called in the running event loop for each hint.

        Raises `Unsupported` (then the timer alone drives the loop), `Gone`, or OSError (then it is tried
        again).
        """
        raise Unsupported(self.name)

    def objects(self, desired: D) -> Iterable[tuple[Key, str]]:
        """Key and name of each object that ``desired`` is about, as far as the source knows; for people to
        look at. May be called in a thread."""
        return ()

    def unit(self, key: Key) -> Key:
        """What is left alone as a whole when the object ``key`` is to be left alone: itself, unless it can
        be changed only together with others."""
        return key

    def watched(self) -> Mapping[Key, str]:
        """How drift of each declared object is noticed (``event``, ``poll``), where they differ in that."""
        return {}


class ObjectSource(Source[D, O]):
    """A source whose ops are carried out one by one: write `observe`, `diff` and `apply`, and it is one.

    It keeps the order that the rest rests on: ask whether the op may be tried, hold it when an object that
    it needs is not there, write the ledger ahead, apply, settle or revert. One refused op holds up nothing
    else.
    """

    keyed: ClassVar[bool] = False
    """Whether `observe` looks only at the hinted objects when ``work.full`` is False. Without it every pass
    looks at everything."""

    @abc.abstractmethod
    def apply(self, op: Op) -> None:
        """Make one change. Raises OSError when it is refused; its strerror is what people will read."""

    def read_back(self, op: Op) -> tuple[Change, ...]:
        """What the object has right after ``op``, where that is not what was asked (a form of the kernel's
        own).

        It is accepted until the declaration asks for something else, if `diff` passes its patch through
        `linxd.objects.leave_settled` as `linxd.objects.compare` does. The default does not look.
        """
        return ()

    def borne_out(self, observed: O, key: Key, entry: Entry) -> bool | None:
        """For `settle_unsure`. The default trusts nothing: for objects without a mark that is all one can
        do."""
        return False

    async def reconcile(self, work: Pass[D]) -> Report:
        """Observe, diff and apply. Raises `Gone`, `Blocked`, OSError from `observe`, LedgerError."""
        began = time.monotonic()
        observed = await self.observe(work)
        await work.checkpoint()
        if work.full and work.write:
            settle_unsure(work.owned, lambda key, entry: self.borne_out(observed, key, entry))
        patch = self.diff(observed, work.desired, work.owned)
        conditions = {condition.key: condition for condition in patch.conditions}
        if patch.adopt and work.write:
            work.owned.put(patch.adopt)
        applied: list[Op] = []
        for op in patch.ops:
            await work.checkpoint()
            if not work.write:
                conditions[op.key] = left(op)
                continue
            condition = _held(op, conditions) or work.admit(op) or self._carry_out(op, work.owned)
            if condition is None or condition.state is State.NOTED:
                applied.append(op)
            if condition is not None:
                conditions[op.key] = condition
        ended = time.monotonic()
        culprits = culprits_of(work.hints)
        events = [hint.at for hint in work.hints if hint.at]
        touched = {op.key for op in patch.ops} if work.hints else set()
        whole = work.full or not self.keyed
        return Report(
            trigger=work.trigger,
            drifted=patch.ops,
            applied=tuple(applied),
            conditions=tuple(conditions.values()),
            total=len(work.desired) if isinstance(work.desired, Sized) else 0,
            complete=whole,
            culprits={key: culprit for key, culprit in culprits.items() if key in touched},
            usec=int((ended - began) * 1e6),
            heal_usec=int((ended - min(events)) * 1e6) if events and applied else 0,
            looked=frozenset(
                () if whole else {*touched, *conditions, *(h.key for h in work.hints if h.key)}
            ),
        )

    def _carry_out(self, op: Op, owned: Owned) -> Condition | None:
        owned.intend([(op.key, op.after)])
        try:
            self.apply(op)
        except OSError as exc:
            owned.revert([op.key])
            number = exc.errno or errno.EIO
            text = exc.strerror or str(exc) or os.strerror(number)
            return Condition(op.key, op.name, State.FAILED, text, number, transient=transient(number))
        owned.settle([op.key])
        changes = self.read_back(op)
        if not changes or op.after is None:
            return None
        entry = owned.get(op.key) or op.after
        asked = {change.attribute: change.want or "" for change in changes}
        settled = {change.attribute: change.have or "" for change in changes}
        owned.put(
            [(op.key, replace(entry, asked={**entry.asked, **asked}, settled={**entry.settled, **settled}))]
        )
        return Condition(op.key, op.name, State.NOTED, noted(changes))


def noted(changes: Iterable[Change]) -> str:
    """``mtu: asked 1501, kernel has 1500``: what the kernel keeps in another form, in words."""
    return "; ".join(
        f"{c.attribute}: asked {c.want or '(none)'}, kernel has {c.have or '(none)'}" for c in changes
    )


def _held(op: Op, conditions: Mapping[Key, Condition]) -> Condition | None:
    """An op waits for the objects that it needs."""
    for needed in op.needs:
        cause = conditions.get(needed)
        if cause is not None and cause.state is not State.NOTED and cause.state is not State.DONE:
            text = f"needs {cause.name}: {cause.text}"
            return Condition(op.key, op.name, State.PENDING, text, needs=op.needs)
    return None
