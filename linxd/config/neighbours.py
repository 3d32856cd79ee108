# SPDX-License-Identifier: MIT
"""``[[neighbour]]``: permanent and proxy entries. Knows no link's state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from linxd.config.document import Node
from linxd.config.inet import ADDRESS, LLADDR, Prefix
from linxd.config.objects import ON_CONFLICT, take_of
from linxd.config.reader import ABSENT, Entries, Field, Reader, where_of
from linxd.config.values import BOOLEAN, INTERFACE
from linxd.sources.rtnl.model import AF_INET6, Neighbour

FIELDS: Mapping[str, Field] = {
    "address": Field(ADDRESS, "the neighbour's IP address", required=True),
    "dev": Field(INTERFACE, "the link it is on", required=True),
    "lladdr": Field(LLADDR, "its link-layer address; required unless proxy"),
    "proxy": Field(BOOLEAN, "answer for this address instead of knowing who has it"),
    "router": Field(BOOLEAN, "it is a router (IPv6)"),
    "on-conflict": ON_CONFLICT,
    "absent": ABSENT,
}


def read_neighbours(reader: Reader, node: Node, into: Entries[Neighbour]) -> None:
    """All neighbours of the array."""
    for item in reader.tables(node):
        before = reader.errors
        values = reader.fields(item, FIELDS, unknown=lambda found: _misnamed(reader, found))
        if reader.errors == before:
            _build(reader, item, values, into)


def _misnamed(reader: Reader, node: Node) -> bool:
    better = {"mac": "lladdr", "to": "address", "ip": "address", "link": "dev", "device": "dev"}.get(
        str(node.key)
    )
    if better is not None:
        reader.unknown(node, (), f'did you mean "{better}"?')
    return better is not None


def _build(reader: Reader, node: Node, values: Mapping[str, Any], into: Entries[Neighbour]) -> None:
    before = reader.errors
    table = node.table()
    address: Prefix = values["address"]
    proxy: bool = values.get("proxy", False)
    absent = values.get("absent", False)
    if proxy and "lladdr" in values:
        reader.error(table["lladdr"], "a proxy entry has none", at_key=True)
    elif not proxy and not absent and "lladdr" not in values:
        reader.missing(node, "lladdr", "is required", "or proxy = true")
    if values.get("router") and address.family != AF_INET6:
        reader.error(table["router"], "is for IPv6 neighbours", at_key=True)
    if reader.errors != before:
        return
    item = Neighbour(
        dev=values["dev"],
        family=address.family,
        address=address.address,
        lladdr=values.get("lladdr"),
        proxy=proxy,
        router=values.get("router", False),
        take=take_of(values),
        where=where_of(node),
    )
    into.add(item.key, None if absent else item, node, shown=item.words())
