# SPDX-License-Identifier: MIT
"""What is asked of NetworkManager, and when, and what comes of its answers, late ones and none.

The one here answers as the real one does, of which more is seen under tests/system."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("dbus_next")

from linxd.beside import Beside
from linxd.bus import networkmanager
from linxd.bus.connection import BUS, BUS_PATH, Call, Connection, Heard, Variant
from linxd.bus.networkmanager import ACTIVE, DEVICE, NAME, PATH, RULES, NetworkManager
from linxd.bus.objects import PROPERTIES
from linxd.config import ScopeConfig, declare
from linxd.log import Entry

PATIENCE = 20.0
EXTERNAL, ITS_OWN, NO_PROFILE, UNMANAGED = 0xDC, 0x44, -1, -2
"""A device's flags of activation, as seen of the real one; or that it has none; or is not managed."""


class Fake:
    """Has devices by name. ``silent``: says nothing; ``error``: says this instead."""

    def __init__(self, address: str, **devices: int) -> None:
        self.devices = dict(devices)
        self.silent = False
        self.error = ""
        self.asked: list[str] = []
        self.connection = Connection(address, names=[NAME], called=self._called)

    def _called(self, call: Call) -> None:
        self.asked.append(str(call.body[-1]))
        if self.silent:
            return
        if self.error:
            self.connection.refuse(call, self.error, "no")
        elif call.member == "GetDeviceByIpIface":
            assert call.path == PATH
            if call.body[0] in self.devices:
                self.connection.answer(call, "o", [f"{PATH}/Devices/{call.body[0]}"])
            else:
                self.connection.refuse(call, f"{NAME}.UnknownDevice", "No device found")
        else:
            assert (call.interface, call.member) == (PROPERTIES, "Get")
            self.connection.answer(call, "v", [self._value(call.path, *call.body)])

    def _value(self, path: str, interface: str, name: str) -> Variant:
        device = path.rpartition("/")[2]
        flags = self.devices[device]
        match interface, name:
            case (networkmanager.DEVICE, "Managed"):
                return Variant("b", flags != UNMANAGED)
            case (networkmanager.DEVICE, "ActiveConnection"):
                return Variant("o", "/" if flags < 0 else f"{PATH}/ActiveConnection/{device}")
        assert (interface, name) == (ACTIVE, "StateFlags")
        return Variant("u", flags)

    def becomes(self, device: str, flags: int) -> None:
        """A device is managed otherwise from now on, and that is told."""
        self.devices[device] = flags
        self.connection.signal(f"{PATH}/Devices/{device}", DEVICE, "StateChanged", "uuu", [100, 30, 0])


class Host:
    """The daemon's side: what is said there. Looks are as the real ones, but soon."""

    def __init__(self, address: str) -> None:
        self.said: list[Entry] = []
        self.looked = 0
        self.beside = Beside(self.said.append)
        self.other = Counted(self)
        self.connection = Connection(
            address, rules=RULES, heard=lambda heard: self.other.heard(heard), opened=self.other.opened
        )
        self.other._connection = self.connection
        self.beside.add(self.other)

    async def until(self, *, looked: int) -> list[str]:
        """What has been said after so many looks, and no earlier."""
        async with asyncio.timeout(PATIENCE):
            while self.looked < looked:
                await asyncio.sleep(0.005)
        return [entry.text for entry in self.said]


class Counted(NetworkManager):
    """Counts the looks that have ended. Nothing settles here."""

    settles = 0.02

    def __init__(self, host: Host) -> None:
        super().__init__(Connection(""), lambda: host.beside.again(self))
        self._host = host

    async def undone(self, config: ScopeConfig) -> Any:
        try:
            return await super().undone(config)
        finally:
            # Said, if at all, before anybody else has a turn.
            asyncio.get_running_loop().call_soon(self._count)

    def _count(self) -> None:
        self._host.looked += 1


def declared(*links: str, name: str = "host", **more: Any) -> ScopeConfig:
    return declare(name, {"link": {link: {"kind": "dummy"} for link in links}, **more})


def run(bus: Any, test: Callable[[Fake, Host], Awaitable[None]], **devices: int) -> None:
    async def main() -> None:
        fake, host = Fake(bus.address, **devices), Host(bus.address)
        try:
            await fake.connection.open()
            await host.connection.open()
            await test(fake, host)
        finally:
            fake.connection.close()
            host.connection.close()

    asyncio.run(main())


