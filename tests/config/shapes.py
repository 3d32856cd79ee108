# SPDX-License-Identifier: MIT
"""Hypothesis strategies for files: mostly right, now and then with anything at all in some place."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from linxd.config import addresses, links, metrics, neighbours, routes, rules, rulesets, scopes, sysctls
from linxd.config.build import SECTIONS
from linxd.config.reader import Field
from linxd.sources.rtnl.attributes import COMMON, KINDS

NAMES = ["eth0", "eth1", "br0", "veth0", "eno1.100", "bond0"]
V4 = ["10.0.0.1", "10.0.0.5", "192.0.2.7", "127.0.0.1"]
V6 = ["fd00::1", "fe80::1", "FD00:0:0::5", "::1", "::ffff:10.0.0.1", "fec0::1"]
NETWORKS = [
    "10.0.0.0/24",
    "10.1.0.0/16",
    "0.0.0.0/0",
    "fd00::/64",
    "::/0",
    "10.0.0.9/32",
    "10.0.0.9",
    "default",
]
WORDS = [
    *NAMES, *V4, *V6, *NETWORKS, "10.0.0.5/24", "fd00::5/64", "10.0.0.5/33", "host:eno1", "c2:eth0", "",
    "all", "main", "local", "100", "0x10", "0x10/0xff", "1-2", "lock 1400", "100ms", "30s", "0", "inet",
    "inet6", "both", "take", "refuse", "keep", "remove", "host", "blackhole", "unicast", "local", "nop",
    "prohibit", "high", "ecn", "cubic", "tcp", "AF11", "1/2", "global", "link", "02:00:00:00:00:09", "+",
    "pid:7", "unit:a.scope", "eth0:1", "/run/netns/c1", "(?P<name>.+)", "{name}", "table inet a {}",
    "inet a b", *sorted(KINDS),
]  # fmt: skip

scalars = st.one_of(
    st.sampled_from(WORDS),
    st.integers(-1, 70000),
    st.booleans(),
    st.sampled_from([1 << 31, 1 << 32, 1 << 64, -(1 << 63), 0.5, float("inf"), float("nan")]),
    st.dates(),
    st.times(),
    st.text(max_size=8),
)
KEYS = sorted(
    {
        key
        for module in (addresses, links, metrics, neighbours, routes, rules, rulesets, scopes, sysctls)
        for key in module.FIELDS
    }
    | set(SECTIONS)
    | set(COMMON)
    | {key for kind in KINDS.values() for key in (*kind.attributes, *kind.ports)}
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=5)), inner, max_size=3),
    ),
    max_leaves=6,
)


def rarely(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Anything at all in one of a hundred places."""
    return st.integers(0, 99).flatmap(lambda number: anything if number == 0 else usual)


