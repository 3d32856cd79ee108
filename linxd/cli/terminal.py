# SPDX-License-Identifier: MIT
"""How things look: colours on a terminal and nowhere else, columns that line up, entries as lines.

It knows what an entry and an op are, and decides nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from linxd.log import ERROR, NOTICE, WARNING, Entry

RED, GREEN, YELLOW, BLUE, DIM, BOLD = "31", "32", "33", "34", "2", "1"


class Paint:
    """Colours text for one stream, or leaves it as it is: no terminal, NO_COLOR set, or a dumb one."""

    def __init__(self, stream: TextIO, environment: Mapping[str, str] = os.environ) -> None:
        self.on = (
            not environment.get("NO_COLOR") and environment.get("TERM") != "dumb" and bool(stream.isatty())
        )

    def __call__(self, text: str, *codes: str) -> str:
        """``text`` in the colours of ``codes``."""
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if self.on and text and codes else text


class Lines:
    """A sink for entries: lines on a stream, of a large patch only the first part."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._paint = Paint(self._stream)

    def __call__(self, entry: Entry) -> None:
        if entry.part > 1:
            return
        where, colon, rest = entry.text.partition(": ")
        colour = _COLOURS.get(entry.priority, ())
        if colour == (GREEN,) and not rest.startswith("restored"):
            colour = ()
        lines = [self._paint(where + colon, DIM) + self._paint(rest, *colour)]
        lines += [f"    {line}" for line in entry.details]
        # Nobody may read any more; the network is kept all the same.
        with contextlib.suppress(OSError, ValueError):
            print("\n".join(lines), file=self._stream, flush=True)


_COLOURS: Mapping[int, tuple[str, ...]] = {ERROR: (RED,), WARNING: (YELLOW,), NOTICE: (GREEN,)}


def table(rows: Sequence[Sequence[str]], *, paint: Sequence[Sequence[str]] = ()) -> Iterable[str]:
    """Rows with their columns lined up, two blanks apart. ``paint``: the same cells with colours in them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        shown = paint[number] if paint else row
        cells = [
            cell + " " * (width - len(plain)) for cell, plain, width in zip(shown, row, widths, strict=True)
        ]
        yield "  ".join(cells).rstrip()
