# SPDX-License-Identifier: MIT
"""What a file comes to is the kernel's own form: once applied it reads back equal, and nothing is left to
do."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.rtnl.harness import World, batch

GOOD = Path(__file__).parent / "good"


def test_addresses_routes_rules_and_neighbours_read_back_as_declared(netns: str, tmp_path: Path) -> None:
    batch(
        netns,
        "link set lo up",
        "link add eth0 type veth peer name far0",
        "link set far0 up",
        "link set eth0 up",
    )
    # FRA_DSCP is of Linux 6.12.
    text = (GOOD / "routes.toml").read_text().replace('dscp = "AF11"\n', "")
    world = World(netns, tmp_path)
    try:
        report = asyncio.run(world.settle(text))
    finally:
        world.close()
    assert report.conditions == ()
    assert len(report.applied) >= 24
