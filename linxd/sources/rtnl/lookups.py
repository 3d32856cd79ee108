# SPDX-License-Identifier: MIT
"""Routes asked for one by one: which one an address in their midst would take. A few of ours among very many
of others' cost a few questions so, where a dump has the kernel go through all of them.

The kernel answers with the route as a dump would say it (RTM_F_FIB_MATCH, net/ipv4/route.c
inet_rtm_getroute). What is answered is there, and in force; of what is not, whoever asked knows nothing:
rules, a narrower route, another metric may have come before it. IPv4's alone: a look-up of IPv6's may send
packets to find out whether a gateway is alive (net/ipv6/route.c rt6_probe). And of routes for any traffic
class alone: before Linux 6.11 the answer bears the class that was asked with.
"""

from __future__ import annotations

from collections.abc import Iterable
from socket import inet_pton
from typing import Any

from linxd.netlink import rt, wire
from linxd.netlink.errors import NetlinkError
from linxd.netlink.socket import Request, Requests
from linxd.netlink.text import prefix_bytes
from linxd.slices import chunks
from linxd.source import Pass
from linxd.sources.rtnl.model import AF_INET

PRICE = 100
"""Routes that the kernel passes over in a dump in the time that one question takes."""
AT_ONCE = 24
"""Questions in a datagram: an answer takes 8 KiB of a receive buffer, which may have no more than 208."""
_NOWHERE = bytes((240, 0, 0, 1))
"""An address that nobody's network has (class E): only a default route leads there."""


def question(prefix: str, *, oif: int = 0, but: str = "") -> Request:
    """Which route leads to ``A/LEN``, through a link where ``oif`` is one, by an address in its midst (hosts
    with a route of their own tend to stand at its ends), and not by the address ``but``."""
    packed, length = prefix_bytes(prefix)
    if length == 0:
        packed = _NOWHERE
    elif length < 32:
        number = int.from_bytes(packed, "big") + (1 << 31 - length)
        packed = number.to_bytes(4, "big")
        if but and packed == inet_pton(AF_INET, but):
            packed = (number - 1).to_bytes(4, "big")
    return wire.RTM_GETROUTE, 0, rt.query_route(packed, oif=oif)


async def answers(requests: Requests, questions: Iterable[Request], work: Pass[Any]) -> list[bytes | None]:
    """The payload of each answer, None where there is none."""
    found: list[bytes | None] = []
    for some in chunks(questions, AT_ONCE):
        if found:
            await work.checkpoint()
        got: list[bytes | None] = [None] * len(some)
        echoes: list[tuple[int, wire.Message]] = []
        kind, flags, payload = some[-1]
        some[-1] = kind, flags | wire.NLM_F_ACK, payload
        try:
            requests.transact(some, echoes=echoes)
        except NetlinkError:
            echoes.clear()
        for number, reply in echoes:
            got[number] = reply.buf[reply.start : reply.end]
        found += got
    return found
