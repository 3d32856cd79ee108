# SPDX-License-Identifier: MIT
"""What a machine says as it says it: its journal, and the monitors of ip and nft.

It waits for lines, and knows none of them.
"""

from __future__ import annotations

import contextlib
import json
import queue
import re
import threading
from collections.abc import Callable
from typing import Any

from tests.system.bed import Machine

PATIENCE = 30.0
"""Seconds after which what has not come won't come. No test waits so long unless it fails."""


class Lines:
    """A command in a machine, its lines read as they come. Ended when left."""

    def __init__(self, machine: Machine, *words: str) -> None:
        self._machine = machine
        self._process = machine.start(*words)
        self.seen: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._machine.end(self._process)
        self._reader.join()

    def next(self) -> str:
        """The next line."""
        try:
            line = self._queue.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError("nothing more came; seen:\n" + "\n".join(self.seen[-40:])) from None
        if line is None:
            raise AssertionError("ended; seen:\n" + "\n".join(self.seen[-40:]))
        self.seen.append(line)
        return line

    def heard(self, poke: Callable[[int], object]) -> None:
        """Return when the command has begun to listen: ``poke`` it, with another number each time, until it
        says something."""
        for number in range(100):
            poke(number)
            with contextlib.suppress(queue.Empty):
                line = self._queue.get(timeout=0.2)
                assert line is not None, "ended"
                self.seen.append(line)
                return
        raise AssertionError("nothing was heard")

    def until(self, pattern: str) -> list[str]:
        """The lines before the next one that matches."""
        before: list[str] = []
        while not re.search(pattern, line := self.next()):
            before.append(line)
        return before


class Journal(Lines):
    """What is written to a machine's journal from now on."""

    def __init__(self, machine: Machine) -> None:
        shown = machine.do("journalctl", "-n1", "-o", "cat", "--show-cursor", "--no-pager")
        cursor = shown.rpartition("-- cursor: ")[2].strip()
        super().__init__(machine, "journalctl", "-f", "-n", "all", "-o", "json", "--after-cursor", cursor)

    def entry(self, which: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The next entry that is meant."""
        while True:
            entry: dict[str, Any] = json.loads(self.next())
            if which(entry):
                return entry

    def of(self, unit: str, pattern: str) -> dict[str, Any]:
        """The next entry of a unit, or about it, with such a message."""

        def meant(entry: dict[str, Any]) -> bool:
            about = (entry.get(key) for key in ("_SYSTEMD_UNIT", "UNIT", "OBJECT_SYSTEMD_UNIT"))
            return unit in about and bool(re.search(pattern, str(entry.get("MESSAGE"))))

        return self.entry(meant)


def seconds(entry: dict[str, Any]) -> float:
    """When an entry was written, on CLOCK_MONOTONIC."""
    return int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6
