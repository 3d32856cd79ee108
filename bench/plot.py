# SPDX-License-Identifier: MIT
"""Plots as SVG: one line for each contestant, from its first quartile to its third on a logarithmic axis,
with a dot at the median and a tick at the 99th percentile.

Pure and deterministic: the same results give the same bytes. It knows nothing of what the figures are about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from figures import Result, Shown
from words import quantity

WIDTH, LEFT, RIGHT = 860, 250, 110
LINE, GROUP, TOP, BOTTOM = 18, 26, 14, 34
COLOURS = ("#0b6e4f", "#5b6770", "#b3541e", "#3d5a98", "#8a4f9e")
"""The first is ours."""
_STYLE = (
    "text{font:12px sans-serif;fill:#222}.g{font-weight:bold}.a{fill:#666}.l{stroke:#ddd}"
    "@media (prefers-color-scheme:dark){text{fill:#ddd}.a{fill:#999}.l{stroke:#444}}"
)


def plot(results: Sequence[Result], title: str) -> str:
    """The figures of one row that have one unit. Values of 0 have no place on the axis and are left out."""
    unit = results[0].unit
    spread = [value for each in results for one in each.shown for value in _ends(one) if value > 0]
    low, high = 10.0 ** math.floor(math.log10(min(spread))), 10.0 ** math.ceil(math.log10(max(spread)))
    if low == high:
        high *= 10.0
    body: list[str] = []
    y = TOP
    for each in results:
        y += GROUP
        body.append(f'<text class="g" x="10" y="{y - 6}">{escape(each.name)}</text>')
        for number, one in enumerate(each.shown):
            body += _contestant(one, unit, y, COLOURS[number % len(COLOURS)], low, high)
            y += LINE
    axis = []
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        x = _place(10.0**power, low, high)
        axis.append(f'<line class="l" x1="{x}" y1="{TOP}" x2="{x}" y2="{y + 4}"/>')
        words = escape(quantity(10.0**power, unit))
        axis.append(f'<text class="a" x="{x}" y="{y + 20}" text-anchor="middle">{words}</text>')
    height = y + BOTTOM
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img"><title>{escape(title)}</title><style>{_STYLE}</style>'
    )
    return "\n".join([head, *axis, *body, "</svg>"]) + "\n"


def _ends(one: Shown) -> tuple[float, ...]:
    spread = one.summary
    return spread.p25, spread.p50, spread.p75, spread.p99


def _place(value: float, low: float, high: float) -> str:
    part = math.log10(value / low) / math.log10(high / low)
    return f"{LEFT + part * (WIDTH - LEFT - RIGHT):.1f}"


def _contestant(one: Shown, unit: str, y: int, colour: str, low: float, high: float) -> list[str]:
    middle = y + LINE // 2
    made = [f'<text x="{LEFT - 10}" y="{middle + 4}" text-anchor="end">{escape(one.name)}</text>']
    if min(_ends(one)) <= 0:
        return [*made, f'<text class="a" x="{LEFT + 4}" y="{middle + 4}">0</text>']
    left, dot, right, worst = (_place(value, low, high) for value in _ends(one))
    made += [
        f'<line x1="{dot}" y1="{middle}" x2="{worst}" y2="{middle}" stroke="{colour}" opacity="0.35"/>',
        f'<line x1="{worst}" y1="{middle - 4}" x2="{worst}" y2="{middle + 4}" stroke="{colour}"/>',
        f'<line x1="{left}" y1="{middle}" x2="{right}" y2="{middle}" stroke="{colour}" stroke-width="5"/>',
        f'<circle cx="{dot}" cy="{middle}" r="4" fill="{colour}"/>',
        f'<text x="{WIDTH - RIGHT + 12}" y="{middle + 4}">{escape(quantity(one.summary.p50, unit))}</text>',
    ]
    return made
