# SPDX-License-Identifier: MIT
"""What the files of several scopes say of each other.

Two rules: what the host declares never depends on a container, and references go one way, from a container
to the host. The container's file is refused, never the host's; between two containers the one whose name
sorts later. Other files are read as far as this needs and no further."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from linxd.config.build import Built
from linxd.config.document import Node, spell
from linxd.config.faults import Refused, Wrong, found
from linxd.config.model import HOST, NETNS_DIRECTORY, NetnsRef
from linxd.config.names import Names
from linxd.config.scopes import FIELDS as SCOPE_FIELDS
from linxd.config.sysctls import path_of
from linxd.records import dataclass, field
from linxd.sources.rtnl.attributes import KINDS
from linxd.sources.rtnl.forms import LinkName


@dataclass(slots=True)
class Summary:
    """What another scope's checks must know of one scope. Nodes tell where it says so.

    ``ends``: links it makes in the host's namespace. ``refers``: links of the host's it refers to.
    ``names``: every link that its files name, for the host alone."""

    name: str
    netns: NetnsRef
    netns_node: Node | None = None
    ends: dict[str, Node] = field(default_factory=dict)
    refers: list[tuple[str, Node]] = field(default_factory=list)
    names: dict[str, Node] = field(default_factory=dict)


def summarise(name: str, tree: Node) -> Summary:
    """A scope's summary out of its merged tree. What makes no sense is passed over: its own load says so."""
    summary = Summary(name, *_netns(name, tree))
    for link, node in _links(tree):
        table = node.table()
        peer = table.get("peer")
        if peer is not None:
            end, scope, master = (_text(peer.table().get(key)) for key in ("name", "scope", "master"))
            if scope == HOST and end:
                summary.ends.setdefault(end, peer.table()["name"])
                if master:
                    summary.refers.append((master, peer.table()["master"]))
        parent = _text(table.get("parent"))
        if parent.startswith(f"{HOST}:"):
            summary.refers.append((parent.removeprefix(f"{HOST}:"), table["parent"]))
        if name == HOST:
            summary.names.setdefault(link, node)
    if name == HOST:
        for word, node in _named(tree):
            summary.names.setdefault(word, node)
    return summary


def _text(node: Node | None) -> str:
    return node.value if node is not None and isinstance(node.value, str) else ""


def _netns(name: str, tree: Node) -> tuple[NetnsRef, Node | None]:
    default = NetnsRef(HOST) if name == HOST else NetnsRef("path", f"{NETNS_DIRECTORY}/{name}")
    scope = tree.table().get("scope")
    node = scope.table().get("netns") if scope is not None else None
    if node is None or name == HOST:
        return default, None
    kind = SCOPE_FIELDS["netns"].type
    assert kind is not None
    try:
        return kind.parse(node.plain(), Names()), node
    except (Wrong, Refused):
        return default, None


def _links(tree: Node) -> Iterator[tuple[str, Node]]:
    links = tree.table().get("link")
    for name, node in links.table().items() if links is not None else ():
        absent = node.table().get("absent")
        if absent is None or absent.value is not True:
            yield name, node


def _named(tree: Node) -> Iterator[tuple[str, Node]]:
    """Links that the host's file names anywhere but as a table of their own."""
    for _, node in _links(tree):
        table = node.table()
        peer = table.get("peer")
        for item in (
            *_links_in_attributes(table),
            table.get("parent"),
            table.get("master"),
            peer.table().get("master") if peer is not None else None,
        ):
            if word := _text(item):
                assert item is not None
                yield word, item
    for section, keys in (("route", ("dev",)), ("rule", ("iif", "oif")), ("neighbour", ("dev",))):
        for entry in _entries(tree, section):
            hops = entry.table().get("nexthops")
            places = [entry, *(hops.value if hops is not None and isinstance(hops.value, list) else ())]
            for place in places:
                for key in keys:
                    item = place.table().get(key)
                    if word := _text(item):
                        assert item is not None
                        yield word, item
    sysctl = tree.table().get("sysctl")
    for node in sysctl.table().values() if sysctl is not None else ():
        try:
            path = path_of(str(node.key))
        except Refused:
            continue
        if len(path) > 4 and path[2] in ("conf", "neigh"):
            yield path[3], node


def _links_in_attributes(table: Mapping[str, Node]) -> Iterator[Node]:
    """Attributes of a link that name another one, such as a bond's primary."""
    kind = KINDS.get(_text(table.get("kind")))
    for key, attribute in kind.attributes.items() if kind is not None else ():
        if isinstance(attribute.form, LinkName) and key in table:
            yield table[key]


def _entries(tree: Node, section: str) -> Iterable[Node]:
    node = tree.table().get(section)
    return node.value if node is not None and isinstance(node.value, list) else ()


def check_across(built: Built, others: Mapping[str, Summary]) -> None:
    """Add what the other scopes' files have against this one to its faults."""
    own = summarise(built.config.name, built.tree)
    if own.name == HOST:
        for other in others.values():
            for end in sorted(set(other.ends) & set(own.names)):
                node = own.names[end]
                message = (
                    f"link {found(end)} lives and dies with scope {other.name}, and what the host declares "
                    f"must not depend on a container: {other.name} is refused while this stands here"
                )
                built.reader.warning(node, message, _place(other.ends[end]))
        return
    for other in others.values():
        if other.name == HOST:
            _against_host(built, own, other)
        else:
            _against_container(built, own, other)


def _place(node: Node) -> str:
    return f"{node.where}: {spell(node)}"


def _against_host(built: Built, own: Summary, host: Summary) -> None:
    for end, node in own.ends.items():
        named = host.names.get(end)
        if named is not None:
            message = (
                f"the host's own file names {found(end)}, which lives and dies with this scope; what the "
                "host declares must not depend on a container"
            )
            built.reader.error(
                node, message, f"{_place(named)}; say here what the end needs: peer = {{ master = … }}"
            )


def _against_container(built: Built, own: Summary, other: Summary) -> None:
    reader = built.reader
    refused = other.name < own.name
    for end, node in own.ends.items():
        if end not in other.ends:
            continue
        message = f"scope {other.name} has a host end {found(end)} too"
        if refused:
            reader.error(node, message, _place(other.ends[end]))
        else:
            reader.warning(node, f"{message}, and is refused for it", _place(other.ends[end]))
    for name, node in own.refers:
        if name in other.ends and name not in own.ends:
            message = (
                f"{found(name)} lives and dies with scope {other.name}; references go one way, from a "
                "container to the host"
            )
            reader.error(node, message, _place(other.ends[name]))
    if own.netns == other.netns:
        at = own.netns_node or built.tree.table().get("scope", built.tree)
        hint = "several containers in one namespace are one scope"
        message = f"scope {other.name} is in the namespace {own.netns} too"
        if refused:
            reader.error(at, message, hint)
        else:
            reader.warning(at, f"{message}, and is refused for it", hint)
