# SPDX-License-Identifier: MIT
"""One interface of an object as it is written here: methods with their signatures and who may call them,
properties, signals.

The contract is the XML under dbus/; a test holds the classes against it. It knows no connection.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from linxd.bus.connection import Call
from linxd.records import dataclass

_XML = os.path.join(os.path.dirname(__file__), "interfaces")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Method:
    """A method: signatures of what goes in and comes out, and polkit's action, "" where anybody may."""

    name: str
    takes: str
    gives: str
    action: str


@dataclass(frozen=True, slots=True)
class Property:
    """A property. ``emits``: ``const``, ``true`` or ``false``, as EmitsChangedSignal says it."""

    signature: str
    emits: str


class Emit(Protocol):
    """Sends a signal."""

    def __call__(self, interface: str, member: str, signature: str, body: Sequence[Any]) -> None: ...


def method(takes: str = "", gives: str = "", *, action: str = "") -> Callable[[F], F]:
    """Make a method of the class one of the interface, under its name in CamelCase.

    It is given the call and its arguments; coroutine or not, it returns a tuple of what comes out, and
    raises `BusError` for what went wrong.
    """

    def mark(function: F) -> F:
        name = "".join(part.capitalize() for part in function.__name__.split("_"))
        function.__dict__["bus_method"] = Method(name, takes, gives, action)
        return function

    return mark


class Interface:
    """One interface of one object."""

    name: ClassVar[str]
    properties: ClassVar[Mapping[str, Property]] = {}
    signals: ClassVar[Mapping[str, str]] = {}
    emit: Emit | None = None
    """Set while the object is there."""

    def values(self) -> Mapping[str, Any]:
        """The value of each property now."""
        return {}

    @classmethod
    @functools.cache
    def methods(cls) -> Mapping[str, tuple[Method, str]]:
        """By name: each method, and what it is called in the class."""
        found = {}
        for attribute in dir(cls):
            described = getattr(getattr(cls, attribute), "bus_method", None)
            if isinstance(described, Method):
                found[described.name] = (described, attribute)
        return found

    def call(self, attribute: str, call: Call) -> Any:
        """Call one of `methods`."""
        return getattr(self, attribute)(call, *call.body)

    def signal(self, member: str, *body: Any) -> None:
        """Send one of `signals`."""
        if self.emit is not None:
            self.emit(self.name, member, self.signals[member], body)


@functools.cache
def xml_of(name: str) -> str:
    """What introspection says of an interface: as it stands under dbus/, without its comments."""
    # By hand: a parser would take memory in every daemon for what is done once.
    with open(os.path.join(_XML, f"{name}.xml"), encoding="utf-8") as file:
        text = re.sub(r"\s*<!--.*?-->", "", file.read(), flags=re.S)
    begin, end = text.index("<interface "), text.index("</interface>")
    return text[begin:end] + "</interface>"
