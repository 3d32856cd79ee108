# SPDX-License-Identifier: MIT
"""SIGKILL just before a system call that writes, of the whole daemon with all its sources, then a start: the
ownership table holds, and what comes of it is what would have come without.

`LINXD_KILLS` is how many of those calls are tried, evenly spread, for each of the three stories; "all" for
every one.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.torture.bed import Daemon, Namespace, linxctl, until
from tests.torture.fuzzer import furnish
from tests.torture.seen import foreign

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces are made"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

KILLS = os.environ.get("LINXD_KILLS", "3")
CALLS = "sendto,sendmsg,write,pwrite64,rename,unlink,ftruncate,fchmod,mkdir"
FIRST = """
[link.e0]
txqueuelen = 700
addresses = ["10.0.0.1/24", "10.9.0.1/24", { address = "fd00::1/64", nodad = true }]
[link.b0]
kind = "bridge"
forward_delay = 900
addresses = ["10.5.0.1/24"]
[link.p0]
kind = "veth"
peer = { name = "p1" }
master = "b0"
[[route]]
to = "192.0.2.0/24"
via = "10.5.0.9"
[[route]]
to = "203.0.113.0/24"
via = "10.0.0.3"
[[rule]]
from = "10.1.0.0/16"
table = 100
[[neighbour]]
address = "10.5.0.9"
dev = "b0"
lladdr = "02:00:00:00:00:09"
[sysctl]
"net.ipv4.ip_forward" = 1
"net.core.somaxconn" = 300
"net.ipv4.conf.*.arp_announce" = 2
[netfilter]
ruleset = '''
table inet ours {
	set s { type ipv4_addr; elements = { 192.0.2.1 }; }
	chain c { type filter hook input priority 0; ip saddr @s counter drop; }
}
table ip other {
	chain c { counter; }
}
'''
"""
SECOND = """
[link.e0]
addresses = ["10.0.0.1/24"]
[link.b0]
kind = "bridge"
[[route]]
to = "203.0.113.0/24"
via = "10.0.0.3"
metric = 7
[sysctl]
"net.core.somaxconn" = 301
[netfilter]
ruleset = '''
table inet ours {
	chain c { type filter hook input priority 5; counter accept; }
}
'''
"""
FOUND = (
    "link set e0 up",
    "address add 10.0.0.1/24 dev e0",
    "address add 10.8.0.1/24 dev e0",
    "route add 203.0.113.0/24 via 10.0.0.3 proto static",
)
"""What was there before: as declared, so that it is found, or nobody's business."""
SHOWN = (
    "-o link show",
    "-4 -o address show",
    "-6 -o address show scope global",
    "-4 route show table all",
    "-6 route show table all proto 76",
    "rule show",
    "neigh show nud permanent",
)
VOLATILE = re.compile(r"NO-CARRIER,|,LOWER_UP| state \w+| linkdown|\b(hello|tcn|gc)_timer +[\d.]+")
SYSCTLS = "net.ipv4.ip_forward net.core.somaxconn net.ipv4.conf.e0.arp_announce net.ipv4.conf.e0.forwarding"


def shown(namespace: Namespace) -> str:
    """All of it, but for what follows a change by its own clock, and for indices."""
    text = "\n".join(VOLATILE.sub("", namespace.ip(*command.split())) for command in SHOWN)
    text = re.sub(r"^\d+: ", "", text, flags=re.MULTILINE)
    text = re.sub(r"link/ether [0-9a-f:]+", "link/ether", text)
    # What has a queue length that is un-declared keeps it.
    text = text.replace("qlen 700", "qlen 1000")
    lines = sorted(text.splitlines())
    return "\n".join([*lines, namespace.sh(f"sysctl {SYSCTLS}"), namespace.nft("-s", "list", "ruleset")])


