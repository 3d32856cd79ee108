# SPDX-License-Identifier: MIT
"""``[[route]]``: from a table to a route in the kernel's form. Whether anything reaches its gateway is not
known here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from linxd.config import metrics
from linxd.config.document import Node
from linxd.config.faults import Refused
from linxd.config.inet import (
    ADDRESS,
    ANY,
    DESTINATION,
    FAMILIES,
    FAMILY_WORDS,
    GATEWAY,
    Gateway,
    Prefix,
    link_local,
)
from linxd.config.names import Names
from linxd.config.objects import ON_CONFLICT, take_of
from linxd.config.reader import ABSENT, Entries, Field, Reader, where_of
from linxd.config.values import BOOLEAN, INTERFACE, U32, Type, choice, integer, named
from linxd.records import dataclass
from linxd.sources.rtnl.model import AF_INET, AF_INET6, MAIN_TABLE, ROUTE_TYPES, SCOPES, Nexthop, Route

TABLE = named("rt_tables", 1, U32, what="a routing table")
NOWHERE = ("blackhole", "unreachable", "prohibit", "throw")
"""Types that lead to no link."""
_TYPE_WORDS = {number: word for word, number in ROUTE_TYPES.items()}
PREFERENCES = {"low": 3, "medium": 0, "high": 1}
"""ICMPV6_ROUTER_PREF_*, include/uapi/linux/icmpv6.h."""
V6_METRIC = 1024
"""IP6_RT_PRIO_USER, which the kernel puts for none and for 0."""

_DSFIELD = named("rt_dsfield", 0, 255, what="a traffic class")


def _tos(value: Any, names: Names) -> int:
    number = _DSFIELD.parse(value, names)
    if number & 3:
        raise Refused(
            f"is {number:#04x}, whose two lowest bits belong to ECN and must be 0",
            f'did you mean "{number & ~3:#04x}"?' if number & ~3 else "",
        )
    return number


TOS: Type[int] = Type(_tos, _DSFIELD.schema)

NEXTHOP_FIELDS: Mapping[str, Field] = {
    "via": Field(GATEWAY, "the gateway"),
    "dev": Field(INTERFACE, "the link"),
    "weight": Field(integer(1, 256), "share of the traffic; 1 if left out"),
    "onlink": Field(BOOLEAN, "the gateway is on this link though no address says so"),
}

NEXTHOPS_SCHEMA: Mapping[str, Any] = {"type": "array", "minItems": 1}

FIELDS: Mapping[str, Field] = {
    "to": Field(DESTINATION, 'the destination: "default", 10.1.0.0/16, or one address', required=True),
    "family": Field(choice(FAMILIES), "inet or inet6, where neither to, via, src nor nexthops tell"),
    "type": Field(choice(ROUTE_TYPES), "what becomes of a packet; unicast if left out"),
    "via": Field(GATEWAY, 'the gateway, of either family: 10.0.0.1, fe80::1, "inet6 fe80::1"'),
    "dev": Field(INTERFACE, "the link; required without via"),
    "onlink": Field(BOOLEAN, "the gateway is on dev though no address says so"),
    "src": Field(ADDRESS, "source address for what this host itself sends"),
    "prefsrc": Field(ADDRESS, "another word for src"),
    "table": Field(TABLE, "routing table, by number or iproute2's name; main if left out"),
    "metric": Field(integer(0, U32), "0 if left out, 1024 in IPv6"),
    "tos": Field(TOS, "traffic class that a packet must have (IPv4)"),
    "scope": Field(
        named("rt_scopes", 0, 255, what="a scope"),
        "link without via, host for local, else global, if left out (IPv4)",
    ),
    "pref": Field(choice(PREFERENCES), "preference among routers of equal metric (IPv6)"),
    "nexthops": Field(None, "several ways: [{ via = …, dev = …, weight = … }, …]"),
    **metrics.FIELDS,
    "on-conflict": ON_CONFLICT,
    "absent": ABSENT,
}


@dataclass(slots=True)
class _Draft:
    """A route's table while it is put together. ``error`` reports at a key's value."""

    reader: Reader
    node: Node
    values: Mapping[str, Any]
    family: int = 0
    hops: tuple[tuple[Nexthop, int], ...] = ()
    """Next hops with the family of each one's gateway, 0 without a gateway."""

    def error(self, key: str, message: str, hint: str = "") -> None:
        self.reader.error(self.node.table()[key], message, hint, at_key=True)


