# SPDX-License-Identifier: MIT
"""What the kernel and the files would say of a few links, in short."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from types import FrameType

from linxd.netlink.rt import AddrMsg, LinkMsg
from linxd.sources.rtnl.model import Address, Desired, Link, LinkRef, Peer
from linxd.topology import Kept, Place, Scope

UP = 0x11043
"""IFF_UP, IFF_LOWER_UP and what goes with them."""
DOWN = 0x1002
NO_CARRIER = 0x1003
LOOPBACK = 0x10049


def seen(
    ifindex: int,
    name: str,
    kind: str | None = None,
    *,
    flags: int = UP,
    master: int = 0,
    link: int = 0,
    nsid: int | None = None,
    type: int = 1,
) -> LinkMsg:
    """A link as the kernel has it."""
    return LinkMsg(
        0, ifindex, name, kind=kind, type=type, flags=flags, master=master, link=link, link_netnsid=nsid
    )


def lo() -> LinkMsg:
    """A loopback."""
    return seen(1, "lo", flags=LOOPBACK, type=772)


def v4(ifindex: int, address: str, prefixlen: int) -> AddrMsg:
    """An address as the kernel has it."""
    return AddrMsg(int(socket.AF_INET), ifindex, address, prefixlen)


def desired(*links: Link, addresses: tuple[tuple[str, str, int], ...] = ()) -> Desired:
    """What a file declares."""
    made = [Address(link, int(socket.AF_INET), text, length) for link, text, length in addresses]
    return Desired(links={link.name: link for link in links}, addresses={one.key: one for one in made})


def veth(name: str, peer: str, scope: str = "host", master: str | None = "br0") -> Link:
    """A declared veth."""
    return Link(name, kind="veth", peer=Peer(peer, scope, master=master))


def host_and_web() -> tuple[Place, Place, Scope, Scope]:
    """A bridge on the host, and a container on it."""
    host = Place(
        "host",
        (lo(), seen(2, "br0", "bridge"), seen(3, "web0", "veth", master=2, link=2, nsid=0)),
        (v4(1, "127.0.0.1", 8), v4(2, "10.20.0.1", 24)),
        {0: "web"},
    )
    web = Place(
        "web",
        (lo(), seen(2, "eth0", "veth", link=3, nsid=0)),
        (v4(2, "10.20.0.2", 24),),
        {0: "host"},
    )
    keeps_host = Scope("host", "converged", True, desired(Link("br0", kind="bridge")), "done")
    keeps_web = Scope("web", "converged", True, desired(Link("lo", up=True), veth("eth0", "web0")), "done")
    return host, web, keeps_host, keeps_web


HOSTILE = (
    'a"b',
    "back\\",
    "a\\nb",
    "</svg>",
    "<b>&amp;&",
    "]]>",
    "{}[]|",
    "\x1b[31mred",
    "\u202egnp",
    "two\nlines",
    "ü€漢",
)
"""Names that the kernel takes, and a few that it would not."""

__all__ = [
    "DOWN",
    "HOSTILE",
    "NO_CARRIER",
    "Kept",
    "Link",
    "LinkRef",
    "desired",
    "host_and_web",
    "lo",
    "seen",
    "v4",
    "veth",
]


def lines_run(call: Callable[[], object]) -> int:
    """How many lines of Python `call` runs: how work grows, without a clock."""
    count = 0

    def traced(frame: FrameType, event: str, arg: object) -> Callable[..., object]:
        nonlocal count
        count += event == "line"
        return traced

    before = sys.gettrace()
    sys.settrace(traced)
    try:
        call()
    finally:
        sys.settrace(before)
    return count
