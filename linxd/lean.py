# SPDX-License-Identifier: MIT
"""asyncio without what none of our processes needs: ssl where it can be left out, 2 MB in every daemon; and
without what it needs in rare moments alone, which comes when it is asked for something, 2 MB.

To be imported ahead of it. Where asyncio is there already, this does nothing.
"""

import sys
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """A module that is imported when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name == "__path__":
            raise AttributeError(name)  # import asks; none of them is a package
        return getattr(_real(self.__name__), name)


class _PutOff:
    """Something of a module, or made of something of it, that is asked for when it is used."""

    def __init__(self, module: str, name: str, *, made: bool = False) -> None:
        self._of = module, name, made

    def _real(self) -> Any:
        module, name, made = self._of
        value = getattr(_real(module), name)
        return value() if made else value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)


def _real(name: str) -> ModuleType:
    import importlib

    if isinstance(sys.modules.get(name), _Later):
        del sys.modules[name]
    return importlib.import_module(name)


# Why each is rarely needed, and what of it is taken already while asyncio is imported.
_RARELY: dict[str, dict[str, Any]] = {
    # What ssl would be for.
    "asyncio.sslproto": {},
    # A look at functions that signals call, for which it brings Python's own syntax.
    "inspect": {},
    # Lines of the program, and what reads them.
    "linecache": {},
    # Letters that other programs say.
    "locale": {},
    # Forms of a log's lines that nobody asks for.
    "string": {
        "Template": _PutOff("string", "Template"),
        "Formatter": lambda: _PutOff("string", "Formatter", made=True),
    },
    # Programs are begun in our own ways.
    "subprocess": {"PIPE": -1, "STDOUT": -2, "DEVNULL": -3},
    # Errors that are nobody's; of them asyncio's part in C takes this for its debug mode.
    "traceback": {"extract_stack": _PutOff("traceback", "extract_stack")},
}
if "asyncio" not in sys.modules:
    _absent = [name for name in ("ssl", *_RARELY) if name not in sys.modules]
    for _name in _absent:
        if _name == "ssl":
            sys.modules[_name] = None  # type: ignore[assignment]
        else:
            sys.modules[_name] = _Later(_name)
            sys.modules[_name].__dict__.update(_RARELY[_name])
    import asyncio  # noqa: F401

    for _name in _absent:
        # One that was asked for something meanwhile is there itself.
        if isinstance(sys.modules.get(_name), _Later | None):
            sys.modules.pop(_name, None)
