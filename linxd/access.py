# SPDX-License-Identifier: MIT
"""The sources of a scope, opened on the kernel in the network namespace that the process is in.

The one place that knows every source by name; a loop, a command that looks once, and a test all open them
here.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable, Iterable

import linxd.sources.rtnl.info  # noqa: F401 - whose own users import it late: an upgrade may replace its file by then
from linxd.culprit import Glimpse, Identifier
from linxd.ledger import FileLedger
from linxd.netlink.events import Events
from linxd.netlink.socket import Requests, open_netlink
from linxd.netlink.wire import NETLINK_NETFILTER, NETLINK_ROUTE
from linxd.part import Opened
from linxd.patch import Culprit
from linxd.records import dataclass, field
from linxd.sources.netfilter.compile import Compiler
from linxd.sources.netfilter.events import GROUPS as NFT_GROUPS
from linxd.sources.netfilter.events import LINK_GROUPS
from linxd.sources.netfilter.source import NetfilterSource
from linxd.sources.rtnl.events import GROUPS
from linxd.sources.rtnl.hostside import GROUPS as HOST_GROUPS
from linxd.sources.rtnl.hostside import HostSide
from linxd.sources.rtnl.source import RtnlSource
from linxd.sources.sysctl.procfs import Procfs
from linxd.sources.sysctl.source import SysctlSource
from linxd.sources.sysctl.watch import GROUPS as SYSCTL_GROUPS
from linxd.statedir import COMPILED

log = logging.getLogger(__name__)


@dataclass
class Kernel:
    """Opens sources in the namespace that the process is in, whose cookie is ``cookie``.

    ``directory``: where ledgers lie. ``identifier`` names culprits, None names none. ``ports``: port ids of
    the sockets that are open, for it to know as ours. ``handed``: an rtnetlink socket of the host's
    namespace, where one was handed in; without it ``host_fd``, that namespace itself, is the way there,
    which takes root.
    """

    directory: str
    cookie: int
    boot_id: str
    identifier: Identifier | None = None
    ports: set[int] = field(default_factory=set)
    handed: socket.socket | None = None
    host_fd: int | None = None

    def open(self, name: str, hold: Callable[[], str] = lambda: "") -> Opened:
        """A source by its name. Raises OSError."""
        match name:
            case "rtnl":
                return self._rtnl(hold)
            case "netfilter":
                return self._netfilter()
            case "sysctl":
                return self._sysctl()
        raise LookupError(name)

    def ledger(self, name: str) -> FileLedger:
        """A source's ledger. Never fails, as `FileLedger` says."""
        return FileLedger(self.directory, boot_id=self.boot_id, cookie=self.cookie, source=name)

    def _rtnl(self, hold: Callable[[], str]) -> Opened:
        requests = self._requests(NETLINK_ROUTE)
        host: list[Requests] = []

        def way() -> HostSide | None:
            try:
                found = self._host_side(requests)
            except OSError as error:
                log.debug("no way to the host's links: %s", error)
                return None
            host.append(found[0])
            return found[1]

        def close() -> None:
            source.close()
            for each in (requests, *host):
                self._close(each)

        source = RtnlSource(
            requests, lambda: _events(NETLINK_ROUTE, GROUPS), identify=self._writer, hold=hold, host=way
        )
        return Opened(source, close)

    def _host_side(self, home: Requests) -> tuple[Requests, HostSide]:
        if self.handed is not None:
            # What systemd listens on must not join a group: it would start the service for an event.
            requests = Requests(self.handed.dup())
            side = HostSide(requests, home)
        else:
            if self.host_fd is None:
                raise OSError(errno.ENXIO, "no namespace of the host's is known")
            requests = Requests(open_netlink(NETLINK_ROUTE, netns_fd=self.host_fd))
            side = HostSide(requests, home, lambda: _events(NETLINK_ROUTE, HOST_GROUPS, netns_fd=side.fd))
        self.ports.add(requests.portid)
        return requests, side

    def _netfilter(self) -> Opened:
        requests = self._requests(NETLINK_NETFILTER)
        source = NetfilterSource(
            requests,
            lambda: _events(NETLINK_NETFILTER, NFT_GROUPS),
            Compiler(cache=os.path.join(self.directory, COMPILED)),
            link_events=lambda: _events(NETLINK_ROUTE, LINK_GROUPS),
            identify=self._process,
        )
        return Opened(source, lambda: self._close(requests), lambda: source.loaded_once)

    def _sysctl(self) -> Opened:
        # The process is in the namespace: so is whatever opens a key.
        procfs = Procfs()
        source = SysctlSource(procfs, lambda: _events(NETLINK_ROUTE, SYSCTL_GROUPS))

        def close() -> None:
            source.close()
            procfs.close()

        return Opened(source, close)

    def _requests(self, protocol: int) -> Requests:
        requests = Requests(open_netlink(protocol))
        self.ports.add(requests.portid)
        return requests

    def _close(self, requests: Requests) -> None:
        self.ports.discard(requests.portid)
        requests.close()

    def _writer(self, portid: int) -> Callable[[], Glimpse] | None:
        return None if self.identifier is None else self.identifier.begin(portid)

    def _process(self, pid: int, comm: str) -> Culprit | None:
        return None if self.identifier is None else self.identifier.by_pid(pid, comm)


def _events(protocol: int, groups: Iterable[int], *, netns_fd: int | None = None) -> Events:
    sock = open_netlink(protocol, netns_fd=netns_fd)
    try:
        return Events(sock, groups)
    except BaseException:
        sock.close()
        raise
