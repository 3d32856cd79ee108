# SPDX-License-Identifier: MIT
"""The picture as a tree of lines for a terminal, and what there is to say of one link.

Rows of plain text; colours and columns are for whoever prints them.
"""

from __future__ import annotations

from collections.abc import Iterator

from linxd.log import clean
from linxd.records import dataclass
from linxd.topology.picture import PAIRED, Node, Picture, Relation, ScopeSign

UNICODE = ("├─ ", "└─ ", "│  ", "   ")
ASCII = ("|- ", "`- ", "|  ", "   ")

BESIDES = {Relation.PORT: "port of", Relation.STACKED: "on", Relation.PAIR: "other end:"}


@dataclass(frozen=True, slots=True)
class Row:
    """A line: the lines of the tree, the link's name, and its columns. ``node`` None: the heading of a
    place, whose ``name`` it is and whose state is ``said``."""

    stem: str
    name: str
    kind: str = ""
    link: str = ""
    keeper: str = ""
    said: str = ""
    node: Node | None = None


def rows(picture: Picture, *, ascii: bool) -> Iterator[Row]:
    """The lines, place by place. A link is where it hangs, and nowhere else."""
    for place in picture.places():
        yield Row("", clean(place), said=clean(how(picture.sign(place))))
        yield from _below(picture, picture.roots(place), place, ASCII if ascii else UNICODE)


def _below(
    picture: Picture, roots: list[Node], place: str, drawn: tuple[str, str, str, str]
) -> Iterator[Row]:
    tee, corner, pipe, blank = drawn
    left = [(node, place, "", node is roots[-1]) for node in reversed(roots)]
    while left:  # no recursion: links can be stacked as high as somebody likes
        node, seen_from, stem, last = left.pop()
        yield Row(
            stem + (corner if last else tee),
            clean(node.called(seen_from)),
            clean(node.kind) or "-",
            node.link,
            clean(keeper(node)),
            clean("; ".join(filter(None, (" ".join(node.addresses), *remarks(picture, node))))),
            node,
        )
        below = picture.below(node)
        stem += blank if last else pipe
        left += [(one, node.place, stem, one is below[-1]) for one in reversed(below)]


def how(sign: ScopeSign | None) -> str:
    """How a scope is, in words."""
    if sign is None:
        return "nothing is declared"
    if sign.running:
        return sign.state
    return "not served by a daemon" + (" (its daemon died)" if sign.state == "dead" else "")


def keeper(node: Node) -> str:
    """Whose a link is."""
    return "foreign" if node.scope is None else node.scope


def remarks(picture: Picture, node: Node) -> list[str]:
    """What else there is to say: what keeps it from being as declared, and what it belongs to besides that
    on which it is drawn."""
    said = []
    if node.why or node.state not in ("", "done", "unknown", node.link):
        said.append(f"{node.state}: {node.why}" if node.why else node.state)
    said += [f"{BESIDES[relation]} {one.called(node.place)}" for relation, one in picture.besides(node)]
    if node.elsewhere:
        relation = Relation.PAIR if node.kind in PAIRED else Relation.STACKED
        said.append(f"{BESIDES[relation]} {node.elsewhere}")
    return said
