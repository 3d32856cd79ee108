# SPDX-License-Identifier: MIT
"""Which rules may be one of several under one identity, so that an event of one's going does not say that
none is left.

It errs on one side alone: whatever came since the last dump counts, gone again or not. It knows neither what
a rule is nor what is declared.
"""

from __future__ import annotations

from collections.abc import Iterable

from linxd.patch import Key


class Alike:
    """What the last dump and the events since then say of it."""

    def __init__(self) -> None:
        self._several: frozenset[Key] | None = None
        """As the last dump had it, None before the first."""
        self._came: dict[Key, int] = {}
        """What came since a dump was asked for that is not told yet, with the number of its coming."""
        self._count = 0
        self._told = 0

    def came(self, key: Key) -> None:
        """Somebody else has made one of this identity."""
        self._count += 1
        self._came[key] = self._count

    def lost(self) -> None:
        """Events were lost, or none are heard: nothing is known before the next dump."""
        self._several = None
        # A dump that runs now may have passed by what was lost.
        self._count += 1
        self._told = self._count

    def asked(self) -> int:
        """A dump is about to be made; returns what `told` is to be given."""
        return self._count

    def told(self, asked: int, several: Iterable[Key]) -> None:
        """A dump has found more than one of each of these. One that was overtaken by a later one, made in a
        breath of it, counts for nothing."""
        if asked >= self._told:
            self._told = asked
            self._several = frozenset(several)
            self._came = {key: number for key, number in self._came.items() if number > asked}

    def alone(self, key: Key) -> bool:
        """Whether there is one of this identity at most."""
        return self._several is not None and key not in self._several and key not in self._came
