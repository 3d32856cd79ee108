# SPDX-License-Identifier: MIT
"""The picture as a drawing in SVG, which any browser shows: no other program is needed, no script, no font.

It draws what was laid out, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from linxd.log import clean
from linxd.topology.layout import (
    GUTTER,
    HEADING,
    INDENT,
    LINE,
    MARGIN,
    PAD,
    Box,
    Layout,
    Panel,
    lay_out,
    width,
)
from linxd.topology.picture import Edge, Picture, Relation
from linxd.topology.tree import keeper

_STYLE = """\
text { font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #1f2328 }
.name, .heading { font-weight: bold }
.what, .state, .note { fill: #59636e }
.bad text.wrong { fill: #b3261e }
rect.ground { fill: #ffffff }
rect.panel { fill: #f3f5f7; stroke: #d0d7de }
rect.box { fill: #ffffff; stroke: #57606a }
.foreign rect.box { stroke: #b0b8c0 }
.foreign .name { font-weight: normal }
.absent rect.box { stroke-dasharray: 4 3 }
.bad rect.box { stroke: #b3261e; stroke-width: 1.5 }
path { fill: none; stroke: #57606a; stroke-width: 1.2 }
path.stacked { stroke-dasharray: 5 3 }
path.pair { stroke: #0b62c4; stroke-width: 1.8 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .what, .state, .note { fill: #9198a1 }
  .bad text.wrong { fill: #ff8a80 }
  rect.ground { fill: #0d1117 }
  rect.panel { fill: #161b22; stroke: #30363d }
  rect.box { fill: #0d1117; stroke: #8b949e }
  .foreign rect.box { stroke: #484f58 }
  .bad rect.box { stroke: #ff8a80 }
  path { stroke: #8b949e }
  path.pair { stroke: #58a6ff }
}"""


def svg(picture: Picture) -> Iterator[str]:
    """The lines of the file; ASCII, so that no encoding can spoil it."""
    for line in _drawing(lay_out(picture)):
        yield line.encode("ascii", "xmlcharrefreplace").decode()


def _drawing(layout: Layout) -> Iterator[str]:
    size = f"{layout.width:.0f}", f"{layout.height:.0f}"
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}"'
        f' viewBox="0 0 {size[0]} {size[1]}" role="img">'
    )
    yield "<title>How the links hang together</title>"
    yield f"<style>\n{_STYLE}\n</style>"
    yield f'<rect class="ground" width="{size[0]}" height="{size[1]}"/>'
    panels = {panel.place: panel for panel in layout.panels}
    for panel in layout.panels:
        yield from _panel(panel)
    for edge in layout.within:
        yield _elbow(edge.relation, layout.boxes[edge.above], layout.boxes[edge.below])
    for edge in layout.between:
        yield _cable(edge, layout, panels)
    for box in layout.boxes.values():
        yield from _box(box)
    for y, line in layout.notes:
        yield _text("note", MARGIN, y, line)
    yield "</svg>"


def _panel(panel: Panel) -> Iterator[str]:
    yield (
        f'<rect class="panel" x="{panel.x:.1f}" y="{panel.y:.1f}" width="{panel.width:.1f}"'
        f' height="{panel.height:.1f}" rx="6"/>'
    )
    y = panel.y + HEADING - PAD - 3
    yield _text("heading", panel.x + PAD, y, panel.heading)
    yield _text("state", panel.x + 2 * PAD + width(panel.heading), y, panel.state)


def _box(box: Box) -> Iterator[str]:
    node = box.node
    looks = [
        word
        for word, fits in (
            ("foreign", node.foreign),
            ("bad", not node.well),
            ("absent", node.link in ("missing", "not seen")),
        )
        if fits
    ]
    whole = (f"{node.place}: {node.name}", node.kind, node.link, keeper(node), *node.addresses, node.why)
    yield f'<g class="{" ".join(["link", *looks])}">'
    yield f"<title>{_escaped(clean(', '.join(filter(None, whole))))}</title>"
    yield (
        f'<rect class="box" x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}"'
        f' height="{box.height:.1f}" rx="4"/>'
    )
    for number, line in enumerate(box.lines):
        looks_like = "name" if not number else "what" if number == 1 else "more"
        if number >= len(box.lines) - box.bad:
            looks_like = "wrong"
        yield _text(looks_like, box.x + PAD, box.y + (number + 1) * LINE - 1, line)
    yield "</g>"


def _text(looks: str, x: float, y: float, text: str) -> str:
    return f'<text class="{looks}" x="{x:.1f}" y="{y:.1f}">{_escaped(text)}</text>'


def _elbow(relation: Relation, above: Box, below: Box) -> str:
    """From the lower left of one box to the next one's left side."""
    x = above.x + INDENT / 2
    way = f"M{x:.1f} {above.y + above.height:.1f}V{below.middle:.1f}H{below.x:.1f}"
    return f'<path class="{relation}" d="{way}"/>'


def _cable(edge: Edge, layout: Layout, panels: dict[str, Panel]) -> str:
    """Between two panels, or round what lies between two links of one."""
    one, other = layout.boxes[edge.above], layout.boxes[edge.below]
    left, right = sorted((one, other), key=lambda box: (panels[box.node.place].x, box.y))
    start, end = panels[left.node.place], panels[right.node.place]
    if start.x != end.x:
        # Straight to the edge of each panel, and in a curve between them.
        begin, x, bend = left.right, (start.x + start.width, end.x), (GUTTER / 2, -GUTTER / 2)
    else:
        begin, x, bend = left.x, (start.x, start.x), (-INDENT, -INDENT)
    high, low = f"{left.middle:.1f}", f"{right.middle:.1f}"
    curve = f"C{x[0] + bend[0]:.1f} {high} {x[1] + bend[1]:.1f} {low} {x[1]:.1f} {low}"
    return f'<path class="{edge.relation}" d="M{begin:.1f} {high}H{x[0]:.1f}{curve}H{right.x:.1f}"/>'


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace(">", "&gt;").replace("<", "&lt;")
