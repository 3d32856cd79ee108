# SPDX-License-Identifier: MIT
"""Very many objects: whoever asks something small is answered while a plan of all of them is made."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dbus_next")

from linxd.bus.connection import Connection
from tests.bus.served import PROPERTIES, SCOPE, Served

MANY = 20_000


def declaration(count: int) -> str:
    routes = "".join(
        f'[[route]]\nto = "10.{1 + n // 65536}.{n // 256 % 256}.{n % 256}/32"\ndev = "veth0"\n'
        for n in range(count)
    )
    link = '[link.veth0]\nkind = "veth"\npeer = { name = "veth1" }\naddresses = ["192.0.2.5/24"]\n'
    return f'[scope]\nresync = "0"\n{link}{routes}'


def test_while_a_plan_of_everything_is_made_others_are_answered(
    bus: Any, netns: str, tmp_path: Path
) -> None:
    """With as many events of as many objects that wait, too: all of them went while nothing was written."""
    with Served(bus.address, netns, tmp_path, declaration(MANY)) as served:

        async def main() -> None:
            asker, other = Connection(served.address), Connection(served.address)
            await asker.open()
            await other.open()

            def ask(member: str, signature: str = "", *body: Any) -> Any:
                return asker.call(served.name, served.path, SCOPE, member, signature, body, seconds=60)

            async def meanwhile(asked: asyncio.Task[Any]) -> int:
                answers = 0
                while not asked.done():
                    await other.call(
                        served.name, served.path, PROPERTIES, "Get", "ss", [SCOPE, "State"], seconds=60
                    )
                    answers += 1
                return answers

            assert await ask("Plan", "uu", 0, 1000) == [[], 0, 1]
            await ask("Pause", "t", 600_000_000)
            flush = ["ip", "-n", netns, "route", "flush", "dev", "veth0", "root", "10.0.0.0/8"]
            assert subprocess.run(flush, check=False).returncode == 0
            for offset, length in ((0, 1000), (MANY - 10, 10)):
                plan = asyncio.create_task(ask("Plan", "uu", offset, 1000))
                answers = await meanwhile(plan)
                ops, total, generation = plan.result()
                assert (len(ops), total, generation) == (length, MANY, 1)
                if not offset:
                    assert answers > 10
            await ask("Resume")
            assert await ask("WaitConverged", "tt", 0, 60_000_000) == [True]
            asker.close()
            other.close()

        asyncio.run(main())


def test_the_pages_of_a_list_belong_together(bus: Any, netns: str, tmp_path: Path) -> None:
    many = 1500
    with Served(bus.address, netns, tmp_path, declaration(many)) as served:

        async def main() -> None:
            asker, other = Connection(served.address), Connection(served.address)
            await asker.open()
            await other.open()

            async def page(who: Connection, wanted: str, offset: int) -> tuple[list[Any], int]:
                words = [wanted, offset, 1000]
                found = await who.call(
                    served.name, served.path, SCOPE, "ListObjects", "suu", words, seconds=60
                )
                return found[0], found[1]

            before, total = await page(asker, "done", 0)
            await asker.call(
                served.name, served.path, SCOPE, "PauseObject", "st", ["address 192.0.2.5/24", 600_000_000]
            )
            rest, again = await page(asker, "done", 1000)
            assert total == again == len(before) + len(rest)
            assert not [row for row in rest if row[4]]
            # The other asks for the first time, and the first one for something else.
            assert (await page(other, "done", 1000))[1] == total
            assert await page(asker, "failed", 1000) == ([], 0)
            assert [row[4] for row in (await page(asker, "", 0))[0] if row[4]] != []
            asker.close()
            other.close()

        asyncio.run(main())
