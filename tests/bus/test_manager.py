# SPDX-License-Identifier: MIT
"""The Manager: what it asks of systemd, and what it says of names that can't be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("dbus_next")

from linxd.bus import manager, names
from linxd.bus.connection import BusError, Call, Connection
from linxd.bus.manager import SYSTEMD, ManagerInterface
from linxd.bus.objects import Objects
from linxd.bus.polkit import Authority
from linxd.config import valid_name

JOB = "/org/freedesktop/systemd1/job/7"


class Systemd:
    """Takes jobs as systemd does. ``error``: what it says instead."""

    def __init__(self, address: str) -> None:
        self.asked: list[tuple[str, list[Any]]] = []
        self.error = ""
        self.connection = Connection(address, names=[SYSTEMD], called=self._called)

    def _called(self, call: Call) -> None:
        assert (call.path, call.interface) == ("/org/freedesktop/systemd1", f"{SYSTEMD}.Manager")
        self.asked.append((call.member, list(call.body)))
        if self.error:
            self.connection.refuse(call, self.error, "no")
        else:
            self.connection.answer(call, "o", [JOB])


def managed(bus: Any, run: Callable[[Connection, Systemd], Awaitable[None]]) -> None:
    """Run with the host's Manager, for which c1 alone has a file, and a client."""

    async def main() -> None:
        systemd = Systemd(bus.address)
        host = Connection(
            bus.address,
            names=[names.HOST_NAME],
            rules=manager.RULES,
            called=lambda call: objects.called(call),
            heard=lambda heard: shown.heard(heard),
        )
        shown = ManagerInterface(host, declared=lambda: ["host", "c1"], valid=valid_name)
        objects = Objects(host, Authority(host, "host"))
        objects.add(names.ROOT, shown)
        client = Connection(bus.address)
        for one in (systemd.connection, host, client):
            await one.open()
        try:
            await run(client, systemd)
        finally:
            objects.close()
            for one in (systemd.connection, host, client):
                one.close()

    asyncio.run(main())


async def ask(client: Connection, member: str, name: str) -> Any:
    return await client.call(names.HOST_NAME, names.ROOT, ManagerInterface.name, member, "s", [name])


@pytest.mark.parametrize(("member", "verb"), [("StartScope", "StartUnit"), ("StopScope", "StopUnit")])
def test_systemd_is_asked_for_the_unit_and_its_job_is_told(bus, member: str, verb: str) -> None:
    async def run(client: Connection, systemd: Systemd) -> None:
        assert await ask(client, member, "c1") == [JOB]
        assert systemd.asked == [(verb, ["linx-reconcile@c1.service", "replace"])]

    managed(bus, run)


@pytest.mark.parametrize(
    ("member", "name", "error"),
    [
        ("StartScope", "c2", names.NO_SUCH_SCOPE),
        ("StartScope", "host", names.INVALID_NAME),
        ("StopScope", "host", names.INVALID_NAME),
        ("StartScope", "../c1", names.INVALID_NAME),
        ("StopScope", "c1.service\n", names.INVALID_NAME),
        ("StopScope", "", names.INVALID_NAME),
        ("StartScope", "c" * 65, names.INVALID_NAME),
    ],
)
def test_what_can_not_be_is_never_asked_of_systemd(bus, member: str, name: str, error: str) -> None:
    async def run(client: Connection, systemd: Systemd) -> None:
        with pytest.raises(BusError) as caught:
            await ask(client, member, name)
        assert caught.value.name == error
        assert not systemd.asked

    managed(bus, run)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (f"{SYSTEMD}.NoSuchUnit", names.NO_SUCH_SCOPE),
        ("org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.AccessDenied"),
    ],
)
def test_what_systemd_refuses_has_a_name(bus, theirs: str, ours: str) -> None:
    async def run(client: Connection, systemd: Systemd) -> None:
        systemd.error = theirs
        with pytest.raises(BusError) as caught:
            await ask(client, "StopScope", "c1")
        assert caught.value.name == ours

    managed(bus, run)


def test_names_that_are_no_scopes_are_not_listed(bus) -> None:
    async def run(client: Connection, systemd: Systemd) -> None:
        # Some have the names and not the objects; others only look alike.
        alike = [f"{names.PREFIX}.c1.more", f"{names.PREFIX}like.c1", f"{names.PREFIX}.c9"]
        other = Connection(client.address, names=alike)
        await other.open()
        (rows,) = await client.call(names.HOST_NAME, names.ROOT, ManagerInterface.name, "ListScopes")
        assert rows == []
        other.close()

    managed(bus, run)


@pytest.mark.parametrize("name", ["c1", "web-1", "1a", "_", "a.b", "A_2d", "x" * 64])
def test_labels_are_systemds_and_can_be_read_back(name: str) -> None:
    bus_name = names.bus_name(name)
    assert names.scope_of(bus_name) == name
    last = bus_name.removeprefix(f"{names.PREFIX}.")
    assert last.replace("_", "a").isalnum()
    assert not last[0].isdigit()
    assert names.scope_path(name) == f"/org/linxd1/scope/{last}"


def test_label_of_known_names() -> None:
    # sd_bus_path_encode("/x", …) of systemd 252 gives these.
    assert [names.label(name) for name in ("c1", "web-1", "1a", "a_b", "ü", "")] == [
        "c1", "web_2d1", "_31a", "a_5fb", "_c3_bc", "_",
    ]  # fmt: skip
