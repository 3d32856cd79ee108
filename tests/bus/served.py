# SPDX-License-Identifier: MIT
"""A daemon in a namespace of its own, on a bus of its own, and how it is asked there."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from linxd.bus import names

_PATH = Path(__file__).resolve().parents[1] / "daemon" / "running.py"
_SPEC = importlib.util.spec_from_file_location("linxd_tests_running", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
running = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = running
_SPEC.loader.exec_module(running)

SCOPE, LOOP, MANAGER = "org.linxd1.Scope", "org.linxd1.Loop", "org.linxd1.Manager"
PROPERTIES = "org.freedesktop.DBus.Properties"
NOBODY = 65534

BASE = """\
[link.veth0]
kind = "veth"
peer = { name = "veth1" }
addresses = ["10.0.0.5/24"]

[[route]]
to = "198.51.100.0/24"
via = "10.0.0.1"
"""


class Served:
    """`linxd` for the namespace ``netns``, with its name on the bus at ``address``."""

    def __init__(self, address: str, netns: str, directory: Path, text: str = BASE) -> None:
        self.address = address
        self.scope = netns
        self.file = directory / f"{netns}.toml"
        self.file.write_text(text)
        self.name = names.bus_name(netns)
        self.path = names.scope_path(netns)
        self.daemon = running.Daemon(
            netns, self.file, directory / "state", env={"DBUS_SYSTEM_BUS_ADDRESS": address}
        )

    def __enter__(self) -> Served:
        self.daemon.__enter__()
        self.daemon.converged()
        self.wait()
        return self

    def __exit__(self, *how: Any) -> None:
        self.daemon.__exit__(*how)

    def wait(self) -> None:
        """Wait until the name is there."""
        done = subprocess.run(
            ["gdbus", "wait", f"--address={self.address}", "--timeout=20", self.name],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def call(self, member: str, signature: str = "", *words: str, uid: int = 0) -> Any:
        """The answer of a method of org.linxd1.Scope, as busctl has it."""
        done = self.busctl("call", self.name, self.path, SCOPE, member, signature, *words, uid=uid)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["data"] if done.stdout.strip() else []

    def refused(self, member: str, signature: str = "", *words: str, uid: int = 0) -> str:
        """The error of a method, as gdbus prints it: with its name."""
        command = [*_as(uid), "gdbus", "call", f"--address={self.address}", f"--dest={self.name}"]
        command += [f"--object-path={self.path}", f"--method={SCOPE}.{member}", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def get(self, property_: str, *, source: str = "", uid: int = 0) -> Any:
        """The value of a property, of the scope or of one of its loops."""
        path = f"{self.path}/{source}" if source else self.path
        interface = LOOP if source else SCOPE
        done = self.busctl("get-property", self.name, path, interface, property_, uid=uid)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["data"]

    def busctl(self, *words: str, uid: int = 0) -> subprocess.CompletedProcess[str]:
        """`busctl WORDS` on this bus."""
        command = [*_as(uid), "busctl", f"--address={self.address}", "--json=short", "--timeout=30", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def ip(self, *words: str) -> str:
        """`ip` in the namespace."""
        return str(running.ip(self.scope, *words))


def _as(uid: int) -> list[str]:
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []


def words(values: Sequence[object]) -> list[str]:
    """Values as busctl takes them."""
    return [str(value) for value in values]
