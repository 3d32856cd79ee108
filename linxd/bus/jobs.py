# SPDX-License-Identifier: MIT
"""systemd asked over the bus what it has in mind for a unit: whether a stop is a stop, or half of a restart
or of a shutdown.

It knows what systemd says, and not what is done about it.
"""

from __future__ import annotations

import asyncio

from linxd.bus.connection import BusError, Connection, Unreachable
from linxd.bus.objects import PROPERTIES
from linxd.bus.units import MANAGER, SYSTEMD, SYSTEMD_PATH
from linxd.systemd.jobs import ANSWER, for_good


async def stopped_for_good(connection: Connection, unit: str) -> bool | None:
    """Whether ``unit`` is being stopped because somebody wants it stopped. None where systemd does not say
    so in time: one question and its answer are all that it takes."""
    try:
        async with asyncio.timeout(ANSWER):
            (jobs,), (state,) = await asyncio.gather(
                connection.call(SYSTEMD, SYSTEMD_PATH, MANAGER, "ListJobs"),
                connection.call(SYSTEMD, SYSTEMD_PATH, PROPERTIES, "Get", "ss", [MANAGER, "SystemState"]),
            )
    except (TimeoutError, BusError, Unreachable):
        return None
    return for_good([str(kind) for _, name, kind, *_ in jobs if name == unit], str(state.value))
