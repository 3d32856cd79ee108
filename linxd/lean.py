# SPDX-License-Identifier: MIT
"""asyncio without what none of our processes needs: ssl where it can be left out, 2 MB in every daemon; and
without what it needs in rare moments alone, which comes when it is asked for something, 1.5 MB.

To be imported ahead of it. Where asyncio is there already, this does nothing.
"""

import sys
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """A module that is imported when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        import importlib

        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


_RARELY = {
    "asyncio.sslproto": "what ssl would be for",
    "inspect": "a look at functions that signals call, for which it brings Python's own syntax",
    "linecache": "lines of the program, and what reads them",
    "locale": "for letters that other programs say",
    "subprocess": "programs are begun in our own ways",
    "traceback": "for errors that are nobody's",
}


def _extract_stack(*args: Any, **kwargs: Any) -> Any:
    """asyncio's own part in C takes this from traceback when it is imported, for its debug mode."""
    import traceback

    return traceback.extract_stack(*args, **kwargs)


if "asyncio" not in sys.modules:
    _absent = [name for name in ("ssl", *_RARELY) if name not in sys.modules]
    for _name in _absent:
        sys.modules[_name] = None if _name == "ssl" else _Later(_name)  # type: ignore[assignment]
    # What of them is asked for by the import itself.
    sys.modules["traceback"].__dict__.setdefault("extract_stack", _extract_stack)
    for _name, _number in (("PIPE", -1), ("STDOUT", -2), ("DEVNULL", -3)):
        sys.modules["subprocess"].__dict__.setdefault(_name, _number)
    import asyncio  # noqa: F401

    for _name in _absent:
        # One that was asked for something meanwhile is there itself.
        if isinstance(sys.modules.get(_name), _Later | None):
            sys.modules.pop(_name, None)
