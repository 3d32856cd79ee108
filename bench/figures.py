# SPDX-License-Identifier: MIT
"""What a measurement came to: series of values that were taken in turn, and what they should reach.

Pure: statistics and JSON. It knows nothing of how anything is measured, nor of how it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one contestant, in the order in which they were taken. ``every``: the n-th of them was taken
    beside our n * every-th, for contestants too slow to have as many turns."""

    name: str
    values: tuple[float, ...]
    every: int = 1


@dataclass(frozen=True, slots=True)
class Target:
    """What should be reached: a quantile of ours in the figure's unit, or, with ``against``, ours divided by
    another series, turn by turn."""

    words: str
    bound: float
    against: str | None = None
    quantile: float = 0.5


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: ours (the first series) beside the others.

    ``row``: the row of the table that it belongs to (``heal``, ``flat`` …). ``unit``: ``s``, ``B``, or ``%``
    (of a core). ``missing``: who does not stand beside it, and why. ``note``: what a reader must know of how
    it was taken.
    """

    row: str
    name: str
    unit: str
    series: tuple[Series, ...]
    targets: tuple[Target, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """The spread of some values."""

    count: int
    low: float
    p25: float
    p50: float
    p75: float
    p99: float
    high: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """A target, what was measured, and whether that is within it. ``value`` None: it was not measured."""

    words: str
    bound: float
    value: float | None
    ratio: bool
    """Whether the bound is one of ratios."""

    @property
    def reached(self) -> bool | None:
        """None: not measured."""
        return None if self.value is None else self.value <= self.bound


@dataclass(frozen=True, slots=True)
class Shown:
    """A contestant in the results. ``ratio``: ours divided by it, turn by turn; None for ours."""

    name: str
    summary: Summary
    ratio: Summary | None


@dataclass(frozen=True, slots=True)
class Result:
    """A figure as results keep it."""

    row: str
    name: str
    unit: str
    shown: tuple[Shown, ...]
    outcomes: tuple[Outcome, ...]
    missing: tuple[tuple[str, str], ...]
    note: str


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which ``part`` (0 … 1) of them are, linear between two neighbours. Raises ValueError
    when there is none."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    place = part * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summary(values: Sequence[float]) -> Summary:
    """The spread of values, to four significant digits: more than that no clock here is good for."""
    parts = (0.0, 0.25, 0.5, 0.75, 0.99, 1.0)
    return Summary(len(values), *(rounded(quantile(values, part)) for part in parts))


def rounded(value: float) -> float:
    """To four significant digits."""
    return float(f"{value:.4g}")


def ratios(ours: Series, other: Series) -> tuple[float, ...]:
    """Ours divided by the other's, for each turn that both had. A value of 0 has no ratio."""
    return tuple(
        ours.values[n * other.every] / value
        for n, value in enumerate(other.values)
        if n * other.every < len(ours.values) and value > 0
    )


def outcome(figure: Figure, target: Target) -> Outcome:
    """What became of a target."""
    value: float | None = None
    ours = figure.series[0]
    if target.against is None:
        if ours.values:
            value = rounded(quantile(ours.values, target.quantile))
    else:
        other = next((each for each in figure.series if each.name == target.against), None)
        turns = ratios(ours, other) if other is not None else ()
        if turns:
            value = rounded(quantile(turns, target.quantile))
    return Outcome(target.words, target.bound, value, target.against is not None)


def result(figure: Figure) -> Result:
    """A figure with its statistics. Series without a value are left out; without one of ours there is
    nothing to stand beside."""
    ours = figure.series[0]
    shown = []
    for each in figure.series:
        if not each.values or not ours.values:
            continue
        turns = ratios(ours, each) if each is not ours else ()
        shown.append(Shown(each.name, summary(each.values), summary(turns) if turns else None))
    return Result(
        figure.row, figure.name, figure.unit, tuple(shown),
        tuple(outcome(figure, target) for target in figure.targets), figure.missing, figure.note,
    )  # fmt: skip


# -- JSON ------------------------------------------------------------------------------------------------


def to_json(result: Result) -> dict[str, Any]:
    """A result as JSON has it."""
    return {
        "row": result.row,
        "name": result.name,
        "unit": result.unit,
        "series": [
            {
                "name": each.name,
                "values": _flat(each.summary),
                "ratio": None if each.ratio is None else _flat(each.ratio),
            }
            for each in result.shown
        ],
        "targets": [
            {
                "words": each.words,
                "ratio": each.ratio,
                "bound": each.bound,
                "value": each.value,
                "reached": each.reached,
            }
            for each in result.outcomes
        ],
        "missing": dict(result.missing),
        "note": result.note,
    }


def from_json(found: dict[str, Any]) -> Result:
    """What `to_json` wrote. Raises KeyError, TypeError for what it did not."""
    return Result(
        found["row"],
        found["name"],
        found["unit"],
        tuple(
            Shown(
                each["name"],
                Summary(**each["values"]),
                None if each["ratio"] is None else Summary(**each["ratio"]),
            )
            for each in found["series"]
        ),
        tuple(
            Outcome(each["words"], each["bound"], each["value"], each["ratio"]) for each in found["targets"]
        ),
        tuple(found["missing"].items()),
        found["note"],
    )


def _flat(spread: Summary) -> dict[str, float]:
    return {name: getattr(spread, name) for name in Summary.__slots__}
