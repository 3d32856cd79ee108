# SPDX-License-Identifier: MIT
"""Flags of addresses of both families, each set and unset, by another declaration and by somebody else: what
comes of it is what there is where the same was declared from the start, the kernel's own route included.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from linxd.netlink import rt, wire
from linxd.sources.rtnl.model import ADDRESS_FLAGS

from .harness import World, batch, ip, ipj

WORDS = ("noprefixroute", "nodad", "home", "mngtmpaddr", "autojoin")
PLAIN = {"10.4.0.1/24": "noprefixroute", "fd04::1/64": "noprefixroute nodad home mngtmpaddr"}
"""What a flag can be set on, and is not, or is."""
CASES = [(address, flag) for address, flags in PLAIN.items() for flag in flags.split()]
GROUPS = ("239.1.1.1/32", "ff15::7/128")
"""Addresses of groups, which a link has to join: `autojoin` is for those."""


def declared(address: str, *flags: str) -> str:
    words = "".join(f", {flag} = true" for flag in flags)
    # Something beside it, on the same link and through the same network, that has to stay as it is.
    beside = '"10.5.0.1/24", { address = "fd05::1/64", nodad = true }'
    return f'[link.e0]\naddresses = [{{ address = "{address}"{words} }}, {beside}]\n'


def prepare(netns: str) -> None:
    """The link, on which no address is checked first: its route in table local would come a second later,
    and the kernel tells nobody what is changed meanwhile. It is up, with what IPv6 puts on it for that: a
    worker of the kernel's does so, when it gets to it."""
    batch(netns, "link set lo up", "link add e0 type veth peer name far0", "link set far0 up")
    sysctl = ["ip", "netns", "exec", netns, "sysctl", "-qw", "net.ipv6.conf.e0.accept_dad=0"]
    subprocess.run(sysctl, check=True)
    ip(netns, "link set e0 up")
    until = time.monotonic() + 10
    while "ff00::/8" not in ip(netns, "-6 route show table all dev e0"):
        assert time.monotonic() < until
        time.sleep(0.01)


def seen(netns: str) -> object:
    """Addresses with their flags, the groups that are joined, and every route of the link."""
    [link] = ipj(netns, "address show dev e0")
    addresses = {
        f"{one['local']}/{one['prefixlen']}": sorted(word for word in WORDS if one.get(word))
        for one in link["addr_info"]
        if one["scope"] != "253"
    }
    [joined] = ipj(netns, "maddress show dev e0")
    groups = {one["address"] for one in joined["maddr"] if "address" in one}
    routes = [
        line.replace("linkdown", "").split()
        for family in ("-4", "-6")
        for line in ip(netns, f"{family} route show table all dev e0").splitlines()
        if "fe80:" not in line
    ]
    return addresses, sorted(groups & {each.partition("/")[0] for each in GROUPS}), sorted(routes)


async def as_from_the_start(text: str, make: Callable[[], str], directory: Path) -> object:
    netns = make()
    prepare(netns)
    world = World(netns, directory)
    try:
        await world.settle(text)
        return seen(netns)
    finally:
        world.close()


@pytest.mark.parametrize("before", [False, True], ids=["set", "unset"])
@pytest.mark.parametrize(("address", "flag"), CASES)
def test_a_flag_declared_otherwise(
    address: str, flag: str, before: bool, netns_factory: Callable[[], str], tmp_path: Path
) -> None:
    netns = netns_factory()
    prepare(netns)
    first, second = (declared(address, *([flag] if on else [])) for on in (before, not before))

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            await world.settle(first)
            want = await as_from_the_start(second, netns_factory, tmp_path)
            assert seen(netns) != want
            report = await world.settle(second)
            assert report.conditions == ()
            assert seen(netns) == want
        finally:
            world.close()

    asyncio.run(story())


def by_hand(address: str, flags: Sequence[str]) -> list[str]:
    """What changes the flags of an address from outside, as the kernel lets it: in place for IPv6 alone."""
    words = " ".join((f"{address} dev e0", *flags))
    if ":" in address:
        return [f"address change {words}"]
    return [f"address del {address} dev e0", f"address add {words}"]


@pytest.mark.parametrize("theirs", [True, False], ids=["set", "unset"])
@pytest.mark.parametrize(("address", "flag"), CASES)
def test_a_flag_changed_by_somebody_else(
    address: str, flag: str, theirs: bool, netns: str, tmp_path: Path
) -> None:
    prepare(netns)
    text = declared(address, *([] if theirs else [flag]))

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            await world.settle(text)
            before = seen(netns)
            for command in by_hand(address, [flag] if theirs else []):
                ip(netns, command)
            assert seen(netns) != before
            await world.settle()
            assert seen(netns) == before
            # And on the event alone; it can act only when they are done.
            async with world.kept():
                for command in by_hand(address, [flag] if theirs else []):
                    ip(netns, command)
                await world.until(lambda: seen(netns) == before, what=f"{seen(netns)} is not {before}")
            await world.quiet()
        finally:
            world.close()

    asyncio.run(story())


@pytest.mark.parametrize("address", GROUPS)
def test_a_group_is_joined_left_and_joined_again(address: str, netns: str, tmp_path: Path) -> None:
    prepare(netns)

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            await world.settle('[link.e0]\naddresses = ["10.5.0.1/24"]\n')
            without = seen(netns)
            await world.settle(declared(address, "autojoin"))
            joined = seen(netns)
            assert address.partition("/")[0] in str(joined)
            ip(netns, f"address del {address} dev e0")
            await world.settle()
            assert seen(netns) == joined
            if ":" not in address:
                # The kernel lets nobody have such an address of IPv6 without joining.
                for command in by_hand(address, []):
                    ip(netns, command)
                assert seen(netns) != joined
                await world.settle()
                assert seen(netns) == joined
            await world.settle('[link.e0]\naddresses = ["10.5.0.1/24"]\n')
            assert seen(netns) == without
        finally:
            world.close()

    asyncio.run(story())


def test_a_group_flag_that_somebody_puts_on_an_address_of_ipv6_goes(netns: str, tmp_path: Path) -> None:
    """The kernel sets it in place, which joins nothing, and takes it back in no place."""
    prepare(netns)

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            await world.settle(declared("fd04::1/64"))
            before = seen(netns)
            [link] = ipj(netns, "link show dev e0")
            # ip(8) would not say such a thing.
            payload = rt.encode_addr(
                family=socket.AF_INET6, ifindex=link["ifindex"], address="fd04::1", prefixlen=64,
                flags=ADDRESS_FLAGS["autojoin"],
            )  # fmt: skip
            world.requests.request(wire.RTM_NEWADDR, wire.NLM_F_REPLACE, payload)
            assert seen(netns) != before
            await world.settle()
            assert seen(netns) == before
        finally:
            world.close()

    asyncio.run(story())
