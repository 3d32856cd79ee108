# SPDX-License-Identifier: MIT
"""What a pass looks at: everything, or the few objects that an event named and those that may have gone with
them. Pure bookkeeping over the desired state.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from linxd.patch import Key
from linxd.records import dataclass, replace
from linxd.sources.rtnl.attributes import link_options
from linxd.sources.rtnl.model import AF_INET, AF_INET6, Desired
from linxd.sources.rtnl.prefixes import network_of

FAMILIES = frozenset({AF_INET, AF_INET6})


@dataclass(frozen=True, slots=True)
class Look:
    """Names of links whose own state, addresses and neighbours are looked at (None: all of them), the
    families of routes, and whether rules are. ``deep``: (family, table) of routes of which every one under a
    key of ours is looked at, not only those that bear our mark."""

    links: frozenset[str] | None = frozenset()
    addresses: frozenset[str] | None = frozenset()
    neighbours: frozenset[str] | None = frozenset()
    routes: frozenset[int] = frozenset()
    rules: bool = False
    deep: frozenset[tuple[int, int]] = frozenset()

    def __bool__(self) -> bool:
        return (
            self.links != NONE
            or self.addresses != NONE
            or self.neighbours != NONE
            or bool(self.routes)
            or self.rules
        )

    def __or__(self, other: Look) -> Look:
        return Look(
            _either(self.links, other.links),
            _either(self.addresses, other.addresses),
            _either(self.neighbours, other.neighbours),
            self.routes | other.routes,
            self.rules or other.rules,
            self.deep | other.deep,
        )

    @property
    def whole(self) -> bool:
        """Nothing is left out."""
        return (
            self.links is None
            and self.addresses is None
            and self.neighbours is None
            and (self.routes == FAMILIES and self.rules)
        )


NONE: frozenset[str] = frozenset()
NOTHING = Look()
EVERYTHING = Look(None, None, None, FAMILIES, True)


def _either(a: frozenset[str] | None, b: frozenset[str] | None) -> frozenset[str] | None:
    return None if a is None or b is None else a | b


class Index:
    """The desired state by what it hangs on. Made once for each declaration."""

    __slots__ = (
        "addresses",
        "anywhere",
        "dependents",
        "desired",
        "families",
        "link_keys",
        "links",
        "neighbours",
        "networks",
        "routes_of",
        "tables",
        "users",
    )

    def __init__(self, desired: Desired) -> None:
        self.desired = desired
        self.addresses: dict[str, list[Key]] = {}
        self.networks: dict[str, dict[str, list[Key]]] = {}
        """Addresses of a link by the network that each stands for, of the links that were asked for."""
        self.neighbours: dict[str, list[Key]] = {}
        self.dependents: dict[str, list[str]] = {}
        for key, address in desired.addresses.items():
            self.addresses.setdefault(address.link, []).append(key)
        for key, neighbour in desired.neighbours.items():
            self.neighbours.setdefault(neighbour.dev, []).append(key)
        for link in desired.links.values():
            below = {
                link.master or "",
                link.peer.name if link.peer is not None and not link.peer.scope else "",
            }
            if link.parent is not None and not link.parent.scope:
                below.add(link.parent.name)
            for name in below - {""}:
                self.dependents.setdefault(name, []).append(link.name)
            for name in link_options(link).values():
                self.dependents.setdefault(name, []).append(link.name)
            if link.peer is not None and not link.peer.scope:
                # Made anew, a pair has two new ends.
                self.dependents.setdefault(link.name, []).append(link.peer.name)
        self.links = {link.key: link for link in desired.links.values()}
        self.link_keys = {name: [link.key] for name, link in desired.links.items()}
        self.users = {*self.addresses, *self.neighbours}
        self.anywhere = False
        self.routes_of: dict[int, set[Key]] = {family: set() for family in FAMILIES}
        tables: set[tuple[int, int]] = set()
        for key, route in desired.routes.items():
            self.routes_of[route.family].add(key)
            tables.add((route.family, route.table))
            if route.dev and not route.nexthops:
                self.users.add(route.dev)
            elif ways := route.devices():
                self.users |= ways
            elif route.type == 1:
                self.anywhere = True
        self.tables = frozenset(tables)
        self.families = frozenset(family for family, _ in tables)

    def networks_of(self, link: str) -> Mapping[str, Sequence[Key]]:
        """The addresses of a link by the network that each stands for."""
        found = self.networks.get(link)
        if found is None and link in self.addresses:
            found = self.networks[link] = {}
            for key in self.addresses[link]:
                found.setdefault(network_of(self.desired.addresses[key]), []).append(key)
        return found or {}

    def neighbouring(self, key: Key) -> Sequence[Key]:
        """The declared addresses of the network that this one stands for on its link, itself among them."""
        address = self.desired.addresses.get(key)
        return () if address is None else self.networks_of(address.link).get(network_of(address), ())

    def after_link(self, name: str) -> Look:
        """What may have changed silently when this link did: those that stand on it, what it carries, and
        all routes (the kernel deletes routes of a link that goes down without a word, in every table)."""
        related = frozenset({name, *self.dependents.get(name, ())})
        return Look(
            related,
            related if self.addresses else NONE,
            related if self.neighbours else NONE,
            self.families,
        )

    def after_address(self, key: Key) -> Look:
        """What may have gone silently with an address: routes by the gateway it made reachable, and, with
        the last one of its link, the link's neighbours (net/ipv4/fib_frontend.c fib_disable_ip)."""
        link = str(key[1])
        family = AF_INET6 if ":" in str(key[2]) else AF_INET
        neighbours = frozenset({link}) if link in self.neighbours else NONE
        return Look(neighbours=neighbours, routes=self.families & {family})


