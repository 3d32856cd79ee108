# SPDX-License-Identifier: MIT
"""The daemon on the bus when much happens at once: drift after drift, a bus that dies, strangers who shout,
hundreds of scopes."""

from __future__ import annotations

import asyncio
import copy
import itertools
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dbus_next")

from linxd.bus import names
from linxd.bus.connection import BusError, Connection, Heard, Unreachable
from linxd.bus.manager import RULES, ManagerInterface
from linxd.bus.objects import Objects
from linxd.bus.polkit import Authority
from tests.bus.served import BASE, LOOP, PROPERTIES, SCOPE, Served

ROOT = Path(__file__).resolve().parents[2]
TOLD = {
    SCOPE: {"Files", "State", "Paused", "PausedUntil", "Generation", "Counts"},
    LOOP: {"State", "Counts", "LastError", "ResyncUSec"},
}


def values(body: Mapping[str, Any]) -> dict[str, Any]:
    """A dictionary of variants without them."""
    return {key: value.value for key, value in body.items()}


class Mirror:
    """What was told of each property by PropertiesChanged."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.told: dict[tuple[str, str], dict[str, Any]] = {}
        self._told = asyncio.Event()
        self.signals = 0
        self.patched = 0
        rules = [f"type='signal',sender='{served.name}',path_namespace='{served.path}'"]
        self.at_answer: dict[tuple[str, str], dict[str, Any]] = {}
        """What had been told when the last answer came."""
        mirror = self

        class Ordered(Connection):
            def _received(self, frame: Any) -> None:
                if frame.data[1] == 2:
                    mirror.at_answer = copy.deepcopy(mirror.told)
                super()._received(frame)

        self.connection = Ordered(served.address, rules=rules, heard=self._heard)

    def _heard(self, heard: Heard) -> None:
        if heard.member == "PropertiesChanged":
            self.signals += 1
            interface, changed, _ = heard.body
            self.told.setdefault((heard.path, interface), {}).update(values(changed))
            self._told.set()
        elif heard.member == "Patched":
            self.patched += heard.body[1]
            self._told.set()

    @property
    def objects(self) -> list[tuple[str, str]]:
        return [(self._served.path, SCOPE), (f"{self._served.path}/rtnl", LOOP)]

    async def got(self, path: str, interface: str) -> dict[str, Any]:
        """What Get returns of that which is told."""
        (all_of_them,) = await self.connection.call(
            self._served.name, path, PROPERTIES, "GetAll", "s", [interface]
        )
        return {key: value for key, value in values(all_of_them).items() if key in TOLD[interface]}

    async def until(self, property_: str, true: Callable[[Any], bool]) -> None:
        """Wait until it was told."""
        async with asyncio.timeout(30):
            while not true(self.told[self._served.path, SCOPE][property_]):
                self._told.clear()
                await self._told.wait()

    async def compare(self) -> None:
        for path, interface in self.objects:
            got = await self.got(path, interface)
            # Signals come in order with answers; what comes after this one may be here already.
            assert self.at_answer[path, interface] == got


def test_in_a_storm_what_was_told_is_what_is_got(
    bus: Any, netns_factory: Callable[[], str], tmp_path: Path
) -> None:
    routes = [f"203.0.113.{number}" for number in range(100)]
    text = BASE + "".join(f'[[route]]\nto = "{to}"\nvia = "10.0.0.1"\n' for to in routes)
    with Served(bus.address, netns_factory(), tmp_path, text) as served:

        async def main() -> None:
            mirror = Mirror(served)
            await mirror.connection.open()
            for path, interface in mirror.objects:
                mirror.told[path, interface] = await mirror.got(path, interface)
            storm = await asyncio.create_subprocess_exec(
                "ip", "-n", served.scope, "-force", "-batch", "-", stdin=asyncio.subprocess.PIPE
            )  # fmt: skip
            assert storm.stdin is not None
            # Another daemon's route in its place is a conflict; gone again, it is drift, and healed.
            for to in routes:
                storm.stdin.write(f"route replace {to} via 10.0.0.2 proto bird\n".encode())
                await mirror.compare()
            await mirror.until("Counts", lambda counts: counts["conflict"] == 100)
            for to in routes:
                storm.stdin.write(f"route del {to} proto bird\n".encode())
                await mirror.compare()
            await mirror.until("State", lambda state: state == "converged")
            await mirror.compare()
            assert mirror.signals > 20
            # Patches are told once it is known who is to blame, and nothing of them is lost.
            await mirror.until("State", lambda state: mirror.patched >= 100)
            assert mirror.patched == 100
            storm.stdin.close()
            assert await storm.wait() == 0
            mirror.connection.close()

        asyncio.run(main())
        assert served.daemon.stop() == 0


def test_daemon_outlives_its_bus_and_has_its_name_again(
    bus: Any, netns_factory: Callable[[], str], tmp_path: Path
) -> None:
    with Served(bus.address, netns_factory(), tmp_path) as served:
        for number in range(2):
            bus.stop()
            served.daemon.line("no bus")
            # The loops run on meanwhile.
            served.ip("route", "del", "198.51.100.0/24")
            served.daemon.line("restored route")
            bus.start()
            served.daemon.line("the bus is back")
            served.wait()
            assert served.get("State") == "converged"
            assert served.get("Drifts", source="rtnl") == number + 1
            managed = served.busctl(
                "call", served.name, "/org/linxd1", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"
            )
            assert f'"{served.path}/rtnl"' in managed.stdout
        assert served.daemon.stop() == 0


def test_without_a_bus_it_says_so_once_and_finds_the_one_that_comes(
    bus: Any, netns_factory: Callable[[], str], tmp_path: Path
) -> None:
    bus.stop()
    served = Served(bus.address, netns_factory(), tmp_path)
    with served.daemon as daemon:
        daemon.converged()
        bus.start()
        served.wait()
        assert served.get("State") == "converged"
        assert daemon.stop() == 0
        assert daemon.text.count("without a bus") == 1
        assert daemon.text.count("no bus") == 0


_SHOUT = """
import asyncio, itertools, sys
from dbus_next.message import Message
from dbus_next.signature import Variant
from linxd.bus.connection import Connection

