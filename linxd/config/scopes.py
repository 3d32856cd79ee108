# SPDX-License-Identifier: MIT
"""``[scope]`` and ``[[attach]]``: which namespace, how it is run, and which units it follows. Knows no
objects."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from typing import Any

from linxd.config.document import Node
from linxd.config.faults import Refused, Wrong, found
from linxd.config.model import HOST, NETNS_DIRECTORY, Attach, NetnsRef
from linxd.config.names import Names
from linxd.config.objects import CONFLICT
from linxd.config.reader import ABSENT, Entries, Field, Reader, where_of
from linxd.config.values import DURATION_SCHEMA, TEXT, Type, seconds, word

LONGEST_RESYNC = 7 * 86400.0

_NETNS_WANT = 'a path such as "/run/netns/c1", "pid:1234" or "unit:machine-c1.scope"'
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,250}\.(service|scope|slice|socket|mount|target)")


def _netns(value: Any, names: Names) -> NetnsRef:
    if not isinstance(value, str):
        raise Wrong(_NETNS_WANT)
    kind, colon, rest = value.partition(":")
    if value.startswith("/"):
        members = value.split("/")[1:]
        if "\0" in value or any(member in ("", ".", "..") for member in members):
            raise Wrong(_NETNS_WANT, "a path without empty members, . and ..")
        # /var/run is the old name of /run, and two names for one namespace would pass for two namespaces.
        return NetnsRef("path", "/run/" + value[9:] if value.startswith("/var/run/") else value)
    if kind == "pid" and colon and re.fullmatch(r"[1-9][0-9]{0,8}", rest):
        return NetnsRef("pid", rest)
    if kind == "unit" and colon and _UNIT.fullmatch(rest):
        return NetnsRef("unit", rest)
    hint = ""
    if not colon and re.fullmatch(r"[\w.-]+", value):
        hint = f'did you mean "{NETNS_DIRECTORY}/{value}"?'
    elif kind == "unit" and colon and "." not in rest:
        hint = "a unit's name with its suffix, such as .scope"
    raise Wrong(_NETNS_WANT, hint)


def _resync(value: Any, names: Names) -> float:
    return seconds(value, low=1, high=LONGEST_RESYNC, zero=True)


KEEP = word("keep", "remove")

FIELDS: Mapping[str, Field] = {
    "netns": Field(
        Type(_netns, {"type": "string", "pattern": r"^(/.+|pid:[1-9][0-9]*|unit:.+\..+)$"}),
        "the namespace: a path, pid:N or unit:UNIT; /run/netns/NAME if left out",
    ),
    "resync": Field(
        Type(_resync, DURATION_SCHEMA),
        'time between two looks at everything: "30s" if left out, "0" for events only',
    ),
    "on-stop": Field(
        KEEP, "what becomes of owned objects when the unit stops: keep (if left out) or remove"
    ),
    "foreign": Field(KEEP, "what becomes of objects that nobody declared: keep (if left out) or remove"),
    "on-conflict": Field(
        CONFLICT,
        "where a foreign object, different, has a declared one's place: refuse (if left out) or take",
    ),
}


def read_scope(reader: Reader, node: Node | None, name: str) -> dict[str, Any]:
    """What is declared of the scope, and its namespace as ``netns`` in every case."""
    default = NetnsRef(HOST) if name == HOST else NetnsRef("path", f"{NETNS_DIRECTORY}/{name}")
    if node is None or not reader.is_table(node, want="a table"):
        return {"netns": default}
    values = reader.fields(node, FIELDS)
    if name == HOST and "netns" in node.table():
        reader.error(
            node.table()["netns"],
            "the host's scope is the host's own namespace",
            "leave it out",
            at_key=True,
        )
    return {"netns": default, **values}


def _pattern(value: Any, names: Names) -> re.Pattern[str]:
    want = r'a regular expression over unit names such as "machine-(?P<name>.+)\\.scope"'
    if not isinstance(value, str) or not value:
        raise Wrong(want)
    try:
        return re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise Refused(f"{found(value)} is no regular expression: {error}") from None


def _template(value: Any, names: Names) -> str:
    want = 'the name of a scope with groups of unit in braces, such as "{name}"'
    if not isinstance(value, str) or not value:
        raise Wrong(want)
    try:
        parts = list(string.Formatter().parse(value))
    except ValueError:
        raise Wrong(want, "a brace is left open") from None
    for literal, group, form, conversion in parts:
        if not re.fullmatch(r"[A-Za-z0-9_.-]*", literal):
            raise Wrong(want)
        if group is not None and (form or conversion or not group.isidentifier()):
            raise Wrong(want)
    return value


ATTACH_FIELDS: Mapping[str, Field] = {
    "unit": Field(
        Type(_pattern, TEXT.schema), "regular expression that a unit's whole name must match", required=True
    ),
    "scope": Field(
        Type(_template, TEXT.schema), 'the scope that starts with it, such as "{name}"', required=True
    ),
    "absent": ABSENT,
}


def read_attach(reader: Reader, node: Node, name: str) -> tuple[Attach, ...]:
    """``[[attach]]``, which only the host's file may have."""
    if name != HOST:
        reader.error(node, "belongs into host.toml: it starts other scopes", at_key=True)
        return ()
    entries: Entries[Attach] = Entries(reader, "attach")
    for item in reader.tables(node):
        absent = "absent" in item.table() and item.table()["absent"].value is True
        values = reader.fields(item, ATTACH_FIELDS, check_required=not absent)
        pattern: re.Pattern[str] | None = values.get("unit")
        if pattern is None:
            continue
        if absent:
            entries.add(pattern.pattern, None, item, shown=pattern.pattern)
            continue
        template: str | None = values.get("scope")
        if template is None or not _groups_exist(reader, item, pattern, template):
            continue
        entries.add(pattern.pattern, Attach(pattern, template, where_of(item)), item, shown=pattern.pattern)
    return tuple(item for item, _ in entries.items())


def _groups_exist(reader: Reader, node: Node, pattern: re.Pattern[str], template: str) -> bool:
    for _, group, _, _ in string.Formatter().parse(template):
        if group is not None and group not in pattern.groupindex:
            known = ", ".join(pattern.groupindex) or "none"
            reader.error(
                node.table()["scope"], f"unit has no group named {found(group)}", f"it has: {known}"
            )
            return False
    return True
