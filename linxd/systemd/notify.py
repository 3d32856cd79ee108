# SPDX-License-Identifier: MIT
"""sd_notify(3): READY, STATUS and the rest to whoever started us, and how often it wants to hear of us.

Without NOTIFY_SOCKET nothing is sent and nothing fails. It knows no loop.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping


class Notifier:
    """Tells the service manager. ``environment`` is that of the process."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # An "@" in front stands for the abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._status = ""
        self.watchdog = 0.0
        """Seconds within which WATCHDOG=1 is expected again; 0.0 where nobody expects it."""
        pid = environment.get("WATCHDOG_PID")
        if pid is None or pid == str(os.getpid()):
            with contextlib.suppress(ValueError):
                self.watchdog = int(environment.get("WATCHDOG_USEC", "0")) / 1e6

    def __bool__(self) -> bool:
        """Whether anybody listens."""
        return bool(self._address)

    def send(self, **assignments: str) -> None:
        """``send(READY="1", STATUS="converged")``. Nobody is told where nobody listens."""
        if not self._address:
            return
        text = "\n".join(f"{key}={value}" for key, value in assignments.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(text.encode(), self._address)

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows; sent when it is another one."""
        if text != self._status:
            self._status = text
            self.send(STATUS=text.replace("\n", " "))
