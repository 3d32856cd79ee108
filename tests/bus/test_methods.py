# SPDX-License-Identifier: MIT
"""Every method and the read side of a real daemon on a bus, asked as people do: by busctl and gdbus."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dbus_next")

from linxd.bus import names
from linxd.bus.connection import BusError, Connection, Variant
from tests.bus.served import NOBODY, PROPERTIES, SCOPE, Served

MANY = 1500
READS = ("Name", "Version", "Namespace", "NamespaceCookie", "Unit", "Files", "State", "Paused", "Counts")


@pytest.fixture
def served(bus: Any, netns: str, tmp_path: Path) -> Any:
    with Served(bus.address, netns, tmp_path) as one:
        yield one


async def client(served: Served) -> Connection:
    connection = Connection(served.address)
    await connection.open()
    return connection


# -- looked at ----------------------------------------------------------------------------------------------


def test_everybody_may_read_how_it_is(served: Served) -> None:
    for name in READS:
        assert served.get(name, uid=NOBODY) == served.get(name)
    assert served.get("Name", uid=NOBODY) == served.scope
    assert served.get("State", uid=NOBODY) == "converged"
    assert served.get("Files", uid=NOBODY) == [str(served.file)]
    assert served.get("Generation", uid=NOBODY) == 1
    counts = served.get("Counts", source="rtnl", uid=NOBODY)
    assert set(counts) == {"done", "pending", "failed", "conflict", "contended", "noted"}
    assert counts["done"] == sum(counts.values()) > 3
    assert served.get("Watch", source="rtnl") == "event"
    assert served.get("LastPass", source="rtnl") > 0


def test_busctl_and_gdbus_find_their_way(served: Served) -> None:
    tree = served.busctl("tree", "--list", served.name, uid=NOBODY).stdout
    assert f"{served.path}/rtnl" in tree.split()
    shown = served.busctl("introspect", served.name, served.path, SCOPE, uid=NOBODY)
    assert shown.returncode == 0, shown.stderr
    for member in (".Reconcile", ".Plan", ".WaitConverged", ".Counts"):
        assert member in shown.stdout
    command = ["gdbus", "introspect", f"--address={served.address}", "--recurse"]
    command += [f"--dest={served.name}", "--object-path=/"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "interface org.linxd1.Scope" in text
    assert "interface org.linxd1.Loop" in text
    # The Manager is the host's alone.
    assert "org.linxd1.Manager" not in text


def test_object_manager_has_the_scope_and_each_loop(served: Served) -> None:
    done = served.busctl(
        "call",
        served.name,
        names.ROOT,
        "org.freedesktop.DBus.ObjectManager",
        "GetManagedObjects",
        uid=NOBODY,
    )
    assert done.returncode == 0, done.stderr
    (objects,) = json.loads(done.stdout)["data"]
    assert set(objects) == {served.path, f"{served.path}/rtnl"}
    assert objects[served.path][SCOPE]["State"]["data"] == "converged"


def test_loop_that_a_reload_brings_is_added(served: Served) -> None:
    async def main() -> None:
        added: list[Any] = []
        rule = f"type='signal',sender='{served.name}',member='InterfacesAdded',path='{names.ROOT}'"
        listener = Connection(
            served.address,
            rules=[rule],
            heard=lambda heard: added.append(heard.body) if heard.member == "InterfacesAdded" else None,
        )
        await listener.open()
        with served.file.open("a") as file:
            file.write('[sysctl]\n"net.ipv4.ip_forward" = 1\n')
        await listener.call(served.name, served.path, SCOPE, "Reload")
        assert [body[0] for body in added] == [f"{served.path}/sysctl"]
        assert served.get("State", source="sysctl") == "converged"
        assert served.get("Generation") == 2
        listener.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "interface", "member", "signature", "body", "error"),
    [
        ("", SCOPE, "Fly", "", [], "UnknownMethod"),
        ("", "org.linxd1.Nothing", "Fly", "", [], "UnknownInterface"),
        ("/nothing", SCOPE, "Resume", "", [], "UnknownObject"),
        ("", SCOPE, "Pause", "s", ["long"], "InvalidArgs"),
        ("", PROPERTIES, "Get", "ss", [SCOPE, "Colour"], "UnknownProperty"),
        ("", PROPERTIES, "Set", "ssv", [SCOPE, "State", Variant("s", "fine")], "PropertyReadOnly"),
    ],
)
def test_what_there_is_not_is_refused_by_name(
    served: Served, path: str, interface: str, member: str, signature: str, body: list[Any], error: str
) -> None:
    async def main() -> None:
        connection = await client(served)
        with pytest.raises(BusError) as caught:
            await connection.call(served.name, f"{served.path}{path}", interface, member, signature, body)
        assert caught.value.name == f"org.freedesktop.DBus.Error.{error}"
        connection.close()

    asyncio.run(main())


# -- inspected ----------------------------------------------------------------------------------------------


def test_plan_and_objects_come_in_pages(bus: Any, netns: str, tmp_path: Path) -> None:
    routes = "".join(
        f'[[route]]\nto = "198.18.{n // 256}.{n % 256}/32"\ndev = "veth0"\n' for n in range(MANY)
    )
    text = f'[link.veth0]\nkind = "veth"\npeer = {{ name = "veth1" }}\naddresses = ["10.0.0.5/24"]\n{routes}'
    with Served(bus.address, netns, tmp_path, text) as served:
        first, total = served.call("ListObjects", "suu", "", "0", "1000")
        rest, again = served.call("ListObjects", "suu", "", "1000", "1000")
        assert total == again == len(first) + len(rest)
        assert len(first) == 1000
        assert len({(kind, key) for kind, key, *_ in first + rest}) == total
        assert sum(kind == "route" for kind, *_ in first + rest) == MANY
        assert {condition for _, _, condition, *_ in first + rest} == {"done"}
        assert served.call("ListObjects", "suu", "failed", "0", "1000") == [[], 0]
        # All of it goes, and while nothing is written a plan says what would come back.
        served.call("Pause", "t", str(600_000_000))
        served.ip("route", "flush", "dev", "veth0", "root", "198.18.0.0/15")
        ops, total, generation = served.call("Plan", "uu", "0", "10")
        assert (len(ops), total, generation) == (10, MANY, 1)
        assert all(verb == "create" and name.startswith("route ") for verb, name, _ in ops)
        (tail, *_) = served.call("Plan", "uu", str(MANY - 5), "1000")
        assert len(tail) == 5
        (none, *_) = served.call("Plan", "uu", str(MANY + 5), "1000")
        assert none == []
        for words in (("Plan", "uu", "0", "1001"), ("ListObjects", "suu", "''", "0", "1001")):
            assert "LimitsExceeded" in served.refused(words[0], "", *words[2:])
        assert "InvalidArgs" in served.refused("ListObjects", "", "'wrong'", "0", "1")


def test_describe_is_json_and_names_what_is_not_as_declared(served: Served) -> None:
    (text,) = served.call("Describe")
    word = json.loads(text)
    assert (word["scope"], word["state"], word["generation"]) == (served.scope, "converged", 1)


def test_contents_and_verbs_are_not_for_everybody(served: Served) -> None:
    refusals = {
        "inspect": (("Plan", "0", "1"), ("ListObjects", "''", "0", "1"), ("Describe",)),
        "reconcile": (("Reconcile",),),
        "reload": (("Reload",),),
        "pause": (("Pause", "1000000"),),
        "resume": (("Resume",),),
        "release": (("Release",),),
    }
    for action, calls in refusals.items():
        for member, *arguments in calls:
            text = served.refused(member, "", *arguments, uid=NOBODY)
            assert "AccessDenied" in text
            assert f"org.linxd1.{action}" in text
    assert served.get("State") == "converged"
    assert served.get("Generation") == 1


# -- asked for ----------------------------------------------------------------------------------------------


def test_reconcile_is_a_pass_of_every_loop_and_says_how_much_it_wrote(served: Served) -> None:
    assert served.call("Reconcile") == [True, 0]
    assert served.get("Passes", source="rtnl") >= 2


def test_paused_it_writes_nothing_and_reconciles_nothing(served: Served) -> None:
    served.call("Pause", "t", str(600_000_000))
    assert served.get("State") == "paused"
    assert served.get("PausedUntil") > 0
    assert "org.linxd1.Error.Paused" in served.refused("Reconcile")
    served.ip("address", "del", "10.0.0.5/24", "dev", "veth0")
    (ops, total, _) = served.call("Plan", "uu", "0", "100")
    assert total == len(ops) >= 1
    assert "10.0.0.5" not in served.ip("address")
    served.call("Resume")
    assert served.call("WaitConverged", "tt", "0", "20000000") == [True]
    assert "10.0.0.5" in served.ip("address")
    assert served.get("PausedUntil") == 0
    assert "InvalidArgs" in served.refused("Pause", "", "0")


def test_reload_tells_every_fault_and_keeps_what_was(served: Served) -> None:
    served.file.write_text('[link.lo]\nadresses = []\n[[route]]\nto = "x"\n')
    text = served.refused("Reload")
    assert "org.linxd1.Error.InvalidConfig" in text
    assert "adresses" in text
    assert "route" in text
    assert served.get("Generation") == 1
    assert "10.0.0.5" in served.ip("address")


def test_release_gives_back_and_ends(served: Served) -> None:
    assert served.call("Release") == []
    assert served.daemon.end() == 0
    assert "veth0" not in served.ip("link")


def test_waiting_ends_in_time_and_is_bounded(served: Served) -> None:
    async def main() -> None:
        connection = await client(served)

        async def wait(generation: int, usec: int) -> Any:
            return await connection.call(
                served.name, served.path, SCOPE, "WaitConverged", "tt", [generation, usec]
            )

        assert await wait(0, 1_000_000) == [True]
        assert await wait(1, 1_000_000) == [True]
        assert await wait(2, 1) == [False]
        waiting = [asyncio.create_task(wait(2, 60_000_000)) for _ in range(17)]
        done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        (over,) = done
        assert isinstance(over.exception(), BusError)
        assert getattr(over.exception(), "name", "") == names.LIMITS
        # What the sixteen wait for comes.
        served.file.write_text(served.file.read_text().replace("10.0.0.5", "10.0.0.6"))
        served.call("Reload")
        assert await asyncio.gather(*pending) == [[True]] * 16
        connection.close()

    asyncio.run(main())


def test_gone_namespace_is_said_to_who_waits(served: Served) -> None:
    async def main() -> None:
        connection = await client(served)
        waiting = asyncio.create_task(
            connection.call(served.name, served.path, SCOPE, "WaitConverged", "tt", [2, 60_000_000])
        )
        # The call is there before the end is.
        await connection.call(served.name, served.path, "org.freedesktop.DBus.Peer", "Ping")
        done = subprocess.run(["ip", "netns", "del", served.scope], check=False)
        assert done.returncode == 0
        with pytest.raises(BusError) as caught:
            await asyncio.wait_for(waiting, 20)
        assert caught.value.name == names.NAMESPACE_GONE
        connection.close()

    asyncio.run(main())
    assert served.daemon.end() == 0
