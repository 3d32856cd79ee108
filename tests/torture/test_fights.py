# SPDX-License-Identifier: MIT
"""Somebody undoes what is declared, again and again: heals slow down, one line a minute says who it is, and
it ends as declared when they stop.

`LINXD_FIGHT_SECONDS` is for how long they fight.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.bed import ROOT, Daemon, Namespace, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces are made")

SECONDS = float(os.environ.get("LINXD_FIGHT_SECONDS", 15))
EVERY = (0.01, 0.1, 1.0)
"""Seconds between two blows."""
DECLARED = """
[scope]
resync = "1s"
[link.e0]
txqueuelen = 700
[link.e1]
txqueuelen = 700
[link.e2]
txqueuelen = 700
[[route]]
to = "192.0.2.0/24"
dev = "lo"
[[route]]
to = "198.51.100.0/24"
dev = "lo"
[[route]]
to = "203.0.113.0/24"
dev = "lo"
[sysctl]
"net.core.somaxconn" = 300
[netfilter]
ruleset = '''
table inet ours {
	set s { type ipv4_addr; elements = { 192.0.2.1 }; }
}
'''
"""
ROUTES = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace() as one:
        one.batch(
            ["link set lo up", *(f"link add e{n} type veth peer name f{n}" for n in range(len(EVERY)))]
        )
        yield one


def written(directory: Path, text: str) -> Path:
    file = directory / "scope.toml"
    file.write_text(text)
    file.chmod(0o600)
    return file


class Fighter:
    """One `ip` that lives for as long as it fights, and strikes every so often."""

    def __init__(self, namespace: Namespace, every: float, commands: str) -> None:
        # Its parent is of no interest: it has to be in the namespace, as whoever fights usually is.
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", namespace.name, "ip", "-force", "-batch", "-"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._stop = threading.Event()
        self.blows = 0
        self._thread = threading.Thread(target=self._fight, args=(every, commands), daemon=True)
        self._thread.start()

    def _fight(self, every: float, commands: str) -> None:
        assert self.process.stdin is not None
        while not self._stop.wait(every):
            self.process.stdin.write(commands + "\n")
            self.process.stdin.flush()
            self.blows += 1

    def stop(self) -> None:
        """No more blows."""
        self._stop.set()
        self._thread.join()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def most(seconds: float) -> int:
    """Heals of one object in so many seconds: five, then one after 1 s, 2 s, 4 s … A pass that sees what it
    has just written undone does it again, up to five times."""
    return 10 + math.ceil(math.log2(seconds + 1)) + 1


def test_heals_slow_down_and_it_is_said_who_fights(namespace: Namespace, tmp_path: Path) -> None:
    with Daemon(namespace.name, written(tmp_path, DECLARED), tmp_path) as daemon:
        daemon.started()
        began, cpu = time.monotonic(), daemon.cpu()
        fighters = [
            Fighter(namespace, every, f"route del {to}\nlink set e{number} txqueuelen 77")
            for number, (every, to) in enumerate(zip(EVERY, ROUTES, strict=True))
        ]
        shell = namespace.start(
            "while :; do sysctl -qw net.core.somaxconn=100; nft flush set inet ours s; sleep 0.1; done"
        )
        try:
            for number, to in enumerate(ROUTES):
                daemon.wait_for(rf"/rtnl: route {to} dev lo: healed \d+ times in \d+ s, last undone by")
                daemon.wait_for(rf"/rtnl: link e{number}: healed \d+ times in \d+ s")
            daemon.wait_for(r"/sysctl: sysctl net\.core\.somaxconn: healed \d+ times")
            daemon.wait_for(r"/netfilter: .*: healed \d+ times in \d+ s, last undone by nft\[\d+\]")
            # What it comes to has to be seen over some time.
            time.sleep(max(0.0, began + SECONDS - time.monotonic()))
            until(
                lambda: any("route 192.0.2.0" in one["object"] for one in daemon.word()["conditions"]),
                lambda: f"not said: {daemon.word()}",
            )
            conditions = {one["object"]: one for one in daemon.word()["conditions"]}
        finally:
            shell.kill()
            shell.wait()
            for fighter in fighters:
                fighter.stop()
        took, used = time.monotonic() - began, daemon.cpu() - cpu
        print(f"{took:.0f} s: {[fighter.blows for fighter in fighters]} blows, {used:.2f} s of CPU")
        for fighter, to in zip(fighters, ROUTES, strict=True):
            one = conditions[f"route {to} dev lo"]
            assert one["state"] == "contended"
            culprit = re.escape(f"ip[{fighter.process.pid}]")
            words = rf"contended: healed \d+ times, last undone by {culprit}; now at most every \d+ s"
            assert re.search(words, one["text"]), one
            heals = len(re.findall(rf"restored route {to}", daemon.said))
            assert 5 <= heals <= most(took), (to, heals, took)
            print(f"route {to}: {heals} heals")
            summaries = re.findall(rf"/rtnl: route {to} dev lo: healed \d+ times.*", daemon.said)
            assert 1 <= len(summaries) <= 1 + took / 60
            assert re.search(f"last undone by {culprit}; from now on", summaries[0]), summaries
        for number in range(len(EVERY)):
            heals = len(re.findall(rf"restored link e{number}:", daemon.said))
            assert 5 <= heals <= most(took), (number, heals, took)
        # Three fights with up to a hundred blows a second each, and two more: nobody's machine is busy with
        # it.
        assert used < took / 4
        assert len(daemon.said.splitlines()) < 30 * most(took)
        until(
            lambda: (
                all(to in namespace.ip("route", "show") for to in ROUTES)
                and namespace.ip("link", "show").count("qlen 700") == len(EVERY)
                and "192.0.2.1" in namespace.nft("list", "ruleset")
                and namespace.sh("sysctl -n net.core.somaxconn").strip() == "300"
            ),
            lambda: f"not healed when they stopped\n{daemon.said}",
            seconds=60 + 2 * took,
        )


def test_two_hands_with_different_minds_slow_each_other_down(namespace: Namespace, tmp_path: Path) -> None:
    """A daemon, and a program that uses the library, which takes no lock."""
    with Daemon(namespace.name, written(tmp_path, "[link.e0]\ntxqueuelen = 700\n"), tmp_path) as daemon:
        daemon.started()
        other = subprocess.Popen(
            [
                "ip", "netns", "exec", namespace.name, sys.executable, "-m", "tests.torture.other_hand",
                json.dumps({"link": {"e0": {"txqueuelen": 900}}}),
            ],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            began = time.monotonic()
            daemon.wait_for(r"/rtnl: link e0: healed \d+ times in \d+ s")
            time.sleep(max(0.0, began + SECONDS / 2 - time.monotonic()))
        finally:
            other.kill()
            said, _ = other.communicate()
        took = time.monotonic() - began
        ours = len(re.findall(r"restored link e0:", daemon.said))
        theirs = int(said.split()[-1])
        print(f"{took:.0f} s: {ours} heals of ours, {theirs} of theirs")
        assert 5 <= ours <= most(took)
        assert theirs <= most(took) + 1
        until(
            lambda: "qlen 700" in namespace.ip("link", "show", "e0"),
            lambda: f"not healed when the other one ended\n{daemon.said}",
            seconds=60 + 2 * took,
        )


def test_the_second_of_two_daemons_gives_way_at_once(namespace: Namespace, tmp_path: Path) -> None:
    text = DECLARED.replace("[scope]", f'[scope]\nnetns = "/run/netns/{namespace.name}"')
    with Daemon(namespace.name, written(tmp_path, text), tmp_path) as daemon:
        daemon.started()
        with Daemon("second", written(tmp_path, text.replace("700", "900")), tmp_path) as second:
            assert second.process.wait(60) == 69
            assert f"served by linxd[{daemon.pid}] as scope {namespace.name} already" in second.said
        assert "qlen 900" not in namespace.ip("link", "show")
