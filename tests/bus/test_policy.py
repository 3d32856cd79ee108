# SPDX-License-Identifier: MIT
"""The files that are installed for the bus and for polkit, on a bus that is as strict as the system's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
  </policy>
  {included}
</busconfig>
"""
# Takes a name, says whether it got it, and stays until its input ends.
_OWN = """
import asyncio, sys
from linxd.bus.connection import BusError, Connection
async def main():
    connection = Connection(sys.argv[1], names=[sys.argv[2]],
        called=lambda call: connection.answer(call, "s", ["here"]))
    try:
        await connection.open()
        print("owned", flush=True)
    except BusError as error:
        print(error.name, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    connection.close()
asyncio.run(main())
"""
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


class Strict:
    """A bus with the policy of the system's, and ours."""

    def __init__(self, directory: Path, *, included: tuple[str, ...]) -> None:
        socket = directory / "strict"
        self.address = f"unix:path={socket}"
        config = directory / "strict.conf"
        lines = "\n".join(f"<include>{ROOT}/dbus/{name}</include>" for name in included)
        config.write_text(_CONFIG.format(socket=socket, included=lines))
        self._daemon = subprocess.Popen(
            ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._daemon.stdout is not None
        assert self._daemon.stdout.readline(), self._daemon.communicate()[1]
        self._owners: list[subprocess.Popen[str]] = []

    def close(self) -> None:
        for process in [*self._owners, self._daemon]:
            process.kill()
            process.communicate()

    def own(self, name: str, *before: str) -> str:
        """Have a process take a name; what came of it."""
        process = subprocess.Popen(
            [*before, "/usr/bin/python3", "-c", _OWN, self.address, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._owners.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def call(self, name: str, *before: str) -> str:
        words = ["busctl", f"--address={self.address}", "call", name, "/", "a.B", "Hello"]
        done = subprocess.run([*before, *words], capture_output=True, text=True, check=False)
        return (done.stdout + done.stderr).strip()


@pytest.fixture
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strict]:
    pytest.importorskip("dbus_next")
    if os.geteuid() != 0 or not all(map(shutil.which, ("dbus-daemon", "busctl", "setpriv"))):
        pytest.skip("needs root, dbus-daemon, busctl and setpriv")
    directory = tmp_path_factory.mktemp("strict")
    for one in (directory, directory.parent, directory.parent.parent):
        one.chmod(0o755)
    bus = Strict(directory, included=("org.linxd1.conf", "bus-limits.conf.example"))
    yield bus
    bus.close()


def test_root_may_have_our_names_and_nobody_else_may(strict: Strict) -> None:
    for name in ("org.linxd1", "org.linxd1.netns.c1"):
        assert strict.own(name, *NOBODY) == "org.freedesktop.DBus.Error.AccessDenied"
        assert strict.own(name) == "owned"
    assert strict.own("org.linxd2") == "org.freedesktop.DBus.Error.AccessDenied"


def test_everybody_may_ask_us(strict: Strict) -> None:
    for name in ("org.linxd1", "org.linxd1.netns.c1"):
        assert strict.own(name) == "owned"
        assert strict.call(name, *NOBODY) == 's "here"'


def test_without_our_policy_nobody_gets_through(tmp_path: Path) -> None:
    pytest.importorskip("dbus_next")
    if os.geteuid() != 0 or shutil.which("dbus-daemon") is None:
        pytest.skip("needs root and dbus-daemon")
    bus = Strict(tmp_path, included=())
    try:
        assert bus.own("org.linxd1") == "org.freedesktop.DBus.Error.AccessDenied"
    finally:
        bus.close()


def test_every_action_is_known_to_polkit_and_answered_to_the_daemons_user() -> None:
    actions = ET.parse(ROOT / "dbus/org.linxd1.policy").getroot().findall("action")
    declared = {action.attrib["id"] for action in actions}
    said = set()
    for file in (ROOT / "dbus").glob("*.xml"):
        said |= set(re.findall(r"polkit: (org\.linxd1\.[a-z-]+)", file.read_text()))
    documented = set(re.findall(r"^\| `(org\.linxd1\.[a-z-]+)`", (ROOT / "docs/dbus.md").read_text(), re.M))
    assert declared == said == documented
    for action in actions:
        # polkit tells an unprivileged daemon of actions only that are marked as its own.
        owner = action.find("annotate[@key='org.freedesktop.policykit.owner']")
        assert owner is not None
        assert owner.text == "unix-user:linxd"
        assert {one.text for one in action.findall("defaults/*")} <= {"auth_admin", "auth_admin_keep", "no"}
        assert action.findtext("description")
        assert action.findtext("message")
