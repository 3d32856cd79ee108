# SPDX-License-Identifier: MIT
"""Links that a container's scope makes from the host's side: host ends of veths, and parents in the host.

Two namespaces, one of which plays the host. What the scope may do there is bounded to the host ends of its
own veths.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from linxd.netlink import wire
from linxd.patch import State

from .harness import World, batch, ip, ipj

VETH = """
[link.eth0]
kind = "veth"
peer = { name = "c1-eth0", scope = "host", master = "br0", mtu = 1400 }
addresses = ["10.0.0.5/24"]

[[route]]
to = "default"
via = "10.0.0.1"
"""
MACVLAN = """
[link.eth0]
kind = "macvlan"
parent = "host:up0"
mode = "bridge"
addresses = ["10.0.0.5/24"]
"""
HOST = (
    "link set lo up",
    "link add br0 type bridge forward_delay 0",
    "link set br0 up",
    "address add 10.0.0.1/24 dev br0",
    "link add up0 type veth peer name up1",
    "link set up0 up",
    "link set up1 up",
    "link add other0 type veth peer name other1",
    "link set other0 up",
)


@pytest.fixture
def host(netns_factory: Callable[[], str]) -> str:
    """A namespace that plays the host, with a bridge and a parent."""
    name = netns_factory()
    batch(name, *HOST)
    return name


def end(host: str, name: str = "c1-eth0") -> dict[str, object]:
    """The host end as ip shows it, {} when it is not there."""
    return next((link for link in ipj(host, "link show") if link["ifname"] == name), {})


def as_declared(host: str) -> bool:
    shown = end(host)
    return (
        bool(shown) and shown.get("master") == "br0" and shown["mtu"] == 1400 and "UP" in str(shown["flags"])
    )


def others(host: str) -> list[str]:
    """What else there is in the host's namespace, without what a bridge takes over from its ports."""
    return [
        f"{link['ifindex']} {link['ifname']} {link.get('master')} {'UP' in link['flags']}"
        for link in ipj(host, "link show")
        if link["ifname"] in ("lo", "br0", "up0", "up1", "other0", "other1")
    ]


def test_a_veth_is_made_with_its_host_end_and_goes_with_it(host: str, netns: str, tmp_path: Path) -> None:
    before = others(host)

    async def story() -> None:
        world = World(netns, tmp_path, host=host)
        try:
            await world.settle(VETH)
            assert as_declared(host)
            world.restart()
            await world.quiet()
            await world.settle("")
            assert not end(host)
            # left to itself, a namespace takes it along
            await world.settle(VETH)
        finally:
            world.close()

    asyncio.run(story())
    assert others(host) == before


DRIFTS = (
    "link set c1-eth0 down",
    "link set c1-eth0 nomaster",
    "link set c1-eth0 master br9",
    "link set c1-eth0 mtu 1300",
    "link set c1-eth0 name moved0",
    "link del c1-eth0",
)


@pytest.mark.parametrize("events", [True, False], ids=["on the event", "by the poll"])
def test_whatever_becomes_of_the_host_end_is_healed(
    events: bool, host: str, netns: str, tmp_path: Path
) -> None:
    batch(host, "link add br9 type bridge forward_delay 0")

    async def story() -> None:
        world = World(netns, tmp_path, host=host, host_events=events)
        try:
            async with world.kept(VETH):
                assert as_declared(host)
                for command in DRIFTS:
                    world.forgive()
                    ip(host, command)
                    await world.until(lambda: as_declared(host), what=command)
                    assert "default via 10.0.0.1" in ip(netns, "route show")
            await world.quiet()
        finally:
            world.close()

    asyncio.run(story())


def test_a_bridge_that_is_not_there_yet_is_waited_for_and_the_rest_converges(
    host: str, netns: str, tmp_path: Path
) -> None:
    batch(host, "link del br0")

    async def story() -> None:
        world = World(netns, tmp_path, host=host)
        try:
            async with world.kept(VETH):
                assert world.loop is not None
                loop = world.loop
                [condition] = loop.conditions.values()
                assert condition.state is State.PENDING
                assert condition.text == "needs link host:br0, which is not there"
                assert "10.0.0.5/24" in ip(netns, "address show dev eth0")
                ip(host, "link add br0 type bridge")
                await world.until(lambda: as_declared(host))
                await world.until(lambda: not loop.conditions)
        finally:
            world.close()

    asyncio.run(story())


def test_a_name_that_another_link_of_the_host_has_is_left_to_it(
    host: str, netns: str, tmp_path: Path
) -> None:
    batch(host, "link add c1-eth0 type bridge")
    shown = ip(host, "-d link show c1-eth0").partition("gc_timer")[0]

    async def story() -> None:
        world = World(netns, tmp_path, host=host)
        try:
            async with world.kept(VETH):
                assert world.loop is not None
                loop = world.loop
                text = loop.conditions[("link", "eth0")].text
                assert text == "needs the name c1-eth0 in the host, which a bridge link there has"
                assert ip(host, "-d link show c1-eth0").partition("gc_timer")[0] == shown
                ip(host, "link del c1-eth0")
                await world.until(lambda: as_declared(host))
        finally:
            world.close()

    asyncio.run(story())


