# SPDX-License-Identifier: MIT
"""A daemon for one network namespace, built the usual way: pyroute2's IPRoute for the kernel, dbus-next for
the bus, `nft` as a command. `usual.py FILE`, in the namespace.

It holds what linxd holds in the same place, and brings back a route or an address that goes. It is what
linxd's memory stands beside, and nobody should run it: it knows of no owner, no order and no conflict.
"""

import asyncio
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from dbus_next import BusType
from dbus_next.aio import MessageBus
from dbus_next.constants import PropertyAccess
from dbus_next.service import ServiceInterface, dbus_property, method
from dbus_next.service import signal as dbus_signal
from pyroute2 import IPRoute

# No `from __future__ import annotations`: dbus-next reads the annotations.


class Scope(ServiceInterface):
    """The scope on the bus."""

    def __init__(self, daemon: "Daemon") -> None:
        super().__init__("org.example.Scope")
        self._daemon = daemon

    @dbus_property(access=PropertyAccess.READ)
    def State(self) -> "s":  # type: ignore[name-defined] # noqa: F821, N802
        return "converged"

    @dbus_property(access=PropertyAccess.READ)
    def Healed(self) -> "u":  # type: ignore[name-defined] # noqa: F821, N802
        return self._daemon.healed

    @method()
    def Apply(self):  # type: ignore[no-untyped-def] # noqa: N802
        self._daemon.apply()

    @dbus_signal()
    def Patched(self, what: str) -> "s":  # type: ignore[name-defined] # noqa: F821, N802
        return what


class Daemon:
    """What is declared, and two sockets: one to ask, one to listen."""

    def __init__(self, declared: dict[str, Any]) -> None:
        self.declared = declared
        self.healed = 0
        self._ask, self._listen = IPRoute(), IPRoute()
        self._listen.bind()

    def apply(self) -> None:
        """Make all of it, whatever of it is there."""
        for name, link in self.declared.get("link", {}).items():
            if "kind" in link and not self._ask.link_lookup(ifname=name):
                self._ask.link("add", ifname=name, kind=link["kind"], peer={"ifname": link["peer"]["name"]})
            (index,) = self._ask.link_lookup(ifname=name)
            self._ask.link("set", index=index, state="up")
            for one in link.get("addresses", ()):
                address, _, length = (one if isinstance(one, str) else one["address"]).partition("/")
                flags = 2 if isinstance(one, dict) and one.get("nodad") else 0
                self._ask.addr("replace", index=index, address=address, prefixlen=int(length), flags=flags)
        for route in self.declared.get("route", ()):
            to = "0.0.0.0/0" if route["to"] == "default" else route["to"]
            self._ask.route("replace", dst=to, gateway=route["via"])
        for key, value in self.declared.get("sysctl", {}).items():
            Path("/proc/sys", key.replace(".", "/")).write_text(f"{value}\n")
        if ruleset := self.declared.get("netfilter", {}).get("ruleset"):
            subprocess.run(["nft", "-f", "-"], input=ruleset, text=True, check=True)

    def heard(self) -> None:
        """Events: what went comes back."""
        for said in self._listen.get():
            if said["event"] in ("RTM_DELROUTE", "RTM_DELADDR"):
                self.apply()
                self.healed += 1

    def listen(self) -> None:
        """From now on."""
        asyncio.get_running_loop().add_reader(self._listen.fileno(), self.heard)


async def main(file: str) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with open(file, "rb") as opened:
        daemon = Daemon(tomllib.load(opened))
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    bus.export("/org/example/scope", Scope(daemon))
    daemon.apply()
    daemon.listen()
    print("ready", flush=True)
    await stop.wait()


asyncio.run(main(sys.argv[1]))
