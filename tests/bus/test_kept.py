# SPDX-License-Identifier: MIT
"""What is kept for those who read page by page."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("dbus_next")

from linxd.bus.kept import MOST, Kept


def test_the_last_few_senders_have_something_kept() -> None:
    async def main() -> None:
        gone: list[str] = []
        kept: Kept[str] = Kept(gone.append)
        assert kept.get(":1.0") is None
        for number in range(MOST):
            kept.put(f":1.{number}", f"thing {number}")
        # Who reads on is not the one that is forgotten.
        assert kept.get(":1.0") == "thing 0"
        kept.put(":1.99", "one more")
        assert gone == ["thing 1"]
        assert (kept.get(":1.0"), kept.get(":1.1")) == ("thing 0", None)
        kept.put(":1.0", "another")
        assert gone == ["thing 1", "thing 0"]
        kept.close()
        assert len(gone) == MOST + 2
        assert kept.get(":1.0") is None

    asyncio.run(main())
