# SPDX-License-Identifier: MIT
"""Every class of key: set, flipped from outside, healed, un-declared, given back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from linxd.config import ConfigError, declare
from linxd.patch import State
from linxd.source import Pass
from linxd.sources.sysctl.model import Desired, Setting, key_of
from linxd.sources.sysctl.procfs import Procfs
from linxd.sources.sysctl.source import SysctlSource
from linxd.sources.sysctl.watch import watch_of

from ..rtnl.harness import batch, ip
from .harness import World, flip, sysctl, value

E0 = ("link set lo up", "link add e0 type veth peer name far0", "link set e0 up", "link set far0 up")

CLASSES = [
    ("event", "net.ipv4.ip_forward", 1, "0"),
    ("event", "net.ipv4.conf.e0.rp_filter", 2, "1"),
    ("event", "net.ipv4.conf.e0.proxy_arp", 1, "0"),
    ("event", "net.ipv4.conf.e0.forwarding", 1, "0"),
    ("event", "net.ipv6.conf.e0.forwarding", 1, "0"),
    ("event", "net.ipv6.conf.e0.proxy_ndp", 1, "0"),
    ("event", "net.ipv4.conf.all.ignore_routes_with_linkdown", 1, "0"),
    ("poll", "net.ipv4.conf.e0.accept_local", 1, "0"),
    ("poll", "net.ipv4.conf.default.log_martians", 1, "0"),
    ("poll", "net.ipv6.conf.e0.accept_ra", 0, "2"),
    ("poll", "net.ipv4.neigh.e0.gc_stale_time", 120, "60"),
    ("poll", "net.core.somaxconn", 1000, "77"),
    ("poll", "net.ipv4.tcp_rmem", [4096, 131072, 6200000], "4096 87380 6000000"),
    ("poll", "net.ipv4.ip_local_port_range", "20000 30000", "1024 2000"),
    ("poll", "net.ipv4.ip_local_reserved_ports", "8080,9000-9010", "1-3"),
    ("poll", "net.ipv4.tcp_congestion_control", "reno", ""),
    ("poll", "net.ipv4.ping_group_range", [0, 1000], "5 6"),
    ("poll", "net/ipv4/tcp_fin_timeout", 42, "60"),
]


@pytest.mark.parametrize(("watch", "key", "wanted", "other"), CLASSES, ids=[row[1] for row in CLASSES])
def test_a_key_is_set_kept_and_given_back(
    watch: str, key: str, wanted: object, other: str, netns: str
) -> None:
    batch(netns, *E0)
    plain = key.replace("/", ".")
    first = value(netns, plain)
    shown = " ".join(map(str, wanted)) if isinstance(wanted, list) else str(wanted)

    async def story() -> None:
        world = World(netns)
        try:
            assert watch_of(world.declare({key: wanted}).settings[0].path) == watch
            async with world.kept({key: wanted}):
                assert value(netns, plain) == shown
                for _ in range(2):
                    flip(netns, plain, other or first)
                    await world.until(lambda: value(netns, plain) == shown, what=f"{key} healed")
            await world.quiet()
            world.restart()
            await world.quiet()
            await world.settle({})
            assert value(netns, plain) == first
            assert not world.owned.of("sysctl")
        finally:
            world.close()

    asyncio.run(story())


def test_a_key_that_had_the_value_is_not_claimed_as_changed(netns: str) -> None:
    async def story() -> None:
        world = World(netns)
        try:
            await world.settle({"net.ipv4.ip_forward": 0})
            assert world.procfs.writes == []
            # somebody's change is undone, and what stood there first is what comes back
            flip(netns, "net.ipv4.ip_forward", "1")
            await world.settle()
            await world.settle({})
            assert value(netns, "net.ipv4.ip_forward") == "0"
        finally:
            world.close()

    asyncio.run(story())


def test_on_release_keep_leaves_ours(netns: str) -> None:
    async def story() -> None:
        world = World(netns)
        try:
            await world.settle({"net.core.somaxconn": {"value": 123, "on-release": "keep"}})
            await world.settle({})
            assert value(netns, "net.core.somaxconn") == "123"
            assert not world.owned.of("sysctl")
        finally:
            world.close()

    asyncio.run(story())


def test_two_keys_that_drift_together_are_healed_in_one_pass(netns: str) -> None:
    batch(netns, *E0)
    keys = {"net.ipv4.conf.e0.rp_filter": 2, "net.ipv4.conf.e0.accept_local": 1, "net.core.somaxconn": 1000}

    async def story() -> None:
        world = World(netns)
        try:
            await world.settle(keys)
            for key in keys:
                flip(netns, key, "0" if "conf" in key else "5")
            report = await world.go()
            assert len(report.applied) == 3
            assert report.converged
            await world.quiet()
        finally:
            world.close()

    asyncio.run(story())


def test_white_space_is_no_difference(netns: str) -> None:
    async def story() -> None:
        world = World(netns)
        try:
            text = " \t ".join(sysctl(netns, "-n", "net.ipv4.tcp_rmem").split())
            await world.settle({"net.ipv4.tcp_rmem": text, "net.ipv4.ip_local_reserved_ports": ""})
            assert world.procfs.writes == []
        finally:
            world.close()

    asyncio.run(story())


def test_an_interface_whose_name_has_dots(netns: str) -> None:
    batch(netns, "link add e0.100 type veth peer name far0")

    async def story() -> None:
        world = World(netns)
        try:
            await world.settle({"net.ipv4.conf.e0/100.rp_filter": 2, "net/ipv4/conf/e0.100/arp_ignore": 1})
            assert value(netns, "net/ipv4/conf/e0.100/rp_filter") == "2"
            assert value(netns, "net/ipv4/conf/e0.100/arp_ignore") == "1"
        finally:
            world.close()

    asyncio.run(story())


# --- globs -------------------------------------------------------------------------------------------------


def test_a_glob_takes_hold_of_interfaces_that_come_later(netns: str) -> None:
    batch(netns, *(f"link add v{n} type veth peer name w{n}" for n in range(100)))
    exact = "net.ipv4.conf.v3.arp_ignore"
    late = [f"late{n}" for n in range(5)] + [f"etal{n}" for n in range(5)]

    def right(name: str) -> bool:
        return value(netns, f"net.ipv4.conf.{name}.arp_ignore") == ("2" if name == "v3" else "1")

    async def story() -> None:
        world = World(netns)
        try:
            async with world.kept({"net.ipv4.conf.*.arp_ignore": 1, exact: 2}):
                assert all(map(right, ("v0", "w99", "v3", "lo")))
                # never all or default
                assert value(netns, "net.ipv4.conf.all.arp_ignore") == "0"
                assert value(netns, "net.ipv4.conf.default.arp_ignore") == "0"
                batch(netns, *(f"link add late{n} type veth peer name etal{n}" for n in range(5)))
                await world.until(lambda: all(map(right, late)), what="those that came later")
                flip(netns, "net.ipv4.conf.late3.arp_ignore", "0")
                await world.until(lambda: right("late3"))
                batch(netns, "link del late0")
            await world.quiet()
            # held open: nothing is looked up by name again
            before = world.procfs.opened
            for _ in range(5):
                await world.quiet()
            assert world.procfs.opened == before
            await world.settle({})
            assert value(netns, "net.ipv4.conf.v7.arp_ignore") == "0"
            assert value(netns, exact) == "0"
        finally:
            world.close()

    asyncio.run(story())


def test_an_interface_that_comes_back_has_its_own_first_value(netns: str) -> None:
    batch(netns, *E0)

    async def story() -> None:
        world = World(netns)
        try:
            async with world.kept({"net.ipv4.conf.e0.rp_filter": 2}):
                batch(netns, "link del e0")
                loop = world.loop
                assert loop is not None
                await world.until(lambda: bool(loop.conditions))
                [condition] = loop.conditions.values()
                assert (condition.state, condition.text) == (State.PENDING, "needs link e0")
                batch(netns, *E0[1:])
                await world.until(lambda: value(netns, "net.ipv4.conf.e0.rp_filter") == "2")
        finally:
            world.close()

    asyncio.run(story())


# --- keys that influence each other ------------------------------------------------------------------------


def test_the_forwarding_cascade_settles_in_one_pass(netns: str) -> None:
    batch(netns, *E0)
    keys = {
        "net.ipv4.conf.e0.forwarding": 0,
        "net.ipv4.ip_forward": 1,
        "net.ipv4.conf.all.accept_redirects": 1,
        "net.ipv4.conf.default.forwarding": 0,
        "net.ipv6.conf.all.forwarding": 1,
        "net.ipv6.conf.e0.forwarding": 0,
    }

    async def story() -> None:
        world = World(netns)
        try:
            first = {key: value(netns, key) for key in keys}
            report = await world.go(
                keys,
            )
            assert report.converged
            assert {key: value(netns, key) for key in keys} == {key: str(each) for key, each in keys.items()}
            await world.quiet()
            # what a write changed besides is told
            said = "\n".join(op.describe() for op in report.applied)
            assert "also net.ipv4.conf.far0.forwarding 0 -> 1" in said
            for key in keys:
                flip(netns, key, "0" if keys[key] else "1")
            report = await world.go()
            assert report.converged
            await world.quiet()
            await world.settle({})
            assert {key: value(netns, key) for key in keys} == first
        finally:
            world.close()

    asyncio.run(story())


def test_a_contradiction_is_named_and_nothing_flaps(netns: str) -> None:
    async def story() -> None:
        world = World(netns)
        try:
            report = await world.go(
                {"net.ipv4.ip_forward": 1, "net.ipv4.conf.all.forwarding": 0, "net.core.somaxconn": 99}
            )
            states = {condition.name: condition for condition in report.conditions}
            assert set(states) == {"sysctl net.ipv4.ip_forward", "sysctl net.ipv4.conf.all.forwarding"}
            for condition in states.values():
                assert condition.state is State.FAILED
                assert "net.ipv4.ip_forward" in condition.text
                assert "net.ipv4.conf.all.forwarding" in condition.text
            assert value(netns, "net.core.somaxconn") == "99"
            await world.quiet()
        finally:
            world.close()

    asyncio.run(story())


# --- what the kernel won't have ----------------------------------------------------------------------------


def test_a_value_that_the_kernel_rounds_is_said_and_kept(netns: str) -> None:
    batch(netns, *E0)
    key = "net.ipv4.neigh.e0.retrans_time_ms"
    kept = []
    for asked in (1001, 1003, 997, 1009):
        flip(netns, key, str(asked))
        if value(netns, key) != str(asked):
            kept.append(asked)
    if not kept:
        pytest.skip("this kernel's clock ticks each millisecond: nothing is rounded")
    asked = kept[0]
    flip(netns, key, "1000")

    async def story() -> None:
        world = World(netns)
        try:
            report = await world.go({key: asked})
            [condition] = report.conditions
            has = value(netns, key)
            assert condition.state is State.NOTED
            assert condition.text == f"asked {asked}, the kernel has {has}"
            for _ in range(20):
                await world.quiet()
            flip(netns, key, "500")
            await world.go()
            assert value(netns, key) == has
            await world.quiet()
            await world.settle({})
            assert value(netns, key) == "1000"
        finally:
            world.close()

    asyncio.run(story())


def test_what_can_not_be_is_a_fault_of_that_key_alone(netns: str) -> None:
    batch(netns, *E0)

    async def story() -> None:
        world = World(netns)
        try:
            report = await world.go(
                {
                    "net.ipv4.conf.e0.rp_filter": "many",
                    "net.ipv4.tcp_available_congestion_control": "none",
                    "net.ipv4.conf.late0.rp_filter": 1,
                    "net.ipv4.no_such_key": 1,
                    "net.bridge.bridge-nf-call-iptables": 0,
                    "net.core.somaxconn": 321,
                }
            )
            said = {condition.name.removeprefix("sysctl "): condition for condition in report.conditions}
            assert said["net.ipv4.conf.e0.rp_filter"].state is State.FAILED
            assert not said["net.ipv4.conf.e0.rp_filter"].transient
            assert "the kernel refuses 'many': Invalid argument" in said["net.ipv4.conf.e0.rp_filter"].text
            assert said["net.ipv4.tcp_available_congestion_control"].state is State.FAILED
            assert "can only be read" in said["net.ipv4.tcp_available_congestion_control"].text
            assert said["net.ipv4.conf.late0.rp_filter"].text == "needs link late0"
            assert said["net.ipv4.no_such_key"].state is State.PENDING
            if "net.bridge.bridge-nf-call-iptables" in said:
                assert "br_netfilter" in said["net.bridge.bridge-nf-call-iptables"].text
            assert value(netns, "net.core.somaxconn") == "321"
            written = len(world.procfs.writes)
            await world.go()
            # a refused value is asked for again by a whole pass at most, the others are not touched
            assert all(path[-1] == "rp_filter" for path, _ in world.procfs.writes[written:])
        finally:
            world.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("kernel.panic", "is not a key of a network namespace"),
        ("net.core.netdev_max_backlog", "exists once for the whole machine"),
        ("net.core.rmem_max", "can only be read in a network namespace"),
    ],
)
def test_keys_of_the_machine_are_refused_in_a_namespace_when_loaded(key: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        declare("c1", {"sysctl": {key: 1}})
    assert declare("host", {"sysctl": {key: 1}}).sysctl is not None


def test_two_namespaces_keep_their_own_and_the_hosts_never_change(netns_factory: Callable[[], str]) -> None:
    one, two = netns_factory(), netns_factory()
    keys = ("net/ipv4/ip_forward", "net/core/somaxconn", "net/ipv4/tcp_fin_timeout")

    def here() -> list[str]:
        return [Path("/proc/sys", key).read_text() for key in keys]

    before = here()

    async def story() -> None:
        worlds = [World(one), World(two)]
        try:
            for number, world in enumerate(worlds):
                await world.settle(
                    {"net.ipv4.ip_forward": number, "net.core.somaxconn": 500 + number, keys[2]: 33 + number}
                )
            for number, world in enumerate(worlds):
                await world.quiet()
                assert value(world.netns, "net.core.somaxconn") == str(500 + number)
                assert value(world.netns, "net.ipv4.ip_forward") == str(number)
        finally:
            for world in worlds:
                world.close()

    asyncio.run(story())
    assert here() == before


def test_keys_of_the_whole_machine_in_the_hosts_scope(tmp_path: Path) -> None:
    """On files that stand for the machine's: the machine itself is not this test's to change."""
    (tmp_path / "vm").mkdir()
    (tmp_path / "kernel").mkdir()
    (tmp_path / "vm" / "swappiness").write_text("60\n")
    (tmp_path / "kernel" / "core_pattern").write_text("core\n")

    async def story() -> None:
        from linxd.ledger import MemoryLedger

        procfs = Procfs(root=str(tmp_path))
        source = SysctlSource(procfs)
        owned = MemoryLedger()
        settings = (
            Setting(("vm", "swappiness"), "10"),
            Setting(("kernel", "core_pattern"), "|/bin/true %p"),
        )
        try:
            report = await source.reconcile(Pass(Desired(settings, host=True), owned))
            assert report.converged
            assert (tmp_path / "vm" / "swappiness").read_text().startswith("10\n")
            assert (tmp_path / "kernel" / "core_pattern").read_text().startswith("|/bin/true %p\n")
            assert key_of(("vm", "swappiness")) in owned.of("sysctl")
        finally:
            source.close()
            procfs.close()

    asyncio.run(story())


@pytest.mark.kinds
def test_a_key_of_the_whole_machine_on_a_machine_of_its_own() -> None:
    if not os.environ.get("LINXD_ALL_KINDS"):
        pytest.skip("changes the machine: only where that is a virtual one made for the purpose")
    swappiness = Path("/proc/sys/vm/swappiness")

    async def story() -> None:
        from linxd.ledger import MemoryLedger

        procfs, owned = Procfs(), MemoryLedger()
        source = SysctlSource(procfs)
        try:
            first = swappiness.read_text()
            desired = Desired((Setting(("vm", "swappiness"), "17"),), host=True)
            assert (await source.reconcile(Pass(desired, owned))).converged
            assert swappiness.read_text() == "17\n"
            swappiness.write_text("3")
            assert len((await source.reconcile(Pass(desired, owned))).applied) == 1
            assert (await source.reconcile(Pass(Desired(host=True), owned))).converged
            assert swappiness.read_text() == first
        finally:
            source.close()
            procfs.close()

    asyncio.run(story())


def test_the_second_of_silence_is_the_bound(netns: str) -> None:
    """With the poll as it ships."""
    batch(netns, *E0)

    async def story() -> None:
        world = World(netns, poll=1.0)
        try:
            async with world.kept({"net.ipv4.conf.e0.accept_local": 1}):
                flip(netns, "net.ipv4.conf.e0.accept_local", "0")
                await world.until(lambda: value(netns, "net.ipv4.conf.e0.accept_local") == "1")
        finally:
            world.close()

    asyncio.run(story())
    assert "e0" in ip(netns, "link show e0")
