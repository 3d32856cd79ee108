# SPDX-License-Identifier: MIT
"""From the trees of a scope's files to its desired state, faults and all. Pure: it opens no file and asks no
kernel.

What the sections mean stands in a module of each; here they are only put together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from linxd.config import checks
from linxd.config.document import Node, Source, grow, merge
from linxd.config.faults import ConfigError, Fault, Refused, Severity
from linxd.config.links import Declared, read_links
from linxd.config.model import RESYNC, NetnsRef, ScopeConfig
from linxd.config.names import Names
from linxd.config.neighbours import read_neighbours
from linxd.config.reader import Entries, Reader
from linxd.config.routes import read_routes
from linxd.config.rules import read_rules
from linxd.config.rulesets import Open, read_netfilter
from linxd.config.scopes import read_attach, read_scope
from linxd.config.sysctls import read_sysctls, uniform
from linxd.records import dataclass, field, replace
from linxd.sources.rtnl.model import Desired, Link, Neighbour, Route, Rule

SECTIONS = ("scope", "link", "route", "rule", "neighbour", "netfilter", "sysctl", "attach")
_MISNAMED = {
    "address": "addresses are declared in [link.NAME]",
    "addresses": "addresses are declared in [link.NAME]",
    "nftables": 'did you mean "netfilter"?',
    "nft": 'did you mean "netfilter"?',
    "interface": 'did you mean "link"?',
    "network": 'did you mean "scope"?',
}


@dataclass(slots=True)
class Built:
    """A scope as far as it could be built. ``config`` is complete only without errors among the ``faults``;
    ``links``, ``routes`` … are its objects with where each stands."""

    config: ScopeConfig
    reader: Reader
    tree: Node
    declared: Declared
    routes: Entries[Route]
    rules: Entries[Rule]
    neighbours: Entries[Neighbour]
    order: Mapping[str, int] = field(default_factory=dict)

    def faults(self) -> list[Fault]:
        """All faults, in the order of the files and of the lines."""
        last = len(self.order)
        return sorted(
            self.reader.faults,
            key=lambda fault: (self.order.get(fault.file, last), fault.file, fault.line, fault.column),
        )

    def finish(self) -> ScopeConfig:
        """The scope with its warnings. Raises `ConfigError` if there is an error."""
        faults = self.faults()
        if self.reader.errors:
            raise ConfigError(faults)
        return replace(self.config, warnings=tuple(faults))


def _opens_nothing(said_in: str, name: str) -> tuple[str, str]:
    raise Refused("names a file, and none is read here", "give the text as ruleset")


def build(
    name: str,
    documents: Sequence[Node],
    *,
    names: Names | None = None,
    open_file: Open = _opens_nothing,
    roots: Sequence[str] = (),
) -> Built:
    """Put the files of one scope together, in order of merging: later ones win.

    ``documents`` are trees from `linxd.config.document`; ``names`` iproute2's names; ``open_file`` reads
    what ``file =`` names; ``roots`` are the directories that nft's `include` may read from. Raises nothing:
    faults are in what is returned."""
    reader = Reader(names or Names())
    pieces = [tree.table()["netfilter"] for tree in documents if "netfilter" in tree.table()]
    for document in documents:
        if "sysctl" in document.table():
            uniform(document.table()["sysctl"], reader)
    tree = documents[0]
    for document in documents[1:]:
        tree = merge(tree, document)
    table = tree.table()
    for key, node in table.items():
        if key not in SECTIONS:
            reader.unknown(node, SECTIONS, _MISNAMED.get(key, ""))

    scope = read_scope(reader, table.get("scope"), name)
    take, foreign_remove = scope.get("on-conflict") == "take", scope.get("foreign") == "remove"
    declared = read_links(reader, table.get("link"), name)
    routes: Entries[Route] = Entries(reader, "route")
    rules: Entries[Rule] = Entries(reader, "rule")
    neighbours: Entries[Neighbour] = Entries(reader, "neighbour")
    _each(table.get("route"), lambda node: read_routes(reader, node, routes))
    _each(table.get("rule"), lambda node: read_rules(reader, node, rules))
    _each(table.get("neighbour"), lambda node: read_neighbours(reader, node, neighbours))
    netfilter = None
    if "netfilter" in table:
        netfilter = read_netfilter(
            reader,
            table["netfilter"],
            pieces,
            open_file,
            roots=tuple(roots),
            take=take,
            foreign_remove=foreign_remove,
        )
    sysctl = read_sysctls(reader, table["sysctl"], host=name == "host") if "sysctl" in table else None
    attach = read_attach(reader, table["attach"], name) if "attach" in table else ()

    rtnl = Desired(
        links=_other_ends(_up(declared, routes)),
        addresses={item.key: item for item, _ in declared.addresses.items()},
        routes={item.key: item for item, _ in routes.items()},
        rules={item.key: item for item, _ in rules.items()},
        neighbours={item.key: item for item, _ in neighbours.items()},
        foreign_remove=foreign_remove,
        take=take,
    )
    netns: NetnsRef = scope["netns"]
    config = ScopeConfig(
        name=name,
        files=tuple(document.source.name for document in documents),
        netns=netns,
        resync=scope.get("resync", RESYNC),
        on_stop=scope.get("on-stop", "keep"),
        foreign=scope.get("foreign", "keep"),
        on_conflict=scope.get("on-conflict", "refuse"),
        rtnl=rtnl,
        netfilter=netfilter,
        sysctl=sysctl,
        attach=attach,
    )
    order = {document.source.name: index for index, document in enumerate(documents)}
    built = Built(config, reader, tree, declared, routes, rules, neighbours, order)
    checks.check(reader, declared, routes, neighbours, host=name == "host")
    return built


def _each(node: Node | None, read: Callable[[Node], None]) -> None:
    if node is not None:
        read(node)


def _up(declared: Declared, routes: Entries[Route]) -> dict[str, Link]:
    """Links with ``up`` filled in: said; else true with a kind, or with addresses or routes on it."""
    used = {item.link for item, _ in declared.addresses.items()}
    for route, _ in routes.items():
        used |= route.devices()
    return {
        name: replace(link, up=True) if link.up is None and (link.kind is not None or name in used) else link
        for name, (link, _) in declared.links.items()
    }


def _other_ends(links: dict[str, Link]) -> dict[str, Link]:
    """With the other ends of pairs that lie in this namespace as links of their own: what `peer` says of
    them holds, beside what they may say themselves."""
    for link in list(links.values()):
        peer = link.peer
        if peer is None or peer.scope:
            continue
        other = links.get(peer.name, Link(peer.name, where=link.where))
        said = {"mtu": peer.mtu, "mac": peer.mac}
        links[peer.name] = replace(
            other,
            up=peer.up,
            master=peer.master if other.master is None else other.master,
            attributes={
                **other.attributes,
                **{key: value for key, value in said.items() if value is not None},
            },
        )
    return links


def declare(
    name: str, raw: Mapping[str, Any], *, origin: str = "(desired)", names: Names | None = None
) -> ScopeConfig:
    """Desired state out of a dictionary of the shape that TOML has, for callers who write no file.

    ``origin`` stands in the place of a file's name in messages. Nothing is checked against other scopes, and
    ``file =`` is refused. Raises `ConfigError`.
    """
    return build(name, [grow(dict(raw), Source(origin, None))], names=names).finish()


def as_warning(fault: Fault) -> Fault:
    """The same, no longer refusing anything."""
    return replace(fault, severity=Severity.WARNING)
