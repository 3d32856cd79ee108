# SPDX-License-Identifier: MIT
"""Numbers as people read them: three digits and a unit that fits.

Pure, and the same everywhere: on a terminal, on the page, in a plot.
"""

from __future__ import annotations

from figures import Summary

_SCALES = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "B": ((2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
}


def digits(value: float) -> str:
    """Three significant digits without an exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    whole = f"{value:.3g}"
    if "e" in whole:
        whole = f"{value:.6f}".rstrip("0").rstrip(".")
    return whole


def quantity(value: float, unit: str) -> str:
    """A value in the largest of its unit's parts of which it has one."""
    scales = _SCALES.get(unit)
    if scales is None:
        return f"{digits(value)} {unit}"
    for size, name in scales:
        if value >= size:
            return f"{digits(value / size)} {name}"
    size, name = scales[-1]
    return f"{digits(value / size)} {name}"


def cell(spread: Summary, unit: str) -> str:
    """Median, and the 99th percentile where there are enough values for one."""
    words = quantity(spread.p50, unit)
    if spread.count >= 50:
        words += f" (p99 {quantity(spread.p99, unit)})"
    elif spread.count > 1:
        words += f" (… {quantity(spread.high, unit)})"
    return words


def ratio(spread: Summary) -> str:
    """Median and quartiles of ratios."""
    if spread.count == 1:
        return f"{digits(spread.p50)}×"
    return f"{digits(spread.p50)}× ({digits(spread.p25)} … {digits(spread.p75)})"
