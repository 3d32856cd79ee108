# SPDX-License-Identifier: MIT
"""How many wait for a processor: where many scopes have something to heal at once, what isn't healing can
wait until they have. It knows nobody who asks.
"""

from __future__ import annotations

import os

LOADAVG = "/proc/loadavg"
EACH = 0.004
"""Seconds for each task that waits for a processor: as long as another may run there first."""
MOST = 0.1
"""Seconds to wait, however many there are."""


def patience() -> float:
    """Seconds for which to leave the processors to those of the whole machine that wait for one now; 0.0
    where nobody does, or where that can't be told."""
    try:
        descriptor = os.open(LOADAVG, os.O_RDONLY | os.O_CLOEXEC)
        try:
            said = os.read(descriptor, 64)
        finally:
            os.close(descriptor)
        # "running/all" is the fourth field (proc_loadavg(5)).
        running = int(said.split(b" ", 4)[3].partition(b"/")[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    processors = os.cpu_count() or 1
    return min(MOST, EACH * max(0, running - processors) / processors)
