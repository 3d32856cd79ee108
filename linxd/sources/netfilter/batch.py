# SPDX-License-Identifier: MIT
"""From a patch to one nfnetlink transaction: the messages of every op, in an order that the kernel takes.

Deletions first, what leans on a thing before the thing; then what things lean on before them. It must not
know sockets, and decides nothing.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence

from linxd.netlink.nft import nfgen
from linxd.netlink.socket import Request
from linxd.netlink.wire import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, nested, pack_attr
from linxd.patch import Op, Verb
from linxd.records import dataclass, field, replace
from linxd.sources.netfilter import names as n
from linxd.sources.netfilter.decode import MARK
from linxd.sources.netfilter.elements import lists
from linxd.sources.netfilter.expressions import sendable, set_pattern
from linxd.sources.netfilter.state import Chain, Flowtable, Hook, Object, Rule, Set, TableId
from linxd.sources.netfilter.things import (
    ChainThing,
    ElementsThing,
    FlowtableThing,
    ObjectThing,
    RuleThing,
    SetThing,
    TableThing,
)

_BE32 = struct.Struct(">I")
_BES32 = struct.Struct(">i")
_BE64 = struct.Struct(">Q")

TABLES_GO, TABLES, RULES_GO, ELEMENTS_GO, SETS_GO, FLOWTABLES_GO, OBJECTS_GO, CHAINS_GO = range(8)
CHAINS, OBJECTS, FLOWTABLES, SETS, ELEMENTS, RULES, UPDATES = range(8, 15)
"""Steps of a transaction. Table flags come last: the kernel takes no base chain in a transaction after its
table went dormant or back (__NFT_TABLE_F_UPDATE in nf_tables_addchain)."""

GUARD = "linxd-guard"
"""The name of a table that is gone when its transaction ends."""


@dataclass(slots=True)
class Batch:
    """The messages of a transaction, and the op that each belongs to."""

    messages: list[Request] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)


def batch_of(ops: Sequence[Op]) -> Batch:
    """The transaction that carries out ``ops``."""
    steps: list[list[tuple[Request, Op]]] = [[] for _ in range(UPDATES + 1)]
    ids = itertools.count(1)
    for op in ops:
        for step, request in _messages(op, ids):
            steps[step].append((request, op))
    first, last = _guards(ops, ids)
    batch = Batch()
    for requests in (first, *steps, last):
        for request, op in requests:
            batch.messages.append(request)
            batch.ops.append(op)
    return batch


Step = tuple[int, Request]
Ids = Iterator[int]


def _messages(op: Op, ids: Ids) -> Iterator[Step]:
    have = op.have
    goes = op.verb in (Verb.DELETE, Verb.RECREATE)
    comes = op.verb in (Verb.CREATE, Verb.RECREATE)
    thing = op.subject
    if isinstance(thing, TableThing):
        if goes:
            assert isinstance(have, TableThing)
            yield TABLES_GO, (n.DELTABLE, 0, _head(have.where, n.NFTA_TABLE_NAME))
        if comes:
            yield from _table(thing, ids)
        elif op.verb is Verb.UPDATE:
            yield (
                UPDATES,
                (n.NEWTABLE, 0, _head(thing.where, 1) + _u32(n.NFTA_TABLE_FLAGS, thing.table.flags)),
            )
    elif isinstance(thing, ChainThing):
        if goes:
            assert isinstance(have, ChainThing)
            yield from _chain_goes(thing.where, have.chain)
        if comes:
            yield from _chain(thing.where, thing.chain, ids)
        elif op.verb is Verb.UPDATE:
            policy = _u32(n.NFTA_CHAIN_POLICY, thing.chain.policy or 0)
            payload = _head(thing.where, 1) + _name(n.NFTA_CHAIN_NAME, thing.chain.name) + policy
            yield UPDATES, (n.NEWCHAIN, 0, payload)
    elif isinstance(thing, RuleThing):
        if goes:
            assert isinstance(have, RuleThing)
            payload = (
                _head(thing.where, 1)
                + _name(n.NFTA_RULE_CHAIN, thing.chain)
                + pack_attr(n.NFTA_RULE_HANDLE, _BE64.pack(have.rule.handle))
            )
            yield RULES_GO, (n.DELRULE, 0, payload)
        if comes:
            chain = _name(n.NFTA_RULE_CHAIN, thing.chain)
            yield from _rule(thing.where, chain, thing.rule, ids, before=thing.before)
    elif isinstance(thing, SetThing):
        if goes:
            yield SETS_GO, (n.DELSET, 0, _head(thing.where, 1) + _name(n.NFTA_SET_NAME, thing.set.name))
        if comes:
            yield from _set(thing.where, thing.set)
    elif isinstance(thing, ElementsThing):
        if goes:
            assert isinstance(have, ElementsThing)
            for payload in _elements(have, made=False):
                yield ELEMENTS_GO, (n.DELSETELEM, 0, payload)
        if comes:
            for payload in _elements(thing, made=True):
                yield ELEMENTS, (n.NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, payload)
    elif isinstance(thing, ObjectThing):
        if goes:
            payload = _object_name(thing.where, thing.object)
            yield OBJECTS_GO, (n.DELOBJ, 0, payload)
        if comes:
            yield OBJECTS, _object(thing.where, thing.object)
    elif isinstance(thing, FlowtableThing):
        yield from _flowtable_steps(op, thing)


# --- no moment without a filter ----------------------------------------------------------------------


def _guards(ops: Sequence[Op], ids: Ids) -> tuple[list[tuple[Request, Op]], list[tuple[Request, Op]]]:
    """What stands in, from the first message of the transaction to its last, for base chains that are made
    anew and drop by policy.

    The kernel commits one message after the other, and gives a new chain its policy only when its turn comes
    (nft_chain_commit_drop_policy in nf_tables_commit): between the end of the old one and that, what its
    rules don't decide would be accepted. For those microseconds an empty chain at the same place drops it.
    """
    first: dict[int, list[tuple[Request, Op]]] = {}
    last: list[tuple[Request, Op]] = []
    for op in ops:
        thing = op.want
        if op.verb is not Verb.RECREATE:
            continue
        chains = [thing.chain] if isinstance(thing, ChainThing) else []
        where = thing.where if isinstance(thing, ChainThing | TableThing) else None
        if isinstance(thing, TableThing):
            chains = list(thing.table.chains.values())
        for chain in chains:
            if where is None or chain.hook is None or chain.policy != n.NF_DROP:
                continue
            guard: TableId = (where[0], GUARD)
            if where[0] not in first:
                made = (n.NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, _head(guard, n.NFTA_TABLE_NAME))
                first[where[0]] = [(made, op)]
                last.append(((n.DELTABLE, 0, _head(guard, n.NFTA_TABLE_NAME)), op))
            stand_in = replace(chain, name=f"guard{next(ids)}", rules=(), userdata=b"")
            first[where[0]] += [(request, op) for _, request in _chain(guard, stand_in, ids)]
    return [each for messages in first.values() for each in messages], last


# --- whole things -----------------------------------------------------------------------------------


def _table(thing: TableThing, ids: Ids) -> Iterator[Step]:
    table = thing.table
    payload = _head(table.id, n.NFTA_TABLE_NAME) + _u32(n.NFTA_TABLE_FLAGS, table.flags)
    userdata = table.userdata + (MARK if thing.mark else b"")
    if userdata:
        payload += pack_attr(n.NFTA_TABLE_USERDATA, userdata)
    yield TABLES, (n.NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, payload)
    for chain in table.chains.values():
        yield from _chain(table.id, chain, ids)
    for object in table.objects.values():
        yield OBJECTS, _object(table.id, object)
    for flowtable in table.flowtables.values():
        yield FLOWTABLES, _flowtable(table.id, flowtable, flowtable.hook, NLM_F_CREATE | NLM_F_EXCL)
    for home in table.sets.values():
        yield from _set(table.id, home)


def _chain(where: TableId, chain: Chain, ids: Ids) -> Iterator[Step]:
    payload = _head(where, n.NFTA_CHAIN_TABLE) + _name(n.NFTA_CHAIN_NAME, chain.name)
    hook = chain.hook
    if hook is not None:
        parts = [_u32(n.NFTA_HOOK_HOOKNUM, hook.number), _s32(n.NFTA_HOOK_PRIORITY, hook.priority)]
        if hook.devices:
            parts.append(_devices(n.NFTA_HOOK_DEVS, hook.devices))
        payload += nested(n.NFTA_CHAIN_HOOK, *parts)
        payload += _name(n.NFTA_CHAIN_TYPE, chain.type)
        payload += _u32(n.NFTA_CHAIN_POLICY, n.NF_ACCEPT if chain.policy is None else chain.policy)
    flags = chain.flags & ~n.NFT_CHAIN_BASE
    if flags:
        payload += _u32(n.NFTA_CHAIN_FLAGS, flags)
    if chain.userdata:
        payload += pack_attr(n.NFTA_CHAIN_USERDATA, chain.userdata)
    yield CHAINS, (n.NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL, payload)
    name = _name(n.NFTA_RULE_CHAIN, chain.name)
    for rule in chain.rules:
        yield from _rule(where, name, rule, ids)


def _chain_goes(where: TableId, chain: Chain) -> Iterator[Step]:
    # Its rules first: chains that go together may jump to each other.
    name = _head(where, 1)
    yield RULES_GO, (n.DELRULE, 0, name + _name(n.NFTA_RULE_CHAIN, chain.name))
    yield CHAINS_GO, (n.DELCHAIN, 0, name + _name(n.NFTA_CHAIN_NAME, chain.name))


def _rule(where: TableId, chain: bytes, rule: Rule, ids: Ids, *, before: int = 0) -> Iterator[Step]:
    """A rule, and before it what belongs to it alone."""
    sets: dict[str, int] = {}
    chains: dict[str, int] = {}
    if rule.inner:
        for each in rule.inner:
            number = next(ids)
            if isinstance(each, Set):
                sets[each.name] = number
                yield RULES, _set_message(where, each, set_pattern(each.name), number)
                for elements in lists(each, each.elements, made=True):
                    payload = (
                        _head(where, 1)
                        + _name(n.NFTA_SET_ELEM_LIST_SET, set_pattern(each.name))
                        + pack_attr(n.NFTA_SET_ELEM_LIST_SET_ID, _BE32.pack(number))
                        + elements
                    )
                    yield RULES, (n.NEWSETELEM, NLM_F_CREATE, payload)
                continue
            chains[each.name] = number
            identity = pack_attr(n.NFTA_CHAIN_ID, _BE32.pack(number))
            flags = _u32(n.NFTA_CHAIN_FLAGS, n.NFT_CHAIN_BINDING)
            yield RULES, (n.NEWCHAIN, NLM_F_CREATE, _head(where, 1) + identity + flags)
            inside = pack_attr(n.NFTA_RULE_CHAIN_ID, _BE32.pack(number))
            for deep in each.rules:
                yield from _rule(where, inside, deep, ids)
    wire = sendable(rule.wire, sets, chains)
    payload = _head(where, 1) + chain + nested(n.NFTA_RULE_EXPRESSIONS, wire)
    if rule.userdata:
        payload += pack_attr(n.NFTA_RULE_USERDATA, rule.userdata)
    if before:
        # without APPEND it goes before the rule that POSITION names
        payload += pack_attr(n.NFTA_RULE_POSITION, _BE64.pack(before))
    yield RULES, (n.NEWRULE, NLM_F_CREATE | (0 if before else NLM_F_APPEND), payload)


def _set(where: TableId, home: Set) -> Iterator[Step]:
    yield SETS, _set_message(where, home, home.name, 0)
    for payload in _elements(ElementsThing(where, home, tuple(home.elements)), made=True):
        yield ELEMENTS, (n.NEWSETELEM, NLM_F_CREATE, payload)


_SET_NESTS = frozenset((n.NFTA_SET_DESC, n.NFTA_SET_EXPR, n.NFTA_SET_EXPRESSIONS))


def _set_message(where: TableId, home: Set, name: str, number: int) -> Request:
    # the kernel wants an id for every set, and uses it for those without a name
    payload = _head(where, n.NFTA_SET_TABLE) + _name(n.NFTA_SET_NAME, name)
    payload += pack_attr(n.NFTA_SET_ID, _BE32.pack(number))
    for type, value in home.attrs:
        payload += nested(type, value) if type in _SET_NESTS else pack_attr(type, value)
    return (n.NEWSET, NLM_F_CREATE if number else NLM_F_CREATE | NLM_F_EXCL, payload)


def _elements(thing: ElementsThing, *, made: bool) -> Iterator[bytes]:
    start = _head(thing.where, 1) + _name(n.NFTA_SET_ELEM_LIST_SET, thing.set.name)
    for elements in lists(thing.set, thing.identities, made=made):
        yield start + elements


def _object_name(where: TableId, object: Object) -> bytes:
    return _head(where, 1) + _name(n.NFTA_OBJ_NAME, object.name) + _u32(n.NFTA_OBJ_TYPE, object.kind)


def _object(where: TableId, object: Object) -> Request:
    payload = _object_name(where, object) + nested(n.NFTA_OBJ_DATA, object.wire)
    if object.userdata:
        payload += pack_attr(n.NFTA_OBJ_USERDATA, object.userdata)
    return (n.NEWOBJ, NLM_F_CREATE | NLM_F_EXCL, payload)


def _flowtable(where: TableId, flowtable: Flowtable, hook: Hook, flags: int) -> Request:
    parts = [
        _u32(n.NFTA_FLOWTABLE_HOOK_NUM, hook.number),
        _s32(n.NFTA_FLOWTABLE_HOOK_PRIORITY, hook.priority),
    ]
    if hook.devices:
        parts.append(_devices(n.NFTA_FLOWTABLE_HOOK_DEVS, hook.devices))
    payload = _head(where, 1) + _name(n.NFTA_FLOWTABLE_NAME, flowtable.name)
    payload += nested(n.NFTA_FLOWTABLE_HOOK, *parts)
    if flowtable.flags:
        payload += _u32(n.NFTA_FLOWTABLE_FLAGS, flowtable.flags)
    return (n.NEWFLOWTABLE, flags, payload)


def _flowtable_steps(op: Op, thing: FlowtableThing) -> Iterator[Step]:
    name = _head(thing.where, 1) + _name(n.NFTA_FLOWTABLE_NAME, thing.flowtable.name)
    if op.verb in (Verb.DELETE, Verb.RECREATE):
        yield FLOWTABLES_GO, (n.DELFLOWTABLE, 0, name)
    if op.verb in (Verb.CREATE, Verb.RECREATE):
        made = NLM_F_CREATE | NLM_F_EXCL
        yield FLOWTABLES, _flowtable(thing.where, thing.flowtable, thing.flowtable.hook, made)
    if op.verb is not Verb.UPDATE:
        return
    have = op.have
    assert isinstance(have, FlowtableThing)
    before, after = set(have.flowtable.hook.devices), set(thing.flowtable.hook.devices)
    hook = thing.flowtable.hook
    if before - after:
        gone = _devices(n.NFTA_FLOWTABLE_HOOK_DEVS, sorted(before - after))
        parts = [
            _u32(n.NFTA_FLOWTABLE_HOOK_NUM, hook.number),
            _s32(n.NFTA_FLOWTABLE_HOOK_PRIORITY, hook.priority),
        ]
        yield FLOWTABLES_GO, (n.DELFLOWTABLE, 0, name + nested(n.NFTA_FLOWTABLE_HOOK, *parts, gone))
    if after - before:
        more = Hook(hook.number, hook.priority, tuple(sorted(after - before)))
        yield FLOWTABLES, _flowtable(thing.where, thing.flowtable, more, 0)


# --- attributes -------------------------------------------------------------------------------------


def _head(where: TableId, type: int) -> bytes:
    return nfgen(where[0]) + _name(type, where[1])


def _name(type: int, name: str) -> bytes:
    return pack_attr(type, name.encode() + b"\0")


def _u32(type: int, value: int) -> bytes:
    return pack_attr(type, _BE32.pack(value))


def _s32(type: int, value: int) -> bytes:
    return pack_attr(type, _BES32.pack(value))


def _devices(type: int, devices: Iterable[str]) -> bytes:
    parts = []
    for name in devices:
        if name.endswith("*"):
            parts.append(pack_attr(2, name[:-1].encode() + b"\0"))
        else:
            parts.append(_name(n.NFTA_DEVICE_NAME, name))
    return nested(type, *parts)
