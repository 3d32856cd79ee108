# SPDX-License-Identifier: MIT
"""Programs that are begun and waited for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from linxd.child import Child


def shell(text: str) -> Child:
    return Child(["sh", "-c", text], fds={})


def files_of(pid: int) -> dict[int, str]:
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def test_how_it_ended_is_told_as_often_as_one_asks() -> None:
    child = shell("exit 7")
    assert (child.result(), child.result()) == (7, 7)
    assert shell("kill -TERM $$").result() == -signal.SIGTERM


def test_what_is_not_there_is_said_with_its_name() -> None:
    with pytest.raises(FileNotFoundError, match="/nowhere/at-all"):
        Child(["/nowhere/at-all"], fds={})


def test_it_has_our_files_under_the_numbers_that_were_said_and_no_others(tmp_path: Path) -> None:
    ours = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("a", "b")]
    child = Child(["sleep", "60"], fds={1: ours[0], 5: ours[1]})
    try:
        wanted = {
            0: "/dev/null", 1: str(tmp_path / "a"), 2: "/dev/null", 5: str(tmp_path / "b"),
        }  # fmt: skip
        end = time.monotonic() + 20
        # While it begins it has the libraries that it loads open.
        while (there := files_of(child.pid)) != wanted and time.monotonic() < end:
            time.sleep(0.01)
        assert there == wanted
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.result()
        for number in ours:
            os.close(number)


def test_numbers_may_cross(tmp_path: Path) -> None:
    """Whatever ours are called: each arrives where it was said."""
    one, other = (os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("a", "b"))
    try:
        fds = {other: one, one: other}
        assert Child(["bash", "-c", f"echo a >&{other}; echo b >&{one}"], fds=fds).result() == 0
        assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["a\n", "b\n"]
    finally:
        os.close(one)
        os.close(other)


def test_it_is_not_reached_by_ctrl_c() -> None:
    child = Child(["sleep", "60"], fds={})
    try:
        assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
    finally:
        os.kill(child.pid, signal.SIGTERM)
    assert child.result() == -signal.SIGTERM


def test_it_ends_when_nobody_reads_what_it_writes(tmp_path: Path) -> None:
    """Python ignores SIGPIPE, and what is begun would inherit that."""
    theirs, ours = os.pipe()
    os.close(theirs)
    child = Child(["yes"], fds={1: ours})
    os.close(ours)
    assert child.result() == -signal.SIGPIPE


def test_in_an_event_loop_others_go_on_meanwhile() -> None:
    async def run() -> tuple[int, int]:
        child = shell("sleep 0.2; exit 3")
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.01)
                turns += 1

        counting = asyncio.create_task(count())
        try:
            return await child.wait(), turns
        finally:
            counting.cancel()

    status, turns = asyncio.run(run())
    assert status == 3
    assert turns > 2


def test_one_that_is_closed_has_ended_and_leaves_nothing() -> None:
    async def run() -> None:
        before = sorted(os.listdir("/proc/self/fd"))
        child = shell("sleep 60")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(child.wait(), 0.05)
        await child.close()
        assert child.result() == -signal.SIGKILL
        assert not Path(f"/proc/{child.pid}").exists()
        await child.close()
        done = shell("exit 0")
        assert await done.wait() == 0
        await done.close()
        assert sorted(os.listdir("/proc/self/fd")) == before

    asyncio.run(run())


def test_where_children_are_not_waited_for_it_ends_all_the_same() -> None:
    """Who begins us may ignore SIGCHLD, and so do we then."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert shell("exit 0").result() == 255
        assert asyncio.run(shell("sleep 0.1").wait()) == 255
        ended = shell("exit 0")
        while Path(f"/proc/{ended.pid}").exists():
            time.sleep(0.01)
        asyncio.run(ended.close())
        assert ended.result() == 255
    finally:
        signal.signal(signal.SIGCHLD, before)
