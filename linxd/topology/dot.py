# SPDX-License-Identifier: MIT
"""The picture in the language of Graphviz, for its `dot`.

Text only; it must not know whether there is a Graphviz.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from linxd.log import clean
from linxd.topology.picture import Node, Picture, Relation
from linxd.topology.tree import how, keeper, remarks

_STYLES = {Relation.PORT: "solid", Relation.STACKED: "dashed", Relation.PAIR: "bold"}
_HEAD = """\
graph linxd {
  graph [rankdir=LR, fontname="sans-serif", labeljust=l, style=rounded, color=gray];
  node [shape=box, style=rounded, fontname="sans-serif", fontsize=11];
  edge [color=gray30];"""


def dot(picture: Picture) -> Iterator[str]:
    """The lines. Links are n0, n1 …, in the picture's order; places are clusters."""
    ids = {node.id: f"n{number}" for number, node in enumerate(picture.nodes)}
    in_place: dict[str, list[Node]] = {}
    for node in picture.nodes:
        in_place.setdefault(node.place, []).append(node)
    yield from (f"// {clean(note)}".encode("ascii", "backslashreplace").decode() for note in picture.notes)
    yield _HEAD
    for number, place in enumerate(picture.places()):
        yield f"  subgraph cluster_{number} {{"
        yield f"    label={quoted((f'{place}: {how(picture.sign(place))}',))};"
        for node in in_place.get(place, ()):
            yield f"    {ids[node.id]} [label={quoted(_words(picture, node))}{_look(node)}];"
        if place not in in_place:
            yield f'    empty_{number} [label="", style=invis];'
        yield "  }"
    for edge in picture.edges:
        yield f"  {ids[edge.above]} -- {ids[edge.below]} [style={_STYLES[edge.relation]}];"
    yield "}"


def _words(picture: Picture, node: Node) -> Iterator[str]:
    yield node.name
    yield ", ".join(word for word in (node.kind, node.link, keeper(node)) if word)
    yield from node.addresses
    if not node.well or node.elsewhere:
        yield from remarks(picture, node)


def _look(node: Node) -> str:
    dashed = ', style="rounded,dashed"' if node.link in ("missing", "not seen") else ""
    if not node.well:
        return f"{dashed}, color=red"
    return f"{dashed}, color=gray, fontcolor=gray30" if node.foreign else dashed


_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "&": "&amp;", "<": "&lt;", ">": "&gt;"})


def quoted(lines: Iterable[str]) -> str:
    """Lines as a string of that language, in which a backslash and an ampersand begin something; ASCII."""
    text = "\\n".join(clean(line).translate(_ESCAPED) for line in lines)
    return f'"{text.encode("ascii", "xmlcharrefreplace").decode()}"'
