# SPDX-License-Identifier: MIT
"""``[netfilter]``: rulesets as text, or files that hold one. Knows no nft syntax."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from linxd.config.document import Node
from linxd.config.faults import Refused, Wrong, found, one_of
from linxd.config.names import Names
from linxd.config.objects import ON_CONFLICT, take_of
from linxd.config.reader import Field, Reader
from linxd.config.values import BOOLEAN, TEXT, Type
from linxd.sources.netfilter.model import Desired, Ruleset

NFT_FAMILIES = ("ip", "ip6", "inet", "arp", "bridge", "netdev")
_NAME = r"[A-Za-z_][A-Za-z0-9_/\\.]*"


def _filled(value: Any, names: Names) -> tuple[str, ...]:
    want = 'an array of "FAMILY TABLE SET" such as "inet filter allow"'
    if not isinstance(value, list):
        raise Wrong(want)
    for item in value:
        words = item.split() if isinstance(item, str) else []
        if len(words) != 3 or not all(re.fullmatch(_NAME, word) for word in words[1:]):
            raise Refused(f'has {found(item)}, want "FAMILY TABLE SET" such as "inet filter allow"')
        if words[0] not in NFT_FAMILIES:
            raise Refused(f"has {found(item)}, want one of the families {one_of(NFT_FAMILIES)}")
    return tuple(dict.fromkeys(" ".join(item.split()) for item in value))


_FILLED_PATTERN = "^ *(" + "|".join(NFT_FAMILIES) + ")( +" + _NAME + "){2} *$"

FIELDS: Mapping[str, Field] = {
    "ruleset": Field(TEXT, "native nft syntax"),
    "file": Field(TEXT, "a file of it, relative to the file that says so"),
    "required": Field(BOOLEAN, "no address and no link up before the ruleset has loaded once"),
    "filled": Field(
        Type(_filled, {"type": "array", "items": {"type": "string", "pattern": _FILLED_PATTERN}}),
        'sets and maps whose elements others fill: ["inet filter allow"]',
    ),
    "on-conflict": ON_CONFLICT,
}

Open = Callable[[str, str], tuple[str, str]]
"""Reads what ``file =`` names: (the file that says so, the name) -> (path, text). Raises `Refused`."""


def read_netfilter(
    reader: Reader,
    node: Node,
    pieces: Sequence[Node],
    open_file: Open,
    *,
    roots: tuple[str, ...],
    take: bool,
    foreign_remove: bool,
) -> Desired | None:
    """The section. ``node`` is merged; ``pieces`` are the sections of the single files, in order, whose
    rulesets load together. ``roots`` as in `linxd.sources.netfilter.model.Desired`."""
    if not reader.is_table(node, want="a table"):
        return None
    values = reader.fields(node, FIELDS)
    rulesets: list[Ruleset] = []
    for piece in pieces:
        for key, item in piece.table().items():
            if key == "ruleset" and isinstance(item.value, str):
                rulesets.append(_ruleset(item, item.value))
            elif key == "file" and isinstance(item.value, str):
                read = _file(reader, item, item.value, open_file)
                rulesets += [read] if read is not None else []
            elif key in ("ruleset", "file") and item is not node.table()[key]:
                reader.value(item, TEXT)  # a fault that the merged table does not show
    own = take_of(values)
    return Desired(
        rulesets=tuple(rulesets),
        roots=roots,
        required=values.get("required", False),
        take=take if own is None else own,
        foreign_remove=foreign_remove,
        filled=values.get("filled", ()),
    )


def _ruleset(node: Node, text: str) -> Ruleset:
    return Ruleset(text, file=node.source.name, line=node.text_line, base=_directory(node.source.name))


def _file(reader: Reader, node: Node, name: str, open_file: Open) -> Ruleset | None:
    try:
        path, text = open_file(node.source.name, name)
    except Refused as error:
        reader.error(node, error.message, error.hint)
        return None
    return Ruleset(text, file=path, base=_directory(path))


def _directory(path: str) -> str:
    return posixpath.dirname(path) or "."
