# SPDX-License-Identifier: MIT
"""What systemd hands in (sd_listen_fds(3)): a netlink socket of the host's namespace, the one way from a
container's namespace to the host's links.

It looks at sockets and sends nothing on them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Mapping, MutableMapping

_FIRST = 3  # SD_LISTEN_FDS_START
_SIOCGSKNS = 0x894C  # include/uapi/linux/sockios.h: the network namespace of a socket


def host_socket(environment: MutableMapping[str, str] = os.environ) -> socket.socket | None:
    """The rtnetlink socket that was handed in, emptied of what was not ours to read; None where there is
    none. To be asked once: children don't inherit any of it."""
    count = environment.pop("LISTEN_FDS", "0")
    pid = environment.pop("LISTEN_PID", "")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return None
    found: socket.socket | None = None
    for number in range(_FIRST, _FIRST + int(count)):
        try:
            sock = socket.socket(fileno=number)
        except OSError:
            continue
        if found is None and sock.family == socket.AF_NETLINK and sock.proto == socket.NETLINK_ROUTE:
            sock.set_inheritable(False)
            found = sock
        else:
            sock.close()
    if found is not None:
        # It outlives the process: what came for our predecessor is none of ours.
        found.setblocking(False)
        with contextlib.suppress(OSError):
            while found.recv(1 << 16):
                pass
    return found


def anything_handed(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether systemd handed in anything at all. To be asked before `host_socket`."""
    return environment.get("LISTEN_PID") == str(os.getpid())


def namespace_of(sock: socket.socket) -> int:
    """A file descriptor of the namespace that a socket is in. Raises OSError: it needs CAP_NET_ADMIN."""
    return fcntl.ioctl(sock, _SIOCGSKNS)