class World:
    """A namespace with things in it, and a daemon that is killed."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.namespace, self.directory = namespace, directory
        directory.mkdir()
        furnish(namespace)
        namespace.batch(FOUND)
        self.foreign = foreign(namespace)
        self.before = shown(namespace)
        self.file = directory / "scope.toml"

    def declare(self, text: str) -> None:
        """Write the file."""
        self.file.write_text(text)
        self.file.chmod(0o600)

    def start(self, *, before: tuple[str, ...] = ()) -> Daemon:
        """A daemon; perhaps under strace, which stays out of the way."""
        return Daemon(self.namespace.name, self.file, self.directory, before=before)

    def traced(self, inject: str) -> tuple[str, ...]:
        """The words for that. ``inject``: what strace(1) is to do, and when; "" for nothing."""
        trace = str(self.directory / "calls")
        words = ("strace", "-D", "-qq", "-s", "0", "-o", trace, "-e", f"trace={CALLS}")
        return (*words, "-e", f"inject={inject}") if inject else words

    def converged(self, daemon: Daemon) -> None:
        """Until it is."""
        until(
            lambda: daemon.word().get("state") == "converged" or daemon.process.poll() is not None,
            lambda: f"does not converge\n{daemon.said}",
        )

    def as_declared(self) -> None:
        """A daemon finds nothing more to do, and nothing foreign has changed."""
        with self.start() as daemon:
            self.converged(daemon)
            done = linxctl("diff", self.namespace.name, "--file", str(self.file), state=daemon.state)
            assert done.returncode == 0, done.stdout + done.stderr + daemon.said
            assert foreign(self.namespace) == self.foreign
            daemon.kill()

    def given_back(self) -> None:
        """With nothing declared any more it is as it was before linxd came."""
        self.declare("[netfilter]\n[sysctl]\n")
        with self.start() as daemon:
            self.converged(daemon)
            until(
                lambda: shown(self.namespace) == self.before,
                lambda: f"{shown(self.namespace)}\nwant\n{self.before}\n{daemon.said}",
                seconds=15,
            )
            assert foreign(self.namespace) == self.foreign
            assert daemon.stop() == 0


def story(world: World, first: str, second: str, *, inject: str) -> bool:
    """Come from one declaration to another, the daemon for the second one under strace. Ends when it has
    converged, or died: which of the two."""
    if first:
        world.declare(first)
        with world.start() as daemon:
            world.converged(daemon)
            daemon.kill()
    world.declare(second)
    with world.start(before=world.traced(inject)) as daemon:
        world.converged(daemon)
        died = daemon.process.poll()
        daemon.kill()
        assert died in (None, -signal.SIGKILL), daemon.said
        return died is not None


STORIES = {
    "making": ("", FIRST),
    "changing": (FIRST, SECOND),
    "giving back": (FIRST, "[netfilter]\n[sysctl]\n"),
}


@pytest.mark.parametrize("name", STORIES)
def test_killed_before_it_writes(name: str, tmp_path: Path) -> None:
    first, second = STORIES[name]
    with Namespace() as namespace:
        world = World(namespace, tmp_path / "whole")
        story(world, first, second, inject="")
        calls = made(world.directory / "calls")
    assert len(calls) > 20
    places = list(range(len(calls)))
    if KILLS != "all":
        # Evenly spread, and others each time.
        part = len(calls) / int(KILLS)
        places = [int(part * (number + random.random())) for number in range(int(KILLS))]
    print(f"killed before {[calls[place] for place in places]}")
    deaths = 0
    for number, place in enumerate(places):
        died = killed_at(calls[place], first, second, tmp_path / str(number))
        # The last ones may not come in every run: those are of what follows the convergence.
        for before in range(place - 1, max(0, place - 20), -1):
            if died or KILLS == "all":
                break
            died = killed_at(calls[before], first, second, tmp_path / f"{number}-{before}")
        deaths += died
    assert deaths >= len(places) * (0.7 if KILLS == "all" else 1.0), (deaths, len(places))


def killed_at(call: tuple[str, int], first: str, second: str, directory: Path) -> bool:
    """Killed before one call, if it comes; then all is as it would be, and it can be given back."""
    with Namespace() as namespace:
        world = World(namespace, directory)
        died = story(world, first, second, inject=f"{call[0]}:signal=SIGKILL:when={call[1]}")
        assert foreign(namespace) == world.foreign, call
        world.as_declared()
        world.given_back()
    return died


def made(trace: Path) -> list[tuple[str, int]]:
    """The calls in the order in which they were made: name, and which of that name it is."""
    counts: Counter[str] = Counter()
    found = []
    for line in trace.read_text().splitlines():
        # The kernel restarts a write below /proc/sys by itself while somebody else holds rtnetlink's lock.
        if (match := re.match(r"([a-z0-9]+)\(", line)) and "ERESTART" not in line:
            counts[match[1]] += 1
            found.append((match[1], counts[match[1]]))
    return found
