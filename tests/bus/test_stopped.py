# SPDX-License-Identifier: MIT
"""Whether a stop is a stop: what systemd says of its jobs over the bus, and what no answer means."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("dbus_next")

from linxd.bus.connection import Call, Connection, Variant
from linxd.bus.jobs import stopped_for_good
from linxd.bus.units import SYSTEMD

UNIT = "linx-reconcile@c1.service"


def job(unit: str, kind: str) -> list[object]:
    """A row of ListJobs."""
    return [7, unit, kind, "running", "/org/freedesktop/systemd1/job/7", "/org/freedesktop/systemd1"]


async def asked(address: str, jobs: list[list[object]] | None, state: str = "running") -> bool | None:
    """What is made of systemd's answers; ``jobs`` None: it does not answer."""

    def called(call: Call) -> None:
        if jobs is None:
            return
        if call.member == "ListJobs":
            systemd.answer(call, "a(usssoo)", [jobs])
        else:
            systemd.answer(call, "v", [Variant("s", state)])

    systemd = Connection(address, names=[SYSTEMD], called=called)
    connection = Connection(address)
    await systemd.open()
    await connection.open()
    try:
        return await stopped_for_good(connection, UNIT)
    finally:
        connection.close()
        systemd.close()


@pytest.mark.parametrize(
    ("jobs", "state", "told"),
    [
        ([job(UNIT, "stop")], "running", True),
        ([job(UNIT, "stop")], "degraded", True),
        ([job("other.service", "start"), job(UNIT, "stop")], "running", True),
        ([job(UNIT, "restart")], "running", False),
        ([job(UNIT, "try-restart")], "running", False),
        # A machine that goes down stops everything, and what was made for it is gone with it anyway.
        ([job(UNIT, "stop")], "stopping", False),
        ([job("other.service", "stop")], "running", None),
        ([], "running", None),
        (None, "running", None),
    ],
)
def test_a_stop_for_good_is_told_from_a_restart_and_from_silence(
    bus: Any, jobs: list[list[object]] | None, state: str, told: bool | None
) -> None:
    assert asyncio.run(asked(bus.address, jobs, state)) is told


def test_without_systemd_on_the_bus_nobody_can_tell(bus: Any) -> None:
    async def main() -> bool | None:
        connection = Connection(bus.address)
        await connection.open()
        try:
            return await stopped_for_good(connection, UNIT)
        finally:
            connection.close()

    assert asyncio.run(main()) is None
