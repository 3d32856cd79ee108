# SPDX-License-Identifier: MIT
"""Namespaces found by path, process and unit, waited for, and noticed when they end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from linxd import nswatch
from linxd.netns import (
    VOLATILE,
    Namespace,
    NotThere,
    Refused,
    boot_id,
    cookie_of,
    enter,
    find,
    is_replaced,
    unit_cgroup,
)
from linxd.nswatch import Watch, _Bells, comes_again, wait_for

LIMIT = 2.0
"""Seconds within which the end of a namespace must be noticed."""


@dataclass(frozen=True)
class Ref:
    kind: str
    value: str = ""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def path_ref(name: str) -> Ref:
    return Ref("path", f"/run/netns/{name}")


@pytest.fixture
def cgroup() -> str:
    """A cgroup directory for tests, or none where they can't be made."""
    for root in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        if os.path.exists(f"{root}/cgroup.controllers"):
            path = f"{root}/lxtest{os.getpid()}.slice"
            try:
                os.mkdir(path)
            except OSError as error:
                pytest.skip(f"no cgroup can be made: {error}")
            os.rmdir(path)
            return path
    pytest.skip("no unified cgroup hierarchy")


def test_a_path_names_a_namespace_other_than_ours(netns: str) -> None:
    space = find(path_ref(netns))
    try:
        assert not space.home
        assert not space.host
        assert space.cookie != cookie_of()
        assert space.inode[1] == os.stat(f"/run/netns/{netns}").st_ino
    finally:
        space.close()
    assert space.fd == -1


def test_the_hosts_own_namespace_is_known_under_any_name() -> None:
    for ref in (Ref("host"), Ref("pid", str(os.getpid())), Ref("path", "/proc/self/ns/net")):
        space = find(ref)
        assert space.home
        assert space.host
        space.close()


@pytest.mark.parametrize("what", ["/proc/self/ns/uts", "/etc/hostname", "/dev/null", "/run"])
def test_what_is_no_network_namespace_is_refused(what: str) -> None:
    with pytest.raises(Refused):
        find(Ref("path", what))


