# SPDX-License-Identifier: MIT
"""The picture as JSON, which can be stored, compared and read again: the form is public, and only added to.

It knows the form alone, neither where it is stored nor how it is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from linxd.topology.picture import Edge, Node, Picture, Relation, ScopeSign

VERSION = 1


def as_json(picture: Picture) -> dict[str, Any]:
    """The picture in JSON's types. The same picture has the same text."""
    return {
        "version": VERSION,
        "scopes": [
            {"name": sign.name, "state": sign.state, "running": sign.running} for sign in picture.scopes
        ],
        "links": [
            {
                "id": node.id,
                "place": node.place,
                "name": node.name,
                "kind": node.kind,
                "link": node.link,
                "scope": node.scope,
                "state": node.state,
                "why": node.why,
                "owned": node.owned,
                "addresses": list(node.addresses),
                "elsewhere": node.elsewhere,
            }
            for node in picture.nodes
        ],
        "edges": [
            {
                "below": edge.below,
                "above": edge.above,
                "relation": str(edge.relation),
                "hangs": edge.hangs,
            }
            for edge in picture.edges
        ],
        "notes": list(picture.notes),
    }


def from_json(form: Mapping[str, Any]) -> Picture:
    """The picture again; what a later version may have added is passed over. Raises ValueError."""
    if form.get("version") != VERSION:
        raise ValueError(f"version is {form.get('version')!r}, want {VERSION}")
    try:
        picture = Picture(
            nodes=tuple(
                Node(**{**_known(Node, link), "addresses": tuple(link["addresses"])})
                for link in form["links"]
            ),
            edges=tuple(
                Edge(edge["below"], edge["above"], Relation(edge["relation"]), edge["hangs"])
                for edge in form["edges"]
            ),
            scopes=tuple(ScopeSign(**_known(ScopeSign, scope)) for scope in form["scopes"]),
            notes=tuple(form["notes"]),
        )
        for edge in picture.edges:
            picture.node(edge.below)
            picture.node(edge.above)
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"not a picture: {error}") from None
    return picture


def _known(type: type[Node | ScopeSign], form: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in form.items() if key in type.__dataclass_fields__}
