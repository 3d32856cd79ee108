# SPDX-License-Identifier: MIT
"""Desired state back into a file: what `load` reads from the text is equal to what the text was written
from.

Defaults are left out, as a person would. It must not know where the desired state comes from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from linxd.config import metrics
from linxd.config.addresses import derived_scope
from linxd.config.faults import key_word
from linxd.config.inet import FAMILIES
from linxd.config.model import HOST, NETNS_DIRECTORY, RESYNC, NetnsRef, ScopeConfig
from linxd.config.routes import PREFERENCES, V6_METRIC, scope_of
from linxd.config.rules import ACTIONS
from linxd.sources.netfilter.model import Desired as Netfilter
from linxd.sources.rtnl.model import (
    ADDRESS_FLAGS,
    AF_INET,
    AF_INET6,
    MAIN_TABLE,
    ROUTE_TYPES,
    SCOPES,
    Address,
    Desired,
    Link,
    Neighbour,
    Nexthop,
    Route,
    Rule,
)
from linxd.sources.sysctl.model import Desired as Sysctl

Table: TypeAlias = dict[str, Any]
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}", re.ASCII)
_FAMILY_WORDS = {number: word for word, number in FAMILIES.items()}


def write(config: ScopeConfig) -> str:
    """The whole scope as one file. Rulesets that were read from files of their own are written into it."""
    raw = raw_of(config)
    parts = [_section("scope", raw["scope"])] if raw["scope"] else []
    parts += [_section(f"link.{key_word(name)}", table) for name, table in raw["link"].items()]
    for name in ("route", "rule", "neighbour", "attach"):
        parts += [_section(name, table, of_tables=True) for table in raw[name]]
    parts += [_section(name, raw[name]) for name in ("netfilter", "sysctl") if raw[name] is not None]
    return "\n".join(parts)


def raw_of(config: ScopeConfig) -> Table:
    """The scope in the shape of TOML: sections by name, None for those that are not there."""
    rtnl = config.rtnl
    return {
        "scope": _scope(config),
        "link": {name: _link(link, rtnl) for name, link in rtnl.links.items()},
        "route": [_route(route) for route in rtnl.routes.values()],
        "rule": [_rule(rule) for rule in rtnl.rules.values()],
        "neighbour": [_neighbour(item) for item in rtnl.neighbours.values()],
        "attach": [{"unit": item.unit.pattern, "scope": item.scope} for item in config.attach],
        "netfilter": _netfilter(config.netfilter, take=config.on_conflict == "take"),
        "sysctl": _sysctl(config.sysctl),
    }


def _said(**values: Any) -> Table:
    """Keys that have something to say, underscores being dashes of linxd's own keys."""
    return {key: value for key, value in values.items() if value is not None and value is not False}


def _take(take: bool | None) -> Table:
    return {} if take is None else {"on-conflict": "take" if take else "refuse"}


def _scope(config: ScopeConfig) -> Table:
    table: Table = {}
    default = NetnsRef("path", f"{NETNS_DIRECTORY}/{config.name}")
    if config.name != HOST and config.netns != default:
        table["netns"] = str(config.netns)
    if config.resync != RESYNC:
        table["resync"] = f"{config.resync:g}s" if config.resync else "0"
    for key, value, left_out in (
        ("on-stop", config.on_stop, "keep"),
        ("foreign", config.foreign, "keep"),
        ("on-conflict", config.on_conflict, "refuse"),
    ):
        if value != left_out:
            table[key] = value
    return table


# --- objects -----------------------------------------------------------------------------------------------


def _link(link: Link, rtnl: Desired) -> Table:
    used = link.kind is not None or any(item.link == link.name for item in rtnl.addresses.values())
    used = used or any(link.name == way.dev for route in rtnl.routes.values() for way in _ways(route))
    table = _said(
        kind=link.kind, parent=None if link.parent is None else str(link.parent), master=link.master
    )
    if link.up is not None and not (link.up and used):
        table["up"] = link.up
    if link.peer is not None:
        peer = link.peer
        table["peer"] = {"name": peer.name, **({"scope": peer.scope} if peer.scope else {})}
        table["peer"] |= _said(master=peer.master, mtu=peer.mtu, mac=peer.mac)
        table["peer"] |= {} if peer.up else {"up": False}
    for values in (link.attributes, link.options):
        table |= {name: _plain(value) for name, value in values.items()}
    if link.port:
        table["port"] = {name: _plain(value) for name, value in link.port.items()}
    addresses = [_address(item) for item in rtnl.addresses.values() if item.link == link.name]
    if addresses:
        table["addresses"] = addresses
    return table | _take(link.take)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _ways(route: Route) -> tuple[Nexthop, ...]:
    return route.nexthops or (Nexthop(route.via, route.dev, 1, route.onlink),)


def _address(item: Address) -> str | Table:
    table: Table = {"address": f"{item.address}/{item.prefixlen}"}
    if item.peer is not None:
        table["peer"] = f"{item.peer}/{item.prefixlen}"
    table |= _said(label=item.label, broadcast=item.broadcast, metric=item.metric or None)
    if item.scope != derived_scope(item.family, item.address):
        table["scope"] = _scope_word(item.scope)
    table |= {name: True for name, bit in ADDRESS_FLAGS.items() if item.flags & bit}
    table |= _take(item.take)
    return table if len(table) > 1 else str(table["address"])


def _scope_word(scope: int) -> str | int:
    return next((word for word, number in SCOPES.items() if number == scope), scope)


