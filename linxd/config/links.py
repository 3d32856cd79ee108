# SPDX-License-Identifier: MIT
"""``[link.NAME]``: a link with its attributes, its peer and its addresses.

Which attributes there are stands in the registry of attributes; this module knows only what every link has.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from linxd.config.addresses import read_addresses
from linxd.config.document import Node
from linxd.config.faults import Refused, Wrong, did_you_mean, found, one_of
from linxd.config.model import HOST
from linxd.config.names import Names
from linxd.config.objects import ON_CONFLICT, take_of
from linxd.config.reader import ABSENT, Entries, Field, Reader
from linxd.config.values import BOOLEAN, IFNAME_SCHEMA, INTERFACE, Type, ifname, word
from linxd.records import dataclass, field
from linxd.sources.rtnl.attributes import COMMON, KINDS, Attribute
from linxd.sources.rtnl.model import Address, Link, LinkRef, Peer, Value

NUMBER_FILES = {("vrf", "table"): "rt_tables", ("", "group"): "group"}
"""Attributes, by kind ("" is every link's), whose numbers have names in iproute2's files."""


def _kind(value: Any, names: Names) -> str:
    if not isinstance(value, str) or value not in KINDS:
        hint = did_you_mean(value, KINDS) if isinstance(value, str) else ""
        raise Wrong("a kind of link", hint or "known are " + ", ".join(sorted(KINDS)))
    return value


def _parent(value: Any, names: Names) -> LinkRef:
    want = 'a link such as "eth0", or a link of the host\'s such as "host:eno1"'
    if not isinstance(value, str):
        raise Wrong(want)
    scope, colon, name = value.partition(":")
    if not colon:
        return LinkRef(ifname(value))
    if scope != HOST:
        raise Refused(
            f"{found(value)} refers to a link of another scope, and references go one way: to this "
            "namespace's own links, or from a container to the host",
            f'want "{name}" or "host:{name}"' if name else "",
        )
    return LinkRef(ifname(name), HOST)


def _master(value: Any, names: Names) -> str:
    if isinstance(value, str) and value.startswith(f"{HOST}:"):
        raise Refused(
            f"{found(value)}: a link and its master are in one namespace",
            "the host end of a veth has its own: peer = { …, master = … }",
        )
    return "" if value == "" else ifname(value)


FIELDS: Mapping[str, Field] = {
    "kind": Field(
        Type(_kind, {"enum": sorted(KINDS)}), "what to create; left out for a link that exists by itself"
    ),
    "parent": Field(
        Type(_parent, {"type": "string", "pattern": r"^(host:)?[^\s/:%]{1,15}$"}),
        'the link below: "eth0", or "host:eno1" for one of the host\'s',
    ),
    "peer": Field(
        None, "the other end of a veth: { name = …, scope = …, up = …, master = …, mtu = …, mac = … }"
    ),
    "master": Field(
        Type(_master, {"anyOf": [{"const": ""}, IFNAME_SCHEMA]}),
        'the bridge, bond or VRF it is a port of; "" is none',
    ),
    "port": Field(None, "attributes it has as a port of its master"),
    "up": Field(BOOLEAN, "true with a kind, or when addresses or routes are declared on it; else unmanaged"),
    "addresses": Field(None, 'its addresses: "10.0.0.5/24", or tables'),
    "on-conflict": ON_CONFLICT,
    "absent": ABSENT,
}

PEER_FIELDS: Mapping[str, Field] = {
    "name": Field(INTERFACE, "name of the other end", required=True),
    "scope": Field(word(HOST), "where the other end is: host, or this namespace if left out"),
    "up": Field(BOOLEAN, "set up; true if left out"),
    "master": Field(INTERFACE, "the bridge, bond or VRF it is a port of"),
}
"""Besides ``mtu`` and ``mac``, which are the registry's."""
PEER_ATTRIBUTES = ("mtu", "mac")

_MISNAMED = {"address": "addresses", "ip": "addresses", "link": "parent", "dev": "parent", "type": "kind",
             "lladdr": "mac", "state": "up", "bridge": "master", "slave": "port"}  # fmt: skip
_ELSEWHERE = {"route": "[[route]]", "routes": "[[route]]", "rule": "[[rule]]", "neighbour": "[[neighbour]]",
              "gateway": "[[route]]", "gateway4": "[[route]]", "gateway6": "[[route]]",
              "sysctl": "[sysctl]"}  # fmt: skip


@dataclass(slots=True)
class Declared:
    """The links of a scope with where each stands, and the addresses on them."""

    links: dict[str, tuple[Link, Node]] = field(default_factory=dict)
    addresses: Entries[Address] = field(init=False)
    withdrawn: set[str] = field(default_factory=set)


def read_links(reader: Reader, node: Node | None, scope: str) -> Declared:
    """All of ``[link]``."""
    declared = Declared()
    declared.addresses = Entries(reader, "address")
    if node is None:
        return declared
    hint = "write [link.NAME]" if isinstance(node.value, list) else ""
    if not reader.is_table(node, want="a table of links by name", hint=hint):
        return declared
    master_kinds = {name: _plain_kind(item) for name, item in node.table().items()}
    for name, item in node.table().items():
        try:
            ifname(name)
        except Wrong as error:
            reader.error(item, f"is {found(name)}, want {error.want}", error.hint, at_key=True)
            continue
        if not reader.is_table(item, want="a table", hint=f"write [link.{name}]"):
            continue
        absent = item.table().get("absent")
        if absent is not None and absent.value is True:
            reader.fields(item, {"absent": ABSENT}, unknown=lambda node: True)
            declared.withdrawn.add(name)
            continue
        before = reader.errors
        link = _Reading(reader, item, name, scope, master_kinds).link()
        if "addresses" in item.table():
            read_addresses(reader, name, item.table()["addresses"], declared.addresses)
        if reader.errors == before:
            declared.links[name] = (link, item)
    return declared


def _plain_kind(node: Node) -> str | None:
    kind = node.table().get("kind")
    return kind.value if kind is not None and isinstance(kind.value, str) and kind.value in KINDS else None


@dataclass(slots=True)
class _Reading:
    """One link's table being read."""

    reader: Reader
    node: Node
    name: str
    scope: str
    kinds: Mapping[str, str | None]
    """Kinds of all links declared in this scope, None where it exists by itself (or is at fault)."""
    attributes: dict[str, Value] = field(default_factory=dict)
    options: dict[str, Value] = field(default_factory=dict)

    def link(self) -> Link:
        """The link; not to be used if there were faults."""
        values = self.reader.fields(self.node, FIELDS, unknown=self._attribute)
        table = self.node.table()
        kind: str | None = values.get("kind")
        parent: LinkRef | None = values.get("parent")
        peer = self._peer(table["peer"]) if "peer" in table else None
        if parent is not None:
            self._check_parent(table["parent"], parent)
        if kind is not None:
            self._check_kind(kind)
        elif "kind" not in table:
            for key in ("parent", "peer"):
                if key in table:
                    self.reader.error(
                        table[key],
                        "needs kind: a link that exists by itself has none to be made with",
                        at_key=True,
                    )
        master: str | None = values.get("master")
        return Link(
            name=self.name,
            kind=kind,
            up=values.get("up"),
            master=master,
            parent=parent,
            peer=peer,
            attributes=self.attributes,
            options=self.options,
            port=self._port(table["port"], master) if "port" in table else {},
            take=take_of(values),
            where=self.node.key_where,
        )

    # --- attributes ----------------------------------------------------------------------------------------

    def _attribute(self, node: Node) -> bool:
        """A key that not every link has: a common attribute, or one of its kind's own."""
        key = str(node.key)
        kind = self.kinds.get(self.name)
        own = KINDS[kind].attributes.get(key) if kind is not None else None
        if own is not None:
            self._parse(node, own, self.options, NUMBER_FILES.get((kind or "", key)))
        elif key in COMMON:
            self._parse(node, COMMON[key], self.attributes, NUMBER_FILES.get(("", key)))
        else:
            self._unknown(node, key, kind)
        return True

    def _parse(
        self, node: Node, attribute: Attribute, into: dict[str, Value], file: str | None = None
    ) -> None:
        """An attribute as the registry reads it. ``file``: where iproute2 has names for its numbers."""
        value = self.reader.parse(node, lambda plain: _parse_attribute(attribute, plain, file, self.reader))
        if value is not None:
            into[attribute.name] = value

    def _unknown(self, node: Node, key: str, kind: str | None) -> None:
        reader = self.reader
        if isinstance(node.value, dict) and not (owners := _kinds_with(key)):
            # [link.eth0.100], or link.eth0.100.mtu: TOML reads the dot as a table in a table.
            path = ".".join(str(member) for member in node.path[1:])
            reader.unknown(node, (), f'if this is an interface, quote the key: [link."{path}"]')
            return
        if key in _MISNAMED:
            better = _MISNAMED[key]
            if key == "address" and isinstance(node.value, str) and node.value.count(":") == 5:
                better = "mac"
            reader.unknown(node, (), f'did you mean "{better}"?')
            return
        if key in _ELSEWHERE:
            reader.unknown(node, (), f"these are declared in {_ELSEWHERE[key]}")
            return
        ports = _masters_with(key)
        if ports and "master" in self.node.table():
            which = "a port of kind " + one_of(ports)
            reader.error(node, f"is an attribute of {which}", f"write port = {{ {key} = … }}", at_key=True)
            return
        if owners := _kinds_with(key):
            which = "links of kind " + one_of(owners)
            if "kind" not in self.node.table():
                message = f"is an attribute of {which}"
                reader.error(node, message, "say kind, or leave it out", at_key=True)
            elif kind is not None:
                reader.error(
                    node, f"is an attribute of {which}, and this is of kind {found(kind)}", at_key=True
                )
            return
        if ports:
            reader.error(
                node,
                f"is an attribute of a port of kind {one_of(ports)}",
                "say master, and port = {…}",
                at_key=True,
            )
            return
        own = KINDS[kind].attributes if kind is not None else {}
        reader.unknown(node, (*FIELDS, *COMMON, *own))

    def _check_kind(self, kind: str) -> None:
        registered, table = KINDS[kind], self.node.table()
        if self.name == "lo":
            self.reader.error(table["kind"], "lo exists by itself", "leave kind out", at_key=True)
        if registered.needs_parent and "parent" not in table:
            self.reader.missing(
                self.node, "parent", f"is required for kind {found(kind)}", 'such as "eth0" or "host:eno1"'
            )
        if registered.needs_parent is False and "parent" in table:
            self.reader.error(table["parent"], f"links of kind {found(kind)} have none", at_key=True)
        for key in registered.required:
            if key not in table:
                self.reader.missing(
                    self.node, key, f"is required for kind {found(kind)}", registered.attributes[key].doc
                )
        if registered.peer and "peer" not in table:
            self.reader.missing(
                self.node,
                "peer",
                f"is required for kind {found(kind)}",
                'peer = { name = "…", scope = "host" }',
            )
        if not registered.peer and "peer" in table:
            self.reader.error(table["peer"], f"links of kind {found(kind)} have none", at_key=True)

    def _check_parent(self, node: Node, parent: LinkRef) -> None:
        if parent.scope and self.scope == HOST:
            message = "host: is for references from a container to the host, and this is the host's own file"
            self.reader.error(node, message, f'write "{parent.name}"')
        elif not parent.scope and parent.name == self.name:
            self.reader.error(node, "a link can't be its own parent")

    # --- what else it has ----------------------------------------------------------------------------------

    def _peer(self, node: Node) -> Peer | None:
        reader = self.reader
        if not reader.is_table(node, want="a table", hint='such as { name = "c1-eth0", scope = "host" }'):
            return None
        found_attributes: dict[str, Value] = {}

        def attribute(item: Node) -> bool:
            if item.key not in PEER_ATTRIBUTES:
                reader.unknown(item, (*PEER_FIELDS, *PEER_ATTRIBUTES))
            else:
                self._parse(item, COMMON[str(item.key)], found_attributes)
            return True

        values = reader.fields(node, PEER_FIELDS, unknown=attribute)
        scope: str = values.get("scope", "")
        if scope and self.scope == HOST:
            reader.error(
                node.table()["scope"], "this is the host's own file", "leave scope out", at_key=True
            )
        if not scope and values.get("name") == self.name:
            reader.error(node.table()["name"], "is the name of the link itself")
        if "name" not in values:
            return None
        mtu, mac = found_attributes.get("mtu"), found_attributes.get("mac")
        return Peer(
            name=values["name"],
            scope=scope,
            up=values.get("up", True),
            master=values.get("master"),
            mtu=mtu if isinstance(mtu, int) else None,
            mac=mac if isinstance(mac, str) else None,
        )

    def _port(self, node: Node, master: str | None) -> dict[str, Value]:
        reader = self.reader
        port: dict[str, Value] = {}
        if not reader.is_table(node, want="a table of attributes"):
            return port
        if not master:
            reader.error(node, "needs master: they are attributes of the port of one", at_key=True)
            return port
        kind = self.kinds.get(master)
        choices = {kind: KINDS[kind]} if kind is not None else KINDS
        for key, item in node.table().items():
            owners = [(name, entry.ports[key]) for name, entry in choices.items() if key in entry.ports]
            if not owners:
                elsewhere = _masters_with(key)
                if elsewhere and kind is not None:
                    message = (
                        f"ports of kind {one_of(elsewhere)} have it, and {master} is of kind {found(kind)}"
                    )
                    reader.error(item, message, at_key=True)
                else:
                    reader.unknown(item, {name for entry in choices.values() for name in entry.ports})
                continue
            self._parse(item, owners[0][1], port)
        return port


def _kinds_with(key: str) -> list[str]:
    return sorted(name for name, kind in KINDS.items() if key in kind.attributes)


def _masters_with(key: str) -> list[str]:
    return sorted(name for name, kind in KINDS.items() if key in kind.ports)


def _parse_attribute(attribute: Attribute, plain: Any, file: str | None, reader: Reader) -> Value:
    """The registry says what it expects, and what was found is said here."""
    hint = ""
    if file is not None and isinstance(plain, str):
        hint = reader.names.hint(file, plain)
        plain = reader.names.of(file).get(plain, plain)
    try:
        return attribute.parse(plain)
    except ValueError as error:
        raise Wrong(str(error), hint or _slip(attribute, plain)) from None


def _slip(attribute: Attribute, plain: Any) -> str:
    """A hint for a value that was almost right."""
    choices = attribute.json_schema().get("enum")
    if isinstance(plain, str) and choices:
        return did_you_mean(plain, [choice for choice in choices if isinstance(choice, str)])
    if isinstance(plain, str):
        try:
            attribute.parse(tomllib.loads(f"value = {plain}")["value"])
        except (ValueError, RecursionError):
            return ""
        return "write it without quotes"
    return ""
