# SPDX-License-Identifier: MIT
"""A scratch network namespace to run nft in: made in 20 ms, gone without a trace, bounded in time and
memory.

What happens in it touches nothing outside. It must not know what is loaded there, nor why.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Sequence
from types import TracebackType

from linxd.child import Child
from linxd.netlink.errors import NetlinkError
from linxd.netlink.socket import Requests
from linxd.netlink.wire import (
    IFLA_IFNAME,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    NLM_F_CREATE,
    NLM_F_EXCL,
    RTM_NEWLINK,
    attr_str,
    nested,
)
from linxd.records import dataclass
from linxd.sources.netfilter.faults import RulesetFault, ScratchError

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "enter.py")
MEMORY = 2 << 30
CPU = 30
_CONTROL = 3
"""The number that the other side's socket has there."""
_OUTPUT = 64 << 20
_IFINFO = struct.Struct("=BxHiII")
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_KINDS = ("dummy", "ifb", "veth", "bridge")
"""Kinds of link that a placeholder may be, the cheapest first; not every kernel has each."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended. ``status``: its exit code, negative for a signal."""

    status: int
    output: str
    errors: str


class Scratch:
    """An asynchronous context: inside it there is a namespace. Raises ScratchError on the way in. Whoever
    will need it soon may `begin` it before: it comes up meanwhile.

    ``timeout``: seconds that a command may take. ``tables`` and ``links`` are request sockets in the
    namespace.
    """

    tables: Requests
    links: Requests

    def __init__(self, *, timeout: float = 30.0, python: str = sys.executable) -> None:
        self._timeout = timeout
        self._python = python
        self._control: socket.socket | None = None
        self._process: Child | None = None
        self._up = False

    async def begin(self) -> None:
        """Start making the namespace; `close` is to be called then, come what may. Raises ScratchError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = ours
        ours.setblocking(False)
        with theirs:
            words = [self._python, "-I", "-S", "-B", PROGRAM, str(_CONTROL), str(MEMORY), str(CPU)]
            try:
                self._process = Child(words, fds={_CONTROL: theirs.fileno()}, env=_ENVIRONMENT)
            except OSError as error:
                raise trouble(f"{error.filename or self._python}: {error.strerror}") from None

    async def __aenter__(self) -> Scratch:
        try:
            if self._control is None:
                await self.begin()
            await self._hello()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def _hello(self) -> None:
        ours = self._control
        assert ours is not None
        await self._readable()
        word, sockets, _, _ = socket.recv_fds(ours, 256, 2)
        opened = [socket.socket(fileno=number) for number in sockets]
        if word != b"ready" or len(opened) != 2:
            raise refusal(int(word.split()[1]) if word.startswith(b"refused ") else errno.EIO)
        try:
            self.tables = Requests(opened[0])
            self.links = Requests(opened[1])
        except OSError as error:
            for each in opened:
                each.close()
            raise refusal(error.errno or errno.EIO) from None
        self._up = True

    async def run(self, words: Sequence[str], text: str = "") -> Outcome:
        """Run a command in the namespace, with ``text`` as its standard input. Raises ScratchError when it
        can't be run, or takes too long."""
        control = self._control
        assert control is not None
        streams = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("input", "output", "errors")]
        try:
            with open(streams[0], "wb", closefd=False) as file:
                file.write(text.encode())
            os.lseek(streams[0], 0, os.SEEK_SET)
            try:
                socket.send_fds(control, ["\0".join(words).encode()], streams)
                await self._readable()
                answer = control.recv(64)
            except TimeoutError:
                raise
            except OSError as error:
                raise trouble(f"the scratch namespace ended: {error.strerror}") from None
            if not answer:
                raise trouble(f"{words[0]}: the scratch namespace ended")
            output, errors = (
                os.pread(number, _OUTPUT, 0).decode("utf-8", "replace") for number in streams[1:]
            )
            return Outcome(os.waitstatus_to_exitcode(int(answer)), output, errors)
        finally:
            for number in streams:
                os.close(number)

    async def _readable(self) -> None:
        """Wait until the other side has answered. Raises ScratchError when it does not."""
        loop = asyncio.get_running_loop()
        control = self._control
        assert control is not None
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(control.fileno(), _arrived, ready)
        try:
            await asyncio.wait_for(ready, self._timeout)
        except TimeoutError:
            raise trouble(f"no answer within {self._timeout:.0f} s") from None
        finally:
            loop.remove_reader(control.fileno())

    def placeholder(self, name: str, index: int = 0) -> None:
        """Have a link of this name, with this interface index unless 0. Raises ScratchError."""
        error: NetlinkError | None = None
        for kind in _KINDS:
            payload = (
                _IFINFO.pack(0, 0, index, 0, 0)
                + attr_str(IFLA_IFNAME, name)
                + nested(IFLA_LINKINFO, attr_str(IFLA_INFO_KIND, kind))
            )
            try:
                self.links.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, payload)
                return
            except NetlinkError as refused:
                if refused.errno == errno.EEXIST:
                    return
                error = refused
        raise trouble(f"no placeholder for link {name}: {error}")

    async def close(self) -> None:
        """End the namespace and all that runs in it."""
        for each in (getattr(self, "tables", None), getattr(self, "links", None), self._control):
            if each is not None:
                each.close()
        self._control = None
        process, self._process = self._process, None
        if process is None:
            return
        try:
            # One that nobody has asked for anything is not waited for to come up first.
            await asyncio.wait_for(process.wait(), 0.2 if self._up else 0)
        except TimeoutError:
            await process.close()


def _arrived(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def trouble(message: str, hint: str = "") -> ScratchError:
    """A ScratchError in one sentence."""
    return ScratchError([RulesetFault("", 0, 0, message, hint=hint)])


def refusal(number: int) -> ScratchError:
    """Why there is no scratch namespace, and what to switch on."""
    message = f"no scratch namespace to compile the ruleset in: {os.strerror(number)}"
    for path, wrong, hint in _SWITCHES:
        with contextlib.suppress(OSError):
            with open(path) as file:
                value = file.read().strip()
            if value == wrong:
                return trouble(message, f"{hint}, or give the daemon CAP_SYS_ADMIN")
    return trouble(
        message,
        "the daemon needs unprivileged user namespaces (RestrictNamespaces= of its unit must allow user and "
        "net), or CAP_SYS_ADMIN",
    )


_SWITCHES = (
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "set sysctl kernel.unprivileged_userns_clone = 1"),
    ("/proc/sys/user/max_user_namespaces", "0", "raise sysctl user.max_user_namespaces"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "set sysctl kernel.apparmor_restrict_unprivileged_userns = 0",
    ),
)
