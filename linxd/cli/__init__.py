# SPDX-License-Identifier: MIT
"""The commands: `linxd`, the daemon, and `linxctl`, for people.

They print and they exit; what they do is done elsewhere.
"""

import sys

if "asyncio" not in sys.modules and "ssl" not in sys.modules:
    # asyncio takes ssl along where it can: 2 MB in every daemon for a thing that none of them does.
    sys.modules["ssl"] = None  # type: ignore[assignment]
    import asyncio  # noqa: F401

    del sys.modules["ssl"]
