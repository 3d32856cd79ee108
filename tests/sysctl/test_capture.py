# SPDX-License-Identifier: MIT
"""What is captured is what was set, and no more; declared, it finds nothing to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from linxd.config.model import NetnsRef, ScopeConfig
from linxd.config.write import raw_of
from linxd.sources.sysctl.capture import capture, values
from linxd.sources.sysctl.model import Desired, Path, dotted

from ..rtnl.harness import batch
from .harness import World, flip

MODEL = "m0"


@pytest.fixture
def fresh(netns_factory: Callable[[], str]) -> Mapping[Path, str]:
    """The keys of a fresh namespace in which a link was just made."""
    name = netns_factory()
    batch(name, f"link add {MODEL} type veth peer name m1")
    world = World(name)
    try:
        return values(world.procfs)
    finally:
        world.close()


def captured(world: World, fresh: Mapping[Path, str]) -> Desired:
    return capture(values(world.procfs), fresh, MODEL)


def test_a_fresh_namespace_with_new_links_has_nothing_to_tell(netns: str, fresh: Mapping[Path, str]) -> None:
    batch(netns, "link set lo up", "link add e0 type veth peer name far0")
    world = World(netns)
    try:
        assert len(values(world.procfs)) > 300
        assert captured(world, fresh) == Desired()
    finally:
        world.close()


def test_only_what_differs_is_captured_and_it_declares_what_is_there(
    netns: str, fresh: Mapping[Path, str]
) -> None:
    batch(netns, "link set lo up", "link add e0.7 type veth peer name far0")
    keys = {
        "net.core.somaxconn": "321",
        "net.ipv4.tcp_rmem": "4096 131072 6200000",
        "net.ipv4.tcp_congestion_control": "reno",
        "net.ipv4.ip_local_reserved_ports": "8080,9000-9010",
        "net.ipv4.conf.e0/7.rp_filter": "2",
        "net.ipv4.neigh.far0.gc_stale_time": "120",
        # one value under two names: declared once
        "net.ipv4.neigh.far0.base_reachable_time_ms": "45000",
        "net.ipv6.conf.e0/7.accept_ra": "0",
    }
    if fresh[("net", "ipv4", "tcp_congestion_control")] == "reno":
        del keys["net.ipv4.tcp_congestion_control"]
    for key, each in keys.items():
        flip(netns, key, each)
    world = World(netns)
    try:
        desired = captured(world, fresh)
        found = {dotted(setting.path): setting.value for setting in desired.settings}
        finer = found.pop("net.ipv4.neigh.far0.base_reachable_time_ms", None)
        coarse = found.pop("net.ipv4.neigh.far0.base_reachable_time", None)
        assert (finer, coarse) in (("45000", None), (None, "45"))
        assert found == {key: value for key, value in keys.items() if "base_reachable" not in key}
        declared = raw_of(ScopeConfig("c1", netns=NetnsRef("path", "/run/netns/c1"), sysctl=desired))

        async def story() -> None:
            report = await world.go(declared["sysctl"])
            assert report.converged
            assert report.drifted == ()
            assert world.procfs.writes == []

        asyncio.run(story())
    finally:
        world.close()


def test_a_captured_router_can_be_built_again_elsewhere(
    netns_factory: Callable[[], str], fresh: Mapping[Path, str]
) -> None:
    """Keys that are as in a fresh namespace count too, where declaring the others would change them."""
    one, two = World(netns_factory()), World(netns_factory())
    for world in (one, two):
        batch(world.netns, "link set lo up", "link add e0 type veth peer name far0")
    flip(one.netns, "net.ipv4.ip_forward", "1")
    flip(one.netns, "net.ipv6.conf.all.forwarding", "1")
    flip(one.netns, "net.ipv4.conf.far0.forwarding", "0")
    flip(one.netns, "net.ipv4.conf.all.accept_redirects", "1")
    flip(one.netns, "net.ipv4.conf.default.forwarding", "0")

    async def story() -> None:
        for world in (one, two):
            report = await world.go()
            assert report.converged
            assert world is two or world.procfs.writes == []

    try:
        desired = captured(one, fresh)
        names = {dotted(setting.path) for setting in desired.settings}
        assert {"net.ipv4.ip_forward", "net.ipv4.conf.far0.forwarding"} <= names
        assert "net.ipv4.conf.all.forwarding" not in names
        one.desired = two.desired = desired
        asyncio.run(story())
        assert values(two.procfs) == values(one.procfs)
    finally:
        one.close()
        two.close()


def test_a_secret_is_never_captured(netns: str, fresh: Mapping[Path, str]) -> None:
    flip(netns, "net.ipv6.conf.default.stable_secret", "fe80::1234")
    world = World(netns)
    try:
        assert not [setting for setting in captured(world, fresh).settings if "secret" in setting.path[-1]]
    finally:
        world.close()
