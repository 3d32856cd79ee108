# SPDX-License-Identifier: MIT
"""The reference of all keys in Markdown, for docs/configuration.md: ``python3 -m linxd.config.reference``.

It is made of the tables that read the files, so that it can't say anything else than they do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from linxd.config import addresses, links, neighbours, routes, rules, rulesets, scopes, sysctls
from linxd.config.reader import Field
from linxd.sources.rtnl.attributes import COMMON, KINDS, Attribute

_ROOM = 10
"""Words of a closed list that are written out."""


def reference() -> str:
    """All of it."""
    parts = [
        _keys("`[scope]`", scopes.FIELDS),
        _keys("`[link.NAME]`", links.FIELDS, more="Besides these, the attributes below."),
        _keys("`peer`", links.PEER_FIELDS, more="Besides these, `mtu` and `mac`."),
        _keys("an entry of `addresses`", addresses.FIELDS),
        _keys("`[[route]]`", routes.FIELDS),
        _keys("an entry of `nexthops`", routes.NEXTHOP_FIELDS),
        _keys("`[[rule]]`", rules.FIELDS),
        _keys("`[[neighbour]]`", neighbours.FIELDS),
        _keys("`[netfilter]`", rulesets.FIELDS),
        _keys("a key of `[sysctl]` written as a table", sysctls.FIELDS),
        _keys("`[[attach]]`, in host.toml alone", scopes.ATTACH_FIELDS),
        _attributes("Attributes of every link", COMMON),
    ]
    for name, kind in sorted(KINDS.items()):
        facts = [_PARENT[kind.needs_parent]]
        facts += ["Needs a `peer`."] if kind.peer else []
        facts += ["Links can be its ports." if not kind.ports else ""] if kind.master else []
        parts.append(
            _attributes(f'Kind `"{name}"`', kind.attributes, kind.required, " ".join(filter(None, facts)))
        )
        if kind.ports:
            parts.append(_attributes(f'`port` of a master of kind `"{name}"`', kind.ports))
    return "\n".join(parts)


_PARENT = {True: "Needs a `parent`.", False: "", None: "May have a `parent`."}


def _keys(title: str, fields: Mapping[str, Field], more: str = "") -> str:
    rows = (
        (key, "" if field.type is None else _form(field.type.schema), field.doc, field.required)
        for key, field in fields.items()
    )
    return _table(title, rows, more)


def _attributes(
    title: str, attributes: Mapping[str, Attribute], required: tuple[str, ...] = (), more: str = ""
) -> str:
    def doc(attribute: Attribute) -> str:
        fixed = "" if attribute.changeable else "can't be changed: the link is made anew"
        return "; ".join(filter(None, (attribute.doc, fixed)))

    rows = (
        (name, _form(attribute.json_schema()), doc(attribute), name in required)
        for name, attribute in attributes.items()
    )
    return _table(title, rows, more)


def _table(title: str, rows: Iterable[tuple[str, str, str, bool]], more: str) -> str:
    lines = [f"### {title}", ""]
    lines += [more, ""] if more else []
    body = [
        f"| `{key}`{' *' if must else ''} | {form} | {doc} |".replace("  ", " ")
        for key, form, doc, must in rows
    ]
    if not body:
        return "\n".join([*lines, "No attributes of its own.", ""])
    return "\n".join([*lines, "| key | value | meaning |", "| --- | --- | --- |", *body, ""])


def _form(schema: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    if "enum" in schema:
        words = [f"`{_toml(word)}`" for word in schema["enum"]]
        return ", ".join(words[:_ROOM]) + (", …" if len(words) > _ROOM else "")
    if "const" in schema:
        return f"`{_toml(schema['const'])}`"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_form(choice) for choice in schema["anyOf"]))
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return " or ".join(_NAMES[kind] for kind in kinds)
    if kinds == "integer" and "minimum" in schema and "maximum" in schema:
        return f"{schema['minimum']} … {schema['maximum']}"
    return _NAMES[str(kinds)]


_NAMES = {
    "integer": "number",
    "string": "text",
    "boolean": "true or false",
    "array": "array",
    "object": "table",
}


def _toml(word: object) -> str:
    if isinstance(word, bool):
        return "true" if word else "false"
    return f'"{word}"' if isinstance(word, str) else str(word)


if __name__ == "__main__":
    sys.stdout.write(reference())
