# SPDX-License-Identifier: MIT
"""Permanent and proxy neighbours: what differs, whose they are, and the requests that put them right.

What the kernel learned by itself is run-time state and none of our business. Knows no socket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from linxd.netlink import rt, wire
from linxd.netlink.rt import NeighMsg
from linxd.ownership import Origin
from linxd.patch import Change, Entry, Key, Op, Verb
from linxd.sources.rtnl.kind import Context, Have, Message, Waits, origin_of, protocol_name
from linxd.sources.rtnl.model import PROTO_LINXD, Neighbour
from linxd.sources.rtnl.table import LinkTable

NUD_PERMANENT = 0x80
NTF_PROXY = 0x08
NTF_ROUTER = 0x80
STATES = {0x01: "incomplete", 0x02: "reachable", 0x04: "stale", 0x08: "delay", 0x10: "probe", 0x20: "failed",
          0x40: "noarp", 0x80: "permanent", 0x00: "none"}  # fmt: skip


def key_of(msg: NeighMsg, links: LinkTable) -> Key:
    """Identity: device, address, proxy or not."""
    return ("neighbour", links.name(msg.ifindex), msg.address or "", int(bool(msg.flags & NTF_PROXY)))


def have(msg: NeighMsg, links: LinkTable) -> Have[NeighMsg]:
    """An observed neighbour under its identity."""
    proxy = "proxy " if msg.flags & NTF_PROXY else ""
    return Have(key_of(msg, links), msg, f"{proxy}{msg.address} dev {links.name(msg.ifindex)}")


class NeighbourKind:
    """See `linxd.sources.rtnl.kind.Kind`."""

    name = "neighbour"

    def changes(self, want: Neighbour, have: Have[NeighMsg], context: Context) -> tuple[Change, ...]:
        msg = have.msg
        found: list[Change] = []
        if not want.proxy:
            if msg.lladdr != want.lladdr:
                found.append(Change("lladdr", msg.lladdr, want.lladdr))
            if not msg.state & NUD_PERMANENT:
                found.append(Change("nud", STATES.get(msg.state, f"{msg.state:#x}"), "permanent"))
        if bool(msg.flags & NTF_ROUTER) != want.router:
            found.append(Change("router", *(("router", None) if not want.router else (None, "router"))))
        return tuple(found)

    def origin(self, have: Have[NeighMsg]) -> Origin:
        return origin_of(have.msg.protocol)

    def original(
        self, want: Neighbour | None, have: Have[NeighMsg], changes: Sequence[Change]
    ) -> Mapping[str, str]:
        return {"protocol": str(have.msg.protocol)}

    def owner(self, have: Have[NeighMsg]) -> str:
        return f"protocol {protocol_name(have.msg.protocol)}"

    def waits(self, want: Neighbour, changes: Sequence[Change], context: Context) -> Waits:
        return Waits(tuple(changes))

    def recreates(self, want: Neighbour, changes: Sequence[Change]) -> bool:
        return False

    def adoptable(self, want: Neighbour, have: Have[NeighMsg], changes: Sequence[Change]) -> bool:
        # What the kernel merely learned is nobody's: making it permanent takes nothing from anyone.
        return not want.proxy and not have.msg.state & (NUD_PERMANENT | 0x40)

    def reached(self, have: Have[NeighMsg], context: Context) -> bool:
        ours = have.key[1] in context.declared
        return ours and bool(have.msg.state & NUD_PERMANENT) and have.msg.protocol != 2

    def facts(self, want: Neighbour, have: Have[NeighMsg] | None) -> Mapping[str, int | str]:
        return {}

    def creatable(self, want: Neighbour, context: Context) -> str | None:
        return None

    def needs(self, want: Neighbour) -> tuple[Key, ...]:
        return (("link", want.dev),)

    def given(self, want: Neighbour, context: Context) -> tuple[str, ...]:
        return ()

    def valid(self, entry: Entry, have: Have[NeighMsg]) -> bool:
        return True

    def messages(self, op: Op, context: Context) -> list[Message]:
        if op.verb is Verb.DELETE:
            assert isinstance(op.have, Have)
            msg: NeighMsg = op.have.msg
            payload = rt.encode_neigh(
                family=msg.family, ifindex=msg.ifindex, address=msg.address, flags=msg.flags & NTF_PROXY
            )
            return [(wire.RTM_DELNEIGH, 0, payload)]
        want = op.want
        assert isinstance(want, Neighbour)
        protocol = PROTO_LINXD
        if op.after is not None and "protocol" in op.after.original:
            protocol = int(op.after.original["protocol"])
        payload = rt.encode_neigh(
            family=want.family,
            ifindex=context.links.index(want.dev) or 0,
            address=want.address,
            lladdr=want.lladdr,
            state=0 if want.proxy else NUD_PERMANENT,
            flags=(NTF_PROXY if want.proxy else 0) | (NTF_ROUTER if want.router else 0),
            protocol=protocol,
        )
        flags = wire.NLM_F_CREATE | (wire.NLM_F_EXCL if op.verb is Verb.CREATE else wire.NLM_F_REPLACE)
        return [(wire.RTM_NEWNEIGH, flags, payload)]
