# SPDX-License-Identifier: MIT
"""Carrying out a patch: one transaction under the generation that it was made for, and what the kernel made
of it.

It must not know why the ops are wanted, nor what to do when they are refused.
"""

from __future__ import annotations

import asyncio
import enum
import errno
from collections.abc import Callable, Mapping, Sequence

from linxd.netlink.errors import NetlinkError
from linxd.netlink.nft import NFGEN_HDRLEN, batch
from linxd.netlink.socket import Requests
from linxd.netlink.wire import Message, attr_map
from linxd.patch import Op, Verb
from linxd.records import dataclass, field, replace
from linxd.sources.netfilter import names as n
from linxd.sources.netfilter.batch import Batch, batch_of
from linxd.sources.netfilter.decode import Own, rule
from linxd.sources.netfilter.mirror import Mirror, following
from linxd.sources.netfilter.state import Chain, Rule, Table
from linxd.sources.netfilter.things import ChainThing, ElementsThing, RuleThing, SetThing, TableThing

ECHOED = 256
"""Messages of a transaction up to which the kernel tells what it made of them. Beyond, the tables are read
again."""
SMALL = 200
"""Rules and elements up to which a transaction, which the kernel carries out before send(2) returns, takes a
few milliseconds."""


class Fate(enum.Enum):
    """What became of a transaction."""

    DONE = enum.auto()
    MOVED = enum.auto()
    """Another generation than the one it was made for: nothing was applied."""
    REFUSED = enum.auto()
    LOST = enum.auto()
    """The answer did not come: it may have been applied or not."""


@dataclass(slots=True)
class Outcome:
    """``refusals``: ops that the kernel refused, with its words. ``handles``: of rules that were made, by
    op. ``unsure``: ops whose objects the kernel may have made in another form."""

    fate: Fate
    refusals: list[tuple[Op, NetlinkError]] = field(default_factory=list)
    handles: Mapping[int, int] = field(default_factory=dict)
    unsure: frozenset[int] = frozenset()
    echoed: bool = False


async def commit(
    requests: Requests, generation: int, ops: Sequence[Op], sent: Callable[[], object]
) -> Outcome:
    """Carry out ``ops`` as one transaction, all or none, provided that ``generation`` is the present one.
    ``sent`` is called when the kernel has it.

    A large one is sent from a thread, so that the event loop goes on.
    """
    if len(ops) > SMALL or any(large(op) for op in ops):
        outcome = await asyncio.to_thread(commit_now, requests, generation, ops, lambda: None)
        sent()
        return outcome
    return commit_now(requests, generation, ops, sent)


def commit_now(
    requests: Requests, generation: int, ops: Sequence[Op], sent: Callable[[], object]
) -> Outcome:
    """`commit`, without waiting for anything but the kernel."""
    work = batch_of(ops)
    echoes: list[tuple[int, Message]] | None = [] if len(work.messages) <= ECHOED else None
    messages = batch(generation, work.messages, echo=echoes is not None)
    try:
        results = requests.transact(messages, echoes=echoes, sent=sent)
    except NetlinkError as error:
        if error.errno in (errno.ENOBUFS, errno.ETIMEDOUT):
            return Outcome(Fate.LOST)
        return Outcome(Fate.REFUSED, [(ops[0], error)])
    if results[0] is not None and results[0].errno == errno.ERESTART:
        return Outcome(Fate.MOVED)
    refusals = _refusals(work, results, ops)
    if refusals:
        lost = any(error.errno == errno.ENOBUFS for _, error in refusals)
        return Outcome(Fate.LOST) if lost else Outcome(Fate.REFUSED, refusals)
    if echoes is None:
        return Outcome(Fate.DONE)
    handles, unsure = _made(work, ops, echoes)
    return Outcome(Fate.DONE, [], handles, unsure, echoed=True)


def large(op: Op) -> bool:
    """Whether it takes the kernel more than a few milliseconds."""
    thing = op.want
    if isinstance(thing, TableThing):
        return thing.table.size > SMALL
    if isinstance(thing, ChainThing):
        return len(thing.chain.rules) > SMALL
    if isinstance(thing, SetThing):
        return len(thing.set.elements) > SMALL
    return isinstance(thing, ElementsThing) and len(thing.identities) > SMALL


def simple(op: Op) -> bool:
    """Whether an op stands alone: a rule or elements come or go, and nothing else with them."""
    thing = op.subject
    return (
        isinstance(thing, RuleThing | ElementsThing)
        and op.verb in (Verb.CREATE, Verb.DELETE)
        and not op.needs
        and not large(op)
    )


def _refusals(
    work: Batch, results: Sequence[NetlinkError | None], ops: Sequence[Op]
) -> list[tuple[Op, NetlinkError]]:
    found: list[tuple[Op, NetlinkError]] = []
    for number, error in enumerate(results):
        if error is not None:
            # the first and the last message are the transaction's own
            op = work.ops[number - 1] if 0 < number <= len(work.ops) else ops[0]
            if all(op is not known for known, _ in found):
                found.append((op, error))
    return found


