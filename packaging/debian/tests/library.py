# SPDX-License-Identifier: MIT
"""What a program does that uses linxd as a library: load a file, observe, diff, apply, look again.

    python3 -I library.py [PYROUTE2]

It is run where linxd is installed, knows nothing of the tree that it was built out of, and makes a namespace
of its own. With pyroute2 at hand, its version being PYROUTE2, what was done is read, and spoilt, by that.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import os
import pkgutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import linxd
from linxd.access import Kernel
from linxd.config import NetnsRef, load
from linxd.ledger import MemoryLedger
from linxd.netns import boot_id, enter, find
from linxd.scope import ORDER, declared
from linxd.source import Pass

DECLARED = """
[link.lo]
up = true
addresses = ["192.0.2.1/32"]

[link.br0]
kind = "bridge"
mtu = 1400
addresses = ["198.51.100.1/24", "2001:db8::1/64"]

[[route]]
to = "203.0.113.0/24"
via = "198.51.100.2"

[[rule]]
from = "198.51.100.0/24"
table = 100
priority = 1000

[netfilter]
ruleset = "table inet filter { chain input { type filter hook input priority 0; tcp dport 22 accept; }; }"

[sysctl]
"net.ipv4.ip_forward" = 1
"""
OPTIONAL = {"dbus_next"}
"""What a module may miss that is of no use without it."""


def every_module_is_imported() -> None:
    assert Path(linxd.__file__).is_relative_to(sys.prefix), linxd.__file__
    assert importlib.metadata.version("linxd") == linxd.__version__
    missed: dict[str, str] = {}
    for module in pkgutil.walk_packages(linxd.__path__, "linxd."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            missed[module.name] = str(error.name)
    assert set(missed.values()) <= OPTIONAL, missed
    assert all(name.startswith("linxd.bus.") or name == "linxd.cli.onbus" for name in missed), missed
    has = importlib.util.find_spec("dbus_next") is not None
    assert bool(missed) is not has, missed
    print(f"every module is imported, {len(missed)} want dbus-next")


async def as_declared(kernel: Kernel, file: Path) -> None:
    config = load("c1", file=file, owners=None)
    for name in ORDER:
        opened, owned, desired = kernel.open(name), MemoryLedger(), declared(config, name)
        source = opened.source
        try:
            draft = await source.reconcile(Pass(desired, MemoryLedger(), write=False))
            assert draft.drifted
            assert not draft.applied
            first = await source.reconcile(Pass(desired, owned))
            # What needs something that is not there yet comes to light in the pass itself.
            assert {op.name for op in first.applied} >= {op.name for op in draft.drifted}
            assert first.conditions == ()
            second = await source.reconcile(Pass(desired, owned))
            assert (second.drifted, second.applied, second.conditions) == ((), (), ())
        finally:
            opened.close()
        print(f"{name}: {len(first.applied)} ops, the second pass writes nothing")


@contextmanager
def theirs() -> Iterator[None]:
    """What pyroute2 warns of is not for us to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def is_healed(kernel: Kernel, file: Path, version: str) -> None:
    with theirs():
        pyroute2 = importlib.import_module("pyroute2")
    assert importlib.metadata.version("pyroute2") == version
    with theirs(), pyroute2.IPRoute() as route:
        [index] = route.link_lookup(ifname="br0")
        assert addresses(route, index) == {"198.51.100.1/24", "2001:db8::1/64"}
        assert ("203.0.113.0", 24) in routes(route)
        route.addr("delete", index=index, address="198.51.100.1", prefixlen=24)
        assert addresses(route, index) == {"2001:db8::1/64"}
        assert ("203.0.113.0", 24) not in routes(route)
    healed = asyncio.run(heal(kernel, file))
    assert any("198.51.100.1/24" in op for op in healed), healed
    with theirs(), pyroute2.IPRoute() as route:
        assert addresses(route, index) == {"198.51.100.1/24", "2001:db8::1/64"}
        assert ("203.0.113.0", 24) in routes(route)
    print(f"what pyroute2 {version} spoils is healed")


async def heal(kernel: Kernel, file: Path) -> list[str]:
    opened = kernel.open("rtnl")
    try:
        report = await opened.source.reconcile(Pass(load("c1", file=file, owners=None).rtnl, MemoryLedger()))
    finally:
        opened.close()
    return [op.describe() for op in report.applied]


def addresses(route: Any, index: int) -> set[str]:
    """Of a link, but those that the kernel gave it."""
    found = route.get_addr(index=index)
    told = {f"{each.get_attr('IFA_ADDRESS')}/{each['prefixlen']}" for each in found}
    return {each for each in told if not each.startswith("fe80:")}


def routes(route: Any) -> set[tuple[str, int]]:
    return {(each.get_attr("RTA_DST"), each["dst_len"]) for each in route.get_routes(family=2, table=254)}


def main(*pyroute2: str) -> None:
    every_module_is_imported()
    name = f"lx-library-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            in_namespace(name, scratch, pyroute2)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def in_namespace(name: str, scratch: str, pyroute2: Sequence[str]) -> None:
    namespace = find(NetnsRef("path", f"/run/netns/{name}"))
    enter(namespace.fd)
    for one in ("all", "default"):
        # No tentative addresses: there is nobody to ask.
        Path(f"/proc/sys/net/ipv6/conf/{one}/accept_dad").write_text("0")
    file = Path(scratch, "c1.toml")
    file.write_text(DECLARED)
    kernel = Kernel(scratch, namespace.cookie, boot_id(scratch))
    asyncio.run(as_declared(kernel, file))
    said = subprocess.run(
        ["ip", "address", "show", "dev", "br0"], capture_output=True, text=True, check=True
    )
    assert "198.51.100.1/24" in said.stdout
    for version in pyroute2:
        is_healed(kernel, file, version)
    namespace.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