def test_managed_is_what_it_has_a_profile_for_or_none_yet_and_not_what_it_only_shows(bus) -> None:
    async def test(fake: Fake, host: Host) -> None:
        route = {"to": "10.1.0.0/16", "dev": "way", "via": "10.0.0.1"}
        both = {"to": "10.2.0.0/16", "nexthops": [{"dev": "hop0"}, {"dev": "hop1"}]}
        neighbour = {"dev": "near", "address": "10.0.0.2", "lladdr": "02:00:00:00:00:01"}
        links = ("shown", "own", "idle", "left", "unknown")
        await host.beside.look(declared(*links, route=[route, both], neighbour=[neighbour]))
        assert host.said == []
        await host.until(looked=1)
        [entry] = host.said
        assert entry.text.startswith("host: NetworkManager manages hop1, idle, near, own, way, and removes ")
        assert networkmanager.DROP_IN in entry.text
        assert entry.details == (
            "[keyfile]",
            "unmanaged-devices+="
            + ";".join(f"interface-name:{link}" for link in sorted((*links, "way", "hop0", "hop1", "near"))),
        )
        assert "free" not in fake.asked

    run(
        bus,
        test,
        shown=EXTERNAL,
        own=ITS_OWN,
        idle=NO_PROFILE,
        left=UNMANAGED,
        way=ITS_OWN,
        hop0=EXTERNAL,
        hop1=ITS_OWN,
        near=ITS_OWN,
        free=ITS_OWN,
    )


def test_what_was_said_is_said_again_only_after_it_had_ended(bus) -> None:
    async def test(fake: Fake, host: Host) -> None:
        await host.beside.look(declared("a", "b"))
        assert len(await host.until(looked=1)) == 1
        await host.beside.look(declared("a", "b"))
        assert len(await host.until(looked=2)) == 1
        fake.becomes("b", ITS_OWN)
        assert "manages a, b, " in (await host.until(looked=3))[1]
        fake.becomes("a", UNMANAGED)
        assert len(await host.until(looked=4)) == 2
        fake.becomes("a", ITS_OWN)
        assert "manages a, b, " in (await host.until(looked=5))[2]
        assert len(host.said) == 3

    run(bus, test, a=ITS_OWN, b=EXTERNAL)


def test_it_is_looked_at_once_things_have_settled(bus) -> None:
    async def test(fake: Fake, host: Host) -> None:
        host.other.settles = 0.3
        await host.beside.look(declared("a"))
        for flags in (NO_PROFILE, ITS_OWN, NO_PROFILE, EXTERNAL):
            fake.becomes("a", flags)
            host.beside.again(host.other)
            await asyncio.sleep(0)
        assert await host.until(looked=1) == []
        assert fake.asked.count("a") == 1

    run(bus, test, a=NO_PROFILE)


def test_of_many_the_first_are_named_and_odd_names_are_taken_as_they_are(bus) -> None:
    names = [f"web{number}" for number in range(7)]

    async def test(fake: Fake, host: Host) -> None:
        odd = ["a;b", "c,d", "e\\f", "g*", "h?", "=i", "~j", "é"]
        await host.beside.look(declared(*names, *odd))
        assert "manages web0, web1, web2, web3, web4 and 2 more, and " in (await host.until(looked=1))[0]
        [_, line] = host.said[0].details
        for written in (
            r"interface-name:=a\;b",
            r"interface-name:=c\,d",
            r"interface-name:=e\\f",
            "interface-name:=g*",
            "interface-name:=h?",
            "interface-name:==i",
            "interface-name:=~j",
            "interface-name:=é",
            "interface-name:web0",
        ):
            assert written in line.partition("+=")[2]
            assert f"{written};" in f"{line};"

    run(bus, test, **dict.fromkeys(names, ITS_OWN))


def test_other_scopes_ask_nothing_and_a_scope_without_links_no_more_than_whether_it_runs(bus) -> None:
    async def test(fake: Fake, host: Host) -> None:
        await host.beside.look(declared("a", name="c1"))
        host.beside.again(host.other)
        assert host.beside._due == {}
        await host.beside.look(declared())
        await host.until(looked=1)
        assert fake.asked == []

    run(bus, test, a=ITS_OWN)


