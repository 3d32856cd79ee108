# SPDX-License-Identifier: MIT
"""The connection: nothing is lost in a burst, a bus that goes is missed and found again, nonsense hurts
nobody else."""

from __future__ import annotations

import asyncio
import signal
import socket

import pytest

pytest.importorskip("dbus_next")

from linxd.bus import connection as module
from linxd.bus.connection import BusError, Call, Connection, Heard, Unreachable

PATH, INTERFACE = "/org/linxd1/test", "org.linxd1.Test"


async def until(condition: object, *, turns: int = 2000) -> None:
    """Wait for something to become true."""
    assert callable(condition)
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not become so")


def test_burst_of_5000_signals_loses_nothing_though_the_reader_is_slow(bus) -> None:
    async def main() -> None:
        numbers: list[int] = []
        reader = Connection(
            bus.address,
            rules=[f"type='signal',interface='{INTERFACE}'"],
            heard=lambda heard: numbers.append(heard.body[0]) if heard.interface == INTERFACE else None,
        )
        writer = Connection(bus.address)
        await reader.open()
        await writer.open()
        # Nobody reads for as long as everything is said; the bus is held up, too.
        bus.signal(signal.SIGSTOP)
        for number in range(5000):
            writer.signal(PATH, INTERFACE, "Said", "us", [number, "x" * 1000])
        await asyncio.sleep(0)
        wire = writer._wire
        assert wire is not None
        assert wire.unsent > 1_000_000
        bus.signal(signal.SIGCONT)
        await until(lambda: len(numbers) == 5000)
        assert numbers == list(range(5000))
        assert wire.unsent == 0
        assert writer.up.is_set()
        reader.close()
        writer.close()

    asyncio.run(main())


def test_bus_that_goes_is_found_again_with_our_names(bus) -> None:
    async def main() -> None:
        said: list[str] = []
        connection = Connection(bus.address, names=["org.linxd1.netns.c1"], say=said.append)
        running = asyncio.create_task(connection.run())
        await asyncio.wait_for(connection.up.wait(), 10)
        for _ in range(2):
            bus.stop()
            await until(lambda: not connection.up.is_set())
            with pytest.raises(Unreachable):
                await connection.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "ListNames")
            bus.start()
            await asyncio.wait_for(connection.up.wait(), 10)
            other = Connection(bus.address)
            await other.open()
            (owner,) = await other.call(
                "org.freedesktop.DBus",
                "/org/freedesktop/DBus",
                "org.freedesktop.DBus",
                "GetNameOwner",
                "s",
                ["org.linxd1.netns.c1"],
            )
            assert owner == connection.unique
            other.close()
        assert said[0].startswith("no bus:")
        assert said[-1] == "the bus is back"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


def test_bus_that_accepts_and_says_nothing_is_given_up(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)

    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as mute:
            mute.bind(str(tmp_path / "mute"))
            mute.listen()
            with pytest.raises(Unreachable, match="does not answer"):
                await Connection(f"unix:path={tmp_path}/mute").open()

    asyncio.run(main())


def test_pending_calls_end_when_the_bus_does(bus) -> None:
    async def main() -> None:
        server = Connection(bus.address, names=["org.linxd1.netns.c1"], called=lambda call: None)
        client = Connection(bus.address)
        await server.open()
        await client.open()
        asked = asyncio.create_task(client.call("org.linxd1.netns.c1", PATH, INTERFACE, "Never"))
        await asyncio.sleep(0)
        bus.stop()
        with pytest.raises(Unreachable):
            await asyncio.wait_for(asked, 10)
        server.close()
        client.close()

    asyncio.run(main())


def test_huge_arguments_are_refused_unread_and_the_next_call_is_served(bus) -> None:
    async def main() -> None:
        calls: list[Call] = []

        def called(call: Call) -> None:
            calls.append(call)
            server.answer(call, "b", [call.cut])

        server = Connection(bus.address, names=["org.linxd1.netns.c1"], called=called)
        client = Connection(bus.address)
        await server.open()
        await client.open()
        for size, cut in ((10 << 20, True), (100, False), (100_000, True), (1, False)):
            answer = await client.call("org.linxd1.netns.c1", PATH, INTERFACE, "Eat", "s", ["x" * size])
            assert answer == [cut]
        assert [bool(call.body) for call in calls] == [False, True, False, True]
        server.close()
        client.close()

    asyncio.run(main())


