# SPDX-License-Identifier: MIT
"""Throw-away network namespaces as fixtures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.netlink.netlink_bed import Netns


@pytest.fixture
def make_netns() -> Iterator[Callable[[], Netns]]:
    """Makes as many namespaces as a test asks for."""
    if os.geteuid():
        pytest.skip("making a network namespace needs root")
    made: list[Netns] = []

    def make() -> Netns:
        made.append(Netns())
        return made[-1]

    try:
        yield make
    finally:
        for netns in made:
            if netns.fd >= 0:
                netns.delete()


@pytest.fixture
def netns(make_netns: Callable[[], Netns]) -> Netns:
    """One empty namespace."""
    return make_netns()


@pytest.fixture
def wired(make_netns: Callable[[], Netns]) -> Netns:
    """One namespace with a veth pair, see `Netns.wire`."""
    netns = make_netns()
    netns.wire()
    return netns
