# SPDX-License-Identifier: MIT
"""Desired links, addresses, routes, rules and neighbours, with their identities.

Every value is in the form in which the kernel would give it back (compressed lower-case addresses, numbers
for tables and scopes), so that comparing is ``==``. Each object has its identity made once. Knows no socket,
no file and no observed state.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Protocol, TypeAlias

from linxd.patch import Key
from linxd.records import dataclass, field

AF_INET = int(socket.AF_INET)
AF_INET6 = int(socket.AF_INET6)

Value: TypeAlias = int | bool | str | tuple[str, ...]
"""Value of a link attribute, as the registry of attributes normalises it."""

SCOPES = {"global": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255}
ROUTE_TYPES = {
    "unicast": 1,
    "local": 2,
    "broadcast": 3,
    "anycast": 4,
    "multicast": 5,
    "blackhole": 6,
    "unreachable": 7,
    "prohibit": 8,
    "throw": 9,
}
MAIN_TABLE = 254
PROTO_LINXD = 76
"""Our mark on routes, rules, addresses and neighbours (rtm_protocol and its likes)."""

ADDRESS_FLAGS = {"nodad": 0x02, "home": 0x10, "mngtmpaddr": 0x100, "noprefixroute": 0x200, "autojoin": 0x400}
"""IFA_F_* that a declaration controls (include/uapi/linux/if_addr.h); the others are run-time state."""


class Where(Protocol):
    """Where something was declared; ``str`` of it is ``FILE:LINE``."""

    @property
    def file(self) -> str:
        """The file's name."""

    @property
    def line(self) -> int:
        """Counts from 1."""

    @property
    def column(self) -> int:
        """In characters, from 1."""


@dataclass(frozen=True, slots=True)
class LinkRef:
    """Another link by name. ``scope`` is "" for this namespace, "host" for a link of the host's."""

    name: str
    scope: str = ""

    def __str__(self) -> str:
        return f"{self.scope}:{self.name}" if self.scope else self.name


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a veth, which lives and dies with this one. ``scope`` as in `LinkRef`."""

    name: str
    scope: str = ""
    up: bool = True
    master: str | None = None
    mtu: int | None = None
    mac: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A declared link. ``None`` anywhere is "unmanaged": neither set nor compared.

    ``attributes`` are those every link has (mtu, mac, group …), ``options`` its kind's own, ``port`` those
    it has as a port of its master; all by the names in `linxd.sources.rtnl.attributes`. ``master`` "" is "in
    none".
    """

    name: str
    kind: str | None = None
    up: bool | None = None
    master: str | None = None
    parent: LinkRef | None = None
    peer: Peer | None = None
    attributes: Mapping[str, Value] = field(default_factory=dict)
    options: Mapping[str, Value] = field(default_factory=dict)
    port: Mapping[str, Value] = field(default_factory=dict)
    take: bool | None = None
    where: Where | None = field(default=None, compare=False, repr=False)
    key: Key = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ("link", self.name))

    def words(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Address:
    """A declared address. ``peer`` is the other end's bare address, and ``prefixlen`` then the peer's (as
    the kernel has it); ``flags`` are bits of `ADDRESS_FLAGS`; ``label`` None is the link's name."""

    link: str
    family: int
    address: str
    prefixlen: int
    peer: str | None = None
    label: str | None = None
    broadcast: str | None = None
    scope: int = 0
    metric: int = 0
    flags: int = 0
    take: bool | None = None
    where: Where | None = field(default=None, compare=False, repr=False)
    key: Key = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ("address", self.link, self.address, self.prefixlen))

    def words(self) -> str:
        return f"{self.address}/{self.prefixlen} dev {self.link}"


@dataclass(frozen=True, slots=True)
class Nexthop:
    """One way of a multipath route. ``weight`` counts from 1."""

    via: str | None = None
    dev: str | None = None
    weight: int = 1
    onlink: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """A declared route. ``to`` is always "A/LEN", its host bits clear. ``metrics`` are (RTAX number, value)
    in ascending order, the congestion control's value being its name. ``dev`` and ``scope`` None:
    unmanaged."""

    family: int
    to: str
    table: int = MAIN_TABLE
    tos: int = 0
    metric: int = 0
    type: int = 1
    via: str | None = None
    dev: str | None = None
    onlink: bool = False
    prefsrc: str | None = None
    scope: int | None = None
    pref: int | None = None
    metrics: tuple[tuple[int, int | str], ...] = ()
    nexthops: tuple[Nexthop, ...] = ()
    take: bool | None = None
    where: Where | None = field(default=None, compare=False, repr=False)
    key: Key = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ("route", self.family, self.table, self.to, self.tos, self.metric))

    def devices(self) -> set[str]:
        """Names of the links that it says it goes through; none when it leaves that to its gateway."""
        return {way.dev for way in self.nexthops if way.dev} | ({self.dev} if self.dev else set())

    def words(self) -> str:
        to = "default" if self.to in ("0.0.0.0/0", "::/0") else self.to
        kind = "" if self.type == 1 else next(n for n, v in ROUTE_TYPES.items() if v == self.type) + " "
        text = f"{kind}{to}"
        if self.via:
            text += f" via {self.via}"
        if self.dev:
            text += f" dev {self.dev}"
        for hop in self.nexthops:
            text += (
                " nexthop" + (f" via {hop.via}" if hop.via else "") + (f" dev {hop.dev}" if hop.dev else "")
            )
        if self.table != MAIN_TABLE:
            text += f" table {self.table}"
        if self.metric and not (self.family == AF_INET6 and self.metric == 1024):
            text += f" metric {self.metric}"
        if self.tos:
            text += f" tos {self.tos:#04x}"
        return text


