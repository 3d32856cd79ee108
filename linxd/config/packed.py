# SPDX-License-Identifier: MIT
"""A scope's declaration, or what is wrong with it, as bytes, for another process of the same linxd.

`marshal` takes numbers, texts, tuples and lists. What else there is becomes a list that begins with the
number of its class, or of its shape; no value of a declaration is a list itself. Of very many values some
at a time are bytes of their own: nothing else in a process goes on while `marshal` loads. Where something
was declared is left behind: only who reads the files has use for it.
"""

from __future__ import annotations

import marshal
import re
from collections.abc import Iterable, Mapping
from typing import Any

from linxd import __version__
from linxd.config.faults import ConfigError, Fault, Severity, Undeclared
from linxd.config.model import Attach, NetnsRef, ScopeConfig
from linxd.sources.netfilter.model import Desired as NetfilterDesired
from linxd.sources.netfilter.model import Ruleset
from linxd.sources.rtnl.model import Address, Link, LinkRef, Neighbour, Nexthop, Peer, Route, Rule
from linxd.sources.rtnl.model import Desired as RtnlDesired
from linxd.sources.sysctl.model import Desired as SysctlDesired
from linxd.sources.sysctl.model import Setting

_CLASSES: tuple[type, ...] = (
    ScopeConfig, NetnsRef, Attach, Fault, RtnlDesired, Link, LinkRef, Peer, Address, Route, Nexthop, Rule,
    Neighbour, NetfilterDesired, Ruleset, SysctlDesired, Setting,
)  # fmt: skip
_NUMBERS = {cls: number for number, cls in enumerate(_CLASSES)}
_FIELDS = tuple(
    tuple(each.name for each in cls.__record__ if each.init and each.name != "where")  # type: ignore[attr-defined]
    for cls in _CLASSES
)
_TUPLE, _MAPPING, _KEYED, _PATTERN, _SEVERITY, _PARTS = -1, -2, -3, -4, -5, -6
_PART = 500
"""Values that are loaded at once: a millisecond."""
_PLAIN = frozenset({int, str, bool, type(None), float})
DECLARED, FAULTY, UNDECLARED = range(3)


class Foreign(ValueError):  # noqa: N818 - reads as what happened
    """The bytes are another version's, which is the text."""


def pack(outcome: ScopeConfig | ConfigError) -> bytes:
    """What loading a scope came to."""
    if isinstance(outcome, ConfigError):
        kind = UNDECLARED if isinstance(outcome, Undeclared) else FAULTY
        return marshal.dumps((__version__, kind, _put(outcome.faults)))
    return marshal.dumps((__version__, DECLARED, _put(outcome)))


def unpack(data: bytes) -> ScopeConfig:
    """The declaration in what `pack` made. Raises the error if it holds one, `Foreign` where another version
    made it, and EOFError, TypeError or ValueError where it is not whole."""
    version, kind, held = marshal.loads(data)
    if version != __version__:
        raise Foreign(version)
    value = _take(held)
    if kind == DECLARED:
        assert isinstance(value, ScopeConfig)
        return value
    raise (Undeclared if kind == UNDECLARED else ConfigError)(value)


def _put(value: Any) -> Any:
    cls = type(value)
    if cls in _PLAIN:
        return value
    number = _NUMBERS.get(cls)
    if number is not None:
        return [number, *[_put(getattr(value, name)) for name in _FIELDS[number]]]
    if isinstance(value, tuple):
        held = [_put(each) for each in value]
        return _shaped(_TUPLE, held) if any(type(each) is list for each in held) else tuple(held)
    if isinstance(value, Mapping):
        if value and all(getattr(each, "key", None) is key for key, each in value.items()):
            return _shaped(_KEYED, [_put(each) for each in value.values()])
        return _shaped(_MAPPING, [_put(each) for pair in value.items() for each in pair])
    if isinstance(value, re.Pattern):
        return [_PATTERN, value.pattern, value.flags]
    if isinstance(value, Severity):
        return [_SEVERITY, str(value)]
    raise TypeError(f"no declaration has a {cls.__name__}")


def _shaped(shape: int, held: list[Any]) -> list[Any]:
    if len(held) <= _PART:
        return [shape, *held]
    return [_PARTS, shape, *[marshal.dumps(held[at : at + _PART]) for at in range(0, len(held), _PART)]]


def _take(value: Any) -> Any:
    if type(value) is not list:
        return value
    number = value[0]
    parts: Iterable[list[Any]] = (value[1:],)
    if number == _PARTS:
        number, parts = value[1], map(marshal.loads, value[2:])
    held = [_take(each) if type(each) is list else each for part in parts for each in part]
    if number >= 0:
        return _CLASSES[number](**dict(zip(_FIELDS[number], held, strict=True)))
    if number == _TUPLE:
        return tuple(held)
    if number == _MAPPING:
        return dict(zip(held[::2], held[1::2], strict=True))
    if number == _KEYED:
        return {each.key: each for each in held}
    return re.compile(*held) if number == _PATTERN else Severity(*held)
