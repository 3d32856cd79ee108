# SPDX-License-Identifier: MIT
"""Properties of the pure diff, over random observed, declared and owned objects.

The kernel is stood in for by a dictionary that does what an op says: what is tested is the diff alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from linxd.ledger import MemoryLedger
from linxd.netlink.rt import AddrMsg, LinkMsg, NeighMsg, RouteMsg, RuleMsg
from linxd.patch import Claim, Entry, Key, Op, State, Verb
from linxd.sources.rtnl import addresses, neighbours, routes, rules
from linxd.sources.rtnl.kind import Have
from linxd.sources.rtnl.look import EVERYTHING, Index
from linxd.sources.rtnl.model import AF_INET, PROTO_LINXD, Address, Desired, Link, Neighbour, Route, Rule
from linxd.sources.rtnl.observed import Observed
from linxd.sources.rtnl.order import order
from linxd.sources.rtnl.plan import Planner
from linxd.sources.rtnl.table import LinkTable

LINKS = ("e0", "e1")
TABLE = LinkTable(LinkMsg(0, number + 2, name, flags=0x1) for number, name in enumerate(LINKS))
PROTOCOLS = (0, 3, 4, 12, PROTO_LINXD)

Snapshot = dict[Key, Any]


@dataclass
class Kernel:
    """Messages by identity, and the ops that a patch brings to them."""

    objects: Snapshot = field(default_factory=dict)

    def observed(self) -> Observed:
        seen = Observed(TABLE, EVERYTHING)
        for key, msg in self.objects.items():
            if key[0] == "address":
                seen.addresses[key] = addresses.have(msg, TABLE)
            elif key[0] == "route":
                seen.routes[key] = routes.have(msg, TABLE)
            elif key[0] == "neighbour":
                seen.neighbours[key] = neighbours.have(msg, TABLE)
        seen.rules = rules.by_identity(
            rules.have(msg) for key, msg in self.objects.items() if key[0] == "rule"
        )
        return seen

    def apply(self, op: Op) -> None:
        if op.verb in (Verb.DELETE, Verb.RECREATE, Verb.UPDATE):
            assert isinstance(op.have, Have)
            assert self.key_of(op.have.msg) in self.objects, f"{op.describe()}: there is nothing of the kind"
            del self.objects[self.key_of(op.have.msg)]
        if op.verb is not Verb.DELETE:
            msg = message(op.want, protocol_after(op))
            key = self.key_of(msg)
            assert key not in self.objects, f"{op.describe()}: the key is taken"
            self.objects[key] = msg

    @staticmethod
    def key_of(msg: Any) -> Key:
        if isinstance(msg, AddrMsg):
            return addresses.key_of(msg, TABLE)
        if isinstance(msg, RouteMsg):
            return routes.key_of(msg)
        if isinstance(msg, NeighMsg):
            return neighbours.key_of(msg, TABLE)
        return (*rules.as_rule(msg).key, msg.protocol)


def protocol_after(op: Op) -> int:
    assert op.after is not None
    return int(op.after.original.get("protocol", PROTO_LINXD))


def message(want: Any, protocol: int) -> Any:
    """The declared object as the kernel would have it."""
    if isinstance(want, Address):
        return AddrMsg(
            family=want.family, ifindex=TABLE.index(want.link) or 0, address=want.address,
            prefixlen=want.prefixlen, peer=want.peer, scope=want.scope, flags=want.flags,
            label=want.label or want.link, broadcast=want.broadcast, metric=want.metric, proto=protocol,
        )  # fmt: skip
    if isinstance(want, Route):
        return RouteMsg(
            family=want.family, dst=want.to, tos=want.tos, table=want.table, protocol=protocol,
            scope=want.scope or 0, type=want.type, oif=TABLE.index(want.dev or "") or 0, gateway=want.via,
            prefsrc=want.prefsrc, metric=want.metric, metrics=want.metrics,
        )  # fmt: skip
    if isinstance(want, Neighbour):
        flags = 0x08 if want.proxy else 0
        return NeighMsg(
            family=AF_INET, ifindex=TABLE.index(want.dev) or 0, address=want.address, lladdr=want.lladdr,
            state=0 if want.proxy else 0x80, flags=flags, protocol=protocol,
        )  # fmt: skip
    assert isinstance(want, Rule)
    priority = want.chosen if want.priority is None else want.priority
    return RuleMsg(
        family=AF_INET, priority=priority, src=want.src, table=want.table, protocol=protocol,
        suppress_prefixlength=want.suppress_prefixlength,
    )  # fmt: skip


hosts = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.1.1"])
ADDRESSES = st.builds(
    Address,
    link=st.sampled_from(LINKS),
    family=st.just(AF_INET),
    address=hosts,
    prefixlen=st.sampled_from([24, 32]),
    label=st.sampled_from([None, "e0:x"]),
    scope=st.sampled_from([0, 253]),
    metric=st.sampled_from([0, 7]),
    flags=st.sampled_from([0, 0x200]),
)
ROUTES = st.builds(
    Route,
    family=st.just(AF_INET),
    to=st.sampled_from(["0.0.0.0/0", "192.0.2.0/24", "198.51.100.0/24"]),
    table=st.sampled_from([254, 100]),
    metric=st.sampled_from([0, 5]),
    via=st.sampled_from([None, "10.0.0.9", "10.0.0.8"]),
    dev=st.sampled_from(LINKS),
    prefsrc=st.sampled_from([None, "10.0.0.1"]),
    metrics=st.sampled_from([(), ((2, 1400),)]),
)
RULES = st.builds(
    Rule,
    family=st.just(AF_INET),
    priority=st.sampled_from([None, 100, 101]),
    src=st.sampled_from([None, "10.0.0.0/24"]),
    table=st.sampled_from([100, 101]),
    suppress_prefixlength=st.sampled_from([None, 0]),
)
NEIGHBOURS = st.builds(
    Neighbour,
    dev=st.sampled_from(LINKS),
    family=st.just(AF_INET),
    address=hosts,
    lladdr=st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:02"]),
) | st.builds(
    Neighbour, dev=st.sampled_from(LINKS), family=st.just(AF_INET), address=hosts, proxy=st.just(True)
)
OBJECTS = st.lists(st.one_of(ADDRESSES, ROUTES, RULES, NEIGHBOURS), max_size=8)


def protocols(msg: Any) -> tuple[int, int]:
    """What a message says of its maker, under either name."""
    return getattr(msg, "protocol", 0), getattr(msg, "proto", 0)


def by_key(objects: list[Any], kind: type) -> dict[Key, Any]:
    return {item.key: item for item in objects if isinstance(item, kind)}


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Kernel, Desired, MemoryLedger]:
    """A kernel, a declaration that overlaps with it, and a ledger that knows some of what is there, and of
    some that is not."""
    wanted = draw(OBJECTS)
    present = draw(OBJECTS) + [
        replace(item, **{"priority": 32765} if isinstance(item, Rule) and item.priority is None else {})
        for item in draw(st.lists(st.sampled_from(wanted), max_size=4) if wanted else st.just([]))
    ]
    kernel = Kernel()
    for item in present:
        if isinstance(item, Rule) and item.priority is None:
            item = replace(item, priority=90)
        msg = message(item, draw(st.sampled_from(PROTOCOLS)))
        kernel.objects[kernel.key_of(msg)] = msg
    marked = {key for key, msg in kernel.objects.items() if PROTO_LINXD in protocols(msg)}
    marked |= {key[:-1] for key in marked if key[0] == "rule"}
    marked |= {("rule", key[1], -1, key[3]) for key in marked if key[0] == "rule"}
    ledger = MemoryLedger()
    for item in [*wanted, *present]:
        if draw(st.booleans()):
            claim = draw(st.sampled_from(Claim))
            if claim is Claim.FOUND and item.key in marked:
                continue  # what was found is never written with our mark
            ledger.put([(item.key, Entry(claim, {"protocol": "4"} if claim is Claim.FOUND else {}))])
    desired = Desired(
        {name: Link(name) for name in LINKS},
        by_key(wanted, Address), by_key(wanted, Route), by_key(wanted, Rule), by_key(wanted, Neighbour),
        take=draw(st.booleans()),
    )  # fmt: skip
    return kernel, desired, ledger


@given(worlds())
@settings(max_examples=600, deadline=None)
def test_one_patch_reaches_what_is_declared(world: tuple[Kernel, Desired, MemoryLedger]) -> None:
    kernel, desired, ledger = world
    before = dict(kernel.objects)
    claims = {
        key: entry
        for kind in ("address", "route", "rule", "neighbour")
        for key, entry in ledger.of(kind).items()
    }
    planner = Planner()
    plan = planner.plan(kernel.observed(), Index(desired), ledger, complete=True)

    touched = [op.key for op in plan.ops]
    assert len(touched) == len(set(touched)), "more than one op for an object"
    assert not set(touched) & set(plan.equal), "an op for an object that is as declared"
    for op in order(plan.ops):
        kernel.apply(op)
        ledger.put([(op.key, op.after)])
    ledger.put(plan.adopt)

    again = planner.plan(kernel.observed(), Index(desired), ledger, complete=True)
    assert again.ops == [], [op.describe() for op in again.ops]
    assert again.adopt == []
    conflicts = {condition.key for condition in again.conditions}
    assert all(condition.state is State.CONFLICT for condition in again.conditions)
    declared = {link.key for link in desired.links.values()}
    declared |= {*desired.addresses, *desired.routes, *desired.rules, *desired.neighbours}
    assert set(again.equal) | conflicts == declared
    if desired.take:
        assert not conflicts

    for key, msg in before.items():
        identity = key[:-1] if key[0] == "rule" else key
        mine = msg.protocol if not isinstance(msg, AddrMsg) else msg.proto
        open_key = ("rule", key[1], -1, key[3]) if key[0] == "rule" else identity
        if identity in declared or open_key in declared or identity in claims or open_key in claims:
            continue
        if mine != PROTO_LINXD:
            assert kernel.objects.get(key) == msg, "a foreign object was changed"
    for key in conflicts:
        assert key not in touched, "an object in conflict was touched"


@given(worlds())
@settings(max_examples=200, deadline=None)
def test_nothing_declared_and_nothing_owned_is_nothing_to_do(
    world: tuple[Kernel, Desired, MemoryLedger],
) -> None:
    kernel, _, _ = world
    kernel.objects = {key: msg for key, msg in kernel.objects.items() if PROTO_LINXD not in protocols(msg)}
    plan = Planner().plan(kernel.observed(), Index(Desired()), MemoryLedger(), complete=True)
    assert (plan.ops, plan.conditions, plan.adopt) == ([], [], [])
