# SPDX-License-Identifier: MIT
"""Calls of any type, by the thousand, from a user without privileges on a bus of a test's own: each is
answered, nothing is done, nobody else waits for long, and no memory is kept.

`LINXD_CALLS` is how many there are; `LINXD_FUZZ_SEED` chooses them.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.bed import ROOT, Daemon, Namespace, run, until

pytest.importorskip("dbus_next")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces are made"),
    pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="there is no dbus-daemon"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="there is no setpriv"),
]

SEED = int(os.environ.get("LINXD_FUZZ_SEED", random.randrange(1 << 32)))
CALLS = int(os.environ.get("LINXD_CALLS", 1500))
DECLARED = """
[link.e0]
kind = "bridge"
addresses = ["10.0.0.5/24"]
[[route]]
to = "198.51.100.0/24"
via = "10.0.0.1"
"""
_CALLER = """
import asyncio, random, sys
from dbus_next.errors import InvalidInterfaceNameError, SignatureBodyMismatchError
from dbus_next.signature import Variant
from linxd.bus.connection import BusError, Connection, Unreachable

address, name, seed, count, paths, interfaces, members = sys.argv[1:]
rng = random.Random(int(seed))
LETTERS = "ybnqiuxtdsogv"

def signature(depth=0):
    kind = rng.random()
    if depth < 3 and kind < 0.12:
        return "a" + signature(depth + 1)
    if depth < 3 and kind < 0.2:
        return "(" + "".join(signature(depth + 1) for _ in range(rng.randrange(1, 4))) + ")"
    if depth < 3 and kind < 0.27:
        return "a{" + rng.choice("ybnqiuxtdsog") + signature(depth + 1) + "}"
    return rng.choice(LETTERS)

def text():
    kind = rng.random()
    if kind < 0.1:
        return "x" * rng.choice((300, 5000, 200000))
    some = ("", "org.linxd1.Scope", "State", "rtnl", "../x", "\\n\\x1b[2J", "a\\u202eb", "c1", "%n%s")
    return rng.choice(some)

def value(tree, depth=0):
    letter = tree[0]
    if letter == "a":
        size = rng.choice((0, 1, 3, 200)) if depth < 2 else 1
        if tree[1] == "{":
            return {value(tree[2]): value(tree[3:-1], depth + 1) for _ in range(size)}
        if tree[1] == "y":
            return rng.randbytes(size)
        return [value(tree[1:], depth + 1) for _ in range(size)]
    if letter == "(":
        return [value(part, depth + 1) for part in split(tree[1:-1])]
    if letter in "so":
        paths = ("/", "/org/linxd1", "/org/linxd1/scope/x" + "y" * 300)
        return text() if letter == "s" else rng.choice(paths)
    if letter == "g":
        return rng.choice(("", "s", "a{sv}", "(" * 20 + "s" + ")" * 20))
    if letter == "v":
        inner = signature(depth + 2)
        return Variant(inner, value(inner, depth + 2))
    if letter == "b":
        return rng.random() < 0.5
    if letter == "d":
        return rng.choice((0.0, float("nan"), float("inf"), -1e308))
    bits = {"y": 8, "n": 15, "q": 16, "i": 31, "u": 32, "x": 63, "t": 64}[letter]
    return rng.choice((0, 1, 2**bits - 1, rng.randrange(2**bits)))

def split(signatures):
    parts, start, at = [], 0, 0
    while at < len(signatures):
        start = at
        while signatures[at] == "a":
            at += 1
        if signatures[at] in "({":
            level = 0
            while True:
                level += {"(": 1, "{": 1, ")": -1, "}": -1}.get(signatures[at], 0)
                at += 1
                if not level:
                    break
        else:
            at += 1
        parts.append(signatures[start:at])
    return parts

async def main():
    caller = None
    outcomes = {}
    flying = set()
    async def one(path, interface, member, kinds, body):
        nonlocal caller
        try:
            await asyncio.wait_for(caller.call(name, path, interface, member, kinds, body), 50)
            outcome = "answered"
        except BusError as error:
            outcome = error.name
        except asyncio.TimeoutError:
            outcome = "no answer to " + member
        except Unreachable:
            # The bus itself takes nothing more from one who sends it what it can't read.
            outcome, caller = "thrown out", None
        except (SignatureBodyMismatchError, InvalidInterfaceNameError, ValueError):
            outcome = "not sent"
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    for _ in range(int(count)):
        if caller is None:
            flying and await asyncio.wait(flying)
            flying.clear()
            caller = Connection(address)
            await caller.open()
        kinds = "".join(signature() for _ in range(rng.randrange(0, 4)))
        body = [value(part) for part in split(kinds)]
        where = [rng.choice(each.split(",")) for each in (paths, interfaces, members)]
        call = one(*where, kinds, body)
        flying.add(asyncio.ensure_future(call))
        if len(flying) >= 20:
            await asyncio.wait(flying)
            flying.clear()
    if flying:
        await asyncio.wait(flying)
    for outcome in sorted(outcomes):
        print(outcomes[outcome], outcome)
