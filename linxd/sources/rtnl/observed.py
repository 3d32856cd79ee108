# SPDX-License-Identifier: MIT
"""What a look at the kernel has come to, object by object.

A plain record: it knows no socket, and not what is declared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from linxd.netlink.rt import AddrMsg, NeighMsg, RouteMsg, RuleMsg
from linxd.patch import Key
from linxd.sources.rtnl import addresses, links, neighbours, routes
from linxd.sources.rtnl.kind import Have
from linxd.sources.rtnl.look import Look
from linxd.sources.rtnl.table import LinkTable

_HAVE: Mapping[str, Callable[[Any, LinkTable], Have[Any]]] = {
    "link": links.have,
    "address": addresses.have,
    "neighbour": neighbours.have,
    "route": routes.have,
}


def have(key: Key, message: Any, table: LinkTable) -> Have[Any]:
    """What an event said of an object, under its identity. (A rule's says only that it went.)"""
    return _HAVE[str(key[0])](message, table)


class Observed:
    """What the kernel has, as far as ``look`` covers it, and of ``keys`` besides, each object under its
    identity.

    An object that is covered and not in here is not in the kernel. ``links`` are all links, always.
    """

    __slots__ = (
        "addresses",
        "bare",
        "keys",
        "links",
        "look",
        "neighbours",
        "raw",
        "routes",
        "rules",
        "steady",
    )

    def __init__(self, table: LinkTable, look: Look) -> None:
        self.links = table
        self.look = look
        self.keys: set[Key] = set()
        self.addresses: dict[Key, Have[AddrMsg]] = {}
        self.bare: set[Key] = set()
        """Declared addresses among them whose connected route is not there."""
        self.neighbours: dict[Key, Have[NeighMsg]] = {}
        self.routes: dict[Key, Have[RouteMsg]] = {}
        self.rules: dict[Key, list[Have[RuleMsg]]] = {}
        self.steady: set[Key] = set()
        """Routes whose message is to the byte the one that was found as declared before: nothing to
        compare."""
        self.raw: dict[Key, bytes] = {}
        """Messages of the routes that were decoded."""

    def of(self, kind: str) -> Mapping[Key, Have[Any]]:
        """The observed objects of one kind."""
        if kind == "link":
            table = self.links
            names = self.look.links
            if names is not None and self.keys:
                names = names.union(str(key[1]) for key in self.keys if key[0] == "link")
            # A list made at once: a large diff runs beside the event loop, which goes on reading events.
            chosen = list(table.by_index.values() if names is None else filter(None, map(table.find, names)))
            return {have.key: have for have in (links.have(msg, table) for msg in chosen)}
        if kind == "rule":
            return {key: same[0] for key, same in self.rules.items()}
        found: Mapping[str, Mapping[Key, Have[Any]]] = {
            "address": self.addresses,
            "neighbour": self.neighbours,
            "route": self.routes,
        }
        return found[kind]

    @property
    def size(self) -> int:
        """How many objects there are to compare."""
        return len(self.addresses) + len(self.routes) + len(self.neighbours) + len(self.rules)

    def put(self, key: Key, message: Any) -> None:
        """Take in what an event said of an object. (A link is in the table already.)"""
        one = have(key, message, self.links)
        if key[0] == "address":
            self.addresses[key] = one
        elif key[0] == "route":
            self.routes[key] = one
        elif key[0] == "neighbour":
            self.neighbours[key] = one