def _made(
    work: Batch, ops: Sequence[Op], echoes: Sequence[tuple[int, Message]]
) -> tuple[dict[int, int], frozenset[int]]:
    """Handles of the rules that were made, by index in ``ops``, and the ops whose rules came out
    different."""
    index = {id(op): number for number, op in enumerate(ops)}
    handles: dict[int, int] = {}
    unsure: set[int] = set()
    for number, message in echoes:
        if message.type != n.NEWRULE or not 0 < number <= len(work.ops):
            continue
        op = work.ops[number - 1]
        thing = op.want
        if not isinstance(thing, RuleThing):
            continue
        at = index[id(op)]
        payload = message.buf[message.start : message.end]
        found = attr_map(payload, NFGEN_HDRLEN, len(payload))
        handles[at] = int.from_bytes(found.get(n.NFTA_RULE_HANDLE, b""), "big")
        if not thing.rule.inner and rule(payload, found, Own({}, {})).canon != thing.rule.canon:
            unsure.add(at)
    return handles, frozenset(unsure)


def follow(mirror: Mirror, ops: Sequence[Op], outcome: Outcome) -> None:
    """Have the mirror show what was committed."""
    mirror.generation = following(mirror.generation)
    mirror.exact = False
    tables = frozenset(where for op in ops if (where := where_of_op(op)) is not None)
    mirror.history.append((mirror.generation, tables))
    for number, op in enumerate(ops):
        where = where_of_op(op)
        if where is None or where in mirror.unknown:
            continue
        table = mirror.tables.get(where)
        if not outcome.echoed or number in outcome.unsure or not _follow(mirror, table, op, outcome, number):
            mirror.unknown.add(where)


def where_of_op(op: Op) -> tuple[int, str] | None:
    """The table that an op is about."""
    where: tuple[int, str] | None = getattr(op.subject, "where", None)
    return where


def _follow(mirror: Mirror, table: Table | None, op: Op, outcome: Outcome, number: int) -> bool:
    """Apply one op to the mirror. False: what it made has to be read."""
    thing = op.subject
    if isinstance(thing, TableThing):
        if op.verb is Verb.DELETE:
            mirror.tables.pop(thing.where, None)
            mirror.heads.pop(thing.where, None)
            return True
        if op.verb is Verb.UPDATE and table is not None:
            mirror.tables[table.id] = replace(table, flags=thing.table.flags)
            return True
        return False
    if table is None:
        return False
    if isinstance(thing, RuleThing):
        return _follow_rule(mirror, table, op, outcome.handles.get(number))
    if isinstance(thing, ChainThing) and op.verb is Verb.UPDATE:
        chain = table.chains[thing.chain.name]
        _put_chain(mirror, table, replace(chain, policy=thing.chain.policy))
        return True
    if isinstance(thing, ElementsThing):
        return _follow_elements(mirror, table, op)
    return False


def _follow_rule(mirror: Mirror, table: Table, op: Op, handle: int | None) -> bool:
    thing = op.subject
    assert isinstance(thing, RuleThing)
    chain = table.chains.get(thing.chain)
    if chain is None:
        return False
    if op.want is not None and handle is None:
        return False
    rules = mirror.followed(table, chain)
    if op.have is not None:
        assert isinstance(op.have, RuleThing)
        gone = rules.place(op.have.rule.handle)
        if gone is not None:
            rules.drop(gone)
    if handle is not None:
        made: Rule = replace(thing.rule, handle=handle)
        place = rules.place(thing.before) if thing.before else None
        rules.put(len(rules) if place is None else place, made)
    return True


def _put_chain(mirror: Mirror, table: Table, chain: Chain) -> None:
    mirror.tables[table.id] = replace(table, chains={**table.chains, chain.name: chain})


def _follow_elements(mirror: Mirror, table: Table, op: Op) -> bool:
    thing = op.subject
    assert isinstance(thing, ElementsThing)
    home = table.sets.get(thing.set.name)
    if home is None:
        return False
    made = op.verb is not Verb.DELETE
    for identity in thing.identities:
        if made:
            home.elements[identity] = thing.set.elements[identity]
        else:
            home.elements.pop(identity, None)
    if home.refs or home.temporary or thing.set.refs or thing.set.temporary:
        gone = frozenset(thing.identities)
        refs = {one: ref for one, ref in home.refs.items() if one not in gone}
        temporary = home.temporary - gone
        if made:
            refs.update((one, thing.set.refs[one]) for one in gone if one in thing.set.refs)
            temporary |= thing.set.temporary & gone
        changed = replace(home, refs=refs, temporary=temporary)
        mirror.tables[table.id] = replace(table, sets={**table.sets, home.name: changed})
    return True