@dataclass(frozen=True, slots=True)
class Rule:
    """A declared policy rule. ``priority`` None: ``chosen`` once by the source, and kept in the ledger.

    ``action`` is FR_ACT_* (1 to_table, 2 goto, 3 nop, 6 blackhole, 7 unreachable, 8 prohibit). ``fwmark`` is
    (mark, mask); ``uidrange``, ``sport``, ``dport`` are (first, last), inclusive.
    """

    family: int
    priority: int | None = None
    invert: bool = False
    src: str | None = None
    dst: str | None = None
    tos: int = 0
    dscp: int | None = None
    iif: str | None = None
    oif: str | None = None
    fwmark: tuple[int, int] | None = None
    l3mdev: bool = False
    uidrange: tuple[int, int] | None = None
    ipproto: int | None = None
    sport: tuple[int, int] | None = None
    dport: tuple[int, int] | None = None
    tun_id: int | None = None
    action: int = 1
    table: int = 0
    goto: int | None = None
    realms: int | None = None
    suppress_prefixlength: int | None = None
    suppress_ifgroup: int | None = None
    chosen: int | None = field(default=None, compare=False)
    take: bool | None = None
    where: Where | None = field(default=None, compare=False, repr=False)
    key: Key = field(init=False, compare=False, repr=False)

    def selectors(self) -> str:
        """Everything but the priority, in the words of `ip rule`: what finds the rule again."""
        parts = ["ipv6" if self.family == AF_INET6 else "ipv4"]
        if self.invert:
            parts.append("not")
        parts += ["from", self.src or "all"]
        for word, value in (("to", self.dst), ("iif", self.iif), ("oif", self.oif)):
            if value:
                parts += [word, value]
        if self.tos:
            parts += ["tos", f"{self.tos:#04x}"]
        if self.dscp is not None:
            parts += ["dscp", str(self.dscp)]
        if self.fwmark is not None:
            parts += ["fwmark", f"{self.fwmark[0]:#x}/{self.fwmark[1]:#x}"]
        if self.l3mdev:
            parts.append("l3mdev")
        for word, span in (("uidrange", self.uidrange), ("sport", self.sport), ("dport", self.dport)):
            if span is not None:
                parts += [word, f"{span[0]}-{span[1]}"]
        if self.ipproto is not None:
            parts += ["ipproto", str(self.ipproto)]
        if self.tun_id is not None:
            parts += ["tun_id", str(self.tun_id)]
        if self.action == 1:
            if not self.l3mdev:
                parts += ["lookup", str(self.table)]
        elif self.action == 2:
            parts += ["goto", str(self.goto)]
        else:
            parts.append({3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}[self.action])
        return " ".join(parts)

    def __post_init__(self) -> None:
        object.__setattr__(
            self,
            "key",
            ("rule", self.family, -1 if self.priority is None else self.priority, self.selectors()),
        )

    def words(self) -> str:
        priority = self.chosen if self.priority is None else self.priority
        return self.selectors() + ("" if priority is None else f" priority {priority}")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A declared neighbour: permanent with ``lladdr``, or a proxy entry without one."""

    dev: str
    family: int
    address: str
    lladdr: str | None = None
    proxy: bool = False
    router: bool = False
    take: bool | None = None
    where: Where | None = field(default=None, compare=False, repr=False)
    key: Key = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ("neighbour", self.dev, self.address, int(self.proxy)))

    def words(self) -> str:
        return f"{'proxy ' if self.proxy else ''}{self.address} dev {self.dev}"


@dataclass(frozen=True, slots=True)
class Desired:
    """All that one scope declares of rtnetlink. Mappings are by `key`, links by name; none is changed later.

    ``foreign_remove``: foreign = "remove". ``take``: on-conflict = "take", unless an object says otherwise.
    """

    links: Mapping[str, Link] = field(default_factory=dict)
    addresses: Mapping[Key, Address] = field(default_factory=dict)
    routes: Mapping[Key, Route] = field(default_factory=dict)
    rules: Mapping[Key, Rule] = field(default_factory=dict)
    neighbours: Mapping[Key, Neighbour] = field(default_factory=dict)
    foreign_remove: bool = False
    take: bool = False

    def declares(self, key: Key) -> bool:
        """Whether an object of that identity is declared."""
        return self.find(key) is not None

    def find(self, key: Key) -> Link | Address | Route | Rule | Neighbour | None:
        """What is declared under an identity."""
        match key[0]:
            case "link":
                return self.links.get(str(key[1]))
            case "address":
                return self.addresses.get(key)
            case "route":
                return self.routes.get(key)
            case "neighbour":
                return self.neighbours.get(key)
        return self.rules.get(key)

    def on_links(self) -> set[str]:
        """Names of all links that are declared, or on which something else is."""
        placed = {*self.links, *(address.link for address in self.addresses.values())}
        placed.update(neighbour.dev for neighbour in self.neighbours.values())
        # Of very many routes few have several ways.
        placed.update(route.dev for route in self.routes.values() if route.dev)
        return placed.union(*(route.devices() for route in self.routes.values() if route.nexthops))
