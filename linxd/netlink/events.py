# SPDX-License-Identifier: MIT
"""A netlink socket for events: joined to multicast groups, never blocking, loud about what it lost.

It hands out messages as they came; it must not know what they mean.
"""

from __future__ import annotations

import array
import errno
import select
import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from linxd.netlink.errors import Overrun
from linxd.netlink.wire import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_LISTEN_ALL_NSID,
    SOL_NETLINK,
    Message,
    messages,
)

_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
_SO_RCVBUFFORCE = 33
_TRUNCATED = int(socket.MSG_TRUNC)
"""As a plain number: flags as an enumeration cost a microsecond with each event."""
_DATAGRAM = 1 << 16
_HEADER = 16
_SOCK_FILTER = struct.Struct("=HBBI")
_SOCK_FPROG = struct.Struct("@HP")


class Events:
    """A socket joined to ``groups`` (RTNLGRP_*, NFNLGRP_*). It takes over ``sock``, which must not be one
    that systemd keeps open: its groups would outlive us.

    ``receive_buffer`` is in bytes and takes memory only for what is queued: a route event counts about
    800. With ``all_nsid`` events of other namespaces that have an id in this one come too (needs
    CAP_NET_BROADCAST). Raises OSError.
    """

    def __init__(
        self,
        sock: socket.socket,
        groups: Iterable[int],
        *,
        receive_buffer: int = 32 << 20,
        all_nsid: bool = False,
    ) -> None:
        self.sock = sock
        sock.setblocking(False)
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        self._more = poll.poll
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._ancillary = 0
        if all_nsid:
            sock.setsockopt(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1)
            self._ancillary = socket.CMSG_SPACE(4)
        if not sock.getsockname()[0]:
            sock.bind((0, 0))
        for group in groups:
            sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the groups and close the socket."""
        self.sock.close()

    def fileno(self) -> int:
        """For the event loop: readable when there are events, or when some were lost."""
        return self.sock.fileno()

    def attach_filter(self, program: Sequence[tuple[int, int, int, int]]) -> None:
        """Have the kernel drop events before they are queued, by a classic BPF program of (code, jt, jf,
        k) that sees the message from its header on. Raises OSError."""
        code = array.array("B", b"".join(_SOCK_FILTER.pack(*step) for step in program))
        option = _SOCK_FPROG.pack(len(program), code.buffer_info()[0])
        # the kernel copies it, so that it need not live on
        self.sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)

    def detach_filter(self) -> None:
        """Have the kernel queue everything again. Raises OSError."""
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise

    def read(self, limit: int = 256) -> list[Message]:
        """What has come, from at most ``limit`` datagrams; empty when there is nothing.

        Raises Overrun when events were lost, together with those read so far in this call: look at
        everything. What comes after it is read by the next call. Raises OSError.
        """
        found: list[Message] = []
        receive = self.sock.recvmsg
        try:
            for number in range(limit):
                if number == 1 and not self._more(0):
                    # Mostly there is one alone, and to be told so costs less than to be refused.
                    break
                buf, ancillary, flags, sender = receive(_DATAGRAM, self._ancillary)
                if sender[0] != 0:
                    continue  # only the kernel's own word counts
                if flags & _TRUNCATED:
                    raise Overrun(f"an event is longer than {_DATAGRAM} bytes")
                nsid = None
                for level, kind, data in ancillary:
                    if level == SOL_NETLINK and kind == NETLINK_LISTEN_ALL_NSID:
                        nsid = int.from_bytes(data[:4], sys.byteorder, signed=True)
                found += messages(buf, nsid)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise Overrun("events came faster than they were read") from None
            raise
        return found