asyncio.run(main())
"""


@pytest.fixture
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bus of its own, that a user without privileges reaches."""
    directory = tmp_path_factory.mktemp("bus")
    for one in (directory, directory.parent, directory.parent.parent):
        one.chmod(0o755)
    config = directory / "bus.conf"
    config.write_text(
        '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"'
        ' "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd"><busconfig><type>session</type>'
        f"<listen>unix:path={directory}/bus</listen><auth>EXTERNAL</auth>"
        '<policy context="default"><allow user="*"/><allow send_destination="*" eavesdrop="true"/>'
        '<allow eavesdrop="true"/><allow own="*"/></policy>'
        "</busconfig>"
    )
    bus = subprocess.Popen(
        ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert bus.stdout is not None
        assert bus.stdout.readline()
        (directory / "bus").chmod(0o777)
        yield f"unix:path={directory}/bus"
    finally:
        bus.kill()
        bus.communicate()


def members() -> tuple[list[str], list[str]]:
    """Interfaces and members that there are, and some that there are not."""
    interfaces, found = {"org.freedesktop.DBus.Properties", "", "no.such"}, {"Get", "GetAll", "Set", "Ping"}
    for path in (ROOT / "dbus").rglob("*.xml"):
        for interface in ET.parse(path).getroot().iter("interface"):
            interfaces.add(interface.get("name", ""))
            found |= {each.get("name", "") for each in interface.iter("method")}
    assert "Reconcile" in found
    return sorted(interfaces), sorted({*found, "No_Such"})


def test_calls_of_any_type_change_nothing(address: str, tmp_path: Path) -> None:
    print(f"seed {SEED}, {CALLS} calls")
    file = tmp_path / "scope.toml"
    file.write_text(DECLARED)
    file.chmod(0o600)
    with Namespace() as namespace:
        label = namespace.name.replace("-", "_2d")
        env = {"DBUS_SYSTEM_BUS_ADDRESS": address}
        with Daemon(namespace.name, file, tmp_path, env=env) as daemon:
            daemon.started()
            name = f"org.linxd1.netns.{label}"
            run("gdbus", "wait", f"--address={address}", "--timeout=60", name)
            paths = ["/", "/org/linxd1", *(f"/org/linxd1/scope/{label}{end}" for end in ("", "/rtnl", "/x"))]
            interfaces, methods = members()
            # Mostly where there is something to be called.
            interfaces += ["org.linxd1.Scope"] * 3 * len(interfaces)
            paths += [f"/org/linxd1/scope/{label}"] * 3 * len(paths)
            before, fds, cpu = daemon.memory(), daemon.fds(), daemon.cpu()
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            command += ["/usr/bin/python3", "-c", _CALLER, address, name, str(SEED), str(CALLS)]
            command += [",".join(each) for each in (paths, interfaces, methods)]
            began = time.monotonic()
            caller = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
            )
            heals = 0
            while caller.poll() is None:
                # Meanwhile it does what it is for.
                namespace.ip("route", "del", "198.51.100.0/24", check=False)
                heals += 1
                until(
                    lambda: "198.51.100.0/24" in namespace.ip("route", "show"),
                    lambda: f"not healed\n{daemon.said}",
                )
                time.sleep(3)
            said, errors = caller.communicate()
            assert caller.returncode == 0, errors
            took, used = time.monotonic() - began, daemon.cpu() - cpu
            print(f"{took:.1f} s, {heals} heals meanwhile, {used:.1f} s of CPU\n{said}")
            outcomes = {
                words: int(count) for count, words in (line.split(" ", 1) for line in said.splitlines())
            }
            assert sum(outcomes.values()) == CALLS
            known = (
                "answered",
                "not sent",
                "thrown out",
                "org.linxd1.Error.",
                "org.freedesktop.DBus.Error.",
            )
            assert [one for one in outcomes if not one.startswith(known)] == []
            assert "org.freedesktop.DBus.Error.Failed" not in outcomes
            assert sum(count for words, count in outcomes.items() if "Error" in words) > CALLS // 4
            assert daemon.memory() < before + (24 << 20)
            assert daemon.fds() == fds
            assert daemon.word()["state"] in ("converged", "contended")
            assert daemon.stop() == 0
    assert "unexpected" not in daemon.said
