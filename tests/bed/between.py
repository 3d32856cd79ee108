# SPDX-License-Identifier: MIT
"""A loop that is looked at, and may be disturbed, between what is done ahead of a pass and the pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from linxd.loop import Loop
from linxd.patch import Op, Report
from linxd.source import Pass


class Between:
    """``written``: how much has been written to the kernel so far."""

    def __init__(self, loop: Loop[Any, Any], written: Callable[[], int]) -> None:
        self.loop = loop
        self.written = written
        self.admitted: list[Op] = []
        self.before: Callable[[], None] = lambda: None
        """Called before an op is carried out at once."""
        self.then: Callable[[], object] = lambda: None
        """Called after it, and before the pass."""
        self.begun: list[int] = []
        """How much had been written when each pass began."""
        source = loop.source
        inner, reconcile = source.admits, source.reconcile

        def admits(op: Op) -> bool:
            if not inner(op):
                return False
            self.admitted.append(op)
            self.before()
            asyncio.get_running_loop().call_soon(self.then)
            return True

        async def passed(work: Pass[Any]) -> Report:
            self.begun.append(self.written())
            return await reconcile(work)

        source.admits = admits
        source.reconcile = passed  # type: ignore[method-assign]

    async def rest(self) -> None:
        """Until nothing has been written for a while."""
        before = -1
        while before != self.written():
            before = self.written()
            await asyncio.sleep(0.1)

    async def begin(self) -> None:
        """From here on it counts, and what was caused before is no fight."""
        self.loop._gate.declared()
        await self.rest()
        self.admitted.clear()
        self.begun.clear()
