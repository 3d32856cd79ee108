# SPDX-License-Identifier: MIT
"""The pure diff: observed, declared and owned objects of one kind in, ops and conditions out.

The same function serves every kind and both the whole look and the look at one object: what it is given is
all it speaks of. It does no I/O and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from linxd.ownership import Action, Decision, Origin, Seen, decide
from linxd.patch import Change, Claim, Condition, Entry, Key, Op, State, Verb
from linxd.records import dataclass, field, replace
from linxd.source import noted
from linxd.sources.rtnl.kind import Have, HostLinks, Kind, settled
from linxd.sources.rtnl.links import info_kind
from linxd.sources.rtnl.model import Link
from linxd.sources.rtnl.table import LinkTable

MADE = Entry(Claim.MADE)
"""What becomes of an object that was not there and has nothing to be remembered by but its key (row 1 of the
table): most entries, and one of them serves all."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How a scope wants foreign objects dealt with. ``complete``: everything was observed, so that what is
    not declared may be judged as foreign at all."""

    take: bool = False
    foreign_remove: bool = False
    complete: bool = True
    ours: Callable[[Key], bool] = lambda key: False
    """Whether an object is declared or in the ledger, be it looked at now or not."""


@dataclass(slots=True)
class View:
    """`linxd.sources.rtnl.kind.Context`, as a plain record."""

    links: LinkTable
    declared: Mapping[str, Link] = field(default_factory=dict)
    host: HostLinks | None = None
    hold: str = ""
    bare: Collection[Key] = frozenset()
    refusal: Callable[[Link], str | None] = lambda link: None
    """Why a link that is not there can't be made now, None when it can."""

    needed: dict[tuple[Key, ...], tuple[tuple[Key, ...], str]] = field(default_factory=dict)
    """What was found out about links that objects need: the same for all of one diff."""

    def coming(self, name: str) -> bool:
        link = self.declared.get(name)
        if link is None or link.kind is None or self.links.index(name) is not None:
            return False
        return not self.refusal(link)

    def strange(self, name: str) -> bool:
        """Whether a link of another kind than the declared one bears that name."""
        link = self.declared.get(name)
        if link is None or link.kind is None:
            return False
        seen = self.links.find(name)
        return seen is not None and seen.kind != info_kind(link.kind)


@dataclass(slots=True)
class Plan:
    """What a diff found, in no order yet."""

    ops: list[Op] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    adopt: list[tuple[Key, Entry | None]] = field(default_factory=list)
    equal: list[Key] = field(default_factory=list)
    """Declared objects that the kernel has just as declared: proof that it can."""
    steady: list[Key] = field(default_factory=list)
    """Those among them of which the ledger has nothing to learn either."""


def diff_kind(
    kind: Kind,
    want: Mapping[Key, Any],
    have: Mapping[Key, Have[Any]],
    claims: Mapping[Key, Entry],
    view: View,
    policy: Policy,
    plan: Plan,
) -> None:
    """Add to ``plan`` what the objects of one kind need.

    ``want`` and ``claims`` must be limited to the objects that were looked at: one of them that ``have``
    lacks is taken to be absent from the kernel.
    """
    for key, spec in want.items():
        entry = claims.get(key)
        seen = have.get(key)
        if seen is None:
            absent(kind, spec, entry, view, plan)
        else:
            present(kind, spec, seen, entry, view, policy, plan)
    for key, entry in claims.items():
        if key in want:
            continue
        seen = have.get(key)
        if seen is None:
            plan.adopt.append((key, None))
            continue
        claim = entry.claim if kind.valid(entry, seen) else None
        decision = decide(
            seen=Seen.DIFFERENT, origin=kind.origin(seen), claim=claim, declared=False,
            reach=policy.foreign_remove and policy.complete and kind.reached(seen, view),
        )  # fmt: skip
        if decision.action is Action.DELETE:
            plan.ops.append(Op(Verb.DELETE, None, _spoken(seen)))
        else:
            plan.adopt.append((key, None))
    for key, seen in have.items():
        if key in want or key in claims or policy.ours(key):
            continue
        reach = policy.foreign_remove and policy.complete and kind.reached(seen, view)
        decision = decide(
            seen=Seen.DIFFERENT, origin=kind.origin(seen), claim=None, declared=False, reach=reach
        )
        if decision.action is Action.DELETE:
            plan.ops.append(Op(Verb.DELETE, None, _spoken(seen)))


def _spoken(seen: Have[Any]) -> Have[Any]:
    """With its words said now: the links they name may be gone when somebody asks."""
    return replace(seen, text=str(seen.text))


def _needs(kind: Kind, spec: Any, view: View) -> tuple[tuple[Key, ...], str]:
    """What has to come first within this patch, and the first thing that will not come with it."""
    links = kind.needs(spec)
    if not links:
        return (), ""
    known = view.needed.get(links)
    if known is None:
        known = view.needed[links] = _coming(links, view)
    return known


def _coming(links: tuple[Key, ...], view: View) -> tuple[tuple[Key, ...], str]:
    coming: list[Key] = []
    for needed in links:
        name = str(needed[1])
        if view.links.index(name) is None:
            if not view.coming(name):
                return (needed,), f"needs link {name}, which is not there"
            coming.append(needed)
        elif view.strange(name):
            return (needed,), f"needs link {name}, in whose place there is one of another kind"
    return tuple(coming), ""


