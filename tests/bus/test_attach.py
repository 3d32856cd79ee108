# SPDX-License-Identifier: MIT
"""Scopes that go with units, as asked of systemd over the bus: what is asked, when, and what is not.

The systemd here takes jobs and never does them; what a real one does is seen under tests/system."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dbus_next")

from linxd.bus import attach
from linxd.bus.attach import MOST_STARTING, Attacher
from linxd.bus.connection import Call, Connection, Variant
from linxd.bus.units import MANAGER, PROPERTIES, SYSTEMD, SYSTEMD_PATH
from linxd.config.model import Attach

PATIENCE = 20.0
BOXES = (Attach(re.compile(r"box-(?P<name>.+)\.scope"), "{name}"),)


class Systemd:
    """Has units, and takes jobs. ``error``: what it says to jobs instead."""

    def __init__(self, address: str) -> None:
        self.running: dict[str, str] = {}
        self.loaded: set[str] = set()
        self.asked: list[tuple[str, ...]] = []
        self.listed: list[list[str]] = []
        self.error = ""
        self._moved = asyncio.Event()
        self.connection = Connection(address, names=[SYSTEMD], called=self._called)

    def _called(self, call: Call) -> None:
        answer = self.connection.answer
        if call.interface == PROPERTIES:
            # Of one that is gone it says so, too: it is loaded for that.
            known = {path(unit): unit for unit in (*self.running, *self.loaded)}
            unit = known.get(call.path, "gone")
            self.asked.append(("Get", unit))
            answer(call, "v", [Variant("ay", bytes.fromhex(self.running.get(unit, "")))])
        elif call.member == "ListUnitsByPatterns":
            self.listed.append(list(call.body[1]))
            rows = [
                [
                    unit,
                    "",
                    "loaded",
                    "active" if unit in self.running else "inactive",
                    "",
                    "",
                    path(unit),
                    0,
                    "",
                    "/",
                ]
                for unit in sorted(self.loaded | set(self.running))
            ]
            answer(call, "a(ssssssouso)", [rows])
        elif call.member.endswith("Unit"):
            self.asked.append((call.member, str(call.body[0])))
            if self.error:
                self.connection.refuse(call, self.error, "no")
            else:
                answer(call, "o", [job(str(call.body[0]))])
        else:
            self.asked.append((call.member,))
            answer(call, "", [])
        self._moved.set()

    def tell(self, member: str, signature: str, *body: Any) -> None:
        self.connection.signal(SYSTEMD_PATH, MANAGER, member, signature, body)

    def begins(self, unit: str, invocation: str = "aa") -> None:
        self.running[unit] = invocation
        self.tell("JobRemoved", "uoss", 1, "/job", unit, "done")

    def ends(self, unit: str) -> None:
        del self.running[unit]
        self.tell("UnitRemoved", "so", unit, path(unit))

    async def until(self, what: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not what():
                self._moved.clear()
                await self._moved.wait()

    @property
    def jobs(self) -> list[tuple[str, ...]]:
        return [one for one in self.asked if one[0].endswith("Unit") and len(one) == 2]


def path(unit: str) -> str:
    return f"{SYSTEMD_PATH}/unit/" + re.sub(r"\W", "_", unit)


def job(unit: str) -> str:
    return f"{SYSTEMD_PATH}/job/" + re.sub(r"\W", "_", unit)


def own(name: str) -> str:
    return f"linx-reconcile@{name}.service"


class Files:
    """Of which scopes there are files; ``changed`` is told what it may have become."""

    def __init__(self) -> None:
        self.there = {"host", *(f"c{number}" for number in range(100))}
        self.changed: Callable[[Collection[str] | None], None] | None = None

    async def names(self) -> frozenset[str]:
        return frozenset(self.there)

    def watch(self, changed: Callable[[Collection[str] | None], None]) -> None:
        self.changed = changed

    def close(self) -> None:
        self.changed = None


class Held:
    """What the host's daemon holds together."""

    def __init__(self, address: str, directory: Path) -> None:
        self.systemd = Systemd(address)
        self.rules: tuple[Attach, ...] = BOXES
        self.files = Files()
        self.said: list[str] = []
        self.warned: list[str] = []
        self.file = directory / attach.FILE
        self.connection = Connection(address, heard=lambda heard: self.attacher.heard(heard))
        self.attacher = Attacher(
            self.connection,
            lambda: self.rules,
            self.files,
            str(directory),
            say=self.said.append,
            warn=self.warned.append,
        )


