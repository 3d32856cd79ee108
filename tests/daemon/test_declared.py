# SPDX-License-Identifier: MIT
"""Which scopes have files, and that each change is told: with real directories and the kernel's events."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

import pytest

from linxd import declared
from linxd.declared import Declared

PATIENCE = 30.0


class Told:
    """What is told, until it is asked for."""

    def __init__(self, base: Path) -> None:
        self.places = [base / "etc/linxd", base / "run/linxd", base / "usr/linxd"]
        self.etc, self.run, _ = (place / "netns" for place in self.places)
        self.declared = Declared([str(place) for place in self.places])
        self._news: asyncio.Queue[Collection[str] | None] = asyncio.Queue()

    def changed(self, scopes: Collection[str] | None) -> None:
        self._news.put_nowait(None if scopes is None else sorted(scopes))

    async def until(self, *wanted: Collection[str] | None) -> None:
        """Return when one of these has been told."""
        async with asyncio.timeout(PATIENCE):
            while await self._news.get() not in wanted:
                pass

    async def nothing_but(self, *wanted: str) -> None:
        """Return when all that was done before has been told, and was this."""
        (self.run / "end.toml").write_text("#")
        told: set[str] = set()
        async with asyncio.timeout(PATIENCE):
            while "end" not in told:
                news = await self._news.get()
                assert news is not None
                told.update(news)
        assert told == {*wanted, "end"}
        (self.run / "end.toml").unlink()
        await self.until(["end"])


def told(base: Path, run: Callable[[Told], Awaitable[None]], *, made: bool = True) -> None:
    async def main() -> None:
        told = Told(base)
        if made:
            told.etc.mkdir(parents=True)
            told.run.mkdir(parents=True)
        told.declared.watch(told.changed)
        try:
            await run(told)
        finally:
            told.declared.close()

    asyncio.run(main())


def test_a_file_that_comes_goes_or_is_replaced_is_told(tmp_path: Path) -> None:
    async def run(told: Told) -> None:
        file = told.run / "c1.toml"
        file.write_text("x = 1")
        await told.until(["c1"])
        assert await told.declared.names() == {"c1"}
        file.write_text("x = 2")
        await told.until(["c1"])
        (told.run / "fresh").write_text("x = 3")
        (told.run / "fresh").rename(file)
        await told.until(["c1"])
        # It masks the other.
        (told.etc / "c1.toml").symlink_to("/dev/null")
        await told.until(["c1"])
        assert await told.declared.names() == set()
        (told.etc / "c1.toml").unlink()
        await told.until(["c1"])
        assert await told.declared.names() == {"c1"}
        file.rename(told.run / "c2.toml")
        await told.until(["c1", "c2"])
        (told.etc / "c3.toml").hardlink_to(told.run / "c2.toml")
        await told.until(["c3"])
        assert await told.declared.names() == {"c2", "c3"}

    told(tmp_path, run)


@pytest.mark.parametrize("there", [False, True], ids=["new", "rewritten"])
def test_a_file_counts_when_it_is_written_to_its_end(tmp_path: Path, there: bool) -> None:
    async def run(told: Told) -> None:
        path = told.run / "c1.toml"
        if there:
            path.write_text("x = 1")
            await told.until(["c1"])
        with path.open("w") as file:
            for _ in range(3):
                file.write("[link.eth0]\n")
                file.flush()
                await told.nothing_but()
                assert await told.declared.names() == set()
        await told.until(["c1"])
        assert await told.declared.names() == {"c1"}

    told(tmp_path, run)


def test_of_a_file_that_is_never_closed_the_next_look_says_so(tmp_path: Path, monkeypatch) -> None:
    async def run(told: Told) -> None:
        with (told.run / "c1.toml").open("w") as file:
            file.write("x = 1\n")
            file.flush()
            assert await told.declared.names() == set()
            monkeypatch.setattr(declared, "LONGEST", 0.0)
            assert await told.declared.names() == {"c1"}

    told(tmp_path, run)


def test_what_declares_no_scope_is_not_told(tmp_path: Path) -> None:
    async def run(told: Told) -> None:
        for name in ("c1.toml~", ".c1.toml.swp", "c 1.toml", "host.toml", "README"):
            (told.run / name).write_text("x")
        (told.run / "c1.toml.d").mkdir()
        (told.run / "c1.toml.d/a.toml").write_text("x")
        (told.run / "dir.toml").mkdir()
        await told.nothing_but()

    told(tmp_path, run)


def test_directories_may_come_later_go_and_be_replaced(tmp_path: Path) -> None:
    async def run(told: Told) -> None:
        # Something that is on no way to them.
        (tmp_path / "else").mkdir()
        for _ in range(2):
            (told.run).mkdir(parents=True)
            await told.until(None)
            (told.run / "c1.toml").write_text("x")
            # The directory may have been found with the file in it.
            await told.until(["c1"], None)
            assert await told.declared.names() == {"c1"}
            shutil.rmtree(tmp_path / "run")
            await told.until(None)
            assert await told.declared.names() == set()
        told.run.mkdir(parents=True)
        await told.until(None)
        fresh = tmp_path / "fresh"
        (fresh / "netns").mkdir(parents=True)
        (fresh / "netns/c2.toml").write_text("x")
        os.rename(told.run, tmp_path / "old")
        os.rename(fresh / "netns", told.run)
        await told.until(None)
        assert await told.declared.names() == {"c2"}
        # The whole of it at once, which is not heard: but the next look sees it.
        os.rename(told.run.parent, tmp_path / "older")
        told.run.mkdir(parents=True)
        told.declared.watch(told.changed)
        (told.run / "c4.toml").write_text("x")
        await told.until(["c4"])
        assert await told.declared.names() == {"c4"}

    told(tmp_path, run, made=False)


def test_somebody_who_writes_all_the_time_is_listened_to_now_and_then(tmp_path: Path) -> None:
    async def run(told: Told) -> None:
        times = 0

        def changed(scopes: Collection[str] | None) -> None:
            nonlocal times
            times += 1

        told.declared.watch(changed)
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() < began + 5 * declared.PAUSE:
            (told.run / "c1.toml").write_text("x")
            await asyncio.sleep(0)
        took = loop.time() - began
        assert 1 <= times <= took / declared.PAUSE + 2

    told(tmp_path, run)


def test_events_that_were_lost_may_have_been_any(tmp_path: Path) -> None:
    async def run(told: Told) -> None:
        queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        pair = (told.run / "c1.toml", told.run / "c2.toml")
        pair[0].write_text("x")
        for number in range(queue // 2 + 10):
            pair[number % 2].rename(pair[1 - number % 2])
        await told.until(None)

    told(tmp_path, run)


def test_nothing_is_kept_open(tmp_path: Path) -> None:
    def descriptors() -> list[str]:
        return os.listdir("/proc/self/fd")

    async def run(told: Told) -> None:
        before = len(descriptors())
        for _ in range(10):
            told.declared.watch(told.changed)
            told.declared.watch(told.changed)
            told.declared.close()
        told.declared.close()
        assert len(descriptors()) == before - 1

    told(tmp_path, run)
