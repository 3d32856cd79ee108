# SPDX-License-Identifier: MIT
"""The same without the loop: what it comes down to when the source is all one wants.

    python3 examples/by_hand.py [--once] DIRECTORY NAME=TARGET …

Given up with the loop: backoff for what fails, patience in a fight, merging of events, nested passes that
heal one object while another 100,000 are looked at, pausing, plans, counts. Ownership here lasts as long as
the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from custom_source import Symlinks, declared, tell

from linxd.ledger import MemoryLedger
from linxd.source import Blocked, Pass, Unsupported


# The loop, about fifteen lines.
async def main(arguments: list[str]) -> None:
    once = arguments[0] == "--once"
    directory, *rest = arguments[1:] if once else arguments
    source, desired, owned = Symlinks(), declared(directory, rest), MemoryLedger()
    event = asyncio.Event()
    with contextlib.suppress(Unsupported):
        source.subscribe(lambda hint: event.set())
    while True:
        event.clear()
        try:
            tell(await source.reconcile(Pass(desired, owned)))
        except (Blocked, OSError) as exc:
            print(f"blocked: {exc}", file=sys.stderr)
        if once:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), timeout=5.0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
