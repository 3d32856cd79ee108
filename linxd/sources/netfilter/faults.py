# SPDX-License-Identifier: MIT
"""What is wrong with a ruleset, at the line of the user's own file. It must not know how that was found
out."""

from __future__ import annotations

from collections.abc import Iterable

from linxd.records import dataclass


@dataclass(frozen=True, slots=True)
class RulesetFault:
    """One fault. Line and column count from 1; 0 where the fault has no place. ``where``: the chain or set
    it stands in, "". ``source``: the line itself. ``hint``: what to do about it, ""."""

    file: str
    line: int
    column: int
    message: str
    where: str = ""
    source: str = ""
    hint: str = ""

    def __str__(self) -> str:
        place = (
            f"{self.file}:{self.line}:{self.column}: "
            if self.line
            else f"{self.file}: "
            if self.file
            else ""
        )
        inside = f"{self.where}: " if self.where else ""
        quoted = f": {self.source.strip()}" if self.source.strip() else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{inside}{self.message}{quoted}{hint}"


class RulesetError(Exception):
    """A ruleset that does not load, with all its faults. Nothing was applied."""

    def __init__(self, faults: Iterable[RulesetFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class ScratchError(RulesetError):
    """A ruleset could not be compiled for a reason that is not its own: no scratch namespace, nft missing,
    killed or too slow. Worth another try."""
