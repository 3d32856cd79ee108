# SPDX-License-Identifier: MIT
"""``[[rule]]``: from a table to one policy rule, or two with ``family = "both"``. Knows no other rule's
priority."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from linxd.config.document import Node
from linxd.config.faults import Refused, Wrong, did_you_mean, found
from linxd.config.inet import BITS, FAMILIES, FAMILY_WORDS, SELECTOR, Prefix
from linxd.config.names import Names
from linxd.config.objects import ON_CONFLICT, take_of
from linxd.config.reader import ABSENT, Entries, Field, Reader, where_of
from linxd.config.routes import TABLE, TOS
from linxd.config.values import (
    ANY_INTERFACE,
    BOOLEAN,
    U32,
    Type,
    choice,
    flexible,
    integer,
    named,
    number_of,
    span,
)
from linxd.sources.rtnl.model import AF_INET, AF_INET6, Rule

TO_TABLE, GOTO = 1, 2
ACTIONS = {"nop": 3, "blackhole": 6, "unreachable": 7, "prohibit": 8}
"""FR_ACT_*, include/uapi/linux/fib_rules.h."""

_PROTOCOLS = {
    "icmp": 1, "igmp": 2, "ipip": 4, "tcp": 6, "udp": 17, "dccp": 33, "ipv6": 41, "gre": 47,
    "esp": 50, "ah": 51, "icmpv6": 58, "ipv6-icmp": 58, "ospf": 89, "pim": 103, "l2tp": 115, "sctp": 132,
    "udplite": 136,
}  # fmt: skip


def _fwmark(value: Any, names: Names) -> tuple[int, int]:
    want = 'a mark such as 1, "0x10" or "0x10/0xff"'
    mark: Any = value
    mask: Any = None
    if isinstance(value, str) and "/" in value:
        mark, _, mask = value.partition("/")
    first, second = number_of(mark), U32 if mask is None else number_of(mask)
    if first is None or second is None or max(first, second) > U32 or min(first, second) < 0:
        raise Wrong(want)
    if not first and mask is None:
        # To ip-rule(8) that matches every packet, to a reader those without a mark.
        raise Refused(f"is {found(value)}, which needs a mask", f'packets without a mark are "0/{U32:#x}"')
    if not second:
        raise Refused(f"{first:#x}/0 looks at no bit of the mark", "leave it out to match every packet")
    if first & ~second:
        message = f"{first:#x}/{second:#x} has bits outside the mask, which nothing looks at"
        raise Refused(message, f'did you mean "{first & second:#x}/{second:#x}"?')
    return first, second


def _protocol(value: Any, names: Names) -> int:
    want = "an IP protocol: a number from 1 to 255, or a name such as tcp"
    number = number_of(value)
    if number is None and isinstance(value, str) and value:
        number = _PROTOCOLS.get(value)
        if number is None:
            try:
                number = socket.getprotobyname(value)
            except (OSError, ValueError):
                raise Wrong(want, did_you_mean(value, _PROTOCOLS)) from None
    if number is None or not 1 <= number <= 255:
        raise Wrong(want)
    return number


_DSFIELD = named("rt_dsfield", 0, 255, what="a traffic class")


def _dscp(value: Any, names: Names) -> int:
    """0 to 63, or a name of rt_dsfield, whose numbers are whole octets."""
    want = "a DSCP: a number from 0 to 63, or a name such as AF11"
    number = number_of(value)
    if number is None:
        if not isinstance(value, str):
            raise Wrong(want)
        return _DSFIELD.parse(value, names) >> 2
    if not 0 <= number <= 63:
        raise Wrong(want)
    return number


_REALM = named("rt_realms", 0, 0xFFFF, what="a realm")


def _realms(value: Any, names: Names) -> int:
    """FROM/TO or TO alone, as FRA_FLOW packs them."""
    if isinstance(value, str) and "/" in value:
        first, _, second = value.partition("/")
        return _REALM.parse(first, names) << 16 | _REALM.parse(second, names)
    return _REALM.parse(value, names)


_NUMBER_OR_TEXT: Mapping[str, Any] = {"type": ["integer", "string"]}

FIELDS: Mapping[str, Field] = {
    "family": Field(choice({**FAMILIES, "both": 0}), "inet, inet6 or both, where neither from nor to tells"),
    "priority": Field(integer(0, U32), "place in the order; chosen once and kept if left out"),
    "not": Field(BOOLEAN, "match what the selectors do not"),
    "from": Field(SELECTOR, "source prefix"),
    "to": Field(SELECTOR, "destination prefix"),
    "tos": Field(TOS, "traffic class"),
    "dscp": Field(Type(_dscp, _NUMBER_OR_TEXT), "differentiated services code point"),
    "iif": Field(ANY_INTERFACE, "link that the packet came in by; lo is this host itself"),
    "oif": Field(ANY_INTERFACE, "link that the sending socket is bound to"),
    "fwmark": Field(Type(_fwmark, _NUMBER_OR_TEXT), 'packet mark, with a mask or without: "0x10/0xff"'),
    "l3mdev": Field(BOOLEAN, "look into the table of the packet's VRF"),
    "uidrange": Field(span(0, U32 - 1, what="a user id"), 'user ids of the sender: "1000-1999"'),
    "ipproto": Field(Type(_protocol, _NUMBER_OR_TEXT), "IP protocol, by number or name"),
    "sport": Field(span(1, 65534, what="a port"), 'source port or range: "1024-2047"'),
    "dport": Field(span(1, 65534, what="a port"), "destination port or range"),
    "tun_id": Field(flexible(1, (1 << 64) - 1), "id of the tunnel that the packet came out of"),
    "table": Field(TABLE, "table to look into, by number or iproute2's name"),
    "action": Field(choice(ACTIONS), "what to do instead of looking into a table"),
    "goto": Field(integer(1, U32), "go on at the rule of this priority"),
    "realms": Field(Type(_realms, _NUMBER_OR_TEXT), 'realms to set: "1/2" or 2 (IPv4)'),
    "suppress_prefixlength": Field(
        integer(0, 128), "ignore what the table finds with a prefix this short or shorter"
    ),
    "suppress_ifgroup": Field(
        named("group", 0, U32 >> 1, what="a device group"), "ignore what leads to a link of this group"
    ),
    "on-conflict": ON_CONFLICT,
    "absent": ABSENT,
}

_MISNAMED = {"lookup": "table", "pref": "priority", "prio": "priority", "preference": "priority",
             "type": "action", "mark": "fwmark", "src": "from", "dst": "to", "invert": "not"}  # fmt: skip


def read_rules(reader: Reader, node: Node, into: Entries[Rule]) -> None:
    """All rules of the array."""
    for item in reader.tables(node):
        before = reader.errors
        values = reader.fields(item, FIELDS, unknown=lambda key: _misnamed(reader, key))
        if reader.errors == before:
            _build(reader, item, values, into)


def _misnamed(reader: Reader, node: Node) -> bool:
    better = _MISNAMED.get(str(node.key))
    if better is not None:
        reader.unknown(node, (), f'did you mean "{better}"?')
    return better is not None


def _build(reader: Reader, node: Node, values: Mapping[str, Any], into: Entries[Rule]) -> None:
    before = reader.errors
    families = _families(reader, node, values)
    action = _action(reader, node, values)
    _check(reader, node, values)
    if reader.errors != before or families is None:
        return
    for family in families:
        rule = Rule(
            family=family,
            priority=values.get("priority"),
            invert=values.get("not", False),
            src=_prefix(values.get("from")),
            dst=_prefix(values.get("to")),
            tos=values.get("tos", 0),
            dscp=values.get("dscp"),
            iif=values.get("iif"),
            oif=values.get("oif"),
            fwmark=values.get("fwmark"),
            l3mdev=values.get("l3mdev", False),
            uidrange=values.get("uidrange"),
            ipproto=values.get("ipproto"),
            sport=values.get("sport"),
            dport=values.get("dport"),
            tun_id=values.get("tun_id"),
            action=action,
            table=values.get("table", 0),
            goto=values.get("goto"),
            realms=values.get("realms"),
            suppress_prefixlength=values.get("suppress_prefixlength"),
            suppress_ifgroup=values.get("suppress_ifgroup"),
            take=take_of(values),
            where=where_of(node),
        )
        into.add(rule.key, None if values.get("absent") else rule, node, shown=rule.words())


def _prefix(prefix: Prefix | None) -> str | None:
    """None for everything: the kernel tells nothing of a prefix of length 0."""
    return None if prefix is None or prefix.length == 0 else str(prefix)


def _families(reader: Reader, node: Node, values: Mapping[str, Any]) -> tuple[int, ...] | None:
    told = {key: values[key].family for key in ("from", "to") if key in values and values[key].family}
    said: int | None = values.get("family")
    if len(set(told.values())) > 1:
        reader.error(node.table()["to"], "is of another family than from")
        return None
    if told:
        family = next(iter(told.values()))
        if said is not None and said != family:
            key = next(iter(told))
            message = f"{key} is an {FAMILY_WORDS[family]} prefix"
            reader.error(node.table()["family"], message, "leave family out" if said == 0 else "")
            return None
        return (family,)
    if said is None:
        reader.missing(
            node, "family", "is required where neither from nor to tells it", '"inet", "inet6" or "both"'
        )
        return None
    return (AF_INET, AF_INET6) if said == 0 else (said,)


def _action(reader: Reader, node: Node, values: Mapping[str, Any]) -> int:
    ways = [key for key in ("table", "action", "goto") if key in values]
    if values.get("l3mdev"):
        for key in ways[:1]:
            if key == "table":
                reader.error(
                    node.table()["table"], "l3mdev finds the table by itself", "leave one out", at_key=True
                )
    elif not ways:
        reader.error(node, "want table, action or goto: what becomes of a packet that matches?")
    if len(ways) > 1:
        reader.error(node.table()[ways[1]], f"stands beside {ways[0]}: a rule does one thing", at_key=True)
    if "goto" in values:
        _check_goto(reader, node, values)
        return GOTO
    action: int = values.get("action", TO_TABLE)
    return action


def _check_goto(reader: Reader, node: Node, values: Mapping[str, Any]) -> None:
    priority: int | None = values.get("priority")
    if priority is None:
        reader.error(node.table()["goto"], "needs priority, since a rule can only go forward", at_key=True)
    elif values["goto"] <= priority:
        reader.error(
            node.table()["goto"], f"want more than {priority}, its own priority: a rule can only go forward"
        )


def _check(reader: Reader, node: Node, values: Mapping[str, Any]) -> None:
    table = node.table()
    if "tos" in values and "dscp" in values:
        reader.error(table["dscp"], "stands beside tos, and both look at the same bits", at_key=True)
    families = {values[key].family for key in ("from", "to") if key in values and values[key].family}
    only = families | ({values["family"]} if values.get("family") else set())
    length: int | None = values.get("suppress_prefixlength")
    if length is not None and AF_INET in (only or {AF_INET}) and length > BITS[AF_INET]:
        reader.error(
            table["suppress_prefixlength"], f"is {length}, want a whole number from 0 to 32 in IPv4"
        )
    if "realms" in values and only != {AF_INET}:
        reader.error(table["realms"], "is for IPv4 rules", at_key=True)
    for key in ("suppress_prefixlength", "suppress_ifgroup"):
        if key in values and ("action" in values or "goto" in values):
            reader.error(table[key], "is for rules that look into a table", at_key=True)
