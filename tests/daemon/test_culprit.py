# SPDX-License-Identifier: MIT
"""Real writers, in real network, pid and cgroup namespaces, named or rightly left unnamed."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from linxd.culprit import Glimpse, Identifier, cgroup_paths, sanitised, unit_of
from linxd.netns import enter
from linxd.patch import Culprit

T = TypeVar("T")

WRITER = textwrap.dedent(
    """
    import os, socket, struct, sys
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    sock.bind((0, 0))
    index = socket.if_nametoindex("lo")
    verb = sys.argv[1]
    type, flags = {"add": (20, 0x605), "del": (21, 0x5)}[verb]
    body = struct.pack("=BBBBI", 2, 32, 0, 0, index)
    body += struct.pack("=HH4s", 8, 2, socket.inet_aton("192.0.2.1"))
    sock.send(struct.pack("=IHHII", 16 + len(body), type, flags, 1, 0) + body)
    assert struct.unpack_from("=i", sock.recv(4096), 16)[0] == 0
    if sys.argv[2:] == ["close"]:
        sock.close()
    print(sock.getsockname()[0] if sock.fileno() >= 0 else 0, flush=True)
    if sys.argv[2:] != ["end"]:
        sys.stdin.read()
    """
)


def inside(name: str, work: Callable[[], T]) -> T:
    """What ``work`` returns in a thread that has entered the namespace."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            with open(f"/run/netns/{name}") as file:
                enter(file.fileno())
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


@contextlib.contextmanager
def watching() -> Iterator[Callable[[], int]]:
    """Waits for the next address event in the thread's namespace: the writer's port id."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as events:
        events.bind((0, 1 << 4))
        events.settimeout(10)

        def port() -> int:
            number: int = struct.unpack_from("=I", events.recv(65536), 12)[0]
            return number

        yield port


@contextlib.contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def comm(pid: int) -> str:
    """What a process is called; "" of one that has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def writer(*arguments: str, pidns: bool = False, netns: str | None = None) -> tuple[str, ...]:
    command: tuple[str, ...] = (sys.executable, "-c", WRITER, *arguments)
    if pidns:
        command = ("unshare", "--pid", "--fork", "--kill-child", *command)
    if netns is not None:
        command = ("ip", "netns", "exec", netns, *command)
    return command


def test_a_live_process_of_ours_is_named_with_its_command(netns: str) -> None:
    def work() -> tuple[Culprit, int]:
        identifier = Identifier()
        with watching() as event, started(*writer("add")) as process:
            glimpse = identifier.glimpse(event())
            assert glimpse is not None
            return identifier.confirm([glimpse])[0], process.pid

    culprit, pid = inside(netns, work)
    assert culprit.confirmed
    assert culprit.pid == pid
    assert culprit.comm is not None
    assert culprit.comm.startswith("python")


def test_a_process_that_has_ended_since_the_glimpse_is_named(netns: str) -> None:
    def work() -> Culprit:
        identifier = Identifier()
        with watching() as event, started(*writer("add")) as process:
            glimpse = identifier.glimpse(event())
            assert glimpse is not None
            assert glimpse.process is not None
            process.communicate()
            assert process.returncode == 0
            return identifier.confirm([glimpse])[0]

    culprit = inside(netns, work)
    assert culprit.confirmed
    assert culprit.comm is not None


def test_a_zombie_is_still_named(netns: str) -> None:
    def work() -> Culprit | None:
        identifier = Identifier()
        with watching() as event, started(*writer("add", "end")) as process:
            portid = event()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            return identifier.identify(portid)

    culprit = inside(netns, work)
    assert culprit is not None
    assert culprit.confirmed


def test_a_live_process_that_has_closed_its_socket_is_not_accused(netns: str) -> None:
    """It looks just like a stranger whose pid is that of a container's process that ended."""

    def work() -> Culprit | None:
        identifier = Identifier()
        with watching() as event, started(*writer("add", "close")) as process:
            portid = event()
            assert process.stdout is not None
            process.stdout.readline()
            return identifier.identify(portid)

    culprit = inside(netns, work)
    assert culprit is not None
    assert not culprit.confirmed
    assert culprit.comm is None


def test_a_stranger_with_the_pid_of_a_process_in_a_container_is_never_accused(netns: str) -> None:
    """The writer is process 1 of its pid namespace: pid 1 here is somebody else, in another network
    namespace."""

    def work() -> tuple[Culprit, int]:
        identifier = Identifier()
        with watching() as event, started(*writer("add", pidns=True)):
            portid = event()
            glimpse = identifier.glimpse(portid)
            assert glimpse is not None
            return identifier.confirm([glimpse])[0], portid

    culprit, portid = inside(netns, work)
    assert portid == 1
    assert culprit.pid != 1
    assert culprit.confirmed
    assert culprit.comm is not None
    assert culprit.comm.startswith("python")


def test_a_process_of_the_container_that_ended_unseen_leaves_a_number_without_a_name(netns: str) -> None:
    def work() -> Culprit | None:
        identifier = Identifier()
        with watching() as event, started(*writer("add", "end", pidns=True)) as process:
            portid = event()
            process.wait()
            return identifier.identify(portid)

    culprit = inside(netns, work)
    assert culprit == Culprit(1)
    assert culprit.words() == "process 1 of the container (unconfirmed)"