def test_a_parent_in_the_host_is_found_by_name_and_never_changed(
    host: str, netns: str, tmp_path: Path, has_kind: Callable[..., None]
) -> None:
    has_kind("macvlan", parent=True)
    batch(host, "link set up0 address 02:00:00:00:00:01")
    before = others(host)

    async def story() -> None:
        world = World(netns, tmp_path, host=host)
        try:
            async with world.kept(MACVLAN):
                assert world.loop is not None
                loop = world.loop
                assert not loop.conditions
                # it goes, and what hung on it with it
                ip(host, "link del up0")
                await world.until(lambda: bool(loop.conditions))
                assert loop.conditions[("link", "eth0")].text == "needs link host:up0, which is not there"
                batch(host, "link add up0 type veth peer name up1", "link set up0 up", "link set up1 up")
                await world.until(lambda: not loop.conditions)
                assert "10.0.0.5/24" in ip(netns, "address show dev eth0")
            await world.quiet()
            world.restart()
            await world.quiet()
            # another one of the host's: made anew on it
            await world.settle(MACVLAN.replace("up0", "other0"))
            await world.settle("")
            assert "eth0" not in ip(netns, "link show")
        finally:
            world.close()
        writes = [m.type for sent in world.sent_to_host for m in wire.messages(sent)]
        assert set(writes) <= {wire.RTM_GETLINK, wire.RTM_GETNSID}

    asyncio.run(story())
    assert [line.split(" ", 1)[1] for line in sorted(others(host))] != []
    assert {line.split()[1] for line in others(host)} == {line.split()[1] for line in before}


@pytest.mark.kinds
@pytest.mark.parametrize("kind", ["vxlan", "vlan", "ipvlan"])
def test_other_kinds_on_a_parent_in_the_host(
    host: str, netns: str, tmp_path: Path, has_kind: Callable[..., None], kind: str
) -> None:
    """Also where the parent is no link of the link but a number in what is said of it."""
    needed = {"vxlan": ("id", "7", "dstport", "4789"), "vlan": ("id", "7"), "ipvlan": ()}[kind]
    has_kind(kind, *needed, parent=True)
    more = {
        "vxlan": 'id = 7\ngroup = "239.1.1.1"\ndstport = 4789\n',
        "vlan": "id = 7\n",
        "ipvlan": 'mode = "l2"\n',
    }[kind]
    text = f'[link.eth0]\nkind = "{kind}"\nparent = "host:up0"\n{more}addresses = ["10.0.0.5/24"]\n'
    before = others(host)

    async def story() -> None:
        world = World(netns, tmp_path, host=host)
        try:
            async with world.kept(text):
                assert world.loop is not None
                loop = world.loop
                assert not loop.conditions
                assert f"{kind} " in ip(netns, "-d link show eth0")
                ip(host, "link del up0")
                await world.until(lambda: bool(loop.conditions))
                batch(host, "link add up0 type veth peer name up1", "link set up0 up", "link set up1 up")
                await world.until(lambda: not loop.conditions)
                assert "10.0.0.5/24" in ip(netns, "address show dev eth0")
            await world.quiet()
            world.restart()
            await world.quiet()
            await world.settle(text.replace("up0", "other0"))
            await world.settle("")
            assert "eth0" not in ip(netns, "link show")
        finally:
            world.close()
        writes = [m.type for sent in world.sent_to_host for m in wire.messages(sent)]
        assert set(writes) <= {wire.RTM_GETLINK, wire.RTM_GETNSID}

    asyncio.run(story())
    assert {line.split()[1] for line in others(host)} == {line.split()[1] for line in before}


def test_without_a_way_to_the_host_it_is_said_and_the_rest_converges(netns: str, tmp_path: Path) -> None:
    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            report = await world.go(MACVLAN + "\n[link.lo]\nup = true\n")
            said = {condition.name: condition for condition in report.conditions}
            assert said["link eth0"].state is State.PENDING
            assert said["link eth0"].text == "refers to a link of the host, to which this process has no way"
            assert "UP" in ip(netns, "link show lo")
        finally:
            world.close()

    asyncio.run(story())


def test_a_veth_of_somebody_else_is_never_taken_for_the_host_end(
    host: str, netns: str, tmp_path: Path
) -> None:
    """Our end's partner was moved on to a third namespace: what bears its index in the host is not ours."""

    async def story() -> None:
        world = World(netns, tmp_path, host=host)
        try:
            await world.settle(VETH)
            index = end(host)["ifindex"]
            batch(host, "link set c1-eth0 nomaster", f"link set c1-eth0 netns {third}")
            batch(host, f"link add stranger0 index {index} type veth peer name stranger1")
            shown = ip(host, "link show stranger0")
            await world.settle()
            assert as_declared(host)
            assert ip(host, "link show stranger0") == shown
        finally:
            world.close()

    third = f"{netns}x"
    subprocess.run(["ip", "netns", "add", third], check=True)
    try:
        asyncio.run(story())
    finally:
        subprocess.run(["ip", "netns", "del", third], check=True)


def test_the_other_end_in_the_same_namespace_is_kept_as_its_peer_table_says(
    netns: str, tmp_path: Path
) -> None:
    declared = """
    [link.b0]
    kind = "bridge"
    [link.p0]
    kind = "veth"
    peer = { name = "p1", master = "b0", mtu = 1400 }
    """

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            async with world.kept(declared):
                for command in ("link set p1 down", "link set p1 nomaster", "link set p1 mtu 1300"):
                    ip(netns, command)
                    await world.until(
                        lambda: (
                            "mtu 1400" in (text := ip(netns, "link show p1"))
                            and "master b0" in text
                            and ",UP" in text
                        ),
                        what=command,
                    )
            await world.quiet()
        finally:
            world.close()

    asyncio.run(story())
