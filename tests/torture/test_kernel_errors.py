# SPDX-License-Identifier: MIT
"""A kernel that fails at every operation: what may pass is tried again, later each time, what won't do is
held until something changes; it is said in the kernel's words, nothing leaks, and it ends as declared."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.torture.bed import Daemon, Namespace, linxctl, until
from tests.torture.fuzzer import furnish
from tests.torture.seen import foreign

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces are made")

DECLARED = """
[scope]
resync = "0"
[link.b0]
kind = "bridge"
addresses = ["10.5.0.1/24", { address = "fd05::1/64", nodad = true }]
[link.far0]
txqueuelen = 700
[[route]]
to = "192.0.2.0/24"
type = "blackhole"
[[route]]
to = "fd11::/64"
type = "prohibit"
[[rule]]
from = "10.1.0.0/16"
table = 100
priority = 1000
[[neighbour]]
address = "10.5.0.9"
dev = "b0"
lladdr = "02:00:00:00:00:09"
[sysctl]
"net.core.somaxconn" = 300
[netfilter]
ruleset = '''
table inet ours {
	counter hits { }
	set s { type ipv4_addr; elements = { 192.0.2.1 }; }
	chain c { type filter hook input priority 0; ip saddr @s counter name "hits" drop; }
}
'''
"""
LINK_ALONE = '[link.b0]\nkind = "bridge"\n'
ROUTE, NFT = 0, 12
RTM = {"link": 16, "address": 20, "route": 24, "neighbour": 28, "rule": 32}
"""What makes an object; deleting it is one more, dumping two, setting (links) three."""
NFT_MAKES = {"table": 0, "chain": 3, "rule": 6, "set": 9, "element": 12, "object": 18}
NFT_DELETES_TABLE = 2
NFT_DUMPS = {
    "tables": 1,
    "chains": 4,
    "rules": 7,
    "sets": 10,
    "elements": 13,
    "objects": 19,
    "flowtables": 23,
}
NFT_ASKS_GENERATION = 16
TIMES = 4
"""Failures of each operation in a row."""


def nft(number: int) -> int:
    """The type of a message of nf_tables."""
    return (10 << 8) | number


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace() as one:
        furnish(one)
        yield one


class World:
    """A daemon whose kernel fails as ``plan`` says."""

    def __init__(self, namespace: Namespace, directory: Path, plan: list[dict[str, Any]]) -> None:
        self.namespace = namespace
        self.file = directory / "scope.toml"
        self.faults = directory / "faults.json"
        self.faults.write_text(json.dumps(plan))
        self.foreign = foreign(namespace)
        self.declare(DECLARED)
        env = {"LINXD_TEST_FAULTS": str(self.faults)}
        self.daemon = Daemon(namespace.name, self.file, directory, module="tests.torture.faulty", env=env)

    def declare(self, text: str) -> None:
        """Write the file."""
        self.file.write_text(text)
        self.file.chmod(0o600)

    def done(self) -> list[dict[str, Any]]:
        """The faults that there were."""
        text = Path(f"{self.faults}.done").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def _differences(self) -> subprocess.CompletedProcess[str]:
        return linxctl("diff", self.namespace.name, "--file", str(self.file), state=self.daemon.state)

    def converged(self) -> None:
        """All as declared, by all that can be seen from outside."""
        done = self._differences()

        def so() -> bool:
            # The word is written a moment after what it tells of: one from before may say the same.
            nonlocal done
            done = self._differences()
            return done.returncode == 0 and self.daemon.word().get("state") == "converged"

        until(
            so,
            lambda: (
                f"does not converge: {done.stdout}{self.daemon.word().get('conditions')}\n{self.daemon.said}"
            ),
        )
        assert foreign(self.namespace) == self.foreign
        with self.daemon.traced() as writes:
            assert self.daemon.ask("reload").done
        assert writes == []


def writes(number: int) -> list[dict[str, Any]]:
    """Every operation that writes fails so."""
    plan: list[dict[str, Any]] = [
        {"family": ROUTE, "types": [kind, kind + 3], "errno": number, "times": TIMES}
        for kind in RTM.values()
    ]
    plan += [
        {"family": NFT, "types": [nft(kind)], "errno": number, "times": TIMES} for kind in NFT_MAKES.values()
    ]
    plan.append({"key": "net.core.somaxconn", "how": "write", "errno": number, "times": TIMES})
    return plan


def deletes(number: int) -> list[dict[str, Any]]:
    """Every operation that deletes fails so."""
    plan: list[dict[str, Any]] = [
        {"family": ROUTE, "types": [kind + 1], "errno": number, "times": TIMES} for kind in RTM.values()
    ]
    plan.append({"family": NFT, "types": [nft(NFT_DELETES_TABLE)], "errno": number, "times": TIMES})
    return plan


def reads(number: int) -> list[dict[str, Any]]:
    """So does all that is asked without a dump: which generation of nf_tables it is, and a sysctl."""
    return [
        {"family": NFT, "types": [nft(NFT_ASKS_GENERATION)], "errno": number, "times": TIMES},
        {"key": "net.core.somaxconn", "how": "open", "errno": number, "times": TIMES},
    ]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("number", [errno.ENOMEM, errno.ENOBUFS, errno.EBUSY, errno.EINTR])
def test_what_may_pass_is_tried_again_until_it_does(
    number: int, namespace: Namespace, tmp_path: Path
) -> None:
    world = World(namespace, tmp_path, writes(number))
    with world.daemon as daemon:
        daemon.started()
        world.converged()
        assert daemon.stop() == 0
    name = errno.errorcode[number]
    for what in ("link b0", "route blackhole 192.0.2.0/24", "rule ", "sysctl net.core.somaxconn"):
        told = re.findall(rf"{re.escape(what)}.* failed: .*\({name}\)$", daemon.said, flags=re.MULTILINE)
        # Tried four times in vain, told once. Of a new link EBUSY means that its index is taken: the next
        # one is tried at once.
        taken = number == errno.EBUSY and what == "link b0"
        assert len(told) == (not taken), f"{what}: {told}\n{daemon.said}"
    # Later each time: the first again after 0.1 s, then 0.2 s, 0.4 s.
    tries: dict[str, list[float]] = {}
    for fault in world.done():
        tries.setdefault(str(fault.get("key", fault.get("type"))), []).append(fault["at"])
    if number == errno.ENOBUFS:
        assert daemon.said.count("failed: the kernel's answer was lost (ENOBUFS)") == 1
    # That the answer to a transaction was lost says nothing of what became of it: at first it is looked at
    # again at once.
    tables = [str(nft(NFT_MAKES["rule"]))] if number != errno.ENOBUFS else []
    for what in (str(RTM["rule"]), "net.core.somaxconn", *tables):
        moments = tries[what]
        gaps = [later - sooner for sooner, later in itertools.pairwise(moments)]
        # Several in one pass are one try.
        gaps = [gap for gap in gaps if gap > 0.05]
        assert len(gaps) >= 2, (what, moments)
        assert all(gap >= 0.1 * 2**n for n, gap in enumerate(gaps)), (what, gaps)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_what_is_not_permitted_is_held_until_something_changes(namespace: Namespace, tmp_path: Path) -> None:
    world = World(namespace, tmp_path, writes(errno.EPERM))
    with world.daemon as daemon:
        daemon.started()
        until(
            lambda: daemon.word().get("state") in ("degraded", "blocked"),
            lambda: f"{daemon.word()}\n{daemon.said}",
        )
        for what in ("link b0", "route blackhole 192.0.2.0/24", "rule ", "sysctl net.core.somaxconn"):
            assert re.search(rf"{re.escape(what)}.* failed: .*\(EPERM\)$", daemon.said, flags=re.MULTILINE)
        before = len(world.done())
        # Asked for by hand it is tried again; here until the faults are used up.
        for _ in range(2 * TIMES):
            assert daemon.ask("reload").done
        assert len(world.done()) > before
        world.converged()
        assert daemon.stop() == 0


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOMEM, errno.ENOBUFS, errno.EBUSY, errno.EINTR])
def test_what_is_to_go_goes_in_the_end(number: int, namespace: Namespace, tmp_path: Path) -> None:
    """First what stands on the link, then the link itself, which would take it along."""
    world = World(namespace, tmp_path, deletes(number))
    with world.daemon as daemon:
        daemon.started()
        world.converged()
        for left in (LINK_ALONE, ""):
            world.declare(f'[scope]\nresync = "0"\n{left}')
            # One that won't do is tried again when it is asked for.
            for _ in range(2 * TIMES if number == errno.EPERM else 1):
                assert daemon.ask("reload").done
            world.converged()
        assert {fault["type"] for fault in world.done()} == {
            *(kind + 1 for kind in RTM.values()), nft(NFT_DELETES_TABLE),
        }  # fmt: skip
        assert daemon.stop() == 0
    name = errno.errorcode[number]
    for what in ("link b0", "route blackhole 192.0.2.0/24", "rule ", "neighbour 10.5.0.9"):
        told = re.findall(rf"{re.escape(what)}.* failed: .*\({name}\)$", daemon.said, flags=re.MULTILINE)
        assert len(told) == 1, f"{what}: {told}\n{daemon.said}"
    assert "ours" not in namespace.nft("list", "ruleset")
    assert not re.search(r"^\d+: b0:", namespace.ip("link", "show", "type", "bridge"), flags=re.MULTILINE)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOMEM, errno.ENOBUFS, errno.EBUSY, errno.EINTR])
def test_what_can_not_be_read_is_read_later(number: int, namespace: Namespace, tmp_path: Path) -> None:
    world = World(namespace, tmp_path, reads(number))
    with world.daemon as daemon:
        daemon.started()
        if number == errno.EPERM:
            for _ in range(2 * TIMES):
                assert daemon.ask("reload").done
        world.converged()
        assert len(world.done()) == 2 * TIMES
        assert daemon.stop() == 0
    assert daemon.said.count(f"({errno.errorcode[number]})") >= 1, daemon.said


DUMPS: list[tuple[str, dict[str, Any]]] = [
    *(
        (f"{name} interrupted", {"family": ROUTE, "types": [kind + 2], "dump": "intr"})
        for name, kind in RTM.items()
    ),
    *(
        (
            f"{name} ends early",
            {"family": ROUTE, "types": [kind + 2], "dump": "error", "errno": errno.ENOMEM},
        )
        for name, kind in RTM.items()
    ),
    *(
        (f"{name} of nftables interrupted", {"family": NFT, "types": [nft(kind)], "dump": "intr"})
        for name, kind in NFT_DUMPS.items()
    ),
    *(
        (
            f"{name} of nftables end early",
            {"family": NFT, "types": [nft(kind)], "dump": "error", "errno": errno.ENOMEM},
        )
        for name, kind in NFT_DUMPS.items()
    ),
]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_dump_that_fails_is_never_believed(namespace: Namespace, tmp_path: Path) -> None:
    """Each kind of dump is interrupted, and ends early, at the start and again when all is made. What a
    short dump does not show must not be taken for absent: nothing is written because of it."""
    plan = [{**fault, "times": 3 if fault["dump"] == "intr" else 1} for _, fault in DUMPS]
    world = World(namespace, tmp_path, plan)
    with world.daemon as daemon:
        daemon.started()
        world.converged()
        assert len(world.done()) >= len(DUMPS)
        assert daemon.stop() == 0
    restored = [line for line in daemon.said.splitlines() if "restored" in line]
    assert restored == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    "inject",
    [
        "sendto,recvmsg,recvfrom,read,pread64,write,openat:error=EINTR:when=2+3",
        "recvmsg:error=ENOBUFS:when=2..60+7",
        "recvmsg:error=ENOMEM:when=2..60+7",
        "pread64,openat:error=ENOMEM:when=2..60+7",
        "pread64:error=EBUSY:when=1..60+2",
    ],
)
def test_system_calls_that_fail_again_and_again_keep_nothing_from_being_healed(
    inject: str, namespace: Namespace, tmp_path: Path
) -> None:
    """The calls themselves fail here: interrupted for as long as it runs, or each seventh of sixty
    answers."""
    file = tmp_path / "scope.toml"
    file.write_text(DECLARED.replace('resync = "0"', 'resync = "1s"'))
    file.chmod(0o600)
    theirs = foreign(namespace)

    def as_declared() -> bool:
        # What it says of itself is no proof, and saves asking somebody else in vain.
        if daemon.word().get("state") not in ("converged", "contended"):
            return False
        return not linxctl("diff", namespace.name, "--file", str(file), state=daemon.state).returncode

    with Daemon(namespace.name, file, tmp_path) as daemon:
        daemon.started()
        fds = len(daemon.fds())
        command = ["strace", "-f", "-qq", "-o", str(tmp_path / "calls"), "-e", f"inject={inject}"]
        tracer = subprocess.Popen([*command, "-p", str(daemon.pid)], stderr=subprocess.DEVNULL)
        try:
            until(
                lambda: "TracerPid:\t0\n" not in Path(f"/proc/{daemon.pid}/status").read_text(),
                lambda: "strace does not attach",
            )
            for drift in (
                "ip link del b0",
                "nft delete table inet ours",
                "sysctl -qw net.core.somaxconn=100",
                "ip address flush dev b0; ip route flush type blackhole; ip rule del priority 1000",
            ):
                namespace.sh(drift, check=True)
                until(as_declared, lambda: f"not healed: {daemon.word().get('conditions')}\n{daemon.said}")
        finally:
            tracer.terminate()
            tracer.wait()
        assert (tmp_path / "calls").read_text().count("(INJECTED)") > 3
        assert foreign(namespace) == theirs
        assert len(daemon.fds()) <= fds + 4
        assert daemon.stop() == 0
