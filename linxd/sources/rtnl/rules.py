# SPDX-License-Identifier: MIT
"""Policy rules: what differs, whose they are, priorities chosen once, and the requests that put them right.

A rule can't be changed in place: every attribute that differs makes another rule. Knows no socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from linxd.netlink import rt, wire
from linxd.netlink.rt import RuleMsg
from linxd.ownership import Origin
from linxd.patch import Change, Entry, Key, Op, Verb
from linxd.records import replace
from linxd.sources.rtnl.kind import Context, Have, Message, Waits, origin_of, protocol_name
from linxd.sources.rtnl.model import PROTO_LINXD, Rule

FIB_RULE_INVERT = 0x2
KERNEL_PRIORITIES = frozenset({0, 32766, 32767})
HIGHEST_FREE = 32765


def as_rule(msg: RuleMsg) -> Rule:
    """An observed rule in the form of a declared one."""
    # FIB_RULE_PERMANENT and the "detached" flags are run-time state; a table of 0 comes with l3mdev and
    # goto.
    return Rule(
        family=msg.family,
        priority=msg.priority or 0,
        invert=bool(msg.flags & FIB_RULE_INVERT),
        src=msg.src,
        dst=msg.dst,
        tos=msg.tos,
        dscp=msg.dscp,
        iif=msg.iifname,
        oif=msg.oifname,
        fwmark=(msg.fwmark, msg.fwmask) if msg.fwmark or msg.fwmask else None,
        l3mdev=msg.l3mdev,
        uidrange=msg.uidrange,
        ipproto=msg.ipproto,
        sport=msg.sport,
        dport=msg.dport,
        tun_id=msg.tun_id,
        action=msg.action,
        table=msg.table if msg.action == 1 else 0,
        goto=msg.goto if msg.action == 2 else None,
        realms=msg.flow or None,
        suppress_prefixlength=msg.suppress_prefixlength,
        suppress_ifgroup=msg.suppress_ifgroup,
    )


def have(msg: RuleMsg) -> Have[RuleMsg]:
    """An observed rule under its identity."""
    rule = as_rule(msg)
    return Have(rule.key, msg, rule.words())


def by_identity(rules: Iterable[Have[RuleMsg]]) -> dict[Key, list[Have[RuleMsg]]]:
    """Observed rules by identity. There are several under one when they differ in protocol, or in what a
    rule does besides looking up (suppress, realms): ours stand first."""
    found: dict[Key, list[Have[RuleMsg]]] = {}
    for rule in rules:
        found.setdefault(rule.key, []).append(rule)
    for same in found.values():
        if len(same) > 1:
            same.sort(key=lambda have: have.msg.protocol != PROTO_LINXD)
    return found


def _pick(same: Sequence[Have[RuleMsg]], want: Rule | None, entry: Entry | None) -> Have[RuleMsg]:
    """The one of several that a declaration means: ours, else the very one, else the one found first."""
    if len(same) == 1 or want is None or same[0].msg.protocol == PROTO_LINXD:
        return same[0]
    found = None if entry is None else entry.original.get("protocol")

    def rank(have: Have[RuleMsg]) -> tuple[bool, bool]:
        return (bool(RuleKind.differences(want, have.msg)), str(have.msg.protocol) != found)

    return min(same, key=rank)


def choose_priorities(
    wanted: Mapping[Key, Rule], observed: Mapping[Key, list[Have[RuleMsg]]], claims: Mapping[Key, Entry]
) -> tuple[dict[Key, Rule], dict[Key, Have[RuleMsg]]]:
    """Give every rule declared without a priority the one it has or will have.

    In order: the one that the ledger keeps, that of an observed rule with the same selectors (ours first),
    the highest free one below 32766. Returned are the declared rules with priorities, and the observed rules
    under the declared keys, so that both sides meet.
    """
    rules = dict(wanted)
    seen = {key: _pick(same, wanted.get(key), claims.get(key)) for key, same in observed.items()}
    for key, claim in claims.items():
        if key not in wanted and "priority" in claim.facts:
            # Not declared any more: its claim is still about the rule of the priority that was chosen.
            chosen: Key = (*key[:2], int(claim.facts["priority"]), *key[3:])
            if chosen in seen and chosen not in wanted and chosen not in claims:
                match = seen.pop(chosen)
                seen[key] = Have(key, match.msg, match.text)
    open_rules = [(key, rule) for key, rule in wanted.items() if rule.priority is None]
    if not open_rules:
        return rules, seen
    used = {int(key[2]) for key in observed} | {
        rule.priority for rule in wanted.values() if rule.priority is not None
    }
    used |= {int(entry.facts["priority"]) for entry in claims.values() if "priority" in entry.facts}
    spoken_for = {key for key in wanted if key[2] != -1}
    for key, rule in open_rules:
        entry = claims.get(key)
        priority: int | None = None
        if entry is not None and "priority" in entry.facts:
            priority = int(entry.facts["priority"])
        else:
            same = [
                have
                for other, have in seen.items()
                if other[1] == key[1] and other[3] == key[3] and other not in spoken_for
                and int(other[2]) not in KERNEL_PRIORITIES
            ]  # fmt: skip
            same.sort(key=lambda have: have.msg.protocol != PROTO_LINXD)
            if same:
                priority = same[0].msg.priority or 0
        if priority is None:
            priority = next(number for number in range(HIGHEST_FREE, 0, -1) if number not in used)
        used.add(priority)
        rules[key] = replace(rule, chosen=priority)
        taken: Key = ("rule", rule.family, priority, key[3])
        if seen.pop(taken, None) is not None:
            match = _pick(observed[taken], rule, entry)
            seen[key] = Have(key, match.msg, match.text)
    return rules, seen


class RuleKind:
    """See `linxd.sources.rtnl.kind.Kind`."""

    name = "rule"

    def changes(self, want: Rule, have: Have[RuleMsg], context: Context) -> tuple[Change, ...]:
        return self.differences(want, have.msg)

    @staticmethod
    def differences(want: Rule, msg: RuleMsg) -> tuple[Change, ...]:
        """Attributes besides the identity."""
        return tuple(
            Change(attribute, None if a is None else str(a), None if b is None else str(b))
            for attribute, a, b in (
                ("suppress_prefixlength", msg.suppress_prefixlength, want.suppress_prefixlength),
                ("suppress_ifgroup", msg.suppress_ifgroup, want.suppress_ifgroup),
                ("realms", msg.flow or None, want.realms),
            )
            if a != b
        )

    def origin(self, have: Have[RuleMsg]) -> Origin:
        protocol = have.msg.protocol or 0
        return Origin.DAEMON if protocol == 2 else origin_of(protocol)

    def original(
        self, want: Rule | None, have: Have[RuleMsg], changes: Sequence[Change]
    ) -> Mapping[str, str]:
        return {"protocol": str(have.msg.protocol or 0)}

    def owner(self, have: Have[RuleMsg]) -> str:
        return f"protocol {protocol_name(have.msg.protocol or 0)}"

    def waits(self, want: Rule, changes: Sequence[Change], context: Context) -> Waits:
        return Waits(tuple(changes))

    def recreates(self, want: Rule, changes: Sequence[Change]) -> bool:
        return True

    def adoptable(self, want: Rule, have: Have[RuleMsg], changes: Sequence[Change]) -> bool:
        return False

    def reached(self, have: Have[RuleMsg], context: Context) -> bool:
        msg = have.msg
        return (msg.priority or 0) not in KERNEL_PRIORITIES and (msg.protocol or 0) not in (1, 2, 9, 16)

    def facts(self, want: Rule, have: Have[RuleMsg] | None) -> Mapping[str, int | str]:
        return {} if want.chosen is None else {"priority": want.chosen}

    def creatable(self, want: Rule, context: Context) -> str | None:
        return None

    def needs(self, want: Rule) -> tuple[Key, ...]:
        return ()

    def given(self, want: Rule, context: Context) -> tuple[str, ...]:
        return ()

    def valid(self, entry: Entry, have: Have[RuleMsg]) -> bool:
        return True

    def messages(self, op: Op, context: Context) -> list[Message]:
        messages: list[Message] = []
        if op.verb in (Verb.DELETE, Verb.RECREATE):
            assert isinstance(op.have, Have)
            messages.append((wire.RTM_DELRULE, 0, _encode(as_rule(op.have.msg), op.have.msg.protocol or 0)))
        if op.verb is not Verb.DELETE:
            assert isinstance(op.want, Rule)
            protocol = PROTO_LINXD
            if op.after is not None and "protocol" in op.after.original:
                protocol = int(op.after.original["protocol"])
            messages.append(
                (wire.RTM_NEWRULE, wire.NLM_F_CREATE | wire.NLM_F_EXCL, _encode(op.want, protocol))
            )
        return messages


def _encode(rule: Rule, protocol: int) -> bytes:
    return rt.encode_rule(
        family=rule.family,
        priority=(rule.chosen if rule.priority is None else rule.priority) or 0,
        src=rule.src,
        dst=rule.dst,
        tos=rule.tos,
        dscp=rule.dscp,
        iifname=rule.iif,
        oifname=rule.oif,
        fwmark=0 if rule.fwmark is None else rule.fwmark[0],
        fwmask=0 if rule.fwmark is None else rule.fwmark[1],
        l3mdev=rule.l3mdev,
        uidrange=rule.uidrange,
        ipproto=rule.ipproto,
        sport=rule.sport,
        dport=rule.dport,
        tun_id=rule.tun_id,
        action=rule.action,
        table=rule.table,
        goto=rule.goto,
        flow=rule.realms or 0,
        suppress_prefixlength=rule.suppress_prefixlength,
        suppress_ifgroup=rule.suppress_ifgroup,
        flags=FIB_RULE_INVERT if rule.invert else 0,
        protocol=protocol,
    )