def test_two_live_suspects_leave_it_unconfirmed(netns: str) -> None:
    """Both are process 1 of a pid namespace, and in this network namespace."""

    def work() -> Culprit | None:
        identifier = Identifier()
        with started("unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "echo; read x") as bystander:
            assert bystander.stdout is not None
            bystander.stdout.readline()
            with watching() as event, started(*writer("add", pidns=True)):
                return identifier.identify(event())

    assert inside(netns, work) == Culprit(1)


def test_what_started_after_the_event_is_innocent(netns: str) -> None:
    def work() -> Culprit | None:
        identifier = Identifier()
        with watching() as event, started(*writer("add")):
            return identifier.identify(event(), read_at=time.monotonic() - 3600)

    culprit = inside(netns, work)
    assert culprit is not None
    assert culprit.comm is None


def test_ip_itself_is_caught_in_the_act(netns: str) -> None:
    """`ip` ends about a millisecond after its write; whoever waits for the event sees it in time."""

    def work() -> list[Culprit]:
        identifier = Identifier()
        named = []
        with watching() as event:
            for number in range(10):
                with started("ip", "address", "add", f"192.0.2.{number}/32", "dev", "lo"):
                    glimpse = identifier.glimpse(event())
                assert glimpse is not None
                named += identifier.confirm([glimpse])
        return named

    named = inside(netns, work)
    caught = [culprit for culprit in named if culprit.confirmed]
    assert caught, named
    assert {culprit.comm for culprit in caught} == {"ip"}


@pytest.mark.parametrize("portid", [0, os.getpid(), 0xFFFFEFFF, 1 << 23])
def test_no_process_is_sought_for_the_kernel_ourselves_and_second_sockets(portid: int) -> None:
    assert Identifier().glimpse(portid) is None


def test_a_kernel_thread_is_innocent() -> None:
    kernel = [
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and comm(int(path.name)) == "kthreadd"
    ]
    if not kernel:
        pytest.skip("no kernel threads in this pid namespace")
    culprit = Identifier().identify(kernel[0])
    assert culprit == Culprit(kernel[0])


REUSED = textwrap.dedent(
    """
    import os
    from linxd.culprit import Identifier
    for number in range(20):
        pid = 5000 + 10 * number
        rest = Identifier().begin(pid)
        with open("/proc/sys/kernel/ns_last_pid", "w") as last:
            last.write(str(pid - 1))
        child = os.fork()
        if not child:
            os.execvp("sleep", ["sleep", "60"])
        assert child == pid
        named = rest().process
        os.kill(child, 9)
        os.waitpid(child, 0)
        assert named is None, named
    """
)


def test_whoever_gets_the_pid_of_a_writer_that_was_gone_already_is_innocent() -> None:
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", REUSED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_glimpse_costs_little_next_to_the_life_of_a_short_process() -> None:
    with started("sleep", "60") as process:
        identifier = Identifier()
        while comm(process.pid) != "sleep":
            time.sleep(0.01)  # it is ours until it has become that
        glimpse = identifier.glimpse(process.pid)
    assert isinstance(glimpse, Glimpse)
    assert glimpse.process is not None
    assert glimpse.process.comm == "sleep"


def test_the_pid_that_nftables_names_is_believed_and_its_unit_found_if_the_name_fits() -> None:
    identifier = Identifier()
    with started("sleep", "60") as process:
        culprit = identifier.by_pid(process.pid, b"sleep")
        other = identifier.by_pid(process.pid, b"nft")
    assert culprit is not None
    assert (culprit.pid, culprit.comm, culprit.confirmed) == (process.pid, "sleep", True)
    assert other is not None
    assert other.unit is None
    assert identifier.by_pid(0, b"") is None


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope"),
        ("0::/system.slice/ssh.service\n", "ssh.service"),
        ("0::/machine.slice/libpod-0a.scope/container\n", "libpod-0a.scope"),
        ("0::/machine.slice/machine-c1.scope/payload/system.slice/nginx.service\n", "nginx.service"),
        ("0::/system.slice/_cpu.service\n", "cpu.service"),
        ("0::/system.slice/a\\x2db.service (deleted)\n", "a\\x2db.service"),
        ("9:name=systemd:/system.slice/cron.service\n4:memory:/x.service\n0::/\n", "cron.service"),
        ("1:name=systemd:/old.service\n0::/new.service\n", "new.service"),
        ("0::/\n", None),
        ("", None),
        ("0::/system.slice\n3:cpu:/a.service\n", None),
    ],
)
def test_units_are_read_from_the_cgroups_that_systemd_keeps(cgroup: str, unit: str | None) -> None:
    assert unit_of(cgroup_paths(cgroup.encode())) == unit


def test_a_command_can_forge_no_line_and_no_culprit() -> None:
    assert sanitised("ip") == "ip"
    assert sanitised(b"x\nEVIL\x1b[2J") == "x\\x0aEVIL\\x1b\\x5b2J"
    assert sanitised("ip[1] in ssh") == "ip\\x5b1\\x5d in ssh"
    assert sanitised(b"\xff\xfe") == "\\xff\\xfe"
    assert sanitised("a\u202eb") == "a\\xe2\\x80\\xaeb"
    assert sanitised("tmux: server") == "tmux: server"