async def main():
    address, name, path = sys.argv[1:]
    shouter = Connection(address)
    await shouter.open()
    def shout(signature, body, **how):
        how = {"path": path, "interface": "org.linxd1.Scope", "member": "Plan", **how}
        message = Message(destination=name, signature=signature, body=body, serial=shouter._serial(), **how)
        shouter._wire.send(bytes(message._marshall()))
    async def heard():
        while shouter._wire is not None and shouter._wire.unsent:
            await asyncio.sleep(0.01)
    for signature, body in (
        ("s", ["x" * 20_000_000]),
        ("av", [[Variant("y", 1)] * 200_000]),
        ("a(yv)", [[[1, Variant("s", "x")]] * 50_000]),
        ("uu", [0xFFFFFFFF, 0xFFFFFFFF]),
        ("tt", [1, 1]),
        ("", []),
    ):
        for member in ("Plan", "ListObjects", "Pause", "WaitConverged", "Get", "No_Such"):
            shout(signature, body, member=member)
            await heard()
    shout("", [], path="/" + "a" * 5_000_000)
    shout("", [], path="/org/linxd1/scope")
    shout("ss", ["org.linxd1.Scope", "State"], interface="org.freedesktop.DBus.Properties", member="Set")
    shout("ssv", ["a", "b", Variant("av", [])], interface="org.freedesktop.DBus.Properties", member="Set")
    for letters in itertools.islice(itertools.product("ybnqiuxt", repeat=4), 2000):
        shout(f"a({''.join(letters)})", [[]])
    await heard()
    print(await shouter.call(name, path, "org.freedesktop.DBus.Peer", "Ping"))
