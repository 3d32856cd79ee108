# SPDX-License-Identifier: MIT
"""The commands: `linxd`, the daemon, and `linxctl`, for people.

They print and they exit; what they do is done elsewhere.
"""

import sys
import typing
from types import ModuleType
from typing import Any

from linxd import records


class _Later(ModuleType):
    """A module that is imported when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        import importlib

        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
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
        # One that was asked for something meanwhile is there itself.
        if _module is None and isinstance(sys.modules.get(_name), _Later | None):
            sys.modules.pop(_name, None)

if "tomllib" not in sys.modules and sys.version_info < (3, 14):  # later ones keep types elsewhere
    # It has a tuple with names. typing would compile the types of its two fields, and Python, which makes
    # classes of all its syntax before it compiles anything for a program, would have 0.2 MB of them.
    _typed = typing.NamedTuple
    typing.NamedTuple = records.NamedTuple  # type: ignore[misc]
    try:
        import tomllib  # noqa: F401
    finally:
        typing.NamedTuple = _typed  # type: ignore[misc]