def read_routes(reader: Reader, node: Node, into: Entries[Route]) -> None:
    """All routes of the array."""
    for item in reader.tables(node):
        before = reader.errors
        draft = _Draft(
            reader, item, reader.fields(item, FIELDS, unknown=lambda found: _misnamed(reader, found))
        )
        if "nexthops" in item.table():
            draft.hops = _nexthops(reader, item.table()["nexthops"])
        if reader.errors == before:
            _build(draft, into)


def _misnamed(reader: Reader, node: Node) -> bool:
    better = {
        "gateway": "via",
        "destination": "to",
        "device": "dev",
        "gw": "via",
        "preference": "pref",
        "realm": "",
    }
    word = better.get(str(node.key))
    if word:
        reader.unknown(node, (), f'did you mean "{word}"?')
    return bool(word)


def _nexthops(reader: Reader, node: Node) -> tuple[tuple[Nexthop, int], ...]:
    before = reader.errors
    hops: list[tuple[Nexthop, int]] = []
    for item in reader.tables(node):
        values = reader.fields(item, NEXTHOP_FIELDS, unknown=lambda found: _misnamed(reader, found))
        via: Gateway | None = values.get("via")
        dev: str | None = values.get("dev")
        if not {"via", "dev", "gateway"} & set(item.table()):
            reader.error(item, "want via, dev or both")
        onlink = bool(values.get("onlink"))
        if onlink and (via is None or dev is None):
            reader.error(item.table()["onlink"], "needs both via and dev", at_key=True)
        if via is not None and via.family == AF_INET6 and dev is None and link_local(via.address):
            reader.missing(item, "dev", "is required with a link-local gateway")
        hop = Nexthop(None if via is None else via.address, dev, values.get("weight", 1), onlink)
        hops.append((hop, 0 if via is None else via.family))
    if not hops and reader.errors == before:
        reader.error(node, "is empty, want at least one next hop")
    counts = Counter((hop.via, hop.dev) for hop, _ in hops)
    if any(count > 1 for count in counts.values()) and reader.errors == before:
        reader.error(node, "has the same next hop twice", "give it a weight instead")
    return tuple(hops)


def _build(draft: _Draft, into: Entries[Route]) -> None:
    reader, node, values = draft.reader, draft.node, draft.values
    before = reader.errors
    family = _family(draft)
    if family is None:
        return
    draft.family = family
    to: Prefix = values["to"]
    destination = str(to) if to is not ANY else ("0.0.0.0/0" if family == AF_INET else "::/0")
    table: int = values.get("table", MAIN_TABLE)
    metric: int = values.get("metric", 0) or (V6_METRIC if family == AF_INET6 else 0)
    tos: int = values.get("tos", 0)
    if tos and family == AF_INET6:
        draft.error("tos", "is for IPv4 routes")
    shown = "default" if to is ANY else destination
    if values.get("absent"):
        into.add((family, table, destination, tos, metric), None, node, shown=shown)
        return
    _check_ways(draft)
    prefsrc = _prefsrc(draft)
    hops = tuple(hop for hop, _ in draft.hops)
    via: Gateway | None = values.get("via")
    ways = Nexthop(None if via is None else via.address, values.get("dev"), 1, bool(values.get("onlink")))
    if len(hops) == 1:
        # The kernel keeps no single next hop apart from a plain route.
        ways, hops = hops[0], ()
    if "pref" in values and family == AF_INET:
        draft.error("pref", "is for IPv6 routes")
    if reader.errors != before:
        return
    kind: int = values.get("type", ROUTE_TYPES["unicast"])
    item = Route(
        family=family,
        to=destination,
        table=table,
        tos=tos,
        metric=metric,
        type=kind,
        via=ways.via,
        dev=ways.dev,
        onlink=ways.onlink,
        prefsrc=prefsrc,
        scope=_scope(draft, kind, has_gateway=bool(ways.via or hops)),
        pref=values.get("pref"),
        metrics=metrics.metrics_of(values),
        nexthops=hops,
        take=take_of(values),
        where=where_of(node),
    )
    into.add((family, table, destination, tos, metric), item, node, shown=shown)


