# SPDX-License-Identifier: MIT
"""What was seen: the links of each namespace as the kernel has them, and what is declared for each scope.

Values only. It must not know how anything was asked for, nor what follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping

from linxd.netlink.rt import AddrMsg, LinkMsg
from linxd.records import dataclass, field
from linxd.sources.rtnl.model import Desired

HOST = "host"


@dataclass(frozen=True, slots=True)
class Place:
    """One network namespace. ``name``: that of the scope in it, ``host`` for the host's own.

    ``namespaces``: other namespaces by the ids under which links speak of them here (IFLA_LINK_NETNSID):
    names of places, or for those that no scope is in, the names that `ip netns` has for them.
    """

    name: str
    links: tuple[LinkMsg, ...] = ()
    addresses: tuple[AddrMsg, ...] = ()
    namespaces: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kept:
    """How one declared link is: ``state`` in a word, ``why`` in a line where there is something to say."""

    state: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Scope:
    """One scope. ``state``: how it is as a whole, in a word. ``running``: a daemon serves it. ``place``: the
    one that it is in, where that has another scope's name.

    ``desired``: None where nothing is known of what is declared. ``usual``: the state of declared links
    that ``links``, by declared name, says nothing of. ``owned``: names of links that were made or taken
    over; None where that can't be known.
    """

    name: str
    state: str
    running: bool = False
    desired: Desired | None = None
    usual: str = "unknown"
    links: Mapping[str, Kept] = field(default_factory=dict)
    owned: frozenset[str] | None = None
    place: str = ""

    def __post_init__(self) -> None:
        if not self.place:
            object.__setattr__(self, "place", self.name)


@dataclass(frozen=True, slots=True)
class Seen:
    """All of it. ``notes``: what could not be seen, and why; a line each."""

    places: tuple[Place, ...] = ()
    scopes: tuple[Scope, ...] = ()
    notes: tuple[str, ...] = ()