def attached(bus: Any, directory: Path, run: Callable[[Held], Awaitable[None]]) -> None:
    async def main() -> None:
        held = Held(bus.address, directory)
        await held.systemd.connection.open()
        await held.connection.open()
        running = asyncio.create_task(held.attacher.run())
        try:
            await held.systemd.until(lambda: not held.rules or ("Subscribe",) in held.systemd.asked)
            await run(held)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            held.connection.close()
            held.systemd.connection.close()

    asyncio.run(main())


def test_a_start_is_written_down_before_it_is_asked_for_and_a_stop_follows_the_end(
    bus, tmp_path: Path
) -> None:
    async def run(held: Held) -> None:
        systemd = held.systemd
        systemd.begins("box-c1.scope")
        await systemd.until(lambda: systemd.jobs)
        assert systemd.jobs == [("StartUnit", own("c1"))]
        assert json.loads(held.file.read_text())["c1"][:3] == ["box-c1.scope", "aa", True]
        systemd.ends("box-c1.scope")
        await systemd.until(lambda: len(systemd.jobs) == 2)
        assert systemd.jobs[1] == ("StopUnit", own("c1"))

    attached(bus, tmp_path, run)


def test_of_a_unit_that_does_not_run_nothing_is_asked(bus, tmp_path: Path) -> None:
    """To ask for a property of one that is gone would load it again, and that is told as a new unit."""

    async def run(held: Held) -> None:
        systemd = held.systemd
        for number in range(20):
            systemd.loaded.add(f"box-c{number}.scope")
            systemd.tell("UnitNew", "so", f"box-c{number}.scope", path(f"box-c{number}.scope"))
        systemd.begins("box-c50.scope")
        await systemd.until(lambda: systemd.jobs)
        assert {one for one in systemd.asked if one[0] == "Get"} == {("Get", "box-c50.scope")}

    attached(bus, tmp_path, run)


def test_a_file_that_comes_later_starts_its_scope_at_once_and_nothing_else(bus, tmp_path: Path) -> None:
    async def run(held: Held) -> None:
        systemd = held.systemd
        held.files.there = {"c2"}
        for name in ("c1", "c2"):
            systemd.begins(f"box-{name}.scope")
        await systemd.until(lambda: systemd.jobs)
        assert systemd.jobs == [("StartUnit", own("c2"))]
        assert held.files.changed is not None
        # Of nobody that runs.
        held.files.changed({"c3", "c4"})
        held.files.there |= {"c1", "c3"}
        await held.connection.call(SYSTEMD, SYSTEMD_PATH, MANAGER, "Marked")
        held.files.changed({"c1"})
        await systemd.until(lambda: len(systemd.jobs) == 2)
        assert systemd.jobs[1] == ("StartUnit", own("c1"))
        assert [own("c1")] in systemd.listed
        assert not any(own("c3") in units or units == [] for units in systemd.listed)
        # It goes again, and nothing follows from that.
        held.files.there = set()
        held.files.changed({"c1", "c2"})
        systemd.begins("box-c3.scope")
        held.files.there = {"c3"}
        await systemd.until(lambda: len(systemd.jobs) == 3)
        assert systemd.jobs[2] == ("StartUnit", own("c3"))

    attached(bus, tmp_path, run)


