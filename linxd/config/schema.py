# SPDX-License-Identifier: MIT
"""The JSON Schema of the files, for editors: ``python3 -m linxd.config.schema`` prints it.

It is put together from the same tables that read the files and holds nothing of its own but their
arrangement. What needs more than one key to be judged is left to ``linxctl check``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from linxd.config import addresses, links, neighbours, routes, rules, rulesets, scopes, sysctls
from linxd.config.reader import Field
from linxd.config.values import IFNAME_SCHEMA
from linxd.sources.rtnl.attributes import COMMON, KINDS, Attribute

Schema: TypeAlias = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
IDENTITY = "urn:linxd:desired:1"
_ABSENT: Schema = {"required": ["absent"], "properties": {"absent": {"const": True}}}


def schema() -> Schema:
    """The whole schema, as ``linxd.schema.json`` beside this module has it."""
    return {
        "$schema": DIALECT,
        "$id": IDENTITY,
        "title": "linxd",
        "description": "Desired state of one network namespace: host.toml, netns/NAME.toml or a drop-in",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "scope": _described(_table(scopes.FIELDS), "which namespace, and how it is kept"),
            "link": {
                "description": "links by name",
                "type": "object",
                "patternProperties": {IFNAME_SCHEMA["pattern"]: {"$ref": "#/$defs/link"}},
                "additionalProperties": False,
            },
            "route": _list(_table(routes.FIELDS, {"nexthops": _nexthops()}), "routes"),
            "rule": _list(_table(rules.FIELDS), "policy rules"),
            "neighbour": _list(_table(neighbours.FIELDS), "permanent and proxy neighbours"),
            "netfilter": _described(_table(rulesets.FIELDS), "nftables, in native syntax"),
            "sysctl": _described(_sysctl(), "keys below /proc/sys, quoted"),
            "attach": _list(_attach(), "units that scopes start and stop with; in host.toml alone"),
        },
        "$defs": {"link": _link()},
    }


def _described(inner: Schema, text: str) -> Schema:
    return {"description": text, **inner}


def _list(items: Schema, text: str) -> Schema:
    return {"description": text, "type": "array", "items": items}


def _field(field: Field, special: Schema | None = None) -> Schema:
    if special is None:
        assert field.type is not None
    return {"description": field.doc, **(special if special is not None else dict(field.type.schema))}  # type: ignore[union-attr]


def _table(fields: Mapping[str, Field], special: Mapping[str, Schema] | None = None) -> Schema:
    special = special or {}
    table: Schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {key: _field(field, special.get(key)) for key, field in fields.items()},
    }
    required = [key for key, field in fields.items() if field.required]
    return {**table, "required": required} if required else table


def _nexthops() -> Schema:
    return {"type": "array", "minItems": 1, "items": _table(routes.NEXTHOP_FIELDS)}


def _sysctl() -> Schema:
    setting = _table(sysctls.FIELDS)
    setting["anyOf"] = [{"required": ["value"]}, _ABSENT]
    return {
        "type": "object",
        "patternProperties": {r"^[^\s./]+[./]\S+$": {"anyOf": [*sysctls.VALUE.schema["anyOf"], setting]}},
        "additionalProperties": False,
    }


def _attach() -> Schema:
    table = _table(scopes.ATTACH_FIELDS)
    table["required"] = ["unit"]
    table["anyOf"] = [{"required": ["scope"]}, _ABSENT]
    return table


# --- links -------------------------------------------------------------------------------------------------


def _attribute(attribute: Attribute, kind: str = "") -> Schema:
    schema = attribute.json_schema()
    if (kind, attribute.name) in links.NUMBER_FILES:
        doc = schema.pop("description", "")
        schema = {"anyOf": [*schema.get("anyOf", [schema]), {"type": "string", "minLength": 1}]}
        return {"description": f"{doc}; a number, or iproute2's name", **schema}
    return schema


def _link() -> Schema:
    """Every attribute of every kind, and then, kind by kind, those that it really has."""
    special = {"peer": _peer(), "port": _ports(), "addresses": _addresses()}
    link = _table(links.FIELDS, special)
    properties: Schema = link["properties"]
    for name, attribute in COMMON.items():
        properties[name] = _attribute(attribute)
    for name, choices in _by_name((kind.name, kind.attributes) for kind in KINDS.values()).items():
        known = [("every link", COMMON[name])] if name in COMMON else []
        properties[name] = _any(known + choices)
    link["allOf"] = [_of_kind(kind) for kind in sorted(KINDS)]
    link["allOf"].append(
        {"if": {"not": {"required": ["kind"]}}, "then": {"propertyNames": {"enum": _keys_without_kind()}}}
    )
    return {"description": "a link with its attributes, its peer and its addresses", **link}


def _keys_without_kind() -> list[str]:
    return [key for key in (*links.FIELDS, *COMMON) if key not in ("parent", "peer")]


def _of_kind(name: str) -> Schema:
    kind = KINDS[name]
    refused = {"parent": kind.needs_parent is False, "peer": not kind.peer}
    keys = [key for key in (*links.FIELDS, *COMMON, *kind.attributes) if not refused.get(key)]
    required = [*kind.required]
    required += ["parent"] if kind.needs_parent else []
    required += ["peer"] if kind.peer else []
    then: Schema = {"propertyNames": {"enum": list(dict.fromkeys(keys))}}
    if kind.attributes:
        then["properties"] = {key: _attribute(attribute, name) for key, attribute in kind.attributes.items()}
    if required:
        then["anyOf"] = [{"required": required}, _ABSENT]
    return {"if": {"required": ["kind"], "properties": {"kind": {"const": name}}}, "then": then}


def _by_name(
    owners: Iterable[tuple[str, Mapping[str, Attribute]]],
) -> dict[str, list[tuple[str, Attribute]]]:
    found: dict[str, list[tuple[str, Attribute]]] = {}
    for owner, attributes in owners:
        for name, attribute in attributes.items():
            found.setdefault(name, []).append((owner, attribute))
    return found


def _any(choices: list[tuple[str, Attribute]]) -> Schema:
    """One of several kinds' attributes of the same name."""
    different: list[Schema] = []
    for owner, attribute in choices:
        inner = _attribute(attribute, owner if owner in KINDS else "")
        inner.pop("description", None)
        if inner not in different:
            different.append(inner)
    text = "; ".join(dict.fromkeys(f"{owner}: {attribute.doc}" for owner, attribute in choices))
    return {"description": text, **(different[0] if len(different) == 1 else {"anyOf": different})}


def _ports() -> Schema:
    choices = _by_name((kind.name, kind.ports) for kind in KINDS.values())
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _any(found) for name, found in sorted(choices.items())},
    }


def _peer() -> Schema:
    peer = _table(links.PEER_FIELDS)
    for name in links.PEER_ATTRIBUTES:
        peer["properties"][name] = _attribute(COMMON[name])
    return peer


def _addresses() -> Schema:
    return {
        "type": "array",
        "items": {"anyOf": [dict(addresses.FIELDS["address"].type.schema), _table(addresses.FIELDS)]},  # type: ignore[union-attr]
    }


def text() -> str:
    """What ``linxd.schema.json`` holds."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
