# SPDX-License-Identifier: MIT
"""What everybody hears: objects by their names, who broke them, and nothing of what rules and keys say."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dbus_next")

from linxd.bus.connection import Connection, Heard
from linxd.bus.forms import public_name, told
from linxd.patch import Change, Op, Verb
from linxd.sources.rtnl.model import Link
from tests.bus.served import LOOP, PROPERTIES, SCOPE, Served

RULESET = """
[netfilter]
ruleset = \"\"\"
table inet filter {
  set allow { type ipv4_addr; elements = { 203.0.113.77, 203.0.113.78 }; }
  chain input { type filter hook input priority 0; policy accept; tcp dport 51234 counter accept; }
}
\"\"\"
"""


class Ear:
    """Hears what a daemon says. `until` waits for one that is as wanted."""

    def __init__(self, served: Served) -> None:
        self.heard: list[Heard] = []
        self._more = asyncio.Event()
        rule = f"type='signal',sender='{served.name}'"
        self.connection = Connection(served.address, rules=[rule], heard=self._hear)

    def _hear(self, heard: Heard) -> None:
        if heard.path.startswith("/org/linxd1"):
            self.heard.append(heard)
            self._more.set()

    async def until(self, wanted: Callable[[Heard], bool]) -> Heard:
        async with asyncio.timeout(20):
            while True:
                for one in self.heard:
                    if wanted(one):
                        return one
                self._more.clear()
                await self._more.wait()


def listening(served: Served, run: Callable[[Ear], Awaitable[None]]) -> None:
    async def main() -> None:
        ear = Ear(served)
        await ear.connection.open()
        try:
            await run(ear)
        finally:
            ear.connection.close()

    asyncio.run(main())


def nft(netns: str, *words: str) -> None:
    done = subprocess.run(
        ["ip", "netns", "exec", netns, "nft", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_drift_and_patch_name_the_object_and_the_culprit(bus: Any, netns: str, tmp_path: Path) -> None:
    with Served(bus.address, netns, tmp_path) as served:

        async def run(ear: Ear) -> None:
            served.ip("link", "set", "veth0", "mtu", "1400")
            served.ip("address", "del", "10.0.0.5/24", "dev", "veth0")
            drifted = await ear.until(lambda one: one.member == "Drifted" and "address" in str(one.body))
            patched = await ear.until(lambda one: one.member == "Patched" and "address" in str(one.body))
            assert (drifted.path, drifted.interface) == (f"{served.path}/rtnl", LOOP)
            ops, total, culprit = drifted.body
            assert [op[:2] for op in ops if op[1].startswith("address")] == [
                ["create", "address 10.0.0.5/24 dev veth0"]
            ]
            assert total == len(ops)
            assert {"pid", "confirmed"} <= culprit.keys()
            ops, total, trigger, _, usec = patched.body
            assert trigger == "event"
            assert total == len(ops) >= 1
            assert usec > 0

        listening(served, run)


def test_nothing_of_a_ruleset_is_told(bus: Any, netns: str, tmp_path: Path) -> None:
    with Served(bus.address, netns, tmp_path, RULESET) as served:

        async def run(ear: Ear) -> None:
            nft(netns, "flush", "chain", "inet", "filter", "input")
            rule = await ear.until(lambda one: one.member == "Patched")
            nft(netns, "delete", "element", "inet", "filter", "allow", "{ 203.0.113.77 }")
            element = await ear.until(lambda one: one.member == "Patched" and one is not rule)
            assert [op[:2] for op in rule.body[0]] == [["create", "rule inet filter input 1"]]
            assert [op[:2] for op in element.body[0]] == [["create", "element inet filter allow"]]
            # A ruleset that does not load blocks its loop; why is for those who may inspect.
            file = served.file
            file.write_text(file.read_text().replace("counter accept", "jump nowhere_51234"))
            await ear.connection.call(served.name, served.path, SCOPE, "Reload", seconds=60)
            assert served.get("State", source="netfilter") != "starting"
            everything = " ".join(str(_plain(one.body)) for one in ear.heard)
            everything += str(served.get("LastError", source="netfilter"))
            for secret in ("51234", "203.0.113", "dport", "nowhere"):
                assert secret not in everything

        listening(served, run)


def test_who_may_inspect_sees_the_rule(bus: Any, netns: str, tmp_path: Path) -> None:
    with Served(bus.address, netns, tmp_path, RULESET) as served:
        served.call("Pause", "t", str(600_000_000))
        nft(netns, "flush", "chain", "inet", "filter", "input")
        (ops, total, _) = served.call("Plan", "uu", "0", "10")
        assert total == 1
        assert "dport 51234" in ops[0][1]
        objects, _ = served.call("ListObjects", "suu", "", "0", "1000")
        assert ["chain", "inet filter input"] in [one[:2] for one in objects]


def test_failure_is_told_once_with_its_errno(bus: Any, netns: str, tmp_path: Path) -> None:
    # No veth is as long as that.
    text = '[link.veth0]\nkind = "veth"\npeer = { name = "veth1" }\nmtu = 70000\n'
    with Served(bus.address, netns, tmp_path, "[link.lo]\n") as served:

        async def run(ear: Ear) -> None:
            served.file.write_text(text)
            await ear.connection.call(served.name, served.path, SCOPE, "Reload")
            await ear.connection.call(served.name, served.path, SCOPE, "Reconcile")
            listed, _ = served.call("ListObjects", "suu", "failed", "0", "100")
            failed = [one.body for one in ear.heard if one.member == "ObjectFailed"]
            assert failed
            assert sorted(name for name, _, _ in failed) == sorted(f"{one[0]} {one[1]}" for one in listed)
            for _, number, words in failed:
                assert number > 0
                assert words
            since = [one[3] for one in listed]
            assert all(moment > 1_600_000_000_000_000 for moment in since)

        listening(served, run)


def test_changes_of_a_turn_come_in_one_signal_each(bus: Any, netns: str, tmp_path: Path) -> None:
    with Served(bus.address, netns, tmp_path) as served:

        async def run(ear: Ear) -> None:
            await ear.connection.call(served.name, served.path, SCOPE, "Pause", "t", [600_000_000])
            told = [one.body for one in ear.heard if one.member == "PropertiesChanged"]
            of_scope = [_plain(changed) for name, changed, _ in told if name == SCOPE]
            # All that a pause changes, before the answer came.
            assert len(of_scope) == 1
            assert of_scope[0].keys() == {"State", "Paused", "PausedUntil"}
            assert [_plain(changed) for name, changed, _ in told if name == LOOP] == [{"State": "paused"}]
            (value,) = await ear.connection.call(
                served.name, served.path, PROPERTIES, "Get", "ss", [SCOPE, "PausedUntil"]
            )
            assert value.value == of_scope[0]["PausedUntil"]

        listening(served, run)


def test_secret_attributes_of_links_are_not_told() -> None:
    changes = (Change("mtu", "1500", "1400"), Change("private-key", "a", "b"), Change("peer-psk", None, "c"))
    link = Link("wg0", kind="wireguard")
    ((verb, name, attributes),) = told("rtnl", [Op(Verb.UPDATE, link, link, changes)])
    assert (verb, name, attributes.keys()) == ("update", "link wg0", {"mtu"})


def test_at_most_100_ops_and_no_control_characters() -> None:
    links = [Link(f"e{number}\x1b[31m") for number in range(250)]
    forms = told("rtnl", [Op(Verb.CREATE, link, None) for link in links])
    assert len(forms) == 100
    assert all(name.isprintable() for _, name, _ in forms)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (("rule", "inet", "filter", "input", 3), "rule inet filter input 3"),
        (("rule", "inet", "filter", "input", "stray 0badcafe"), "rule inet filter input"),
        (("element", "inet", "filter", "allow", "203.0.113.7"), "element inet filter allow"),
        (("set", "inet", "filter", "allow"), "set inet filter allow"),
        (("table", "inet", "filter"), "table inet filter"),
    ],
)
def test_public_name_of_what_nftables_has(key: tuple[str | int, ...], name: str) -> None:
    assert public_name("netfilter", key, "the text of it all") == name


def _plain(value: Any) -> Any:
    if hasattr(value, "value"):
        return _plain(value.value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