def test_what_is_not_there_yet_may_be_waited_for(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for ref in (
        Ref("path", str(tmp_path / "no")),
        Ref("path", str(tmp_path / "empty")),
        Ref("pid", "4194304"),
        Ref("unit", "linxd-test-no-such.scope"),
    ):
        with pytest.raises(NotThere):
            find(ref)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_an_empty_file_that_nobody_may_read_is_not_there_yet_either() -> None:
    # `ip netns add` makes it so, and `ip netns delete` leaves it so for a moment; a scope's process is
    # nobody's.
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        file = Path(directory, "c1")
        file.touch(0)
        full = Path(directory, "c2")
        full.write_text("something")
        full.chmod(0)
        os.seteuid(65534)
        try:
            with pytest.raises(NotThere, match="no namespace is mounted"):
                find(Ref("path", str(file)))
            with pytest.raises(PermissionError):
                find(Ref("path", str(full)))
        finally:
            os.seteuid(0)


def test_entering_takes_one_thread_along_and_no_other(netns: str) -> None:
    space = find(path_ref(netns))
    seen: list[int] = []

    def visit() -> None:
        enter(space.fd)
        seen.append(cookie_of())

    thread = threading.Thread(target=visit)
    thread.start()
    thread.join()
    assert seen == [space.cookie]
    assert cookie_of() != space.cookie
    space.close()


async def ends(space: Namespace, end: Callable[[], None]) -> float:
    """Seconds from ``end`` to the watch's call."""
    gone = asyncio.Event()
    watch = Watch(space, gone.set)
    try:
        assert not gone.is_set()
        began = time.monotonic()
        await asyncio.to_thread(end)
        await asyncio.wait_for(gone.wait(), LIMIT)
        return time.monotonic() - began
    finally:
        watch.close()


def test_the_end_of_a_named_namespace_is_noticed(netns: str) -> None:
    space = find(path_ref(netns))
    asyncio.run(ends(space, lambda: ip("netns", "del", netns)))
    assert not is_replaced(space)
    space.close()


def test_another_namespace_under_the_same_name_is_an_end_and_told_apart(netns: str) -> None:
    space = find(path_ref(netns))

    def replace() -> None:
        ip("netns", "del", netns)
        ip("netns", "add", netns)

    asyncio.run(ends(space, replace))
    assert is_replaced(space)
    space.close()


def test_a_namespace_that_ended_before_the_watch_began_is_noticed(netns: str) -> None:
    space = find(path_ref(netns))
    ip("netns", "del", netns)

    async def look() -> bool:
        gone = asyncio.Event()
        Watch(space, gone.set).close()
        return gone.is_set()

    assert asyncio.run(look())
    space.close()


def test_other_namespaces_may_come_and_go(netns_factory: Callable[[], str]) -> None:
    name, other = netns_factory(), netns_factory()
    space = find(path_ref(name))

    async def look() -> bool:
        gone = asyncio.Event()
        watch = Watch(space, gone.set)
        await asyncio.to_thread(ip, "netns", "del", other)
        for _ in range(100):
            await asyncio.sleep(0)
        watch.close()
        return gone.is_set()

    assert not asyncio.run(look())
    space.close()


def test_a_storm_of_mounts_wakes_nobody_for_each_and_the_last_one_is_heard() -> None:
    async def main() -> None:
        rung, seen = 0, []
        bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        again = asyncio.Event()

        def ring() -> None:
            seen.append(rung)
            again.set()

        bells = _Bells(ring)
        bells.hang(bell, lambda: os.eventfd_read(bell) and None, lambda: os.close(bell), rest=0.05)
        try:
            for _ in range(3):
                for _ in range(1000):
                    rung += 1
                    os.eventfd_write(bell, 1)
                    await asyncio.sleep(0)
                while not seen or seen[-1] != rung:
                    again.clear()
                    await asyncio.wait_for(again.wait(), 10)
        finally:
            bells.close()
        assert 3 <= len(seen) < 300

    asyncio.run(main())


def test_an_end_right_after_another_mount_is_noticed(
    netns_factory: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of a mount once, whoever asks: what comes while nobody listens is not told again."""
    monkeypatch.setattr(nswatch, "_REST", LIMIT / 2)
    name, other = netns_factory(), netns_factory()
    space = find(path_ref(name))

    async def main() -> None:
        gone, looked = asyncio.Event(), asyncio.Event()
        watch = Watch(space, gone.set)
        bells = _Bells(looked.set)
        try:
            bells.hang_mounts()
            await asyncio.to_thread(ip, "netns", "del", other)
            await asyncio.wait_for(looked.wait(), LIMIT)
            looked.clear()
            await asyncio.to_thread(ip, "netns", "del", name)
            await asyncio.wait_for(looked.wait(), LIMIT)
            await asyncio.wait_for(gone.wait(), LIMIT)
        finally:
            bells.close()
            watch.close()

    asyncio.run(main())
    space.close()


def test_the_end_of_a_process_is_noticed() -> None:
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; read x"], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        space = find(Ref("pid", str(process.pid)))
        assert not space.home

        def end() -> None:
            process.kill()
            process.wait()

        asyncio.run(ends(space, end))
        space.close()
        with pytest.raises(NotThere):
            find(Ref("pid", str(process.pid)))


def test_a_unit_is_found_by_the_oldest_process_in_a_namespace_of_its_own_and_ends_with_its_last(
    cgroup: str,
) -> None:
    """The unit of a container: a supervisor in the host's network namespace, a payload in its own."""
    unit = f"lxtest-{os.getpid()}.scope"
    scope = f"{cgroup}/{unit}"
    payload = f"{scope}/payload"
    script = 'echo $$ > "$1/cgroup.procs"; echo; exec sh -c "read x"'
    processes: list[subprocess.Popen[bytes]] = []

    def start(where: str, *before: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([*before, "sh", "-c", script, "-", where], stdin=-1, stdout=-1)
        processes.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    def end() -> None:
        for process in processes:
            process.kill()
            process.wait()

    os.makedirs(payload)
    try:
        assert unit_cgroup(unit) == scope
        with pytest.raises(NotThere):
            find(Ref("unit", unit))
        start(scope)
        with pytest.raises(NotThere):
            find(Ref("unit", unit))
        first = start(payload, "unshare", "--net")
        start(payload, "unshare", "--net")
        space = find(Ref("unit", unit))
        assert space.inode[1] == os.stat(f"/proc/{first.pid}/ns/net").st_ino
        asyncio.run(ends(space, end))
        space.close()
    finally:
        for process in processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
        for directory in (payload, scope, cgroup):
            os.rmdir(directory)


def test_a_directory_of_the_same_name_in_other_hands_is_no_unit(tmp_path: Path) -> None:
    (tmp_path / "user.slice/user@1000.service/c1.scope").mkdir(parents=True)
    assert unit_cgroup("c1.scope", (str(tmp_path),)) is None
    (tmp_path / "machine.slice/c1.scope").mkdir(parents=True)
    assert unit_cgroup("c1.scope", (str(tmp_path),)) == f"{tmp_path}/machine.slice/c1.scope"


def test_a_namespace_that_comes_later_is_waited_for(netns: str) -> None:
    ip("netns", "del", netns)

    async def work() -> int:
        waiting = asyncio.create_task(wait_for(path_ref(netns), find, seconds=10))
        await asyncio.sleep(0)
        await asyncio.to_thread(ip, "netns", "add", netns)
        space = await waiting
        space.close()
        return space.cookie

    assert asyncio.run(work()) != cookie_of()


def test_waiting_sees_directories_come_too(tmp_path: Path, netns: str) -> None:
    """/run/netns itself is not there before the first namespace is."""
    path = tmp_path / "a" / "b" / "ns"

    async def work() -> None:
        waiting = asyncio.create_task(wait_for(Ref("path", str(path)), find, seconds=10))
        await asyncio.sleep(0)
        path.parent.mkdir(parents=True)
        path.symlink_to(f"/run/netns/{netns}")
        (await waiting).close()

    asyncio.run(work())


def test_waiting_is_bounded_and_leaves_nothing_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for ref in (Ref("path", str(tmp_path / "no")), Ref("unit", "linxd-test-no-such.scope")):
        with pytest.raises(NotThere):
            asyncio.run(wait_for(ref, find, seconds=0.05))
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_boot_has_a_name(tmp_path: Path) -> None:
    """In memory, where nothing is from another boot, it is one that no manager of containers can change."""
    kinds = {}
    for path in ("/run", "/dev/shm", "/proc/sys", str(tmp_path / "not" / "there")):
        there = next(one for one in (Path(path), *Path(path).parents) if one.exists())
        words = subprocess.run(
            ["stat", "-f", "-c", "%T", there], capture_output=True, text=True, check=True
        ).stdout.strip()
        kinds[path] = words
        assert boot_id(path) == VOLATILE if words in ("tmpfs", "ramfs") else len(boot_id(path)) == 36
    assert "tmpfs" in kinds.values()
    assert len(boot_id("/proc/sys")) == 36


# -- a unit that outlives its container ---------------------------------------------------------------------


class Unit:
    """Processes in a cgroup as systemd makes them for a unit, killed and removed when left."""

    def __init__(self, slice_: str) -> None:
        self._slice = slice_
        self.name = f"lxtest-{os.getpid()}.scope"
        self.cgroup = f"{slice_}/{self.name}"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Unit:
        os.makedirs(self.cgroup)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            self.end(process)
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
        os.rmdir(self.cgroup)
        os.rmdir(self._slice)

    def start(self, *before: str) -> subprocess.Popen[bytes]:
        """Begin a process of the unit's."""
        script = 'echo $$ > "$1/cgroup.procs"; echo; exec sh -c "read x"'
        process = subprocess.Popen([*before, "sh", "-c", script, "-", self.cgroup], stdin=-1, stdout=-1)
        self._processes.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    @staticmethod
    def end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()


def test_the_end_of_a_container_is_noticed_though_its_unit_runs_on(cgroup: str) -> None:
    with Unit(cgroup) as unit:
        unit.start()
        payload = unit.start("unshare", "--net")
        space = find(Ref("unit", unit.name))
        try:
            asyncio.run(ends(space, lambda: unit.end(payload)))
            # It may have another one, and soon has.
            assert asyncio.run(comes_again(space, seconds=0.0))
            assert not is_replaced(space)
            unit.start("unshare", "--net")
            assert is_replaced(space)
        finally:
            space.close()


def test_a_namespace_lasts_as_long_as_any_process_of_the_unit_is_in_it(cgroup: str) -> None:
    with Unit(cgroup) as unit:
        first = unit.start("unshare", "--net")
        second = unit.start("nsenter", "-t", str(first.pid), "--net")
        space = find(Ref("unit", unit.name))

        async def look() -> None:
            gone = asyncio.Event()
            watch = Watch(space, gone.set)
            try:
                await asyncio.to_thread(unit.end, first)
                # The bell has rung by then: it is the kernel that makes it ring.
                for _ in range(100):
                    await asyncio.sleep(0)
                assert not gone.is_set()
                await asyncio.to_thread(unit.end, second)
                await asyncio.wait_for(gone.wait(), LIMIT)
            finally:
                watch.close()

        try:
            asyncio.run(look())
            assert not asyncio.run(comes_again(space, seconds=LIMIT))
        finally:
            space.close()


def test_the_end_behind_a_symbolic_link_is_noticed(netns: str, tmp_path: Path) -> None:
    link = tmp_path / "ns"
    link.symlink_to(f"/run/netns/{netns}")
    space = find(Ref("path", str(link)))
    asyncio.run(ends(space, link.unlink))
    space.close()


def test_watching_takes_no_inotify_instance_of_which_a_user_has_few(netns: str) -> None:
    space = find(path_ref(netns))

    async def look() -> None:
        watch = Watch(space, lambda: None)
        open_now = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd.isdigit()
                    and os.path.lexists(f"/proc/self/fd/{fd}")]  # fmt: skip
        watch.close()
        assert "anon_inode:inotify" not in open_now

    asyncio.run(look())
    space.close()


def test_nobody_waits_for_what_is_not_wanted_any_more(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(NotThere):
        asyncio.run(wait_for(Ref("path", str(tmp_path / "no")), find, seconds=600, wanted=lambda: False))
    assert time.monotonic() - began < 60
