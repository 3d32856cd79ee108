# SPDX-License-Identifier: MIT
"""What the diff and the writer must know of one kind of object, the same for links, addresses, routes, rules
and neighbours. Holds no behaviour of any one kind.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from linxd.netlink.rt import LinkMsg
from linxd.ownership import Origin
from linxd.patch import Change, Entry, Key, Op
from linxd.records import dataclass
from linxd.sources.rtnl.model import PROTO_LINXD, Link
from linxd.sources.rtnl.table import LinkTable

M = TypeVar("M")

Message: TypeAlias = tuple[int, int, bytes]
"""(RTM_* type, NLM_F_* flags, payload), as `linxd.netlink.socket.Requests.batch` takes it."""

IFF_UP, IFF_LOOPBACK, IFF_NOARP, IFF_PROMISC, IFF_ALLMULTI, IFF_MULTICAST = (
    0x1,
    0x8,
    0x80,
    0x100,
    0x200,
    0x1000,
)
"""Interface flags (include/uapi/linux/if.h)."""

PROTOCOLS = {
    0: "unspec", 1: "redirect", 2: "kernel", 3: "boot", 4: "static", 8: "gated", 9: "ra", 10: "mrt",
    11: "zebra", 12: "bird", 13: "dnrouted", 14: "xorp", 15: "ntk", 16: "dhcp", 17: "mrouted",
    18: "keepalived", 42: "babel", 76: "linxd", 84: "ovn", 99: "openr", 186: "bgp", 187: "isis",
    188: "ospf", 189: "rip", 192: "eigrp",
}  # fmt: skip
"""include/uapi/linux/rtnetlink.h, with the names iproute2 prints."""


def protocol_name(number: int) -> str:
    """``bird``, or the number where nobody has named it."""
    return PROTOCOLS.get(number, str(number))


def origin_of(protocol: int) -> Origin:
    """Whose hand a protocol shows: none, boot and static are a person's, or of a tool that a person ran."""
    if protocol == PROTO_LINXD:
        return Origin.MARK
    return Origin.HAND if protocol in (0, 3, 4) else Origin.DAEMON


@dataclass(frozen=True, slots=True)
class Have(Generic[M]):
    """An observed object under its identity. ``str(text)`` is what its own tool would call it: many objects
    are seen and few are spoken of, so a kind may leave making it until then. ``same``: all that the kernel
    has under this identity, the one in force first, when there are several; ``rivals``: those of them that
    must go, so that ``msg`` is in force."""

    key: Key
    msg: M
    text: object
    same: tuple[M, ...] = ()
    rivals: tuple[M, ...] = ()

    def words(self) -> str:
        return str(self.text)


class HostLinks(Protocol):
    """The host's links that a scope refers to (`linxd.sources.rtnl.hostside`). ``fd``: its namespace;
    ``nsid``: the id that this has in the scope's."""

    links: LinkTable
    fd: int
    nsid: int

    def index(self, name: str) -> int | None:
        """The ifindex of one of the host's links, None when it is not there."""

    def name(self, ifindex: int) -> str:
        """The name of one of the host's links."""

    def end_of(self, link: str) -> LinkMsg | None:
        """The host end of a veth of ours, None when it has none there."""


class Context(Protocol):
    """What a kind may look at: the links, those that this patch is about to make, and of the host what a
    scope may refer to (None in the host's own scope, and where nothing refers to it). ``hold``: why no
    address may be added and no link set up yet, "" normally. ``bare``: declared addresses whose connected
    route was looked for and is not there."""

    links: LinkTable
    declared: Mapping[str, Link]
    host: HostLinks | None
    hold: str
    bare: Collection[Key]

    def coming(self, name: str) -> bool:
        """Whether this patch makes that link: it is declared with a kind, and not there."""


class Gone:
    """What a hint carries instead of an object when the event said that it went. None is "not known,
    look"."""


GONE = Gone()


@dataclass(frozen=True, slots=True)
class Waits:
    """Changes that can be made now, and why the others can't ("" when all can)."""

    possible: tuple[Change, ...]
    text: str = ""
    needs: tuple[Key, ...] = ()


class Kind(Protocol):
    """One kind of rtnetlink object. All of it is pure."""

    name: str

    def changes(self, want: Any, have: Any, context: Context) -> tuple[Change, ...]:
        """Declared attributes that differ, also where the kernel settled on a form for what was asked."""

    def origin(self, have: Any) -> Origin:
        """Whose hand the kernel's object shows."""

    def original(self, want: Any, have: Any, changes: Sequence[Change]) -> Mapping[str, str]:
        """What must be remembered of an object that stood there first."""

    def owner(self, have: Any) -> str:
        """Who has it, for a conflict's message."""

    def waits(self, want: Any, changes: Sequence[Change], context: Context) -> Waits:
        """Which of the changes can't be made yet, and for what."""

    def recreates(self, want: Any, changes: Sequence[Change]) -> bool:
        """Whether these changes need the object deleted and made again."""

    def adoptable(self, want: Any, have: Any, changes: Sequence[Change]) -> bool:
        """Row 5 of the ownership table: differences that may simply be set on an object found there."""

    def reached(self, have: Any, context: Context) -> bool:
        """Whether foreign = "remove" covers this object."""

    def facts(self, want: Any, have: Any) -> Mapping[str, int | str]:
        """What identifies it besides its key, to be kept in the ledger. ``have`` None: it's about to be
        made."""

    def creatable(self, want: Any, context: Context) -> str | None:
        """None when it can be made; else why it is waited for. "" when it comes with another op of this
        patch."""

    def needs(self, want: Any) -> tuple[Key, ...]:
        """Links that must be there before it can be."""

    def given(self, want: Any, context: Context) -> tuple[str, ...]:
        """What else decides whether the kernel takes its requests: one refused for good is tried again when
        these words change."""

    def valid(self, entry: Entry, have: Any) -> bool:
        """Whether a ledger entry speaks of this very object (a link of another index is another link)."""

    def messages(self, op: Op, context: Context) -> list[Message]:
        """The requests that carry the op out, in order."""


ABSENT_ALREADY = frozenset({errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENODEV})
"""What a delete is answered when the object is not there: done, then."""


def settled(changes: Sequence[Change], entry: Entry | None) -> tuple[Change, ...]:
    """Drop the differences that the kernel's settled form of what was asked explains."""
    if entry is None or not entry.settled:
        return tuple(changes)
    return tuple(
        change
        for change in changes
        if not (
            entry.settled.get(change.attribute) == change.have
            and entry.asked.get(change.attribute) == change.want
        )
    )
