# SPDX-License-Identifier: MIT
"""Carrying ops out: the ledger first, then the kernel, many requests to a datagram, one answer each.

One refused op holds up only what stands on it. Knows kinds by their contract alone, links excepted: these
are made and set right one by one, because each one's index and present form decide what follows.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from linxd.netlink import rt, wire
from linxd.netlink.socket import NetlinkError, Requests
from linxd.patch import Condition, Entry, Key, Op, State, Verb, left
from linxd.records import NamedTuple, replace
from linxd.slices import slices
from linxd.source import LedgerError, Owned, Pass, is_news, transient, unrecorded
from linxd.sources.rtnl import belongings, links
from linxd.sources.rtnl.belongings import Belongings
from linxd.sources.rtnl.diff import View
from linxd.sources.rtnl.kind import ABSENT_ALREADY, IFF_UP, Have, Kind, Message, settled
from linxd.sources.rtnl.model import AF_INET, Address, Desired, Link, Route
from linxd.sources.rtnl.reader import Reader
from linxd.sources.rtnl.table import LAST_INDEX

Answers: TypeAlias = Sequence[NetlinkError | None]
"""What became of requests, each in its place."""
SLICE = 400
"""Messages between two breaths: some 4 ms on an ordinary machine."""
TRIES = 4
"""Rounds in which what others had on a link is put back."""
MANY = 16
"""Ops at once from which on it pays to keep in mind what was asked for."""
VERY_MANY = 200
"""New objects at once from which on it pays not to be told that they came."""
INDEX_TRIES = 16
"""A veth takes two: its other end has the next one."""


class Outcome(NamedTuple):
    """What became of an op: done (``condition`` None), or why not."""

    op: Op
    condition: Condition | None = None


class Applier:
    """Writes patches to one namespace. ``sent`` is called when requests are on their way, before their
    answers are read; ``overlook`` with whether very many are, of which no event need tell."""

    def __init__(
        self,
        requests: Requests,
        reader: Reader,
        kinds: Mapping[str, Kind],
        sent: Callable[[], object],
        overlook: Callable[[bool], object],
    ) -> None:
        self._requests = requests
        self._reader = reader
        self._kinds = kinds
        self._sent = sent
        self._overlook = overlook
        self._overlooked = False
        self._theirs: list[tuple[int, Message]] = []
        self._last: int | None = None
        """The highest index in the ledger, once it was asked for in a patch."""
        """What others had on a link that was made anew and can't be there again before ours is, with how
        often it was tried."""

    async def apply(self, ops: Sequence[Op], view: View, work: Pass[Desired]) -> list[Outcome]:
        """Carry ``ops`` out in their order, without those that the ledger can't be told of."""
        try:
            return await self._apply(ops, view, work)
        finally:
            if self._overlooked:
                self._overlooked = False
                self._overlook(False)

    async def _apply(self, ops: Sequence[Op], view: View, work: Pass[Desired]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        failed: set[Key] = set()
        position = 0
        self._last = None
        while position < len(ops):
            if not work.write:
                # A pause that began meanwhile.
                async for some in slices(ops[position:]):
                    outcomes += [Outcome(op, left(op)) for op in some]
                break
            op = ops[position]
            if isinstance(op.subject, Link) or op.key[0] == "link":
                outcome = self._held(op, failed) or self._link(op, view, work)
                if outcome.condition is not None:
                    failed.add(op.key)
                outcomes.append(outcome)
                position += 1
                if position % 20 == 0:
                    await work.checkpoint()
                continue
            end = position
            while end < len(ops) and ops[end].key[0] != "link" and end - position < SLICE:
                end += 1
            ready = ops[position:end]
            if failed:
                holds = [self._held(op, failed) for op in ready]
                outcomes += [held for held in holds if held is not None]
                ready = [op for op, held in zip(ready, holds, strict=True) if held is None]
            outcomes += self._batch(ready, view, work.owned)
            position = end
            if position < len(ops):
                await work.checkpoint()
        self._put_back()
        return outcomes

    def became(self, op: Op, messages: Sequence[Message], answers: Answers, view: View) -> Outcome:
        """What became of an op whose requests were made ahead; of those, a link's are its attributes'."""
        if op.key[0] == "link":
            self._refresh(op, view)
        error = _first_error(op, messages, answers)
        return Outcome(op, _unmet(op, view) if error is None else self._refused(op, error, view))

    def _put_back(self) -> None:
        again = [(tries + 1, message) for tries, message in self._theirs if self._send(message) is not None]
        self._theirs = [item for item in again if item[0] < TRIES]

    def _held(self, op: Op, failed: set[Key]) -> Outcome | None:
        for needed in op.needs:
            if needed in failed:
                text = f"needs {needed[0]} {needed[1]}, which could not be made"
                return Outcome(op, Condition(op.key, op.name, State.PENDING, text, needs=(needed,)))
        return None

    # -- everything but links -------------------------------------------------------------------------------

    def _batch(self, ops: Sequence[Op], view: View, owned: Owned) -> list[Outcome]:
        ahead = [op for op in ops if is_news(owned.get(op.key), op.after)]
        if ahead:
            try:
                owned.intend((op.key, op.after) for op in ahead)
            except LedgerError as full:
                known = [op for op in ops if not is_news(owned.get(op.key), op.after)]
                held = [Outcome(op, unrecorded(op, full)) for op in ahead]
                return held + self._batch(known, view, owned)
        if len(ahead) >= VERY_MANY and not self._overlooked:
            self._overlooked = True
            self._overlook(True)
        messages: list[Message] = []
        spans: list[tuple[Op, int, int]] = []
        for op in ops:
            start = len(messages)
            messages += self._kinds[str(op.key[0])].messages(op, view)
            spans.append((op, start, len(messages)))
        before, after = self._kept_secondaries(ops)
        answers = self._requests.batch([*before, *messages, *after], sent=self._sent)
        answers = answers[len(before) : len(before) + len(messages)]
        outcomes: list[Outcome] = []
        done: list[Key] = []
        refused: list[Key] = []
        fine = not any(answers)
        for op, start, end in spans:
            error = None if fine else _first_error(op, messages[start:end], answers[start:end])
            if error is None:
                done.append(op.key)
                outcomes.append(Outcome(op))
            else:
                refused.append(op.key)
                outcomes.append(Outcome(op, self._refused(op, error, view)))
        if ahead:
            # Keys without an intention count for nothing.
            owned.settle(done)
            owned.revert(refused)
        if len(ops) >= MANY:
            self._expect(spans, messages, set(refused), view)
        return outcomes

    def _expect(
        self,
        spans: Sequence[tuple[Op, int, int]],
        messages: Sequence[Message],
        refused: set[Key],
        view: View,
    ) -> None:
        """What is read back to the byte as it was asked for needs no comparing."""
        sent: list[tuple[bytes, Key, bool]] = []
        for op, start, end in spans:
            want = op.want
            if isinstance(want, Route) and op.after is not None and not op.after.settled and start < end:
                kind, _, payload = messages[end - 1]
                if kind == wire.RTM_NEWROUTE and op.key not in refused:
                    sent.append((payload, op.key, want.dev is not None))
        if sent:
            self._reader.routes.expect(sent, view.links)

    def _kept_secondaries(self, ops: Sequence[Op]) -> tuple[list[Message], list[Message]]:
        """What to send before and after ``ops``, so that an IPv4 address that goes does not take others of
        its subnet along, which may be foreign (net/ipv4/devinet.c __inet_del_ifa)."""
        links = {
            op.have.msg.ifindex: None
            for op in ops
            if op.key[0] == "address"
            and isinstance(op.have, Have)
            and op.verb in (Verb.DELETE, Verb.RECREATE)
            and op.have.msg.family == AF_INET
            and op.have.msg.prefixlen < 32
        }
        if not links:
            return [], []
        told = [index for index in links if self._reader.promotes(index) is False]
        on, off = (
            [(wire.RTM_SETLINK, 0, rt.encode_promote(index, promote=promote)) for index in told]
            for promote in (True, False)
        )
        return on, off

    # -- links ----------------------------------------------------------------------------------------------

    def _link(self, op: Op, view: View, work: Pass[Desired]) -> Outcome:
        owned = work.owned
        kind = self._kinds["link"]
        if op.verb in (Verb.CREATE, Verb.RECREATE):
            return self._make(op, view, work)
        ahead = owned.get(op.key) != op.after
        if ahead:
            try:
                owned.intend([(op.key, op.after)])
            except LedgerError as full:
                return Outcome(op, unrecorded(op, full))
        errors = [error for error in map(self._send, kind.messages(op, view)) if error is not None]
        if op.verb is Verb.DELETE:
            errors = [error for error in errors if error.errno not in ABSENT_ALREADY]
            if not errors:
                assert isinstance(op.have, Have)
                view.links.drop(op.have.msg.ifindex)
        else:
            errors = self._rename_down(op, errors, view)
            errors += self._set_host_end(op)
            self._refresh(op, view)
        if ahead:
            (owned.revert if errors and op.verb is Verb.DELETE else owned.settle)([op.key])
        return Outcome(op, self._refused(op, errors[0], view) if errors else _unmet(op, view))

    def _make(self, op: Op, view: View, work: Pass[Desired]) -> Outcome:
        """Create under an index of our choice, written ahead; then set what a link takes only once it is
        there."""
        assert op.after is not None
        assert isinstance(op.want, Link)
        owned = work.owned
        theirs: Belongings | None = None
        ifindex = view.links.free_index([self._last_known(owned)])
        try:
            # Before anything goes that could not be made again.
            owned.intend([(op.key, _under(op, ifindex))])
        except LedgerError as full:
            # An index that it had once needs no word in the ledger.
            ifindex = _index_known(op, owned, view)
            if not ifindex:
                return Outcome(op, unrecorded(op, full))
        if op.verb is Verb.RECREATE and isinstance(op.have, Have):
            theirs = belongings.look(
                self._requests,
                op.have.msg.ifindex,
                view.links,
                lambda key: work.desired.declares(key) or owned.get(key) is not None,
            )
            error = self._send((wire.RTM_DELLINK, 0, rt.encode_link(ifindex=op.have.msg.ifindex)))
            if error is not None and error.errno not in ABSENT_ALREADY:
                owned.revert([op.key])
                return Outcome(op, self._refused(op, error, view))
            view.links.drop(op.have.msg.ifindex)
        if self._reader.host is not None and op.want.parent is not None and op.want.parent.scope:
            self._reader.host.introduce()
        create = replace(op, verb=Verb.CREATE, have=None)
        error = None
        for attempt in range(INDEX_TRIES):
            after = _under(op, ifindex + 2 * attempt)
            self._last = max(self._last or 0, ifindex + 2 * attempt)
            if attempt:
                try:
                    owned.intend([(op.key, after)])
                except LedgerError as full:
                    return Outcome(op, unrecorded(op, full))
            create = replace(create, after=after)
            error = self._send(self._kinds["link"].messages(create, view)[0])
            # EBUSY, on newer kernels EEXIST: some link, perhaps in creation, has that index (net/core/dev.c
            # dev_index_reserve). EEXIST may mean the name as well.
            if error is None or error.errno not in (errno.EBUSY, errno.EEXIST):
                break
            if error.errno == errno.EEXIST and self._reader.link(name=op.want.name) is not None:
                break
            owned.revert([op.key])
        if error is not None:
            owned.revert([op.key])
            return Outcome(op, self._refused(op, error, view))
        owned.settle([op.key])
        made = replace(op, after=create.after)
        msg = self._refresh(made, view)
        if op.want.peer is not None and not op.want.peer.scope:
            peer = self._reader.link(name=op.want.peer.name)
            if peer is not None:
                view.links.put(peer)
        if msg is None:
            return Outcome(made)
        seen = links.have(msg, view.links)
        kind = self._kinds["link"]
        changes = settled(kind.changes(op.want, seen, view), create.after)
        changes = tuple(
            c for c in kind.waits(op.want, changes, view).possible if not kind.recreates(op.want, [c])
        )
        update = Op(Verb.UPDATE, op.want, seen, changes, after=create.after)
        errors = [error for error in map(self._send, kind.messages(update, view)) if error is not None]
        errors += self._set_host_end(update)
        if theirs is not None:
            self._theirs += [(0, message) for message in theirs.messages(msg.ifindex)]
        self._refresh(made, view)
        return Outcome(made, self._refused(update, errors[0], view) if errors else _unmet(update, view))

    def _last_known(self, owned: Owned) -> int:
        """The highest index in the ledger. Gone through once a patch: there may be thousands of links."""
        if self._last is None:
            known = (int(entry.facts.get("ifindex", 0)) for entry in owned.of("link").values())
            self._last = max((index for index in known if index < LAST_INDEX), default=0)
        return self._last

    def _rename_down(self, op: Op, errors: list[NetlinkError], view: View) -> list[NetlinkError]:
        """Kernels before 6.2 rename only links that are down."""
        renamed = any(change.attribute == "name" for change in op.changes)
        if not renamed or not any(error.errno == errno.EBUSY for error in errors):
            return errors
        assert isinstance(op.want, Link)
        assert isinstance(op.have, Have)
        index = op.have.msg.ifindex
        steps = [
            rt.encode_link(ifindex=index, change=IFF_UP, flags=0),
            rt.encode_link(ifindex=index, name=op.want.name),
            rt.encode_link(ifindex=index, change=IFF_UP, flags=op.have.msg.flags & IFF_UP),
        ]
        again = [self._send((wire.RTM_NEWLINK, 0, payload)) for payload in steps]
        return [error for error in errors if error.errno != errno.EBUSY] + [
            e for e in again if e is not None
        ]

    def _refresh(self, op: Op, view: View) -> rt.LinkMsg | None:
        entry = op.after
        index = (
            int(entry.facts["ifindex"])
            if entry is not None and "ifindex" in entry.facts
            else view.links.index(str(op.key[1]))
        )
        msg = self._reader.link(ifindex=index) if index else None
        if msg is not None:
            view.links.put(msg)
        if self._reader.host is not None and isinstance(op.want, Link):
            self._reader.host.look([op.want], view.links)
        return msg

    def _set_host_end(self, op: Op) -> list[NetlinkError]:
        host = self._reader.host
        error = host.set(op.want, op.changes) if host is not None and isinstance(op.want, Link) else None
        return [] if error is None else [error]

    def _refused(self, op: Op, error: NetlinkError, view: View) -> Condition:
        """What to say of an op that the kernel refused. A link that it refers to may just have gone: the
        kernel calls that an invalid argument as well (net/core/rtnetlink.c do_set_master)."""
        condition = refusal(op, error)
        if condition.state is not State.FAILED or condition.transient or op.want is None:
            return condition
        for name in _refers_to(op, self._kinds[str(op.key[0])]):
            index = view.links.index(name)
            if index is None or self._reader.link(ifindex=index) is None:
                view.links.drop(index or 0)
                text = f"needs link {name}, which went away"
                return replace(condition, state=State.PENDING, text=text, needs=(("link", name),))
        return condition

    def _send(self, message: Message) -> NetlinkError | None:
        try:
            self._requests.request(*message, sent=self._sent)
        except NetlinkError as error:
            return error
        return None


def _under(op: Op, ifindex: int) -> Entry:
    """The entry of a link that is made under an index."""
    assert op.after is not None
    return replace(op.after, facts={**op.after.facts, "ifindex": ifindex})


def _index_known(op: Op, owned: Owned, view: View) -> int:
    """The index under which a link can be made without another entry, 0 if there is none."""
    entry = owned.get(op.key)
    index = 0 if entry is None else int(entry.facts.get("ifindex", 0))
    taken = view.links.by_index.get(index)
    ours = isinstance(op.have, Have) and op.verb is Verb.RECREATE and op.have.msg.ifindex == index
    return index if entry == _under(op, index) and (taken is None or ours) else 0


def _refers_to(op: Op, kind: Kind) -> list[str]:
    """Names of the links of this namespace without which the op can't be done."""
    names = [str(key[1]) for key in kind.needs(op.want)]
    if isinstance(op.want, Link) and op.want.master:
        names.append(op.want.master)
    return names


def _unmet(op: Op, view: View) -> Condition | None:
    """A link that could not be put into its master, because that could not be made in this patch."""
    want = op.want
    if not isinstance(want, Link) or not want.master or view.links.index(want.master) is not None:
        return None
    text = f"needs link {want.master} as its master, which could not be made"
    return Condition(op.key, op.name, State.PENDING, text, needs=(("link", want.master),))


def _first_error(op: Op, messages: Sequence[Message], answers: Answers) -> NetlinkError | None:
    deletes = (wire.RTM_DELADDR, wire.RTM_DELROUTE, wire.RTM_DELRULE, wire.RTM_DELNEIGH)
    for (kind, _flags, _payload), error in zip(messages, answers, strict=True):
        if error is not None and not (kind in deletes and error.errno in ABSENT_ALREADY):
            return error
    return None


def refusal(op: Op, error: NetlinkError) -> Condition:
    """The condition of an object whose op the kernel refused, in words that say what would help."""
    words = error.text or os.strerror(error.errno)
    wait = _waits_for(op, error)
    if wait:
        text = f"needs {wait} ({words})"
        return Condition(op.key, op.name, State.PENDING, text, error.errno, transient=True)
    text = f"{op.verb}: {words}"
    return Condition(op.key, op.name, State.FAILED, text, error.errno, transient=transient(error.errno))


def _waits_for(op: Op, error: NetlinkError) -> str:
    """What the object lacks, "" when the request itself is what the kernel won't have.

    The kernel uses one errno for both (EINVAL for a source address that is not there, say), and its extended
    ack tells which: net/ipv4/fib_semantics.c, net/ipv6/route.c, net/ipv6/addrconf.c, net/core/neighbour.c.
    """
    want = op.want
    if want is None:
        return ""
    text = error.text.lower()
    if isinstance(want, Route):
        unreachable = error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
        # EINVAL: what is at the gateway's address now is no gateway (a blackhole, an address of our own).
        unusable = "nexthop has invalid gateway" in text or "gateway can not be a local address" in text
        if (unreachable or unusable) and (want.via or want.nexthops):
            via = want.via or ", ".join(hop.via for hop in want.nexthops if hop.via)
            return f"a way to its gateway {via}"
        if want.prefsrc and ("prefsrc" in text or "source address" in text):
            return f"its source address {want.prefsrc}"
    if "ipv6 is disabled" in text or (isinstance(want, Address) and error.errno == errno.EACCES):
        # Switched on again, the kernel says so by an address of its own.
        return "IPv6 on its link, where it is switched off"
    if error.errno == errno.ENETDOWN or "not up" in text:
        return "its link up"
    return "its link, which went away" if error.errno == errno.ENODEV else ""