def test_one_that_does_not_run_is_not_started_and_is_looked_at_when_it_comes(bus) -> None:
    async def test(fake: Fake, host: Host) -> None:
        fake.connection.close()
        await host.beside.look(declared("a"))
        assert await host.until(looked=1) == []
        await fake.connection.open()
        assert len(await host.until(looked=2)) == 1
        # It goes and comes again, and does what it did: that was said.
        fake.connection.close()
        await fake.connection.open()
        assert len(await host.until(looked=3)) == 1

    run(bus, test, a=ITS_OWN)


def test_an_answer_that_does_not_come_in_time_is_none(bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networkmanager, "ANSWER", 0.1)

    async def test(fake: Fake, host: Host) -> None:
        fake.silent = True
        await host.beside.look(declared("a"))
        assert await host.until(looked=1) == []
        assert fake.asked == ["a"]
        fake.silent = False
        fake.becomes("a", ITS_OWN)
        assert len(await host.until(looked=2)) == 1

    run(bus, test, a=ITS_OWN)


def test_one_that_dies_while_it_is_asked_changes_nothing(bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networkmanager, "ANSWER", 10 * PATIENCE)

    async def test(fake: Fake, host: Host) -> None:
        await host.beside.look(declared("a"))
        assert len(await host.until(looked=1)) == 1
        fake.silent = True
        fake.asked.clear()
        host.beside.again(host.other)
        async with asyncio.timeout(PATIENCE):
            while not fake.asked:
                await asyncio.sleep(0.005)
        fake.connection.close()
        await host.until(looked=2)
        fake.silent = False
        await fake.connection.open()
        # It manages what it managed, and nothing said otherwise meanwhile.
        assert len(await host.until(looked=3)) == 1

    run(bus, test, a=ITS_OWN)


def test_one_that_goes_between_two_questions_changes_nothing(bus) -> None:
    async def test(fake: Fake, host: Host) -> None:
        call = host.connection.call

        async def gone_after(*words: Any) -> Any:
            answer = await call(*words)
            if words[0] == fake.connection.unique:
                # Told of in what comes together with the answer.
                host.other.heard(Heard(BUS, BUS_PATH, BUS, "NameOwnerChanged", [NAME, words[0], ""]))
                fake.connection.close()
            return answer

        await host.beside.look(declared("a"))
        assert len(await host.until(looked=1)) == 1
        host.connection.call = gone_after
        host.beside.again(host.other)
        (look,) = host.beside._due.values()
        await host.until(looked=2)
        await look
        assert host.beside._said[host.other] == {"a"}

    run(bus, test, a=ITS_OWN)


@pytest.mark.parametrize("error", [f"{NAME}.UnknownDevice", "org.freedesktop.DBus.Error.UnknownObject"])
def test_what_it_knows_nothing_of_it_does_not_manage(bus, error: str) -> None:
    async def test(fake: Fake, host: Host) -> None:
        fake.error = error
        await host.beside.look(declared("a", "b"))
        assert await host.until(looked=1) == []
        assert sorted(fake.asked) == ["a", "b"]

    run(bus, test, a=ITS_OWN)


def test_a_bus_that_goes_is_no_failure_and_one_that_comes_is_asked(bus) -> None:
    async def test(fake: Fake, host: Host) -> None:
        host.connection.close()
        await host.beside.look(declared("a"))
        assert await host.until(looked=1) == []
        await host.connection.open()
        assert len(await host.until(looked=2)) == 1

    run(bus, test, a=ITS_OWN)


def test_words_that_a_stranger_sends_us_alone_are_not_heard(bus) -> None:
    async def test(fake: Fake, host: Host) -> None:
        await host.beside.look(declared("a"))
        await host.until(looked=1)
        path, state = f"{PATH}/Devices/a", [100, 30, 0]
        for sender, heard in ((":1.999", False), (fake.connection.unique, True)):
            host.other.heard(Heard(sender, path, DEVICE, "StateChanged", state))
            host.other.heard(Heard(sender, BUS_PATH, BUS, "NameOwnerChanged", [NAME, "", ":1.999"]))
            assert [task.done() for task in host.beside._due.values()] == [not heard]

    run(bus, test, a=ITS_OWN)
