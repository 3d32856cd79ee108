# SPDX-License-Identifier: MIT
"""What anybody may send costs us no memory that stays, and no more work than a small message."""

from __future__ import annotations

import asyncio
import itertools

import pytest

pytest.importorskip("dbus_next")

from linxd.bus import connection as module
from linxd.bus.connection import SIGNATURES, Call, Connection, Heard, Variant

NAME, PATH, INTERFACE = "org.linxd1.netns.c1", "/org/linxd1/test", "org.linxd1.Test"


def test_signatures_that_nobody_will_use_again_are_forgotten(bus) -> None:
    async def main() -> None:
        calls: list[Call] = []

        def called(call: Call) -> None:
            calls.append(call)
            server.answer(call, "", [])

        server, client = Connection(bus.address, names=[NAME], called=called), Connection(bus.address)
        await server.open()
        await client.open()
        kept = module.SignatureTree._cache
        for letters in itertools.islice(itertools.product("ybnqiuxtdsog", repeat=4), 3 * SIGNATURES):
            await client.call(NAME, PATH, INTERFACE, "Eat", f"a({''.join(letters)})", [[]])
            assert len(kept) <= SIGNATURES + 10
        assert len({call.signature for call in calls}) == 3 * SIGNATURES
        server.close()
        client.close()

    asyncio.run(main())


@pytest.mark.parametrize("size", [1 << 16, 8 << 20])
def test_a_path_as_long_as_a_message_is_passed_over_and_the_next_call_is_served(bus, size: int) -> None:
    async def main() -> None:
        calls: list[Call] = []

        def called(call: Call) -> None:
            calls.append(call)
            server.answer(call, "", [])

        server, client = Connection(bus.address, names=[NAME], called=called), Connection(bus.address)
        await server.open()
        await client.open()
        endless = asyncio.create_task(
            client.call(NAME, "/" + "a" * size, INTERFACE, "Eat", "s", ["x" * 100_000])
        )
        await client.call(NAME, PATH, INTERFACE, "Eat", "s", ["x"])
        assert [call.path for call in calls] == [PATH]
        endless.cancel()
        server.close()
        client.close()

    asyncio.run(main())


def test_who_serves_reads_no_long_signal_and_who_listens_does(bus) -> None:
    async def main() -> None:
        rules = [f"type='signal',interface='{INTERFACE}'"]
        served: list[Heard] = []
        listened: list[Heard] = []
        both = asyncio.Event()

        def heard(one: Heard) -> None:
            if one.interface == INTERFACE:
                listened.append(one)
            if len(listened) == 2:
                both.set()

        def heard_by_server(one: Heard) -> None:
            # The bus itself tells it of its names.
            if one.interface == INTERFACE:
                served.append(one)

        server = Connection(bus.address, names=[NAME], rules=rules, heard=heard_by_server)
        listener = Connection(bus.address, rules=rules, heard=heard)
        teller = Connection(bus.address)
        for one in (server, listener, teller):
            await one.open()
        teller.signal(PATH, INTERFACE, "Said", "av", [[Variant("y", 1)] * 5000])
        teller.signal(PATH, INTERFACE, "Said", "av", [[Variant("y", 1)]])
        await asyncio.wait_for(both.wait(), 10)
        # What was said to it before this answer has come to it.
        await server.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "ListNames")
        assert [len(one.body[0]) for one in listened] == [5000, 1]
        assert [len(one.body[0]) for one in served] == [1]
        for one in (server, listener, teller):
            one.close()

    asyncio.run(main())