def absent(kind: Kind, spec: Any, entry: Entry | None, view: View, plan: Plan) -> None:
    """Add to ``plan`` what a declared object needs that is not in the kernel."""
    needs, missing = _needs(kind, spec, view)
    if entry is not None and "ifindex" in entry.facts:
        # Gone for good: what bears its index one day is another link.
        entry = replace(entry, facts={key: value for key, value in entry.facts.items() if key != "ifindex"})
        plan.adopt.append((spec.key, entry))
    if missing:
        plan.conditions.append(Condition(spec.key, _name(kind, spec), State.PENDING, missing, needs=needs))
        return
    waits = kind.creatable(spec, view)
    if waits is not None:
        if waits:
            plan.conditions.append(Condition(spec.key, _name(kind, spec), State.PENDING, waits))
        return
    facts = kind.facts(spec, None)
    # Whose it is stays as it was (row 6).
    after: Entry | None = MADE if entry is None else entry
    if facts:
        claim = None if entry is None else entry.claim
        decision = decide(seen=Seen.ABSENT, origin=Origin.HAND, claim=claim, declared=True)
        after = _entry(decision, entry, {}, facts)
    plan.ops.append(Op(Verb.CREATE, spec, None, (), needs, after, kind.given(spec, view)))


def present(
    kind: Kind, spec: Any, seen: Have[Any], entry: Entry | None, view: View, policy: Policy, plan: Plan
) -> None:
    """Add to ``plan`` what a declared object needs that the kernel has as ``seen``."""
    key = spec.key
    if entry is not None and not kind.valid(entry, seen):
        entry = None
    take = policy.take if spec.take is None else spec.take
    differing = kind.changes(spec, seen, view)
    changes = settled(differing, entry) if differing else differing
    if not changes:
        plan.equal.append(key)
        if (
            entry is not None
            and not entry.settled
            and not kind.facts(spec, seen).items() - entry.facts.items()
        ):
            plan.steady.append(key)
            return
    if changes:
        waits = kind.waits(spec, changes, view)
        if waits.text:
            plan.conditions.append(
                Condition(key, _name(kind, spec), State.PENDING, waits.text, needs=waits.needs)
            )
            if not waits.possible:
                return
            changes = waits.possible
    needs, missing = _needs(kind, spec, view)
    if entry is not None and entry.settled:
        kept = [change for change in differing if change not in changes]
        entry = _settled_on(entry, differing)
        if kept and not changes:
            plan.conditions.append(Condition(key, _name(kind, spec), State.NOTED, noted(kept)))
    origin = kind.origin(seen)
    decision = decide(
        seen=Seen.DIFFERENT if changes else Seen.EQUAL,
        origin=origin,
        claim=None if entry is None else entry.claim,
        declared=True,
        take=take,
        adoptable=bool(changes) and entry is None and kind.adoptable(spec, seen, changes),
    )
    if decision.state is State.CONFLICT:
        text = f"{'; '.join(_differs(change) for change in changes)} (owner: {kind.owner(seen)})"
        plan.conditions.append(Condition(key, _name(kind, spec), State.CONFLICT, text))
        return
    original = kind.original(spec, seen, changes) if entry is None else {}
    after = _entry(decision, entry, original, kind.facts(spec, seen))
    if decision.action is Action.NOTHING:
        if after != entry:
            plan.adopt.append((key, after))
        return
    if missing:
        plan.conditions.append(Condition(key, _name(kind, spec), State.PENDING, missing, needs=needs))
        return
    recreate = decision.action is not Action.SET and kind.recreates(spec, changes)
    verb = Verb.RECREATE if recreate else Verb.UPDATE
    plan.ops.append(Op(verb, spec, seen, changes, needs, after, kind.given(spec, view)))


def _name(kind: Kind, spec: Any) -> str:
    return f"{kind.name} {spec.words()}"


def _differs(change: Change) -> str:
    return f"{change.attribute} is '{change.have or 'none'}', want '{change.want or 'none'}'"


def _entry(
    decision: Decision, entry: Entry | None, original: Mapping[str, str], facts: Mapping[str, int | str]
) -> Entry | None:
    """The ledger entry once the decision is carried out: an original once kept stays, whatever comes
    later."""
    if decision.claim is None:
        return None
    if entry is None:
        return Entry(decision.claim, original if decision.claim is Claim.FOUND else {}, facts=facts)
    facts = {**entry.facts, **facts}
    if entry.claim is decision.claim and entry.facts == facts:
        return entry
    return replace(entry, claim=decision.claim, facts=facts)


def _settled_on(entry: Entry, differing: Sequence[Change]) -> Entry:
    """The entry without forms settled on for what is not asked any more."""
    names = {c.attribute for c in differing if entry.asked.get(c.attribute, c.have) == c.want}
    if names >= entry.settled.keys():
        return entry
    return replace(
        entry,
        asked={name: value for name, value in entry.asked.items() if name in names},
        settled={name: value for name, value in entry.settled.items() if name in names},
    )


def settle(changes: Sequence[Change], entry: Entry) -> Entry:
    """The entry of an object whose attributes the kernel keeps in another form than was just asked for."""
    settled = dict(entry.settled)
    asked = dict(entry.asked)
    for change in changes:
        if change.have is not None and change.want is not None:
            settled[change.attribute] = change.have
            asked[change.attribute] = change.want
    return replace(entry, settled=settled, asked=asked)
