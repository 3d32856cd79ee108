# SPDX-License-Identifier: MIT
"""Addresses: what differs, whose they are, and the requests that put them right.

The kernel ignores a changed label, broadcast, peer or scope of an address it has, so these need it deleted
and added; the routes that go with it are the next look's business. Knows no socket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from linxd.netlink import rt, wire
from linxd.netlink.rt import AddrMsg
from linxd.netlink.wire import FOREVER
from linxd.ownership import Origin
from linxd.patch import Change, Entry, Key, Op, Verb
from linxd.sources.rtnl import prefixes
from linxd.sources.rtnl.kind import (
    IFF_LOOPBACK,
    Context,
    Have,
    Message,
    Waits,
    origin_of,
    protocol_name,
)
from linxd.sources.rtnl.model import ADDRESS_FLAGS, AF_INET, AF_INET6, PROTO_LINXD, SCOPES, Address
from linxd.sources.rtnl.table import LinkTable

MANAGED_FLAGS = sum(ADDRESS_FLAGS.values())
IN_PLACE = frozenset({"metric", "flags", "lifetime", "protocol", prefixes.ATTRIBUTE})
"""Attributes that NLM_F_REPLACE changes on an existing address (net/ipv4/devinet.c inet_rtm_newaddr,
net/ipv6/addrconf.c inet6_addr_modify), flags on one of IPv6 alone; anything else needs delete and add."""

IPV6_MIN_MTU = 1280
"""Below it a link has no IPv6 at all (include/net/ipv6.h)."""


def key_of(msg: AddrMsg, links: LinkTable) -> Key:
    """Identity: link, address, prefix length."""
    return ("address", links.name(msg.ifindex), msg.address, msg.prefixlen)


def have(msg: AddrMsg, links: LinkTable) -> Have[AddrMsg]:
    """An observed address under its identity."""
    name = links.name(msg.ifindex)
    return Have(
        ("address", name, msg.address, msg.prefixlen), msg, f"{msg.address}/{msg.prefixlen} dev {name}"
    )


def stand_ins(want: Mapping[Key, Address], seen: Mapping[Key, Have[AddrMsg]]) -> Mapping[Key, Have[AddrMsg]]:
    """What was seen, with an IPv6 address of another prefix length in the place of a declared one: a link
    has each but once (net/ipv6/addrconf.c ipv6_add_addr), so there is no room for both."""
    missing = {key[1:3]: key for key in want if key not in seen and ":" in str(key[2])}
    if not missing:
        return seen
    found = {
        missing[key[1:3]]: have for key, have in seen.items() if key[1:3] in missing and key not in want
    }
    return {**seen, **found}


def flag_words(flags: int) -> str:
    """``nodad noprefixroute``, or "" without any."""
    return " ".join(word for word, bit in ADDRESS_FLAGS.items() if flags & bit)


def _scope_word(scope: int) -> str:
    return next((word for word, number in SCOPES.items() if number == scope), str(scope))


class AddressKind:
    """See `linxd.sources.rtnl.kind.Kind`."""

    name = "address"

    def changes(self, want: Address, have: Have[AddrMsg], context: Context) -> tuple[Change, ...]:
        msg = have.msg
        found: list[Change] = []

        def compare(attribute: str, observed: str | None, wanted: str | None) -> None:
            if observed != wanted:
                found.append(Change(attribute, observed, wanted))

        if msg.prefixlen != want.prefixlen:
            compare("prefix length", str(msg.prefixlen), str(want.prefixlen))
        if msg.peer != want.peer:
            compare("peer", msg.peer, want.peer)
        if msg.scope != want.scope:
            compare("scope", _scope_word(msg.scope), _scope_word(want.scope))
        if want.family == AF_INET:
            link = context.links.by_index.get(msg.ifindex)
            plain = {want.link, link.name if link is not None else want.link}
            label = None if msg.label in plain else msg.label
            if label != (None if want.label in plain else want.label):
                compare("label", msg.label, want.label or want.link)
            compare("broadcast", msg.broadcast, want.broadcast)
        if msg.metric != want.metric:
            compare("metric", str(msg.metric), str(want.metric))
        observed_flags = msg.flags & MANAGED_FLAGS
        if observed_flags != want.flags:
            compare("flags", flag_words(observed_flags) or None, flag_words(want.flags) or None)
        if msg.valid_lft != FOREVER or msg.preferred_lft != FOREVER:
            compare("lifetime", f"{msg.valid_lft}s", "forever")
        if want.key in context.bare:
            compare(prefixes.ATTRIBUTE, None, prefixes.network(msg.peer or msg.address, msg.prefixlen))
        return tuple(found)

    def origin(self, have: Have[AddrMsg]) -> Origin:
        # A kernel address protocol (IFAPROT_KERNEL_*: 1 lo, 2 ra, 3 ll) is nobody's daemon but is not a
        # hand's either.
        protocol = have.msg.proto
        return Origin.DAEMON if protocol in (1, 2, 3) else origin_of(protocol)

    def original(
        self, want: Address | None, have: Have[AddrMsg], changes: Sequence[Change]
    ) -> Mapping[str, str]:
        return {"protocol": str(have.msg.proto)}

    def owner(self, have: Have[AddrMsg]) -> str:
        protocol = have.msg.proto
        return (
            f"address protocol {protocol_name(protocol)}" if protocol else "no protocol (a hand or a script)"
        )

    def waits(self, want: Address, changes: Sequence[Change], context: Context) -> Waits:
        return Waits(tuple(changes))

    def recreates(self, want: Address, changes: Sequence[Change]) -> bool:
        return not all(_in_place(want, change) for change in changes)

    def adoptable(self, want: Address, have: Have[AddrMsg], changes: Sequence[Change]) -> bool:
        return False

    def reached(self, have: Have[AddrMsg], context: Context) -> bool:
        msg = have.msg
        link = context.links.by_index.get(msg.ifindex)
        if link is None or link.flags & IFF_LOOPBACK or have.key[1] not in context.declared:
            return False
        if msg.family == AF_INET6 and msg.scope == SCOPES["link"]:
            return False
        return msg.valid_lft == FOREVER and msg.proto not in (1, 2, 3)

    def facts(self, want: Address, have: Have[AddrMsg] | None) -> Mapping[str, int | str]:
        return {}

    def creatable(self, want: Address, context: Context) -> str | None:
        link = context.links.find(want.link)
        if want.family == AF_INET6 and link is not None and 0 < link.mtu < IPV6_MIN_MTU:
            return f"needs an MTU of at least {IPV6_MIN_MTU} on {want.link}, which has {link.mtu}"
        return context.hold or None

    def needs(self, want: Address) -> tuple[Key, ...]:
        return (("link", want.link),)

    def given(self, want: Address, context: Context) -> tuple[str, ...]:
        return ()

    def valid(self, entry: Entry, have: Have[AddrMsg]) -> bool:
        return True

    def messages(self, op: Op, context: Context) -> list[Message]:
        messages: list[Message] = []
        if op.verb in (Verb.DELETE, Verb.RECREATE):
            assert isinstance(op.have, Have)
            messages.append((wire.RTM_DELADDR, 0, _delete(op.have.msg)))
        if op.verb is not Verb.DELETE:
            assert isinstance(op.want, Address)
            flags = wire.NLM_F_CREATE | (wire.NLM_F_REPLACE if op.verb is Verb.UPDATE else wire.NLM_F_EXCL)
            protocol = PROTO_LINXD
            if op.after is not None and "protocol" in op.after.original:
                protocol = int(op.after.original["protocol"])
            ifindex = context.links.index(op.want.link)
            place = None
            if op.verb is Verb.UPDATE and any(one.attribute == prefixes.ATTRIBUTE for one in op.changes):
                assert isinstance(op.have, Have)
                place = prefixes.expected(op.have.msg, context.links)
            if place is not None and op.want.family == AF_INET:
                messages.append(prefixes.restored(op.want, place))
                if len(op.changes) == 1:
                    return messages
            messages.append((wire.RTM_NEWADDR, flags, _new(op.want, ifindex or 0, protocol)))
        return messages


def _in_place(want: Address, change: Change) -> bool:
    """Whether NLM_F_REPLACE makes a change. A group is joined when its address is added and at no other
    time, and the flag for that can't be taken back."""
    if change.attribute != "flags":
        return change.attribute in IN_PLACE
    differ = set((change.have or "").split()) ^ set((change.want or "").split())
    return want.family == AF_INET6 and "autojoin" not in differ


def _new(want: Address, ifindex: int, protocol: int) -> bytes:
    return rt.encode_addr(
        family=want.family,
        ifindex=ifindex,
        address=want.address,
        prefixlen=want.prefixlen,
        peer=want.peer,
        scope=want.scope,
        flags=want.flags,
        label=(want.label or want.link) if want.family == AF_INET else None,
        broadcast=want.broadcast,
        metric=want.metric,
        proto=protocol,
    )


def _delete(msg: AddrMsg) -> bytes:
    return rt.encode_addr(
        family=msg.family, ifindex=msg.ifindex, address=msg.address, prefixlen=msg.prefixlen, peer=msg.peer
    )
