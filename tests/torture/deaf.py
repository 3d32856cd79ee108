# SPDX-License-Identifier: MIT
"""`linxd` with the smallest receive buffer for events that the kernel gives: two or three fill it."""

from __future__ import annotations

import sys

from linxd.cli.daemon import main
from linxd.netlink.events import Events

if __name__ == "__main__":
    assert Events.__init__.__kwdefaults__ is not None
    Events.__init__.__kwdefaults__["receive_buffer"] = 1
    sys.exit(main())
