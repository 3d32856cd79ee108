# SPDX-License-Identifier: MIT
"""Throw-away network namespaces with a netfilter source in them, and nft(8) as the other hand."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import inspect
import itertools
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from linxd.ledger import MemoryLedger
from linxd.netlink.socket import Events, Requests, open_netlink
from linxd.netlink.wire import NETLINK_NETFILTER, NETLINK_ROUTE
from linxd.patch import Report, Trigger
from linxd.source import Hint, Owned, Pass
from linxd.sources.netfilter.compile import Compiler
from linxd.sources.netfilter.events import GROUPS, LINK_GROUPS
from linxd.sources.netfilter.model import Desired, Ruleset
from linxd.sources.netfilter.source import NetfilterSource

_NUMBER = itertools.count()
CLONE_NEWNET = 0x40000000
READS = frozenset((1, 4, 7, 10, 13, 16, 19, 23))
"""nf_tables messages that only ask."""


TREE = Path.home() / ".cache" / "linxd-bed" / "trixie"
"""A Debian 13 tree, made once, for its nft."""


class Tool(NamedTuple):
    """An nft(8)."""

    command: tuple[str, ...]
    version: tuple[int, ...]
    words: str


@functools.cache
def tool_of(*command: str) -> Tool:
    words = subprocess.run([*command, "--version"], check=True, text=True, stdout=subprocess.PIPE).stdout
    found = re.search(r"v([0-9.]+)", words)
    assert found
    return Tool(command, tuple(map(int, found[1].split("."))), words.strip())


@functools.cache
def debian_13() -> str:
    """Make the tree if it is not there; returns why it can't be, or ""."""
    nft = TREE / "usr/sbin/nft"
    if nft.exists():
        return ""
    if shutil.which("mmdebstrap") is None:
        return "mmdebstrap is not installed"
    TREE.parent.mkdir(parents=True, exist_ok=True)
    part = TREE.with_name(f"trixie.{os.getpid()}")
    command = ["mmdebstrap", "--variant=essential", "--include=nftables,netbase", "trixie", str(part)]
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=300)
        if done.returncode:
            return "mmdebstrap can't make a Debian 13 tree: " + done.stderr.strip().splitlines()[-1]
        part.rename(TREE)
    except subprocess.TimeoutExpired:
        return "mmdebstrap did not make a Debian 13 tree within 5 min"
    except OSError:
        if not nft.exists():
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return ""


@pytest.fixture(params=["here", "debian-13"])
def tool(request: pytest.FixtureRequest) -> Tool:
    """This machine's nft, and Debian 13's."""
    if request.param == "here":
        return tool_of("nft")
    why = debian_13()
    if why:
        pytest.skip(why)
    return tool_of("chroot", str(TREE), "nft")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Coroutine tests run in an event loop of their own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), 60))
    return True


def udp_in(netns_fd: int) -> socket.socket:
    """A datagram socket in a namespace, opened by a thread that enters it and ends."""
    opened: list[socket.socket] = []

    def enter() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(netns_fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        opened.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return opened[0]


class Bed:
    """A network namespace of this test's own, with a source that looks after its tables."""

    def __init__(self) -> None:
        self.name = f"lx-{os.getpid()}-n{next(_NUMBER)}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        self.owned: Owned = MemoryLedger()
        self.sent: list[bytes] = []
        self.desired = Desired()
        self.patience = 0.0
        """Seconds for which a loop waits with the account of what is healed, as in a crowd."""
        self._sockets: list[Requests] = []
        self._watches: list[Watch] = []
        self.source = self.new_source()

    def new_source(self, compiler: Compiler | None = None, **options: Any) -> NetfilterSource:
        """Another source in the same namespace, as after a restart."""
        requests = Requests(open_netlink(NETLINK_NETFILTER, netns_fd=self.fd), tap=self.sent.append)
        self._sockets.append(requests)
        self.source = NetfilterSource(
            requests,
            lambda: self._events(NETLINK_NETFILTER, GROUPS),
            compiler or Compiler(),
            link_events=lambda: self._events(NETLINK_ROUTE, LINK_GROUPS),
            **options,
        )
        return self.source

    def _events(self, protocol: int, groups: Sequence[int]) -> Events:
        return Events(open_netlink(protocol, netns_fd=self.fd), groups)

    def declare(self, text: str, **options: Any) -> Desired:
        """Desire this from now on."""
        self.desired = Desired((Ruleset(text, "test.nft"),) if text else (), **options)
        return self.desired

    async def run(
        self, trigger: Trigger = Trigger.RESYNC, hints: Sequence[Hint] = (), **options: Any
    ) -> Report:
        """One pass."""
        return await self.source.reconcile(Pass(self.desired, self.owned, trigger, tuple(hints), **options))

    async def apply(self, text: str, **options: Any) -> Report:
        """Declare, and one pass."""
        self.declare(text, **options)
        return await self.run(Trigger.CONFIG)

    def nft(self, *words: str, text: str | None = None, check: bool = True) -> str:
        """Run nft(8) in the namespace and return what it printed."""
        if text is not None:
            words = ("-f", "-")
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, "nft", *words],
            text=True,
            input=text,
            capture_output=True,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"nft {' '.join(words)}: {done.stderr}")
        return done.stdout

    def ip(self, words: str) -> None:
        """Run ip(8) in the namespace."""
        subprocess.run(["ip", "-n", self.name, *words.split()], check=True)

    def watch(self) -> Watch:
        """Subscribe to the namespace's events, until the test ends."""
        self._watches.append(Watch(self))
        return self._watches[-1]

    def ping(self, address: str, count: int = 3) -> None:
        """Send datagrams to the discard port of an address within the namespace."""
        with udp_in(self.fd) as sock:
            for _ in range(count):
                sock.sendto(b"x", (address, 9))

    def list(self) -> str:
        """The ruleset as nft lists it, without run-time state."""
        return self.nft("-s", "list", "ruleset")

    @property
    def writes(self) -> list[bytes]:
        """What was sent that is more than a question."""
        return [sent for sent in self.sent if sent[4] not in READS or sent[5] != 10]

    def remove(self) -> None:
        """End it."""
        for each in (*self._watches, *self._sockets):
            each.close()
        os.close(self.fd)
        subprocess.run(["ip", "netns", "del", self.name], check=True)


class Watch:
    """A subscription that can be waited on."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.hints: list[Hint] = []
        self._came = asyncio.Event()
        self._subscription = bed.source.subscribe(self._hint)

    def _hint(self, hint: Hint) -> None:
        self.hints.append(hint)
        self._came.set()

    async def heal(self) -> Report:
        """Wait for hints, and make the pass that they ask for."""
        await asyncio.wait_for(self._came.wait(), 5)
        self._came.clear()
        hints, self.hints = self.hints, []
        return await self.bed.run(Trigger.EVENT, hints)

    def close(self) -> None:
        self._subscription.close()


@pytest.fixture
def make_bed() -> Iterator[Callable[[], Bed]]:
    beds: list[Bed] = []

    def make() -> Bed:
        beds.append(Bed())
        return beds[-1]

    yield make
    for each in beds:
        each.remove()


@pytest.fixture
def bed(make_bed: Callable[[], Bed]) -> Bed:
    return make_bed()