def test_all_units_are_looked_at_again_however_much_is_heard(bus, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(attach, "LOOK", 0.2)

    async def run(held: Held) -> None:
        systemd = held.systemd
        # Nobody tells of it.
        systemd.running["box-c1.scope"] = "aa"

        async def noise() -> None:
            while True:
                assert held.files.changed is not None
                held.files.changed({"c9"})
                await asyncio.sleep(0.02)

        making = asyncio.create_task(noise())
        try:
            await systemd.until(lambda: systemd.jobs)
        finally:
            making.cancel()
        assert systemd.jobs == [("StartUnit", own("c1"))]

    attached(bus, tmp_path, run)


def test_a_few_start_at_a_time(bus, tmp_path: Path) -> None:
    async def run(held: Held) -> None:
        systemd = held.systemd
        names = [f"c{number}" for number in range(3 * MOST_STARTING)]
        for name in names:
            systemd.begins(f"box-{name}.scope")
        done = 0
        while done < len(names):
            # None of those that were asked for has ended: no more than these are.
            await systemd.until(lambda done=done: len(systemd.jobs) > done)
            assert len(systemd.jobs) - done <= MOST_STARTING
            unit = systemd.jobs[done][1]
            done += 1
            systemd.tell("JobRemoved", "uoss", 1, job(unit), unit, "done")
        assert sorted(systemd.jobs) == sorted(("StartUnit", own(name)) for name in names)

    attached(bus, tmp_path, run)


def test_what_systemd_refuses_is_said_once_and_not_asked_again(bus, tmp_path: Path) -> None:
    async def run(held: Held) -> None:
        systemd = held.systemd
        systemd.error = f"{SYSTEMD}.UnitMasked"
        systemd.begins("box-c1.scope")
        await systemd.until(lambda: systemd.jobs)
        for number in range(2, 5):
            systemd.begins("box-c1.scope")
            systemd.begins(f"box-c{number}.scope")
            await systemd.until(lambda number=number: len(systemd.jobs) == number)
        assert systemd.jobs.count(("StartUnit", own("c1"))) == 1
        assert [text for text in held.warned if own("c1") in text] == [
            f"box-c1.scope runs, but systemd does not have {own('c1')} started: no"
        ]

    attached(bus, tmp_path, run)


def test_a_systemd_that_goes_and_comes_back_is_asked_again(bus, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(attach, "AGAIN", 0.05)

    async def run(held: Held) -> None:
        systemd = held.systemd
        systemd.error = "org.freedesktop.DBus.Error.NoReply"
        systemd.begins("box-c1.scope")
        await systemd.until(lambda: len(systemd.jobs) > 1)
        systemd.connection.close()
        systemd.error = ""
        systemd.asked.clear()
        await systemd.connection.open()
        await systemd.until(lambda: systemd.jobs)
        await systemd.until(lambda: ("Subscribe",) in systemd.asked)
        await systemd.until(lambda: json.loads(held.file.read_text())["c1"][3])
        assert held.warned == []

    attached(bus, tmp_path, run)


def test_strangers_are_not_listened_to(bus, tmp_path: Path) -> None:
    async def run(held: Held) -> None:
        systemd = held.systemd
        stranger = Connection(bus.address)
        strangers.append(stranger)
        await stranger.open()
        # The first look at everything is over then.
        systemd.begins("box-c3.scope")
        await systemd.until(lambda: systemd.jobs)
        systemd.running["box-c1.scope"] = "aa"
        body = (1, "/job", "box-c1.scope", "done")
        for _ in range(100):
            stranger.signal(SYSTEMD_PATH, MANAGER, "JobRemoved", "uoss", body)
        # Sent after theirs, and dealt with after it.
        await stranger.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId")
        systemd.begins("box-c2.scope")
        await systemd.until(lambda: ("StartUnit", own("c2")) in systemd.jobs)
        assert ("StartUnit", own("c1")) not in systemd.jobs

    strangers: list[Connection] = []
    try:
        attached(bus, tmp_path, run)
    finally:
        for one in strangers:
            one.close()


def test_without_rules_nothing_is_asked_of_systemd(bus, tmp_path: Path) -> None:
    async def main() -> None:
        held = Held(bus.address, tmp_path)
        held.rules = ()
        await held.systemd.connection.open()
        await held.connection.open()
        running = asyncio.create_task(held.attacher.run())
        try:
            held.systemd.begins("box-c1.scope")
            await held.connection.call(SYSTEMD, SYSTEMD_PATH, MANAGER, "Marked")
            assert held.systemd.asked == [("Marked",)]
            # They come with a reload.
            held.rules = BOXES
            held.attacher.changed()
            await held.systemd.until(lambda: held.systemd.jobs)
            # They go, and what was begun with them is still followed to its end.
            held.rules = ()
            held.attacher.changed()
            held.systemd.ends("box-c1.scope")
            await held.systemd.until(lambda: len(held.systemd.jobs) == 2)
            await held.systemd.until(
                lambda: ("Unsubscribe",) in held.systemd.asked or held.attacher.changed()
            )
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            held.connection.close()
            held.systemd.connection.close()

    asyncio.run(main())
