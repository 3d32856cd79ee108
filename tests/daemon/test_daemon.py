# SPDX-License-Identifier: MIT
"""`linxd` in the foreground: what it does in a namespace, what it says, and how it ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.running import PATIENCE, ROOT, Daemon, ip, ip_stays

BASE = """
[link.lo]
addresses = ["192.0.2.1/32"]

[[route]]
to = "198.51.100.0/24"
dev = "lo"
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def declare(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a file of declarations."""

    def write(text: str) -> Path:
        path = tmp_path / "scope.toml"
        path.write_text(text)
        return path

    return write


def test_it_converges_heals_names_the_culprit_and_stops(
    netns: str, state: Path, declare: Callable[[str], Path]
) -> None:
    with Daemon(netns, declare(BASE), state) as daemon:
        assert "without systemd and without a bus" in daemon.line("stderr")
        daemon.converged()
        assert "192.0.2.1/32" in ip(netns, "address", "show", "dev", "lo")
        with ip_stays(netns, "route", "del", "198.51.100.0/24", "dev", "lo") as pid:
            line = daemon.line("restored route")
        assert re.fullmatch(
            rf"{netns}/rtnl: restored route 198\.51\.100\.0/24 dev lo"
            rf" \(deleted by ip\[{pid}\].*\), 1 op in [\d.]+ ms",
            line,
        )
        assert "198.51.100.0/24" in ip(netns, "route", "show")
        assert daemon.stop() == 0
    assert "198.51.100.0/24" in ip(netns, "route", "show")
    assert daemon.text.count("without systemd") == 1


def test_a_broken_file_writes_nothing_and_says_everything(
    netns: str, state: Path, declare: Callable[[str], Path]
) -> None:
    with Daemon(netns, declare(BASE + "\n[scope]\nnope = 1\nresync = 7\n"), state) as daemon:
        assert daemon.end() == 78
    assert "scope.toml:" in daemon.text
    assert "nope" in daemon.text
    assert "resync" in daemon.text
    assert ip(netns, "route", "show") == ""
    assert not state.exists()


def test_without_a_file_there_is_nothing_to_do(state: Path) -> None:
    with Daemon(f"none-{os.getpid()}", None, state) as daemon:
        assert daemon.end() == 78
    assert "no file declares" in daemon.text


def test_a_reload_takes_what_is_good_and_leaves_what_is_bad(
    netns: str, state: Path, declare: Callable[[str], Path]
) -> None:
    with Daemon(netns, declare(BASE), state) as daemon:
        daemon.converged()
        declare(BASE + "\n[[rule]]\nfrom = 10\n")
        daemon.signal(signal.SIGHUP)
        daemon.line("reload failed, what was active stays active")
        daemon.line(r"scope\.toml:\d+")
        assert "198.51.100.0/24" in ip(netns, "route", "show")
        declare(BASE.replace("198.51.100.0/24", "203.0.113.0/24"))
        daemon.signal(signal.SIGHUP)
        daemon.line("reloaded: converged")
        assert ip(netns, "route", "show").split()[0] == "203.0.113.0/24"
        assert daemon.stop() == 0


def test_a_reload_that_is_asked_for_while_it_begins_is_done_then(
    netns: str, state: Path, declare: Callable[[str], Path]
) -> None:
    """A signal that nobody hears yet would end it."""
    routes = (f'[[route]]\nto = "10.{at >> 8}.{at & 255}.0/24"\ndev = "lo"\n' for at in range(2000))
    with Daemon(netns, declare("[link.lo]\nup = true\n" + "".join(routes)), state) as daemon:
        status, task = (Path(f"/proc/{daemon.process.pid}/{name}") for name in ("status", "task"))
        end = time.monotonic() + PATIENCE
        while not (reads := children(task / str(daemon.process.pid))):
            assert time.monotonic() < end
        while b"-I" not in Path(f"/proc/{reads[0]}/cmdline").read_bytes():
            assert time.monotonic() < end
        # What reads the files is held up until the signal has been sent.
        os.kill(reads[0], signal.SIGSTOP)
        try:
            # SIGHUP is the first bit; while a process is begun all are blocked for a moment.
            while not re.search(r"SigBlk:\t0+1\n", status.read_text()):
                assert time.monotonic() < end
                time.sleep(0.001)
            daemon.signal(signal.SIGHUP)
        finally:
            os.kill(reads[0], signal.SIGCONT)
        daemon.line("reloaded: ")
        assert daemon.stop() == 0


def test_a_stop_does_not_wait_for_files_that_are_read(
    netns: str, state: Path, declare: Callable[[str], Path]
) -> None:
    """Whatever holds up the process that reads them."""
    routes = (f'[[route]]\nto = "10.{at >> 8}.{at & 255}.0/24"\ndev = "lo"\n' for at in range(2000))
    with Daemon(netns, declare("[link.lo]\nup = true\n" + "".join(routes)), state) as daemon:
        daemon.converged()
        daemon.signal(signal.SIGHUP)
        tasks = Path(f"/proc/{daemon.process.pid}/task")
        end = time.monotonic() + PATIENCE
        while not (reads := [pid for task in tasks.iterdir() for pid in children(task)]):
            assert time.monotonic() < end
            time.sleep(0.005)
        (pid,) = reads
        while b"-I" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            assert time.monotonic() < end
        os.kill(pid, signal.SIGSTOP)
        try:
            assert daemon.stop() == 0
            assert "reload" not in daemon.text
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def children(task: Path) -> list[int]:
    try:
        return [int(pid) for pid in (task / "children").read_text().split()]
    except FileNotFoundError:
        return []


def test_what_was_made_goes_on_a_stop_if_that_is_declared(
    netns: str, state: Path, declare: Callable[[str], Path]
) -> None:
    ip(netns, "address", "add", "192.0.2.1/32", "dev", "lo")
    ip(netns, "link", "set", "lo", "up")
    with Daemon(netns, declare('[scope]\non-stop = "remove"\n' + BASE), state) as daemon:
        daemon.converged()
        assert daemon.stop() == 0
    assert "gave back all that was owned" in daemon.text
    assert ip(netns, "route", "show") == ""
    # It was there before, just as declared: found, not made.
    assert "192.0.2.1/32" in ip(netns, "address", "show", "dev", "lo")
    assert not list(state.glob("*/*.ledger"))


def test_the_end_of_the_namespace_is_the_end_of_the_process_and_nothing_holds_it(
    netns: str, state: Path, declare: Callable[[str], Path]
) -> None:
    ip(netns, "link", "add", "lxv0", "type", "veth", "peer", "name", "lxv1")
    inode = os.stat(f"/run/netns/{netns}").st_ino
    with Daemon(netns, declare(BASE), state) as daemon:
        daemon.converged()
        began = time.monotonic()
        subprocess.run(["ip", "netns", "del", netns], check=True)
        assert daemon.end() == 0
        assert time.monotonic() - began < 2
    assert "is gone" in daemon.text
    held = [path for path in Path("/proc").glob("[0-9]*/ns/net") if _inode(path) == inode]
    assert held == []
    assert sorted(path.name for path in state.iterdir()) == [".lock", netns]
    assert list((state / ".lock").iterdir()) == []


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def test_a_namespace_replaced_under_the_same_name_ends_it_with_a_code_of_its_own(
    netns: str, state: Path, declare: Callable[[str], Path]
) -> None:
    with Daemon(netns, declare(BASE), state) as daemon:
        daemon.converged()
        subprocess.run(["ip", "netns", "del", netns], check=True)
        subprocess.run(["ip", "netns", "add", netns], check=True)
        assert daemon.end() == 75
    with Daemon(netns, declare(BASE), state) as daemon:
        daemon.line("is about another network namespace; started without it")
        daemon.converged()
        assert daemon.stop() == 0


def test_there_is_one_to_a_namespace_and_the_second_names_the_first(
    netns: str, state: Path, declare: Callable[[str], Path]
) -> None:
    file = declare(BASE + f'\n[scope]\nnetns = "/run/netns/{netns}"\n')
    with Daemon("first", file, state) as daemon:
        daemon.converged()
        with Daemon("second", file, state) as second:
            assert second.end() == 69
        assert f"served by linxd[{daemon.process.pid}] as scope first already" in second.text
        assert daemon.stop() == 0


@pytest.mark.parametrize("netns_is", [f"/proc/{os.getpid()}/ns/net", f"pid:{os.getpid()}"])
def test_the_hosts_own_namespace_is_refused(
    state: Path, declare: Callable[[str], Path], netns_is: str
) -> None:
    with Daemon("c1", declare(f'[scope]\nnetns = "{netns_is}"\n'), state) as daemon:
        assert daemon.end() == 78
    assert "the host's own network namespace" in daemon.text
    assert not state.exists()


def test_a_namespace_without_a_name_is_that_of_a_process_and_ends_with_it(
    state: Path, declare: Callable[[str], Path]
) -> None:
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; read x"], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with Daemon("c1", declare(BASE + f'[scope]\nnetns = "pid:{process.pid}"\n'), state) as daemon:
            daemon.converged()
            process.kill()
            assert daemon.end() == 0
        assert f"pid:{process.pid} is gone" in daemon.text


def test_the_host_scope_is_where_it_is_started(
    netns: str, state: Path, declare: Callable[[str], Path]
) -> None:
    before = ("ip", "netns", "exec", netns)
    with Daemon("host", declare(BASE), state, before=before) as daemon:
        daemon.converged()
        assert "198.51.100.0/24" in ip(netns, "route", "show")
        assert daemon.stop() == 0


def test_it_waits_for_a_namespace_that_comes_later(
    netns: str, state: Path, declare: Callable[[str], Path]
) -> None:
    subprocess.run(["ip", "netns", "del", netns], check=True)
    with Daemon(netns, declare(BASE), state) as daemon:
        daemon.line(f"waits for /run/netns/{netns}, 60 s at most")
        subprocess.run(["ip", "netns", "add", netns], check=True)
        daemon.converged()
        assert daemon.stop() == 0


def test_it_can_be_stopped_while_it_waits(state: Path, declare: Callable[[str], Path]) -> None:
    with Daemon(f"none-{os.getpid()}", declare(BASE), state) as daemon:
        daemon.line("waits for")
        assert daemon.stop() == 0


def test_a_restart_while_converged_writes_nothing(
    netns: str, state: Path, declare: Callable[[str], Path]
) -> None:
    file = declare(BASE)
    with Daemon(netns, file, state) as daemon:
        daemon.converged()
        assert daemon.stop() == 0
    with subprocess.Popen(
        ["ip", "-n", netns, "monitor", "all"], stdout=subprocess.PIPE, text=True
    ) as monitor:
        try:
            assert monitor.stdout is not None
            # The monitor listens as soon as it tells of a change that we make.
            os.set_blocking(monitor.stdout.fileno(), False)
            text = _until(monitor, netns, "198.18.0.1")
            with Daemon(netns, file, state) as daemon:
                daemon.converged()
                assert daemon.stop() == 0
            text = _until(monitor, netns, "198.18.0.2")
        finally:
            monitor.kill()
    others = [line for line in text.splitlines() if "198.18.0." not in line and "valid_lft" not in line]
    assert others == []


def _until(monitor: subprocess.Popen[str], netns: str, address: str) -> str:
    """What the monitor says until it tells of a foreign address, which is made and removed for that."""
    assert monitor.stdout is not None
    text = ""
    deadline = time.monotonic() + PATIENCE
    while "Deleted" not in text or address not in text:
        assert time.monotonic() < deadline
        ip(netns, "address", "add", f"{address}/32", "dev", "lo")
        ip(netns, "address", "del", f"{address}/32", "dev", "lo")
        text += monitor.stdout.read() or ""
    return text


def test_after_a_kill_what_was_undeclared_meanwhile_is_pruned(
    netns: str, state: Path, declare: Callable[[str], Path]
) -> None:
    with Daemon(netns, declare(BASE), state) as daemon:
        daemon.converged()
        daemon.signal(signal.SIGKILL)
        daemon.end()
    ip(netns, "route", "add", "203.0.113.0/24", "dev", "lo")
    with Daemon(netns, declare("[link.lo]\nup = true\n"), state) as daemon:
        daemon.converged()
        assert daemon.stop() == 0
    assert [line.split()[0] for line in ip(netns, "route", "show").splitlines()] == ["203.0.113.0/24"]
    assert "192.0.2.1" not in ip(netns, "address", "show", "dev", "lo")


STATUS = re.compile(r"STATUS=converged: 3 objects, last patch \d+ ops? at \d{4}(-\d\d){2} \d\d(:\d\d){2}")
"""Systemd keeps it as it was sent."""


def test_the_service_manager_is_told_when_it_is_ready_how_it_is_and_that_it_lives(
    netns: str, state: Path, tmp_path: Path, declare: Callable[[str], Path]
) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(PATIENCE)
        env = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}
        with Daemon(netns, declare(BASE), state, env=env) as daemon:
            seen: set[str] = set()
            while not {"READY=1", "WATCHDOG=1", "STATUS"} <= seen:
                for line in sock.recv(4096).decode().splitlines():
                    seen.add("STATUS" if STATUS.fullmatch(line) else line)
            assert daemon.stop() == 0
            while "STOPPING=1" not in seen:
                seen.update(sock.recv(4096).decode().splitlines())
    assert "without systemd" not in daemon.text


def test_word_of_its_state_is_left_for_those_without_a_bus(
    netns: str, state: Path, declare: Callable[[str], Path]
) -> None:
    with Daemon(netns, declare(BASE + "\n[link.eth9]\nup = true\n"), state) as daemon:
        daemon.line("degraded")
        path = state / netns / "status.json"
        deadline = time.monotonic() + PATIENCE
        while not path.exists() or json.loads(path.read_text())["state"] != "degraded":
            assert time.monotonic() < deadline
        word = json.loads(path.read_text())
        assert word["pid"] == daemon.process.pid
        assert [one["object"] for one in word["conditions"]] == ["link eth9"]
        assert daemon.stop() == 0
    assert json.loads(path.read_text())["state"] == "ended"


def test_whoever_stops_reading_the_log_holds_nobody_up(
    netns: str, state: Path, declare: Callable[[str], Path]
) -> None:
    routes = "".join(f'[[route]]\nto = "198.18.{n}.0/24"\ndev = "lo"\n' for n in range(120))
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-m", "linxd.cli.daemon", "--scope", netns, "--state-dir", str(state)]
    with subprocess.Popen(
        [*command, "--file", str(declare(BASE + routes))], stderr=theirs, cwd=ROOT
    ) as process:
        try:
            os.close(theirs)
            _comes_true(lambda: "198.18.119.0/24" in ip(netns, "route", "show"))
            ip(netns, "route", "del", "198.18.7.0/24")
            _comes_true(lambda: "198.18.7.0/24" in ip(netns, "route", "show"))
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            os.close(ours)


def _comes_true(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline


def test_help_is_for_newcomers_and_names_the_exit_codes() -> None:
    done = subprocess.run(
        ["python3", "-m", "linxd.cli.daemon", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    for word in ("--scope", "SIGHUP", "69", "75", "78"):
        assert word in done.stdout
