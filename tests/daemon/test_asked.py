# SPDX-License-Identifier: MIT
"""Signals reach the daemon through its event loop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from linxd.bus.wire import paths
from linxd.cli.asked import Asked

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = [signal.getsignal(number) for number in NUMBERS]
    yield
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)


def test_each_signal_is_heard_and_a_second_stop_is_in_a_hurry() -> None:
    async def main() -> None:
        asked = Asked()
        try:
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.wait_for(asked.reload.wait(), 10)
            assert not asked.stop.is_set()
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(asked.stop.wait(), 10)
            assert not asked.hurry.is_set()
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.wait_for(asked.hurry.wait(), 10)
        finally:
            asked.close()

    asyncio.run(main())


def test_once_the_end_has_begun_a_signal_changes_nothing() -> None:
    async def main() -> None:
        Asked().close()
        for number in NUMBERS:
            os.kill(os.getpid(), number)
        await asyncio.sleep(0)

    asyncio.run(main())


def test_many_signals_before_the_loop_turns_are_one() -> None:
    async def main() -> None:
        asked = Asked()
        try:
            for _ in range(100_000):
                os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.wait_for(asked.reload.wait(), 10)
            assert not asked.stop.is_set()
        finally:
            asked.close()

    asyncio.run(main())


def test_a_stop_is_heard_however_many_others_came_before() -> None:
    """The socket between the interpreter and the event loop holds a few hundred."""

    async def main() -> None:
        asked = Asked()
        try:
            for _ in range(10_000):
                os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(asked.stop.wait(), 10)
            assert asked.reload.is_set()
            assert not asked.hurry.is_set()
        finally:
            asked.close()

    asyncio.run(main())


def test_addresses_say_odd_bytes_with_a_percent_sign() -> None:
    assert paths("unix:path=/run/a%20b%2Cc;unix:abstract=%c3%A9") == ["/run/a b,c", "\0é"]
    assert paths("unix:path=/a%zz%4") == ["/a%zz%4"]
