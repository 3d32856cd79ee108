# SPDX-License-Identifier: MIT
"""`linxctl` beside a daemon on a bus: what it asks there, what it is refused, and what it sees happen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dbus_next")

from linxd.bus.connection import Connection
from tests.bus.served import NOBODY, Served

ROOT = Path(__file__).resolve().parents[2]


def command(served: Served, *words: str) -> tuple[list[str], dict[str, str]]:
    """How `linxctl` is run on a daemon's bus."""
    return [sys.executable, "-m", "linxd.cli.linxctl", *words], {
        **os.environ,
        "DBUS_SYSTEM_BUS_ADDRESS": served.address,
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def ctl(served: Served, *words: str, rc: int = 0, uid: int = 0) -> str:
    """`linxctl WORDS`: what it says. Its state directory is none, so that there is only the bus."""
    argv, env = command(served, *words, "--state-dir", "/nonexistent")
    who = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
    done = subprocess.run(
        [*who, *argv], capture_output=True, text=True, check=False, cwd=ROOT, env=env, timeout=60
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == rc, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def served(bus: Any, netns: str, tmp_path: Path) -> Any:
    with Served(bus.address, netns, tmp_path) as one:
        yield one


def test_pause_and_resume_over_the_bus(served: Served) -> None:
    assert "writes nothing for 5 min" in ctl(served, "pause", served.scope, "--for", "5min")
    assert served.get("Paused") is True
    assert served.get("State") == "paused"
    assert "heals again" in ctl(served, "resume", served.scope)
    assert served.call("WaitConverged", "tt", "0", "20000000") == [True]
    assert served.get("Paused") is False


def test_reload_over_the_bus_tells_each_fault_in_a_line(served: Served) -> None:
    good = served.file.read_text()
    served.file.write_text('[link.lo]\nadresses = []\n[[route]]\nto = "x"\n')
    lines = ctl(served, "reload", served.scope, rc=1).splitlines()
    assert len(lines) == 2
    assert any("adresses" in line for line in lines)
    assert served.get("Generation") == 1
    served.file.write_text(good.replace("10.0.0.5", "10.0.0.6"))
    assert ctl(served, "reload", served.scope) == f"{served.scope}: reloaded\n"
    assert served.get("Generation") == 2
    assert "10.0.0.6" in served.ip("address")


def test_who_may_not_is_told_the_action(served: Served) -> None:
    for words, action in ((("pause",), "pause"), (("resume",), "resume"), (("reload",), "reload")):
        assert f"org.linxd1.{action}" in ctl(served, *words, served.scope, rc=2, uid=NOBODY)
    assert served.get("State") == "converged"


def test_where_nobody_serves_is_said(served: Served) -> None:
    assert "no linxd serves nobody" in ctl(served, "pause", "nobody", rc=2)


def test_watch_shows_drift_patch_and_culprit_and_believes_nobody_else(served: Served) -> None:
    import asyncio

    argv, env = command(served, "watch", served.scope, "--json")
    watch = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env)
    assert watch.stdout is not None
    hand: subprocess.Popen[str] | None = None
    try:
        first = json.loads(watch.stdout.readline())
        assert (first["scope"], first["event"], first["state"]) == (served.scope, "state", "converged")

        async def lie() -> None:
            liar = Connection(served.address)
            await liar.open()
            liar.signal(
                f"{served.path}/rtnl", "org.linxd1.Loop", "ObjectFailed", "sis", ["link lie0", 1, "a lie"]
            )
            liar.close()

        asyncio.run(lie())
        # It stays for as long as it is looked for.
        hand = subprocess.Popen(["ip", "-n", served.scope, "-batch", "-"], stdin=subprocess.PIPE, text=True)
        assert hand.stdin is not None
        hand.stdin.write("address del 10.0.0.5/24 dev veth0\n")
        hand.stdin.flush()
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["event"] != "patched":
            seen.append(json.loads(watch.stdout.readline()))
        assert all(one["event"] != "objectfailed" for one in seen)
        (drifted,) = [one for one in seen if one["event"] == "drifted"]
        for one in (drifted, seen[-1]):
            assert one["source"] == "rtnl"
            assert any("10.0.0.5/24" in op["object"] for op in one["ops"])
            assert (one["culprit"]["comm"], one["culprit"]["pid"]) == ("ip", hand.pid)
        assert seen[-1]["trigger"] == "event"
        assert served.daemon.stop() == 0
        while seen[-1].get("state") != "gone":
            seen.append(json.loads(watch.stdout.readline()))
    finally:
        if hand is not None:
            hand.kill()
            hand.communicate()
        watch.kill()
        watch.wait()
        watch.stdout.close()


def test_list_and_status_tell_everybody_what_the_bus_does(served: Served) -> None:
    listed = {one["scope"]: one for one in json.loads(ctl(served, "list", "--json", uid=NOBODY))}
    mine = listed[served.scope]
    assert (mine["running"], mine["state"], mine["pid"]) == (True, "converged", served.daemon.process.pid)
    assert mine["files"] == [str(served.file)]
    text = ctl(served, "status", served.scope, uid=NOBODY)
    assert f"{served.scope}: converged" in text
    assert f"linxd[{served.daemon.process.pid}]" in text
    (loop,) = [loop for loop in mine["loops"] if loop["source"] == "rtnl"]
    assert loop["objects"] == served.get("Counts", source="rtnl")["done"]


def test_a_daemon_that_says_nothing_is_called_silent(served: Served) -> None:
    served.daemon.signal(signal.SIGSTOP)
    try:
        assert f"{served.scope}: silent" in ctl(served, "status", served.scope, rc=1, uid=NOBODY)
    finally:
        served.daemon.signal(signal.SIGCONT)


def test_watch_tells_what_it_missed_while_the_bus_was_away(served: Served, bus: Any) -> None:
    argv, env = command(served, "watch", served.scope, "--json")
    watch = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=env
    )
    assert watch.stdout is not None
    assert watch.stderr is not None
    try:
        first = json.loads(watch.stdout.readline())
        assert first["state"] == "converged"
        bus.stop()
        assert "no bus" in watch.stderr.readline()
        served.ip("address", "del", "10.0.0.5/24", "dev", "veth0")
        served.daemon.line("restored address 10.0.0.5/24")
        bus.start()
        assert "the bus is back" in watch.stderr.readline()
        seen = [json.loads(watch.stdout.readline()) for _ in range(2)]
        assert [(one["event"], one.get("source"), one.get("state")) for one in seen] == [
            ("unheard", "rtnl", None),
            ("state", None, "converged"),
        ]
        # And what comes then is heard as before.
        served.wait()
        served.ip("address", "del", "10.0.0.5/24", "dev", "veth0")
        while json.loads(watch.stdout.readline())["event"] != "patched":
            pass
        assert served.daemon.stop() == 0
        while json.loads(watch.stdout.readline()).get("state") != "gone":
            pass
    finally:
        watch.kill()
        watch.wait()
        watch.stdout.close()
        watch.stderr.close()


def test_topology_for_whom_nobody_let_in_is_as_daemons_say(served: Served) -> None:
    form = json.loads(ctl(served, "topology", served.scope, "--json", uid=NOBODY))
    (scope,) = (scope for scope in form["scopes"] if scope["name"] == served.scope)
    assert (scope["state"], scope["running"]) == ("converged", True)
    assert any(served.scope in note and "root" in note for note in form["notes"])
    assert served.get("State") == "converged"
