# SPDX-License-Identifier: MIT
"""From what was looked at to a plan: picks the declared and owned objects that a look covers, kind by kind,
and has them compared. Pure but for asking whether the firewall is still waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from linxd.ownership import Origin
from linxd.patch import Entry, Key
from linxd.source import Owned
from linxd.sources.rtnl import addresses, links, neighbours, routes, rules
from linxd.sources.rtnl.diff import Plan, Policy, View, absent, diff_kind, present
from linxd.sources.rtnl.kind import Have, HostLinks, Kind, origin_of
from linxd.sources.rtnl.look import NONE, Index
from linxd.sources.rtnl.model import PROTO_LINXD
from linxd.sources.rtnl.observed import Observed
from linxd.sources.rtnl.table import LinkTable

T = TypeVar("T")

KINDS: Mapping[str, Kind] = {
    "link": links.LinkKind(),
    "address": addresses.AddressKind(),
    "neighbour": neighbours.NeighbourKind(),
    "route": routes.RouteKind(),
    "rule": rules.RuleKind(),
}


class Planner:
    """Makes plans. ``hold`` says why no address may be added and no link set up yet."""

    def __init__(self, hold: Callable[[], str] = lambda: "") -> None:
        self._hold = hold
        self.host: HostLinks | None = None
        """What the scope refers to of the host, where it does and can."""
        self._in_place: tuple[LinkTable, int] | None = None
        """When no claim was under another name than its link, by the moves of the table."""

    def view(self, table: LinkTable, index: Index) -> View:
        """What kinds may look at."""
        view = View(table, index.desired.links, host=self.host, hold=self._hold())
        view.refusal = lambda link: KINDS["link"].creatable(link, view)
        return view

    def _moved(self, observed: Observed, owned: Owned) -> dict[Key, Entry | None]:
        """Claims under another name than before. All are gone through where links have come, gone or been
        renamed since none was."""
        table = observed.links
        at = table, table.moves
        if observed.look.links is not None and self.in_place(table):
            return {}
        moved = followed(owned.of("link"), table)
        self._in_place = None if moved else at
        return moved

    def in_place(self, table: LinkTable) -> bool:
        """Whether it is known that every claim is under the name of its link."""
        return self._in_place == (table, table.moves)

    def one(
        self, key: Key, seen: Have[Any] | None, table: LinkTable, index: Index, owned: Owned
    ) -> tuple[Plan, View]:
        """What `plan` comes to for one declared object of which all is known; None: it has gone. Who asks
        for a link knows that each claim is `in_place`."""
        view = self.view(table, index)
        plan = Plan()
        want = index.desired.find(key)
        if want is None:
            return plan, view
        kind, entry = KINDS[str(key[0])], owned.get(key)
        if seen is None:
            absent(kind, want, entry, view, plan)
        else:
            present(kind, want, seen, entry, view, Policy(index.desired.take), plan)
        return plan, view

    def plan(self, observed: Observed, index: Index, owned: Owned, *, complete: bool) -> Plan:
        """Compare everything that ``observed`` covers. ``complete``: foreign objects may be judged as
        such."""
        desired = index.desired
        look = observed.look
        view = self.view(observed.links, index)
        view.bare = observed.bare
        policy = Policy(
            desired.take,
            desired.foreign_remove,
            complete,
            lambda key: desired.declares(key) or owned.get(key) is not None,
        )
        plan = Plan()
        moved = self._moved(observed, owned) if look.links != NONE else {}
        plan.adopt += moved.items()

        def compare(
            kind: str, want: Mapping[Key, Any], claims: Mapping[Key, Entry], have: Mapping[Key, Any]
        ) -> None:
            diff_kind(KINDS[kind], want, have, claims, view, policy, plan)

        named: dict[str, set[Key]] = {}
        for key in observed.keys:
            named.setdefault(str(key[0]), set()).add(key)
        on_links = (
            ("link", index.links, index.link_keys, look.links),
            ("address", desired.addresses, index.addresses, look.addresses),
            ("neighbour", desired.neighbours, index.neighbours, look.neighbours),
        )
        for kind, want, by_link, names in on_links:
            keys = named.get(kind, set())
            if names is None:
                compare(kind, want, _claims(owned, kind, moved), _have(observed, kind, want))
            elif names or keys:
                # In the order of the declaration: the first address of a subnet is the one that counts.
                chosen = {
                    key: want[key]
                    for name in {*names, *(str(key[1]) for key in keys)}
                    for key in by_link.get(name, ())
                    if name in names or key in keys
                }
                if kind == "link":
                    looked: set[Key] = {*keys, *(("link", name) for name in names)}
                    known: dict[Key, Entry | None] = {**_entries(owned, looked), **moved}
                    claims = {k: e for k, e in known.items() if e is not None and k in looked}
                elif names == NONE:
                    claims = _entries(owned, keys)
                else:
                    entries = owned.of(kind)
                    claims = {k: e for k, e in entries.items() if k[1] in names or k in keys}
                compare(kind, chosen, claims, _have(observed, kind, chosen))
        keys = named.get("route", set())
        if look.routes or keys:
            chosen_routes = {key: desired.routes[key] for key in keys if key in desired.routes}
            claims = _entries(owned, keys)
            if look.routes:
                steady = observed.steady
                for family in look.routes:
                    chosen_routes |= {key: desired.routes[key] for key in index.routes_of[family] - steady}
                entries = owned.of("route")
                claims |= {key: entries[key] for key in entries.keys() - steady if key[1] in look.routes}
            seen = routes.pick(
                chosen_routes, observed.routes, view, alone=policy.foreign_remove and complete
            )
            compare("route", chosen_routes, claims, _within_reach(seen, index, policy))
        if look.rules:
            claims = dict(owned.of("rule"))
            wanted, have = rules.choose_priorities(desired.rules, observed.rules, claims)
            compare("rule", wanted, claims, have)
        elif keys := named.get("rule", set()):
            # Declared with their priorities when the event was read, alone under their identities, and gone:
            # what else is to be known of a rule takes a look at all of them.
            wanted = {key: desired.rules[key] for key in keys if key in desired.rules}
            compare("rule", wanted, _entries(owned, keys), {})
        return plan


def _have(observed: Observed, kind: str, want: Mapping[Key, Any]) -> Mapping[Key, Have[Any]]:
    seen = observed.of(kind)
    return addresses.stand_ins(want, seen) if kind == "address" else seen


def _claims(owned: Owned, kind: str, moved: Mapping[Key, Entry | None]) -> Mapping[Key, Entry]:
    claims = owned.of(kind)
    if kind != "link" or not moved:
        return claims
    return {key: entry for key, entry in {**claims, **moved}.items() if entry is not None}


def _entries(owned: Owned, keys: Iterable[Key]) -> dict[Key, Entry]:
    entries = ((key, owned.get(key)) for key in keys)
    return {key: entry for key, entry in entries if entry is not None}


def _within_reach(have: Mapping[Key, Have[Any]], index: Index, policy: Policy) -> Mapping[Key, Have[Any]]:
    """Foreign routes count only in tables that hold a declared route."""
    if not policy.foreign_remove:
        return have
    return {
        key: seen
        for key, seen in have.items()
        if (key[1], key[2]) in index.tables or seen.msg.protocol == PROTO_LINXD
    }


def followed(claims: Mapping[Key, Entry], links: LinkTable) -> dict[Key, Entry | None]:
    """Claims that follow their link, by its index, to the name it goes by now, because another link bears
    the declared one (where nobody does, it keeps that: `LinkTable.recognise`). None: nothing is left under
    this name."""
    moved: dict[Key, Entry | None] = {}
    for key, entry in claims.items():
        msg = links.by_index.get(int(entry.facts.get("ifindex", 0)))
        if msg is not None and msg.name != key[1] and links.name(msg.ifindex) == msg.name:
            moved.setdefault(key, None)
            moved["link", msg.name] = entry
    return moved


def borne_out(kind: Kind, entry: Entry, seen: Have[Any] | None) -> bool | None:
    """Whether the kernel's object is the one that a ledger entry in doubt speaks of: it bears our mark, or,
    a link, the index that was written ahead. None: it is absent."""
    if seen is None:
        return None
    if any(origin_of(msg.protocol) is Origin.MARK for msg in seen.same):
        return True
    return kind.origin(seen) is Origin.MARK or ("ifindex" in entry.facts and kind.valid(entry, seen))