def of_schema(schema: Any) -> st.SearchStrategy[Any]:
    """Values that a field's JSON Schema is likely to take."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "const" in schema:
        return st.just(schema["const"])
    if "anyOf" in schema:
        return st.one_of([of_schema(choice) for choice in schema["anyOf"]])
    kinds = schema.get("type", "string")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    choices: list[st.SearchStrategy[Any]] = []
    if "integer" in kinds:
        low, high = schema.get("minimum", 0), schema.get("maximum", 1 << 31)
        choices.append(st.one_of(st.integers(low, min(high, low + 300)), st.integers(low, high)))
    if "boolean" in kinds:
        choices.append(st.booleans())
    if "array" in kinds:
        choices.append(st.lists(of_schema(schema.get("items", {})), max_size=2))
    if "string" in kinds:
        choices.append(st.sampled_from(WORDS))
    return st.one_of(choices)


def likely(key: str, field: Field) -> st.SearchStrategy[Any]:
    """Values that a key is likely to take, by its name or by its schema."""
    assert field.type is not None
    if (
        key == "scope" and "anyOf" in field.type.schema
    ):  # of an address or a route, not a peer's or an attach's
        return st.sampled_from(["global", "link", 7])
    return LIKELY.get(key, of_schema(field.type.schema))


LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "dev": st.sampled_from(NAMES),
    "parent": st.sampled_from(["eth0", "host:eno1"]),
    "master": st.sampled_from(["br0", "", "bond0"]),
    "iif": st.sampled_from(NAMES),
    "oif": st.sampled_from(NAMES),
    "name": st.sampled_from(["veth1", "c1-veth0"]),
    "to": st.sampled_from(NETWORKS),
    "from": st.sampled_from(NETWORKS),
    "via": st.sampled_from([*V4, *V6, "inet6 fe80::1"]),
    "src": st.sampled_from([*V4, *V6]),
    "lladdr": st.sampled_from(["02:00:00:00:00:09", "02:0:0:0:0:AA", "10.0.0.1"]),
    "absent": st.just(False),
    "table": st.sampled_from([100, "main", "local", "200"]),
    "ruleset": st.sampled_from(["table inet a {}\n", "one\ntwo", "it's '''quoted'''\n", "tab\there\n"]),
    "unit": st.sampled_from(["machine-(?P<name>.+)\\.scope", "(?P<name>a)"]),
    "address": st.sampled_from([*V4, *V6]),
    "scope": st.sampled_from(["host", "{name}"]),
    "resync": st.sampled_from(["30s", "1min 30s", "0", "1.5h"]),
    "netns": st.sampled_from(["/run/netns/x", "pid:12", "unit:a.scope"]),
    "filled": st.sampled_from([[], ["inet a b", "ip c d"]]),
    "label": st.sampled_from(["eth0:1", "eth0"]),
    "broadcast": st.sampled_from(["+", "10.0.0.255"]),
    "mac": st.just("02:00:00:00:00:01"),
    "alias": st.text(max_size=5),
}  # fmt: skip


@st.composite
def tables(
    draw: st.DrawFn, fields: dict[str, Field], always: tuple[str, ...] = (), most: int = 5
) -> dict[str, Any]:
    """A table of some of a list of keys."""
    usable = [key for key, field in fields.items() if field.type is not None and key != "file"]
    chosen = draw(st.lists(st.sampled_from(usable), max_size=most, unique=True))
    found: dict[str, Any] = {}
    for key in dict.fromkeys((*always, *chosen)):
        found[key] = draw(rarely(likely(key, fields[key])))
    if draw(st.integers(0, 39)) == 0:
        found[draw(st.text(max_size=5))] = draw(anything)
    return found


address_lists = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([*V4, *V6]), st.integers(1, 32)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
        tables(dict(addresses.FIELDS), ("address",), most=2).map(
            lambda table: table | {"address": f"{V4[len(table) % 3]}/24"}
        ),
    ),
    max_size=3,
)


@st.composite
def link_tables(draw: st.DrawFn) -> dict[str, Any]:
    """A link of any kind with some of its attributes."""
    kind = draw(st.sampled_from([None, None, *sorted(KINDS)]))
    table: dict[str, Any] = {} if kind is None else {"kind": kind}
    rows = dict(COMMON) | (dict(KINDS[kind].attributes) if kind is not None else {})
    required = KINDS[kind].required if kind is not None else ()
    for name in {*required, *draw(st.lists(st.sampled_from(sorted(rows)), max_size=4))}:
        table[name] = draw(
            rarely(st.one_of(of_schema(rows[name].json_schema()), LIKELY.get(name, st.nothing())))
        )
    if kind is not None and KINDS[kind].needs_parent:
        table["parent"] = draw(rarely(LIKELY["parent"]))
    if kind is not None and KINDS[kind].peer:
        table["peer"] = draw(rarely(tables(dict(links.PEER_FIELDS), ("name",), most=2)))
    if draw(st.booleans()):
        table["addresses"] = draw(rarely(address_lists))
    table |= draw(tables({key: links.FIELDS[key] for key in ("up", "master", "on-conflict")}, most=1))
    return table


sysctl_keys = st.sampled_from(
    ["net.ipv4.ip_forward", "net.ipv4.conf.*.rp_filter", "net/ipv4/conf/eth0.100/rp_filter",
     "net.core.somaxconn", "net.ipv4.conf.eth0/100.rp_filter", "net.ipv4.tcp_rmem"]
)  # fmt: skip
sysctl_values = st.one_of(
    st.integers(-1, 9), st.sampled_from(["fq", "1 2", "007"]), st.lists(st.integers(0, 9), max_size=3)
)


@st.composite
def rule_tables(draw: st.DrawFn) -> dict[str, Any]:
    """A rule that does one thing."""
    selectors = {
        key: field for key, field in rules.FIELDS.items() if key not in ("table", "action", "goto", "absent")
    }
    table = draw(tables(selectors, most=4))
    if "from" not in table and "to" not in table:
        table["family"] = draw(rarely(st.sampled_from(["inet", "inet6", "both"])))
    if not table.get("l3mdev"):
        way = draw(st.sampled_from(["table", "action", "goto"]))
        table[way] = draw(rarely(likely(way, rules.FIELDS[way])))
        if way == "goto":
            table["priority"] = draw(st.integers(0, 5))
    return table


@st.composite
def nexthop_routes(draw: st.DrawFn) -> dict[str, Any]:
    """A multipath route."""
    table = draw(tables(dict(metrics.FIELDS), most=2)) | {"to": draw(LIKELY["to"])}
    hops = tables(dict(routes.NEXTHOP_FIELDS), ("via", "dev"), most=2)
    return table | {"nexthops": draw(rarely(st.lists(hops, min_size=1, max_size=3)))}


@st.composite
def files(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A scope's name with a whole file for it, as tomllib would give it."""
    host = draw(st.booleans())
    ways: dict[str, st.SearchStrategy[Any]] = {
        "scope": tables(
            {key: field for key, field in scopes.FIELDS.items() if key != "netns" or not host}, most=2
        ),
        "link": st.dictionaries(
            rarely(st.sampled_from(NAMES)).map(str), rarely(link_tables()), min_size=1, max_size=3
        ),
        "route": st.lists(
            rarely(st.one_of(tables(dict(routes.FIELDS), ("to", "via", "dev"), most=4), nexthop_routes())),
            min_size=1,
            max_size=3,
        ),
        "rule": st.lists(rarely(rule_tables()), min_size=1, max_size=3),
        "neighbour": st.lists(
            rarely(tables(dict(neighbours.FIELDS), ("address", "dev", "lladdr"))), min_size=1, max_size=2
        ),
        "netfilter": tables(dict(rulesets.FIELDS), most=2),
        "sysctl": st.dictionaries(
            sysctl_keys,
            rarely(st.one_of(sysctl_values, st.fixed_dictionaries({"value": sysctl_values}))),
            max_size=3,
        ),
        "attach": st.lists(rarely(tables(dict(scopes.ATTACH_FIELDS), ("unit", "scope"))), max_size=2),
    }
    sections = [section for section in SECTIONS if section != "attach" or host]
    chosen = draw(st.lists(st.sampled_from(sections), max_size=4, unique=True))
    return "host" if host else "c1", {section: draw(rarely(ways[section])) for section in chosen}
