# SPDX-License-Identifier: MIT
"""Files with very many faults, or warnings: the first ones are said, and how many there are; nothing grows
with their number."""

from __future__ import annotations

from linxd.config import ScopeConfig
from linxd.config.faults import ConfigError, Fault
from linxd.reload import ANSWERED, SAID, faults, told, warnings

MANY = [Fault("/etc/linxd/netns/c1.toml", line, 1, f"route[{line}]", "is wrong") for line in range(1, 5001)]


def test_few_are_all_told() -> None:
    assert told(MANY[:3], 3) == tuple(str(fault) for fault in MANY[:3])


def test_of_many_the_first_ones_and_their_number() -> None:
    lines = told(MANY, ANSWERED)
    assert lines[:ANSWERED] == tuple(str(fault) for fault in MANY[:ANSWERED])
    assert lines[ANSWERED:] == (f"… and {len(MANY) - ANSWERED} more",)
    assert len(faults("c1", ConfigError(MANY), "does not load").details) == ANSWERED + 1
    config = ScopeConfig("c1", warnings=tuple(MANY))
    entries = warnings(config)
    assert len(entries) == SAID + 1
    assert entries[-1].text == f"c1: … and {len(MANY) - SAID} more"