class Waiting:
    """Objects that wait for something that an event may tell of, and where to look for them then: at a
    cost that does not grow with their number."""

    def __init__(self) -> None:
        self._keys: set[Key] = set()
        self._places: Counter[tuple[str, str | int]] = Counter()

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: Key) -> None:
        """It waits."""
        if key not in self._keys:
            self._keys.add(key)
            self._places[str(key[0]), key[1]] += 1

    def discard(self, key: Key) -> None:
        """It does not, or not any more."""
        if key in self._keys:
            self._keys.remove(key)
            place = str(key[0]), key[1]
            self._places[place] -= 1
            if not self._places[place]:
                del self._places[place]

    @property
    def look(self) -> Look:
        """A look that has all of them in it."""
        look = NOTHING
        for kind, name in self._places:
            look |= _look_at(kind, name)
        return look


def together(looks: Collection[Look]) -> Look:
    """All of them as one: as `Look.__or__` over very many, which would copy what has come together with
    each."""
    if not looks:
        return NOTHING
    return Look(
        _all_of([look.links for look in looks]),
        _all_of([look.addresses for look in looks]),
        _all_of([look.neighbours for look in looks]),
        frozenset().union(*(look.routes for look in looks)),
        any(look.rules for look in looks),
        frozenset().union(*(look.deep for look in looks)),
    )


def _all_of(names: list[frozenset[str] | None]) -> frozenset[str] | None:
    some = [one for one in names if one is not None]
    return frozenset().union(*some) if len(some) == len(names) else None


def look_at(key: Key) -> Look:
    """The smallest look that has this one object in it."""
    return _look_at(str(key[0]), key[1])


def look_into(key: Key) -> Look:
    """The same, and at whatever else the kernel has under its identity."""
    look = look_at(key)
    return replace(look, deep=frozenset({(int(key[1]), int(key[2]))})) if key[0] == "route" else look


@functools.lru_cache(maxsize=1024)
def _look_at(kind: str, name: str | int) -> Look:
    if kind == "link":
        return Look(links=frozenset({str(name)}))
    if kind == "address":
        return Look(addresses=frozenset({str(name)}))
    if kind == "neighbour":
        return Look(neighbours=frozenset({str(name)}))
    if kind == "route":
        return Look(routes=frozenset({int(name)}))
    return Look(rules=True)
