# SPDX-License-Identifier: MIT
"""Calls and their callers: limits for each, nothing kept for who has gone, a name for whatever goes
wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

import pytest

pytest.importorskip("dbus_next")

from linxd.bus import names, objects
from linxd.bus.connection import BusError, Call, Connection, Heard
from linxd.bus.interface import Interface, Property, method
from linxd.bus.objects import MOST_CALLS, PROPERTIES, Objects
from linxd.bus.polkit import Authority

NAME, PATH = "org.linxd1.netns.toy", "/org/linxd1/scope/toy"


class Toy(Interface):
    """One that waits, one that breaks, one that changes its property several times."""

    name = "org.linxd1.Scope"
    properties: ClassVar[Mapping[str, Property]] = {"Level": Property("t", "true")}

    def __init__(self) -> None:
        self.level = 0
        self.waiting = 0
        self.began, self.ended = asyncio.Event(), asyncio.Event()
        self.go = asyncio.Event()
        self.changed: Callable[[], None] = lambda: None

    def values(self) -> Mapping[str, Any]:
        return {"Level": self.level}

    @method("", "u")
    async def wait(self, call: Call) -> tuple[int]:
        self.waiting += 1
        self.began.set()
        try:
            await self.go.wait()
        finally:
            self.waiting -= 1
            if not self.waiting:
                self.ended.set()
        return (7,)

    @method()
    def break_(self, call: Call) -> tuple[()]:
        raise RuntimeError("a fault\nof \x1b[31mours")

    @method("t")
    async def raise_by(self, call: Call, steps: int) -> tuple[()]:
        for _ in range(steps):
            self.level += 1
            self.changed()
        return ()


class Bed:
    def __init__(self, address: str) -> None:
        self.address = address
        self.toy = Toy()
        self.server = Connection(
            address,
            names=[NAME],
            called=lambda call: self.objects.called(call),
            heard=lambda heard: self.objects.heard(heard),
        )
        self.objects = Objects(self.server, Authority(self.server, "toy"))
        self.objects.add(PATH, self.toy)
        self.toy.changed = self.objects.changed

    async def client(self, **options: Any) -> Connection:
        connection = Connection(self.address, **options)
        await connection.open()
        return connection


def serving(bus: Any, run: Callable[[Bed], Awaitable[None]]) -> None:
    async def main() -> None:
        bed = Bed(bus.address)
        await bed.server.open()
        try:
            async with asyncio.timeout(20):
                await run(bed)
        finally:
            bed.objects.close()
            bed.server.close()

    asyncio.run(main())


def ask(client: Connection, member: str, signature: str = "", *body: Any) -> Any:
    return client.call(NAME, PATH, Toy.name, member, signature, body)


def test_each_sender_has_so_many_calls_and_takes_none_of_others(bus: Any) -> None:
    async def run(bed: Bed) -> None:
        greedy, other = await bed.client(), await bed.client()
        calls = [asyncio.create_task(ask(greedy, "Wait")) for _ in range(MOST_CALLS + 1)]
        done, pending = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        error = done.pop().exception()
        assert isinstance(error, BusError)
        assert error.name == names.LIMITS
        theirs = asyncio.create_task(ask(other, "Wait"))
        while bed.toy.waiting != MOST_CALLS + 1:
            await asyncio.sleep(0)
        bed.toy.go.set()
        assert await theirs == [7]
        assert await asyncio.gather(*pending) == [[7]] * MOST_CALLS
        greedy.close()
        other.close()

    serving(bus, run)


@pytest.mark.parametrize("soon", [True, False])
def test_who_goes_away_takes_their_calls_along(bus: Any, monkeypatch: Any, soon: bool) -> None:
    """``soon``: before anybody listens for it."""
    monkeypatch.setattr(objects, "LONG", 0.05 if soon else 0.0)

    async def run(bed: Bed) -> None:
        client = await bed.client()
        call = asyncio.create_task(ask(client, "Wait"))
        await bed.toy.began.wait()
        if not soon:
            # It has asked the bus to listen, and has its answers.
            for _ in range(10):
                await asyncio.sleep(0)
            while bed.server._waiting:
                await asyncio.sleep(0)
        client.close()
        await bed.toy.ended.wait()
        await asyncio.gather(call, return_exceptions=True)
        other = await bed.client()
        bed.toy.go.set()
        assert await ask(other, "Wait") == [7]
        other.close()

    serving(bus, run)


def test_many_calls_of_one_sender_are_watched_by_one_rule_and_end_with_the_bus(
    bus: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(objects, "LONG", 0.0)

    async def run(bed: Bed) -> None:
        client = await bed.client()
        calls = [asyncio.create_task(ask(client, "Wait")) for _ in range(10)]
        while bed.toy.waiting != 10:
            await asyncio.sleep(0)
        assert len(bed.objects._watches) == 1
        bus.stop()
        await asyncio.gather(*calls, return_exceptions=True)
        bed.objects.forget_callers()
        while bed.objects._tasks:
            await asyncio.sleep(0)
        assert not bed.objects._watches
        client.close()

    serving(bus, run)


def test_fault_of_ours_is_said_in_one_line_and_is_no_end(bus: Any) -> None:
    async def run(bed: Bed) -> None:
        client = await bed.client()
        with pytest.raises(BusError) as caught:
            await ask(client, "Break")
        assert caught.value.name == names.FAILED
        text = str(caught.value)
        assert text.startswith("unexpected error in linxd: RuntimeError: a fault")
        assert "\x1b" not in text
        assert "Traceback" not in text
        await ask(client, "RaiseBy", "t", 1)
        client.close()

    serving(bus, run)


def test_many_changes_in_a_turn_are_told_once_and_before_the_answer(bus: Any) -> None:
    async def run(bed: Bed) -> None:
        heard: list[Any] = []

        def hear(one: Heard) -> None:
            if one.member == "PropertiesChanged":
                heard.append(one.body[1]["Level"].value)

        client = await bed.client(rules=[f"type='signal',interface='{PROPERTIES}'"], heard=hear)
        await ask(client, "RaiseBy", "t", 50)
        assert heard == [50]
        await ask(client, "RaiseBy", "t", 0)
        assert heard == [50]
        # Who reads a value was told of it, even if nobody had said that it changed.
        bed.toy.level = 99
        (value,) = await client.call(NAME, PATH, PROPERTIES, "Get", "ss", [Toy.name, "Level"])
        assert value.value == 99
        assert heard == [50, 99]
        client.close()

    serving(bus, run)


def test_object_that_goes_is_taken_back(bus: Any) -> None:
    async def run(bed: Bed) -> None:
        heard: list[Heard] = []
        rule = f"type='signal',path='{names.ROOT}'"
        client = await bed.client(rules=[rule], heard=heard.append)
        bed.objects.add(f"{PATH}/more", Toy())
        bed.objects.remove(f"{PATH}/more")
        with pytest.raises(BusError) as caught:
            await client.call(NAME, f"{PATH}/more", Toy.name, "Break")
        assert caught.value.name == names.UNKNOWN_OBJECT
        told = [(one.member, one.body[0]) for one in heard if one.path == names.ROOT]
        assert told == [("InterfacesAdded", f"{PATH}/more"), ("InterfacesRemoved", f"{PATH}/more")]
        client.close()

    serving(bus, run)
