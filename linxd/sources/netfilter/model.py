# SPDX-License-Identifier: MIT
"""Desired nftables rulesets as declared: text and where it came from. Knows no kernel and no nft."""

from __future__ import annotations

from linxd.records import dataclass, field


@dataclass(frozen=True, slots=True)
class Ruleset:
    """One piece of native nft text. ``file`` and ``line``: where its first line stands, for messages.
    ``base``: the directory that `include` is relative to."""

    text: str
    file: str
    line: int = 1
    base: str = "/"


@dataclass(frozen=True, slots=True)
class Desired:
    """All rulesets of one scope, loaded together, in order, in one transaction.

    ``roots``: directories that `include` may read from, after symlinks. ``required``: no address and no link
    up before the ruleset has loaded once. ``take``, ``foreign_remove``: on-conflict = "take", foreign =
    "remove".
    """

    rulesets: tuple[Ruleset, ...] = ()
    roots: tuple[str, ...] = ()
    required: bool = False
    take: bool = False
    foreign_remove: bool = False
    filled: tuple[str, ...] = field(default=())
    """Sets and maps whose elements others fill, "FAMILY TABLE SET": their elements are run-time state."""
