# SPDX-License-Identifier: MIT
"""Where everything stands in a drawing: the host's panel on the left, those of the scopes on its right, each
as near as can be to what it hangs on.

Numbers and lines of text, in pixels; it must not know what is drawn with them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from linxd.log import clean
from linxd.records import dataclass, field
from linxd.topology.picture import Edge, Node, Picture
from linxd.topology.seen import HOST
from linxd.topology.tree import how, keeper, remarks

CHARACTER, LINE = 7.25, 16
"""Width of a character of 12 pixels in a fixed font, and the height of a line."""
PAD, GAP, INDENT, HEADING, GUTTER, MARGIN = 8, 10, 22, 30, 96, 16
LONGEST = 46
"""Characters of a line; what is longer is cut."""
MOST_ADDRESSES = 4


@dataclass(frozen=True, slots=True)
class Box:
    """A link's. ``x`` and ``y`` are its upper left corner. ``lines``: its name, what it is, then the rest;
    of them, the last ``bad`` say what is wrong."""

    node: Node
    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...]
    bad: int = 0

    @property
    def middle(self) -> float:
        """Its height in the middle."""
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        """Its right border."""
        return self.x + self.width


@dataclass(frozen=True, slots=True)
class Panel:
    """A place's, with its heading and its state."""

    place: str
    heading: str
    state: str
    x: float
    y: float
    width: float
    height: float


@dataclass(slots=True)
class Layout:
    """All of it. ``boxes`` by the ids of links. ``within``: the edges by which one link hangs on another of
    its panel; ``between``: all others. ``notes``: their heights and their lines."""

    width: float = 0
    height: float = 0
    panels: list[Panel] = field(default_factory=list)
    boxes: dict[str, Box] = field(default_factory=dict)
    within: list[Edge] = field(default_factory=list)
    between: list[Edge] = field(default_factory=list)
    notes: list[tuple[float, str]] = field(default_factory=list)


def lay_out(picture: Picture) -> Layout:
    """The same picture always gives the same layout."""
    layout = Layout()
    for edge in picture.edges:
        inside = edge.hangs and picture.node(edge.below).place == picture.node(edge.above).place
        (layout.within if inside else layout.between).append(edge)
    places = picture.places()
    x: float = MARGIN
    if places[:1] == [HOST]:
        _panel(picture, layout, places.pop(0), x, MARGIN)
        x += layout.panels[0].width + GUTTER
    partners = _partners(picture, layout)
    wanted = {place: _wanted(partners.get(place, ()), layout) for place in places}
    y: float = MARGIN
    for _, _, place in sorted((wanted[place], number, place) for number, place in enumerate(places)):
        made = _panel(picture, layout, place, x, y, near=wanted[place])
        y = made.y + made.height + GAP
    layout.width = max((panel.x + panel.width for panel in layout.panels), default=0) + MARGIN
    layout.height = max((panel.y + panel.height for panel in layout.panels), default=0) + MARGIN
    for note in picture.notes:
        line = cut(f"note: {clean(note)}", 140)
        layout.notes.append((layout.height + LINE - PAD, line))
        layout.height += LINE
        layout.width = max(layout.width, width(line) + 2 * MARGIN)
    return layout


def _partners(picture: Picture, layout: Layout) -> dict[str, list[str]]:
    """The links of the host on which those of another place hang, by that place."""
    found: dict[str, list[str]] = {}
    for edge in layout.between:
        for one, other in ((edge.below, edge.above), (edge.above, edge.below)):
            if picture.node(one).place != HOST and picture.node(other).place == HOST:
                found.setdefault(picture.node(one).place, []).append(other)
    return found


def _wanted(partners: list[str] | tuple[()], layout: Layout) -> float:
    """The height at which a panel is best; one that hangs on nothing comes last."""
    if not partners:
        return float("inf")
    return sum(layout.boxes[id].middle for id in partners) / len(partners)


def _panel(
    picture: Picture, layout: Layout, place: str, x: float, y: float, *, near: float = float("inf")
) -> Panel:
    """A place with its links, at ``y`` or below that: with its first link ``near`` that height."""
    if near != float("inf"):
        y = max(y, near - HEADING - (LINE * 2 + PAD) / 2)
    heading, state = cut(clean(place)), cut(clean(how(picture.sign(place))))
    at, right = y + HEADING, x + width(heading) + width(state) + 4 * PAD
    for node, depth in _in_order(picture, place):
        lines, bad = _lines(picture, node)
        box = Box(
            node,
            x + PAD + depth * INDENT,
            at,
            max(map(width, lines)) + 2 * PAD,
            len(lines) * LINE + PAD,
            lines,
            bad,
        )
        layout.boxes[node.id] = box
        at += box.height + GAP
        right = max(right, box.right + PAD)
    panel = Panel(place, heading, state, x, y, right - x, at - y)
    layout.panels.append(panel)
    return panel


def _in_order(picture: Picture, place: str) -> Iterator[tuple[Node, int]]:
    """The links of a place as they hang on each other there, with their depths; those first that hang on
    something elsewhere."""
    hanging, tops = [], []
    for node in picture.within(place):
        edge = picture.above(node)
        if edge is None:
            tops.append(node)
        elif picture.node(edge.above).place != place:
            hanging.append(node)
    left = [(node, 0) for node in reversed(hanging + tops)]
    while left:
        node, depth = left.pop()
        yield node, depth
        left += [(one, depth + 1) for one in reversed(picture.below(node)) if one.place == place]


def _lines(picture: Picture, node: Node) -> tuple[tuple[str, ...], int]:
    """What stands in a link's box, and how many of its last lines say what is wrong."""
    what = [node.kind, node.link] + ([] if node.scope == node.place else [keeper(node)])
    lines = [node.name, ", ".join(filter(None, what)), *node.addresses[:MOST_ADDRESSES]]
    if len(node.addresses) > MOST_ADDRESSES:
        lines.append(f"and {len(node.addresses) - MOST_ADDRESSES} more")
    said = remarks(picture, node)
    # What is drawn as a line need not be said.
    said = said[: len(said) - len(picture.besides(node)) - bool(node.elsewhere)]
    lines += said
    if node.elsewhere:
        lines.insert(len(lines) - len(said), remarks(picture, node)[-1])
    return tuple(cut(clean(line)) for line in lines), len(said)


def cut(text: str, longest: int = LONGEST) -> str:
    """A text of that many characters at most."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def width(text: str) -> float:
    """What a text takes, in pixels; some characters are twice as wide as others, some have no width."""
    columns = 0
    for character in text:
        wide = unicodedata.east_asian_width(character) in "WF"
        columns += 0 if unicodedata.combining(character) else 2 if wide else 1
    return columns * CHARACTER
