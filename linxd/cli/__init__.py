# SPDX-License-Identifier: MIT
"""The commands: `linxd`, the daemon, and `linxctl`, for people.

They print and they exit; what they do is done elsewhere.
"""

import sys
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """A module that is imported when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        import importlib

        return getattr(importlib.import_module(self.__name__), name)


if "asyncio" not in sys.modules:
    # asyncio takes along what none of our processes needs: ssl where it can, 2 MB in every daemon, and
    # inspect, which brings Python's own syntax, for calls that nobody makes: 1 MB.
    _there = {name: sys.modules.get(name) for name in ("ssl", "inspect")}
    if _there["ssl"] is None:
        sys.modules["ssl"] = None  # type: ignore[assignment]
    if _there["inspect"] is None:
        sys.modules["inspect"] = _Later("inspect")
    import asyncio  # noqa: F401

    for _name, _module in _there.items():
        if _module is None:
            del sys.modules[_name]