def test_message_that_can_not_be_read_is_refused_to_its_sender(bus) -> None:
    async def main() -> None:
        server = Connection(
            bus.address,
            names=["org.linxd1.netns.c1"],
            called=lambda call: server.answer(call, "s", ["fine"]),
        )
        client = Connection(bus.address)
        await server.open()
        await client.open()
        # A variant in a variant, and so on, as deep as is allowed and as wide as fits.
        value = module.Variant("s", "deep")
        for _ in range(30):
            value = module.Variant("v", value)
        assert await client.call("org.linxd1.netns.c1", PATH, INTERFACE, "Eat", "v", [value]) == ["fine"]
        assert server.up.is_set()
        server.close()
        client.close()

    asyncio.run(main())


def test_unknown_flags_and_types_do_not_end_the_connection() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        heard: list[Heard] = []
        connection = Connection("unix:path=/nowhere", heard=heard.append)
        lost: list[str] = []
        wire = module.Wire(ours, connection._received, lost.append)
        signal_ = module.Message.new_signal(PATH, INTERFACE, "Said", "u", [7])
        signal_.serial = 1
        good = bytes(signal_._marshall())
        flagged, typed, version = bytearray(good), bytearray(good), bytearray(good)
        flagged[2], typed[1], version[3] = 0xF8, 9, 2
        theirs.sendall(bytes(flagged) + bytes(typed) + bytes(version) + good[:20])
        await asyncio.sleep(0.05)
        theirs.sendall(good[20:])
        await until(lambda: len(heard) == 2)
        assert [one.body for one in heard] == [[7], [7]]
        assert not lost
        theirs.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        await until(lambda: bool(lost))
        wire.close()
        theirs.close()

    asyncio.run(main())


def test_only_whoever_was_asked_can_answer() -> None:
    """A bus passes on no answer that was not asked for; we need not rely on it to know who calls us."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        connection = Connection("unix:path=/nowhere")
        wire = connection._wire = module.Wire(ours, connection._received, lambda why: None)
        asked = asyncio.create_task(
            connection.call(module.BUS, module.BUS_PATH, module.BUS, "GetConnectionUnixUser", "s", [":1.7"])
        )
        await until(lambda: bool(connection._waiting))
        (serial,) = connection._waiting
        for sender, uid in ((":1.7", 0), (module.BUS, 1000)):
            answer = module.Message(
                message_type=module.MessageType.METHOD_RETURN,
                destination=sender,
                reply_serial=serial,
                signature="u",
                body=[uid],
                serial=9,
            )
            # The library names no sender, for the bus does that: the field's number is that of the one.
            theirs.sendall(bytes(answer._marshall()).replace(b"\x06\x01s\x00", b"\x07\x01s\x00"))
        assert await asked == [1000]
        wire.close()
        theirs.close()

    asyncio.run(main())


def test_an_answer_goes_where_the_question_came_from_and_nowhere_else(bus) -> None:
    """On another bus, or on this one after it was started again, somebody else has the caller's name."""

    async def main() -> None:
        calls: list[Call] = []
        server = Connection(bus.address, names=["org.linxd1.netns.c1"], called=calls.append)
        client = Connection(bus.address)
        await server.open()
        await client.open()
        first = asyncio.create_task(client.call("org.linxd1.netns.c1", PATH, INTERFACE, "Hear"))
        await until(lambda: len(calls) == 1)
        await server.open()
        second = asyncio.create_task(client.call("org.linxd1.netns.c1", PATH, INTERFACE, "Hear"))
        await until(lambda: len(calls) == 2)
        server.answer(calls[0], "u", [1])
        server.answer(calls[0], "au", [[1] * 1000], size=1000)
        server.refuse(calls[0], "org.linxd1.Error.Busy", "too late")
        server.answer(calls[1], "u", [2])
        assert await second == [2]
        with pytest.raises(BusError):
            await first
        client.close()
        server.close()

    asyncio.run(main())


def test_errors_have_names(bus) -> None:
    async def main() -> None:
        client = Connection(bus.address)
        await client.open()
        with pytest.raises(BusError) as caught:
            await client.call("org.linxd1.netns.nobody", PATH, INTERFACE, "Hear")
        assert caught.value.name in (
            "org.freedesktop.DBus.Error.NameHasNoOwner",
            "org.freedesktop.DBus.Error.ServiceUnknown",
        )
        client.close()

    asyncio.run(main())