def _family(draft: _Draft) -> int | None:
    """The family: from the destination first, since a gateway may be of the other one."""
    values = draft.values
    to: Prefix = values["to"]
    said: int | None = values.get("family")
    if said is not None and to.family not in (0, said):
        draft.error("family", f"the destination is an {FAMILY_WORDS[to.family]} one")
        return None
    family = said or to.family
    if family:
        return family
    via: Gateway | None = values.get("via")
    source: Prefix | None = values.get("src") or values.get("prefsrc")
    for candidate in (
        source.family if source is not None else 0,
        via.family if via is not None else 0,
        *sorted({hop_family for _, hop_family in draft.hops if hop_family}),
    ):
        if candidate:
            return candidate
    message = "is required where neither to, via, src nor nexthops tells it"
    draft.reader.missing(draft.node, "family", message, '"inet" or "inet6"')
    return None


def _check_ways(draft: _Draft) -> None:
    """Via, dev, onlink and nexthops against the type and each other."""
    values, node, family = draft.values, draft.node, draft.family
    kind: int = values.get("type", ROUTE_TYPES["unicast"])
    type_word = _TYPE_WORDS[kind]
    if type_word in NOWHERE:
        for key in _said_ways(draft):
            draft.error(key, f"a route of type {type_word} leads nowhere", "leave it out")
        return
    via: Gateway | None = values.get("via")
    if draft.hops:
        for key in _said_ways(draft):
            if key != "nexthops":
                draft.error(key, "stands beside nexthops", "say it in each next hop")
        for _, hop_family in draft.hops:
            _check_gateway_family(draft, "nexthops", hop_family)
        return
    if via is not None:
        _check_gateway_family(draft, "via", via.family)
        needs_dev = via.family == AF_INET6 and (link_local(via.address) or family == AF_INET)
        if needs_dev and "dev" not in values:
            message = "is required with a gateway that is link-local or of the other family"
            draft.reader.missing(node, "dev", message)
    elif "dev" not in values:
        ways_wanted = "via, dev or nexthops" if type_word == "unicast" else "dev"
        draft.reader.error(node, f"want {ways_wanted}", f"a route of type {type_word} must lead somewhere")
    if values.get("onlink") and (via is None or "dev" not in values):
        draft.error("onlink", "needs both via and dev")
    if type_word != "unicast" and via is not None and type_word in ("local", "broadcast", "anycast"):
        draft.error("via", f"a route of type {type_word} has no gateway")


def _said_ways(draft: _Draft) -> Sequence[str]:
    table = draft.node.table()
    return [key for key in ("via", "dev", "onlink", "nexthops") if key in draft.values or key in table]


def _check_gateway_family(draft: _Draft, key: str, family: int) -> None:
    if family == AF_INET and draft.family == AF_INET6:
        draft.error(key, "an IPv6 route can't have an IPv4 gateway")


def _prefsrc(draft: _Draft) -> str | None:
    values = draft.values
    if "src" in values and "prefsrc" in values:
        draft.error("prefsrc", "means the same as src, which stands here too")
    key = "src" if "src" in values else "prefsrc"
    source: Prefix | None = values.get(key)
    if source is None:
        return None
    if source.family != draft.family:
        draft.error(key, f"want an {FAMILY_WORDS[draft.family]} address: the route is one")
    return source.address


def scope_of(family: int, kind: int, *, has_gateway: bool) -> int:
    """The scope of a route for which none is said, as ip-route(8) derives it (iproute_modify). IPv6 routes
    have none: the kernel says global whatever is asked."""
    if family == AF_INET6:
        return SCOPES["global"]
    if kind == ROUTE_TYPES["local"]:
        return SCOPES["host"]
    if kind in (ROUTE_TYPES["broadcast"], ROUTE_TYPES["multicast"], ROUTE_TYPES["anycast"]):
        return SCOPES["link"]
    return SCOPES["link"] if kind == ROUTE_TYPES["unicast"] and not has_gateway else SCOPES["global"]


def _scope(draft: _Draft, kind: int, *, has_gateway: bool) -> int:
    said: int | None = draft.values.get("scope")
    derived = scope_of(draft.family, kind, has_gateway=has_gateway)
    if said is None:
        return derived
    if draft.family == AF_INET6 and said != derived:
        node = draft.node.table()["scope"]
        draft.reader.warning(node, "IPv6 routes have no scope: the kernel ignores it", at_key=True)
        return derived
    return said
