# SPDX-License-Identifier: MIT
"""`linxctl pause`, `resume`, `reload` and `release` beside a daemon without a bus: by its control socket."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemon.running import ROOT, Daemon, ip

BASE = """
[link.lo]
up = true
addresses = ["192.0.2.1/32"]
"""


def ctl(state: Path, *words: str, rc: int = 0) -> str:
    """`linxctl WORDS`, without a bus."""
    command = [sys.executable, "-m", "linxd.cli.linxctl", *words, "--state-dir", str(state)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)
    assert "Traceback" not in done.stderr
    assert done.returncode == rc, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(BASE)
    return path


def test_paused_a_repair_by_hand_stays_until_resumed(netns: str, file: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Daemon(netns, file, state) as daemon:
        daemon.converged()
        assert "writes nothing for 10 min" in ctl(state, "pause", netns)
        daemon.line(r"/rtnl: paused")
        ip(netns, "address", "del", "192.0.2.1/32", "dev", "lo")
        daemon.line(r"192\.0\.2\.1/32")
        assert "192.0.2.1" not in ip(netns, "address")
        assert "state" in ctl(state, "status", netns, "--json", rc=1)
        assert "heals again" in ctl(state, "resume", netns)
        daemon.converged()
        assert "192.0.2.1" in ip(netns, "address")


def test_one_object_is_left_alone_and_shown_so_and_the_others_are_kept(
    netns: str, file: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    file.write_text(BASE.replace('["192.0.2.1/32"]', '["192.0.2.1/32", "192.0.2.2/32"]'))
    with Daemon(netns, file, state) as daemon:
        daemon.converged()
        said = ctl(state, "pause", netns, "address", "192.0.2.1/32", "on", "lo", "--for", "1h")
        assert f"{netns}: address 192.0.2.1/32 dev lo is left alone for 1 h; `linxctl resume" in said
        daemon.line(r"address 192\.0\.2\.1/32 on lo is paused until ")
        ip(netns, "address", "del", "192.0.2.1/32", "dev", "lo")
        daemon.line(r"address 192\.0\.2\.1/32 on lo is pending: has drifted; paused until ")
        ip(netns, "address", "del", "192.0.2.2/32", "dev", "lo")
        daemon.line(r"restored address 192\.0\.2\.2/32")
        assert "192.0.2.1" not in ip(netns, "address")
        ctl(state, "reload", netns)
        assert "192.0.2.1" not in ip(netns, "address")
        shown = ctl(state, "status", netns, rc=1)
        assert "left alone: address 192.0.2.1/32 dev lo, until " in shown
        assert "(in 59 min)" in shown or "(in 1 h)" in shown
        (one,) = json.loads(ctl(state, "status", netns, "--json", rc=1))["paused"]
        assert (one["source"], one["object"]) == ("rtnl", "address 192.0.2.1/32 dev lo")
        said = ctl(state, "resume", netns, "192.0.2.1/32")
        assert "address 192.0.2.1/32 dev lo is kept as declared again" in said
        daemon.converged()
        assert "192.0.2.1" in ip(netns, "address")


def test_an_object_that_nobody_can_tell_is_trouble(netns: str, file: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    file.write_text(BASE.replace('["192.0.2.1/32"]', '["192.0.2.1/32", "192.0.2.2/32"]'))
    with Daemon(netns, file, state) as daemon:
        daemon.converged()
        assert "no object is called 'link eth9'" in ctl(state, "pause", netns, "link", "eth9", rc=2)
        said = ctl(state, "pause", netns, "address", rc=2)
        assert "address 192.0.2.1/32 dev lo, address 192.0.2.2/32 dev lo" in said
        assert "'lo' is not paused" in ctl(state, "resume", netns, "lo", rc=2)


def test_a_pause_ends_by_itself(netns: str, file: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Daemon(netns, file, state) as daemon:
        daemon.converged()
        ctl(state, "pause", netns, "--for", "1s")
        daemon.line(r"/rtnl: paused")
        ip(netns, "address", "del", "192.0.2.1/32", "dev", "lo")
        daemon.converged()
        assert "192.0.2.1" in ip(netns, "address")


def test_reload_tells_every_fault_and_changes_nothing_then(netns: str, file: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Daemon(netns, file, state) as daemon:
        daemon.converged()
        file.write_text('[link.lo]\nadresses = []\n[[route]]\nto = "x"\n')
        text = ctl(state, "reload", netns, rc=1)
        assert "adresses" in text
        assert "192.0.2.1" in ip(netns, "address")
        file.write_text(BASE.replace("192.0.2.1", "192.0.2.2"))
        assert ctl(state, "reload", netns) == f"{netns}: reloaded\n"
        assert "192.0.2.2" in ip(netns, "address")
        assert "192.0.2.1" not in ip(netns, "address")


def test_release_is_done_by_the_daemon_which_ends(netns: str, file: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Daemon(netns, file, state) as daemon:
        daemon.converged()
        # A pause is no reason to keep what is to be given back.
        ctl(state, "pause", netns)
        assert json.loads(ctl(state, "release", netns, "--json"))["released"] is True
        assert daemon.end() == 0
    assert "192.0.2.1" not in ip(netns, "address")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("pause", "nobody"), "no linxd serves nobody"),
        (("resume", "nobody"), "no linxd serves nobody"),
        (("reload", "nobody"), "no linxd serves nobody"),
        (("pause", "nobody", "--for", "0s"), "time span"),
        (("pause", "nobody", "--for", "10"), "time span"),
    ],
)
def test_trouble_is_a_line_and_code_2(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    assert says in ctl(tmp_path, *words, rc=2)
