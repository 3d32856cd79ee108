# SPDX-License-Identifier: MIT
"""The sources of a scope, opened on the kernel in the network namespace that the process is in.

The one place that knows every source by name; a loop, a command that looks once, and a test all open them
here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from linxd.culprit import Glimpse, Identifier
from linxd.ledger import FileLedger
from linxd.netlink.events import Events
from linxd.netlink.socket import Requests, open_netlink
from linxd.part import Opened
from linxd.sources.rtnl.events import GROUPS
from linxd.sources.rtnl.source import RtnlSource


@dataclass
class Kernel:
    """Opens sources in the namespace that the process is in, whose cookie is ``cookie``.

    ``directory``: where ledgers lie. ``identifier`` names culprits, None names none. ``ports``: port ids of
    the sockets that are open, for it to know as ours.
    """

    directory: str
    cookie: int
    boot_id: str
    identifier: Identifier | None = None
    ports: set[int] = field(default_factory=set)

    def open(self, name: str, hold: Callable[[], str] = lambda: "") -> Opened:
        """A source by its name. Raises OSError."""
        match name:
            case "rtnl":
                return self._rtnl(hold)
        raise LookupError(name)

    def ledger(self, name: str) -> FileLedger:
        """A source's ledger. Never fails, as `FileLedger` says."""
        return FileLedger(self.directory, boot_id=self.boot_id, cookie=self.cookie, source=name)

    def _rtnl(self, hold: Callable[[], str]) -> Opened:
        requests = Requests(open_netlink())
        self.ports.add(requests.portid)

        def close() -> None:
            self.ports.discard(requests.portid)
            requests.close()

        def events() -> Events:
            sock = open_netlink()
            try:
                return Events(sock, GROUPS)
            except BaseException:
                sock.close()
                raise

        return Opened(RtnlSource(requests, events, identify=self._identify, hold=hold), close)

    def _identify(self, portid: int) -> Glimpse | None:
        return None if self.identifier is None else self.identifier.glimpse(portid)
