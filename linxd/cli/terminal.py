# SPDX-License-Identifier: MIT
"""How things look: colours on a terminal and nowhere else, columns that line up, entries as lines.

It knows what an entry and an op are, and decides nothing.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
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
    """A sink for entries: lines on a stream, of a large patch only the first part.

    They are written by a thread, so that a reader who stops reading (a pager, a terminal with Ctrl-S
    pressed) holds up nobody; what waits beyond ``most`` entries is left out and counted.
    """

    def __init__(self, stream: TextIO | None = None, *, most: int = 1000) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._paint = Paint(self._stream)
        self._queue: queue.Queue[str | None] = queue.Queue(most)
        self._lost = 0
        self._thread = threading.Thread(target=self._write, name="lines", daemon=True)
        self._thread.start()

    def __call__(self, entry: Entry) -> None:
        if entry.part > 1:
            return
        lost = f"({self._lost} entries were left out: nobody read)"
        try:
            self._queue.put_nowait(lost if self._lost else self._text(entry))
        except queue.Full:
            self._lost += 1
            return
        if self._lost:
            self._lost = 0
            self(entry)

    def close(self, *, seconds: float = 0.5) -> None:
        """Write what is left, as far as somebody reads it by then."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=seconds)
            self._thread.join(seconds)

    def _write(self) -> None:
        while (text := self._queue.get()) is not None:
            # Nobody may be there any more; the network is kept all the same.
            with contextlib.suppress(OSError, ValueError):
                print(text, file=self._stream, flush=True)

    def _text(self, entry: Entry) -> str:
        where, colon, rest = entry.text.partition(": ")
        colour = _COLOURS.get(entry.priority, ())
        if colour == (GREEN,) and not rest.startswith("restored"):
            colour = ()
        lines = [self._paint(where + colon, DIM) + self._paint(rest, *colour)]
        return "\n".join((*lines, *(f"    {line}" for line in entry.details)))


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
