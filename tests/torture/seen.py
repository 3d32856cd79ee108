# SPDX-License-Identifier: MIT
"""What there is in a namespace of the things that a file declares, as `ip`, `nft` and `sysctl` show it.

It does not know how linxd compares: what is seen after all drifts must be what is seen where the same file
was applied to an untouched namespace.
"""

from __future__ import annotations

import json
import re
import tomllib
from ipaddress import ip_interface
from typing import Any

from tests.torture.bed import Namespace
from tests.torture.drifts import DISABLE, Declared

LINK = ("mtu", "txqlen", "ifalias", "master", "address")
TIMERS = re.compile(r"(hello|tcn|topology_change|gc)_timer +[\d.]+|expires \S+")


def seen(namespace: Namespace, declared: Declared) -> dict[str, Any]:
    """Each declared thing by its name, in force or not, with what is declared of it."""
    data = tomllib.loads(declared.text)
    links = {link["ifname"]: link for link in json.loads(namespace.ip("-d", "-j", "link", "show"))}
    found: dict[str, Any] = {}
    for name, link in data["link"].items():
        found[f"link {name}"] = _link(links.get(name), link)
    found |= _addresses(namespace, data)
    found |= _connected(namespace, data)
    found |= _routes(namespace, data)
    rules = json.loads(namespace.ip("-j", "-N", "rule", "show"))
    for rule in data["rule"]:
        source, length = rule["from"].split("/")
        want = {"priority": rule["priority"], "src": source, "srclen": int(length)}
        same = [one for one in rules if want.items() <= one.items() and one["table"] == str(rule["table"])]
        found[f"rule {rule['priority']}"] = len(same)
    neighbours = json.loads(namespace.ip("-j", "neigh", "show", "nud", "permanent"))
    for one in data["neighbour"]:
        found[f"neighbour {one['address']}"] = [
            (it["dev"], it.get("lladdr")) for it in neighbours if it["dst"] == one["address"]
        ]
    found |= _ruleset(namespace, data["netfilter"]["ruleset"])
    found |= _sysctls(namespace, declared, list(links))
    return found


def _link(link: dict[str, Any] | None, declared: dict[str, Any]) -> Any:
    if link is None:
        return None
    info = link.get("linkinfo", {})
    names = {"txqueuelen": "txqlen", "alias": "ifalias", "mtu": "mtu"}
    shown = {key: link.get(name) for key, name in names.items() if key in declared}
    # a master that is not declared is nobody's business
    shown |= {"master": link.get("master")} if "master" in declared else {}
    shown |= {"kind": info.get("info_kind")} if "kind" in declared else {}
    for key in ("forward_delay", "mode"):
        if key in declared:
            shown[key] = info.get("info_data", {}).get(key)
    return {**shown, "up": "UP" in link["flags"]}


def _addresses(namespace: Namespace, data: dict[str, Any]) -> dict[str, Any]:
    have = {
        (link["ifname"], f"{one['local']}/{one['prefixlen']}"): one.get("label")
        if "." in one["local"]
        else ""
        for link in json.loads(namespace.ip("-j", "address", "show"))
        for one in link.get("addr_info", ())
        if "local" in one
    }
    found: dict[str, Any] = {}
    for name, link in data["link"].items():
        for one in link.get("addresses", ()):
            address = one if isinstance(one, str) else one["address"]
            found[f"address {address} {name}"] = have.get((name, address))
    return found


def _connected(namespace: Namespace, data: dict[str, Any]) -> dict[str, Any]:
    """The routes that the kernel makes with addresses: whether each network has one."""
    routes = {
        (route["dst"], route["dev"])
        for version in ("-4", "-6")
        for route in json.loads(
            namespace.ip(version, "-j", "route", "show", "table", "main", "proto", "kernel") or "[]"
        )
    }
    found: dict[str, Any] = {}
    for name, link in data["link"].items():
        for one in link.get("addresses", ()):
            network = str(ip_interface(one if isinstance(one, str) else one["address"]).network)
            found[f"connected route {network} {name}"] = (network, name) in routes
    return found


def _routes(namespace: Namespace, data: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for version in ("-4", "-6"):
        first: dict[tuple[str, int], Any] = {}
        for route in json.loads(namespace.ip(version, "-j", "route", "show", "table", "main") or "[]"):
            first.setdefault((route["dst"], route.get("metric", 0)), route)
        for route in data["route"]:
            six = ":" in route["to"]
            if six == (version == "-6"):
                metric = route.get("metric", 0) or (1024 if six else 0)
                one = first.get((route["to"], metric))
                shown = ("type", "gateway", "dev", "metrics", "nexthops")
                found[f"route {route['to']} {metric}"] = one and {key: one.get(key) for key in shown}
    return found


def _ruleset(namespace: Namespace, text: str) -> dict[str, Any]:
    listed = namespace.nft("-s", "list", "ruleset")
    tables = {part.partition(" {")[0]: part for part in re.split(r"^table ", listed, flags=re.M) if part}
    names = re.findall(r"^table (\S+ \S+)", text, flags=re.M)
    return {f"table {name}": tables.get(name) for name in names}


def _sysctls(namespace: Namespace, declared: Declared, links: list[str]) -> dict[str, Any]:
    exact = {key: value for key, value in declared.sysctls if "*" not in key}
    for glob, value in declared.sysctls:
        if "*" in glob:
            head, tail = glob.split("*")
            exact |= {f"{head}{name}{tail}": value for name in links if f"{head}{name}{tail}" not in exact}
    keys = list(exact)
    shown = namespace.sh("\n".join(f"sysctl -n '{key}' 2>/dev/null || echo -" for key in keys)).splitlines()
    assert len(shown) == len(keys), (keys, shown)
    # Links come and go with drifts that are nobody's business: what counts is whether a value is as it
    # should be.
    return {
        f"sysctl {key}": "fine" if " ".join(value.split()) in (exact[key], "-") else value
        for key, value in zip(keys, shown, strict=True)
        if key != DISABLE or value != "-"
    }


def foreign(namespace: Namespace) -> str:
    """What is not linxd's, byte for byte."""
    shown = [
        TIMERS.sub("", namespace.ip(*command.split()))
        for command in (
            "-d link show x0",
            "-4 address show x0",
            "route show proto bird",
            "route show table 77",
            "rule show priority 7777",
            "neigh show dev x0 nud permanent",
        )
    ]
    return "\n".join([*shown, namespace.nft("list", "table", "ip", "foreign")])