asyncio.run(main())
"""


def test_stranger_who_shouts_is_answered_and_nobody_else_is_worse_off(
    bus: Any, netns_factory: Callable[[], str], tmp_path: Path
) -> None:
    with Served(bus.address, netns_factory(), tmp_path) as served:

        def memory() -> int:
            status = Path(f"/proc/{served.daemon.process.pid}/status").read_text()
            return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))

        before = memory()
        script = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        script += ["/usr/bin/python3", "-c", _SHOUT, served.address, served.name, served.path]
        done = subprocess.run(script, capture_output=True, text=True, cwd=ROOT, check=False, timeout=120)
        assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
        assert served.get("State") == "converged"
        assert memory() - before < 30_000
        served.ip("route", "del", "198.51.100.0/24")
        served.daemon.line("restored route")
        assert served.daemon.stop() == 0
        assert "bus" not in served.daemon.text.replace("without systemd", "")


def test_300_scopes_are_listed_and_come_and_go(bus: Any) -> None:
    async def main() -> None:
        told: list[tuple[str, str]] = []

        def scope(number: int) -> Connection:
            name = f"c-{number}"

            def called(call: Any) -> None:
                # As much of a scope as the manager asks for.
                assert (call.path, call.member) == (names.scope_path(name), "GetAll")
                connection.answer(call, "a{sv}", [{}])

            connection = Connection(bus.address, names=[names.bus_name(name)], called=called)
            return connection

        manager = Connection(
            bus.address,
            names=[names.HOST_NAME],
            rules=RULES,
            called=lambda call: objects.called(call),
            heard=lambda heard: interface.heard(heard),
        )
        objects = Objects(manager, Authority(manager, "host"))
        interface = ManagerInterface(manager, declared=lambda: (), valid=lambda name: True)
        objects.add(names.ROOT, interface)
        everyone = asyncio.Event()

        def heard(one: Heard) -> None:
            if one.member in ("ScopeNew", "ScopeRemoved"):
                told.append((one.member, one.body[0]))
                if len(told) % 300 == 0:
                    everyone.set()

        rules = [f"type='signal',interface='{ManagerInterface.name}'"]
        client = Connection(bus.address, rules=rules, heard=heard)
        await manager.open()
        await client.open()
        scopes = [scope(number) for number in range(300)]
        for one in scopes:
            await one.open()
        await asyncio.wait_for(everyone.wait(), 30)
        assert told == [("ScopeNew", f"c-{number}") for number in range(300)]
        (rows,) = await client.call(names.HOST_NAME, names.ROOT, ManagerInterface.name, "ListScopes")
        assert sorted(row[0] for row in rows if row[0] != "host") == sorted(f"c-{n}" for n in range(300))
        assert ["c-7", "", "", "org.linxd1.netns.c_2d7", "/org/linxd1/scope/c_2d7"] in rows
        everyone.clear()
        for one in scopes:
            one.close()
        await asyncio.wait_for(everyone.wait(), 30)
        assert {name for what, name in told[300:] if what == "ScopeRemoved"} == {
            f"c-{n}" for n in range(300)
        }
        manager.close()
        client.close()

    asyncio.run(main())


def test_a_bus_with_no_room_left_is_done_without(bus: Any) -> None:
    bus.stop()
    bus.start(connections=3)

    async def main() -> None:
        let_in = [Connection(bus.address) for _ in range(3)]
        for one in let_in:
            await one.open()
        with pytest.raises((BusError, Unreachable, OSError)):
            await Connection(bus.address).open()
        for one in itertools.islice(let_in, 1):
            one.close()
        late = Connection(bus.address)
        running = asyncio.create_task(late.run())
        await asyncio.wait_for(late.up.wait(), 10)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        for one in let_in:
            one.close()

    asyncio.run(main())
