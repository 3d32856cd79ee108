# SPDX-License-Identifier: MIT
"""What is to be in force: the compiled form of the declaration, or of the last one that compiled.

It knows when to compile anew, and keeps the fault of a text that does not load. It must not know what the
namespace has.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable

from linxd.patch import Trigger
from linxd.source import Blocked, Pass
from linxd.sources.netfilter.compile import EMPTY, Compiled, Compiler
from linxd.sources.netfilter.faults import RulesetError, ScratchError
from linxd.sources.netfilter.model import Desired

AGAIN = 5.0
"""Seconds after which a compilation that failed for want of something is tried again while another form is
in force, and passes are many. Without one every pass is blocked, and comes when its backoff says."""
_SIOCGIFINDEX = 0x8933
_IFREQ = struct.Struct("16si20x")


class Wanted:
    """The compiled form, as passes ask for it. ``changed`` is called when it has become another."""

    def __init__(
        self, compiler: Compiler, sock: socket.socket, changed: Callable[[Compiled, Desired], None]
    ) -> None:
        self.form = EMPTY
        self.fault: RulesetError | None = None
        """Why ``form`` is not that of what is declared now."""
        self._compiler = compiler
        self._sock = sock
        self._changed = changed
        self._desired: Desired | None = None
        self._again_at = 0.0
        self._compiling = False

    async def compiled(self, work: Pass[Desired]) -> Compiled:
        """The form of what is declared; while that can't be had, what was in force before. Raises Blocked
        when there is neither."""
        if not self._compiling and self._due(work):
            self._compiling = True
            try:
                found = await self._compiler.compile(work.desired, self.index, work.checkpoint)
            except RulesetError as error:
                self.fault = error
                self._again_at = time.monotonic() + AGAIN
            else:
                self.fault = None
                changed = (found.digest, work.desired) != (self.form.digest, self._desired)
                self.form = found
                if changed:
                    self._changed(found, work.desired)
            finally:
                self._compiling = False
            self._desired = work.desired
        if self.fault is not None and not self.form.tables:
            raise Blocked("; ".join(str(self.fault).splitlines()))
        return self.form

    def _due(self, work: Pass[Desired]) -> bool:
        if work.desired is not self._desired or work.trigger in (Trigger.START, Trigger.CONFIG):
            return True
        if self.fault is not None and work.full:
            if work.trigger is Trigger.REQUEST:
                return True
            # a text that is wrong stays wrong
            if isinstance(self.fault, ScratchError):
                return not self.form.tables or time.monotonic() >= self._again_at
        return not self.stands()

    def stands(self) -> bool:
        """Whether the form is still that of what was declared: the links that it names by index are those.
        Raises Blocked."""
        indices = self.form.indices
        return not indices or all(self.index(name) == number for name, number in indices.items())

    def index(self, link: str) -> int:
        """Interface index of a link in the namespace, 0 if it is not there. Any socket answers."""
        try:
            answer = fcntl.ioctl(self._sock, _SIOCGIFINDEX, _IFREQ.pack(link.encode()[:15], 0))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return 0
            raise Blocked(f"link {link}: {os.strerror(error.errno or 0)}") from None
        number: int = _IFREQ.unpack(answer)[1]
        return number