def _route(route: Route) -> Table:
    to = "default" if route.to in ("0.0.0.0/0", "::/0") else route.to
    table: Table = {"to": to}
    if to == "default" and route.family != _told_family(route):
        table["family"] = _FAMILY_WORDS[route.family]
    if route.type != ROUTE_TYPES["unicast"]:
        table["type"] = next(word for word, number in ROUTE_TYPES.items() if number == route.type)
    table |= _way(Nexthop(route.via, route.dev, 1, route.onlink)) if not route.nexthops else {}
    table |= _said(src=route.prefsrc, tos=route.tos or None)
    if route.table != MAIN_TABLE:
        table["table"] = route.table
    if route.metric != (V6_METRIC if route.family == AF_INET6 else 0):
        table["metric"] = route.metric
    derived = scope_of(route.family, route.type, has_gateway=bool(route.via or route.nexthops))
    if route.scope is not None and route.scope != derived:
        table["scope"] = _scope_word(route.scope)
    if route.pref is not None:
        table["pref"] = next(word for word, number in PREFERENCES.items() if number == route.pref)
    table |= metrics.words_of(route.metrics)
    if route.nexthops:
        table["nexthops"] = [_way(hop) for hop in route.nexthops]
    return table | _take(route.take)


def _told_family(route: Route) -> int | None:
    """The family that a default route is taken for where none is said: see `linxd.config.routes`."""
    if route.prefsrc or route.via:
        return AF_INET6 if ":" in (route.prefsrc or route.via or "") else AF_INET
    return min((AF_INET6 if ":" in hop.via else AF_INET for hop in route.nexthops if hop.via), default=None)


def _way(hop: Nexthop) -> Table:
    table = _said(via=hop.via, dev=hop.dev, onlink=hop.onlink)
    return {**table, "weight": hop.weight} if hop.weight != 1 else table


def _rule(rule: Rule) -> Table:
    table: Table = {} if rule.src or rule.dst else {"family": _FAMILY_WORDS[rule.family]}
    if rule.priority is not None:
        table["priority"] = rule.priority
    table |= {"not": True} if rule.invert else {}
    for key, value in (("from", rule.src), ("to", rule.dst), ("iif", rule.iif), ("oif", rule.oif)):
        if value is not None:
            table[key] = value
    if rule.tos:
        table["tos"] = rule.tos
    if rule.fwmark is not None:
        table["fwmark"] = f"{rule.fwmark[0]:#x}/{rule.fwmark[1]:#x}"
    table |= {"l3mdev": True} if rule.l3mdev else {}
    for key, span in (("uidrange", rule.uidrange), ("sport", rule.sport), ("dport", rule.dport)):
        if span is not None:
            table[key] = f"{span[0]}-{span[1]}"
    numbers = (
        ("dscp", rule.dscp),
        ("ipproto", rule.ipproto),
        ("goto", rule.goto),
        ("suppress_prefixlength", rule.suppress_prefixlength),
        ("suppress_ifgroup", rule.suppress_ifgroup),
    )
    table |= {key: number for key, number in numbers if number is not None}
    if rule.tun_id is not None:
        table["tun_id"] = f"{rule.tun_id:#x}"  # TOML's integers have 64 bits with their sign
    if rule.realms is not None:
        table["realms"] = f"{rule.realms >> 16}/{rule.realms & 0xFFFF}"
    if rule.table:
        table["table"] = rule.table
    action = next((word for word, number in ACTIONS.items() if number == rule.action), None)
    return table | _said(action=action) | _take(rule.take)


def _neighbour(item: Neighbour) -> Table:
    table: Table = {"address": item.address, "dev": item.dev}
    return table | _said(lladdr=item.lladdr, proxy=item.proxy, router=item.router) | _take(item.take)


def _netfilter(desired: Netfilter | None, *, take: bool) -> Table | None:
    """All rulesets as one, since a file holds one ``ruleset``."""
    if desired is None:
        return None
    table = _said(required=desired.required)
    if desired.filled:
        table["filled"] = list(desired.filled)
    if desired.take != take:
        table["on-conflict"] = "take" if desired.take else "refuse"
    if desired.rulesets:
        table["ruleset"] = "".join(
            piece.text if piece.text.endswith("\n") else piece.text + "\n" for piece in desired.rulesets
        )
    return table


def _sysctl(desired: Sysctl | None) -> Table | None:
    if desired is None:
        return None
    table: Table = {}
    for setting in desired.settings:
        value = int(setting.value) if _WHOLE.fullmatch(setting.value) else setting.value
        table[setting.dotted] = value if setting.restore else {"value": value, "on-release": "keep"}
    return table


# --- TOML --------------------------------------------------------------------------------------------------


def _section(name: str, table: Mapping[str, Any], *, of_tables: bool = False) -> str:
    header = f"[[{name}]]" if of_tables else f"[{name}]"
    return f"{header}\n" + "".join(f"{key_word(key)} = {_value(value)}\n" for key, value in table.items())


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            return _string(value)
        case list():
            return "[" + ", ".join(_value(item) for item in value) + "]"
    return "{ " + ", ".join(f"{key_word(key)} = {_value(item)}" for key, item in value.items()) + " }"


def _string(text: str) -> str:
    """A string; one of several lines as it is, where TOML allows that."""
    as_it_is = "'''" not in text and not text.endswith("'") and not _CONTROL.search(text)
    if "\n" in text and as_it_is:
        return f"'''\n{text}'''"
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
