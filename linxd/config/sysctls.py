# SPDX-License-Identifier: MIT
"""``[sysctl]``: keys in dotted or slash form, and what is to be written. Knows no procfs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from linxd.config.document import Node
from linxd.config.faults import Refused, Wrong, did_you_mean, dotted, found
from linxd.config.names import Names
from linxd.config.reader import ABSENT, Field, Reader
from linxd.config.values import Type, word
from linxd.sources.sysctl.cascades import declared_contradictions
from linxd.sources.sysctl.model import Desired, Setting
from linxd.sources.sysctl.namespaced import per_namespace

_VALUE_SCHEMA: Mapping[str, Any] = {
    "anyOf": [
        {"type": ["integer", "string"]},
        {"type": "array", "items": {"type": ["integer", "string"]}},
    ]
}


def _text(value: Any, names: Names) -> str:
    if isinstance(value, list):
        return " ".join(_scalar(item) for item in value)
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        raise Wrong("an integer, text, or a list of them", f"write {int(value)}")
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise Wrong("an integer, text, or a list of them")
    if "\n" in value or "\0" in value:
        raise Refused("holds a line break or a NUL, and the kernel takes one line")
    return value.strip()


VALUE: Type[str] = Type(_text, _VALUE_SCHEMA)

FIELDS: Mapping[str, Field] = {
    "value": Field(VALUE, "what to write: an integer, text, or a list of them joined by blanks"),
    "on-release": Field(word("restore", "keep"), "give back the value found first (restore), or leave ours"),
    "absent": ABSENT,
}

_PER_INTERFACE = ("conf", "neigh")


def path_of(key: str) -> tuple[str, ...]:
    """Members of a key below /proc/sys.

    As in sysctl(8), the separator that comes first separates, and the other one stands for a dot within a
    member: ``net.ipv4.conf.eth0/100.rp_filter`` and ``net/ipv4/conf/eth0.100/rp_filter`` are the same key.
    Raises `Refused`."""
    dot, slash = key.find("."), key.find("/")
    if slash >= 0 and (dot < 0 or slash < dot):
        members = key.split("/")
    else:
        members = [member.replace("/", ".") for member in key.split(".")]
    if members[0] == "" and len(members) > 1:
        without = key.removeprefix("/proc/sys/").lstrip("/")
        raise Refused("is no key of sysctl(8)", f'did you mean "{without}"?')
    if len(members) < 2 or any(member in ("", ".", "..") for member in members):
        raise Refused("is no key of sysctl(8)", 'such as "net.ipv4.ip_forward"')
    if any(ord(char) <= 32 or ord(char) == 127 for char in key):
        raise Refused("holds a blank or a control character")
    return tuple(members)


def spelled(path: tuple[str, ...]) -> str:
    """The one spelling of a key: dotted, a member's own dots as slashes."""
    return ".".join(member.replace(".", "/") for member in path)


def uniform(node: Node, reader: Reader) -> None:
    """Bring the keys of one file's ``[sysctl]`` to one spelling, so that files merge whatever spelling each
    has."""
    keys: dict[str, Node] = {}
    for key, item in node.table().items():
        try:
            uniform_key = spelled(path_of(key))
        except Refused:
            uniform_key = key  # said when the merged table is read
        before = keys.get(uniform_key)
        if before is not None:
            message = f"the same key is declared on line {before.key_where.line} already"
            reader.error(item, message, uniform_key, at_key=True)
            continue
        keys[uniform_key] = item
    if isinstance(node.value, dict):
        node.value = keys


def read_sysctls(reader: Reader, node: Node, *, host: bool) -> Desired | None:
    """The whole section; None without it being a table."""
    if not reader.is_table(node, want="a table of keys and values"):
        return None
    settings: dict[tuple[str, ...], Setting] = {}
    nodes: dict[tuple[str, ...], Node] = {}
    for item in node.table().values():
        setting = _read(reader, item, host=host)
        if setting is not None:
            settings[setting.path], nodes[setting.path] = setting, item
    said = set()
    for pair in declared_contradictions(settings.values()):
        both = tuple(_declaring(path, settings) for path in (pair.one, pair.other))
        late = max(both, key=lambda path: (nodes[path].key_where.file, nodes[path].key_where.line))
        if both not in said:
            said.add(both)
            reader.warning(nodes[late], f"{pair.text}; neither is written", at_key=True)
    return Desired(tuple(settings.values()), host=host)


def _declaring(path: tuple[str, ...], settings: Collection[tuple[str, ...]]) -> tuple[str, ...]:
    """The declared key or glob that speaks of this key."""
    return path if path in settings else (*path[:3], "*", *path[4:])


def _read(reader: Reader, node: Node, *, host: bool) -> Setting | None:
    key = str(node.key)
    if isinstance(node.value, dict) and "." not in key and "/" not in key:
        _unquoted(reader, node)
        return None
    before = reader.errors
    path = _path(reader, node, key, host=host)
    restore = True
    if isinstance(node.value, dict):
        values = reader.fields(node, FIELDS)
        if values.get("absent"):
            return None
        text = values.get("value")
        restore = values.get("on-release", "restore") == "restore"
        if "value" not in node.value:
            reader.missing(node, "value", "is required", "what to write")
    else:
        text = reader.value(node, VALUE)
    if reader.errors != before or path is None or text is None:
        return None
    return Setting(path, text, restore=restore, where=node.key_where)


def _path(reader: Reader, node: Node, key: str, *, host: bool) -> tuple[str, ...] | None:
    try:
        path = path_of(key)
    except Refused as error:
        reader.error(node, error.message, error.hint, at_key=True)
        return None
    for index, member in enumerate(path):
        if "*" in member and not (
            member == "*" and index == 3 and len(path) > 4 and path[2] in _PER_INTERFACE
        ):
            message = 'want "*" only as a whole, in the place of an interface'
            reader.error(node, message, 'such as "net.ipv4.conf.*.rp_filter"', at_key=True)
            return None
    if path[0] == "net" and path[2:3] and path[2] in _PER_INTERFACE and len(path) > 5:
        better = spelled((*path[:3], ".".join(path[3:-1]), path[-1]))
        reader.error(
            node, "has too many members", f'an interface with a dot in its name: "{better}"', at_key=True
        )
        return None
    if not host and path[0] != "net":
        message = "is not a key of a network namespace: only net.* is"
        hint = did_you_mean(path[0], ("net",)) or "the others belong into host.toml"
        reader.error(node, message, hint, at_key=True)
        return None
    reason = None if host else per_namespace(path)
    if reason is not None:
        message, _, hint = reason.rpartition("; ")
        reader.error(node, message, hint, at_key=True)
        return None
    return path


def _unquoted(reader: Reader, node: Node) -> None:
    """TOML made nested tables of a key that was not quoted."""
    leaves = list(_leaves(node))
    for leaf in leaves:
        key = ".".join(str(member) for member in leaf.path[1:])
        shown = "…" if isinstance(leaf.value, (dict, list)) else found(leaf.value)
        reader.error(
            leaf, "TOML reads this as nested tables", f'quote the key: "{key}" = {shown}', at_key=True
        )
    if not leaves:
        reader.error(node, f"is a table, want a key such as {dotted(('net.ipv4.ip_forward',))}", at_key=True)


def _leaves(node: Node) -> list[Node]:
    if not isinstance(node.value, dict) or (node.value and set(node.value) <= set(FIELDS)):
        return [node]  # { value = … } is what a key is set to
    return [leaf for item in node.value.values() for leaf in _leaves(item)]
