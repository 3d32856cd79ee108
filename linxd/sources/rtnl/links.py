# SPDX-License-Identifier: MIT
"""Links: what differs, whose they are, and the requests that put them right.

A link is recognised by name and index. It is made in one request with what the kernel takes only then, and
set right in a few more; which attribute can be changed in place stands in the registry. Knows no socket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from linxd.netlink import rt, wire
from linxd.netlink.rt import LinkMsg
from linxd.ownership import Origin
from linxd.patch import Change, Entry, Key, Op, Verb
from linxd.sources.rtnl import hostside
from linxd.sources.rtnl.attributes import COMMON, KINDS, link_options
from linxd.sources.rtnl.forms import Choice, QosMap
from linxd.sources.rtnl.kind import (
    IFF_ALLMULTI,
    IFF_MULTICAST,
    IFF_NOARP,
    IFF_PROMISC,
    IFF_UP,
    Context,
    Have,
    Message,
    Waits,
)
from linxd.sources.rtnl.model import Link, Value
from linxd.sources.rtnl.table import LinkTable

FLAGS = {"multicast": IFF_MULTICAST, "promisc": IFF_PROMISC, "allmulticast": IFF_ALLMULTI}
"""Attributes that are bits of ifi_flags; `arp` is IFF_NOARP the other way round."""
IMMUTABLE = frozenset({"kind", "parent", "peer"})


def have(msg: LinkMsg, links: LinkTable) -> Have[LinkMsg]:
    """An observed link under its identity: its declared name, where a ledger knows it by index."""
    name = links.name(msg.ifindex)
    return Have(("link", name), msg, name if name == msg.name else f"{name} (renamed to {msg.name})")


def common_value(msg: LinkMsg, name: str) -> Value | None:
    """A common attribute as observed, in the registry's normal form. None: not set."""
    if name == "arp":
        return not msg.flags & IFF_NOARP
    if name in FLAGS:
        return bool(msg.flags & FLAGS[name])
    value: Value | None = getattr(msg, _FIELDS.get(name, name))
    if name == "altnames":
        return tuple(sorted(msg.altnames))
    form = COMMON[name].form
    if isinstance(form, Choice):
        return next((word for word, number in form.words.items() if number == value), None)
    return value


_FIELDS = {"txqueuelen": "txqlen", "numtxqueues": "num_tx_queues", "numrxqueues": "num_rx_queues"}


class LinkKind:
    """See `linxd.sources.rtnl.kind.Kind`."""

    name = "link"

    def changes(self, want: Link, have: Have[LinkMsg], context: Context) -> tuple[Change, ...]:
        msg = have.msg
        links = context.links
        if want.kind is not None and msg.kind != info_kind(want.kind):
            return (Change("kind", msg.kind or "none (a device of its own)", want.kind),)
        found: list[Change] = []
        if msg.name != want.name:
            found.append(Change("name", msg.name, want.name))
        if want.parent is not None:
            _compare_parent(want, msg, context, found)
        if want.peer is not None and not want.peer.scope and want.kind == "veth":
            peer = links.name(msg.link) if msg.link and msg.link_netnsid is None else "(elsewhere)"
            if peer != want.peer.name:
                found.append(Change("peer", peer, want.peer.name))
        if want.peer is not None and want.peer.scope and context.host is not None:
            end = context.host.end_of(want.name)
            if end is None:
                found.append(Change("peer", "(elsewhere)", f"host:{want.peer.name}"))
            else:
                found += hostside.differences(want.peer, end, context.host.links)
        for name, value in want.attributes.items():
            observed = common_value(msg, name)
            if observed != value:
                attribute = COMMON[name]
                found.append(
                    Change(
                        name, None if observed is None else attribute.show(observed), attribute.show(value)
                    )
                )
        if want.kind is not None and want.options:
            _compare_options(want, msg, links, found)
        if want.master is not None:
            master = links.name(msg.master) if msg.master else ""
            if master != want.master:
                found.append(Change("master", master or None, want.master or None))
            elif want.port and want.master:
                _compare_port(want, msg, links, found)
        if want.up is not None and bool(msg.flags & IFF_UP) != want.up:
            found.append(
                Change("state", "up" if msg.flags & IFF_UP else "down", "up" if want.up else "down")
            )
        return tuple(found)

    def origin(self, have: Have[LinkMsg]) -> Origin:
        return Origin.HAND

    def original(self, want: Link, have: Have[LinkMsg], changes: Sequence[Change]) -> Mapping[str, str]:
        return {change.attribute: change.have for change in changes if change.have is not None}

    def owner(self, have: Have[LinkMsg]) -> str:
        return f"a {have.msg.kind or 'physical'} link with index {have.msg.ifindex} that linxd did not make"

    def facts(self, want: Link, have: Have[LinkMsg] | None) -> Mapping[str, int | str]:
        return {} if have is None else {"ifindex": have.msg.ifindex}

    def creatable(self, want: Link, context: Context) -> str | None:
        if want.kind is None:
            return "is not there, and its kind is not declared"
        if want.kind == "veth" and want.peer is None:
            return "comes with the other end of the pair, which is not there"
        if not hostside.refers(want):
            return None
        host = context.host
        if host is None:
            return "refers to a link of the host, to which this process has no way"
        if want.parent is not None and want.parent.scope and host.index(want.parent.name) is None:
            return f"needs link {want.parent}, which is not there"
        if want.peer is not None and want.peer.scope:
            taken = host.links.find(want.peer.name)
            if taken is not None:
                what = taken.kind or "physical"
                return f"needs the name {want.peer.name} in the host, which a {what} link there has"
        return None

    def waits(self, want: Link, changes: Sequence[Change], context: Context) -> Waits:
        possible = list(changes)
        reasons: list[str] = []
        needs: tuple[Key, ...] = ()
        others = link_options(want)
        for change in changes:
            if change.attribute == "master" and want.master and context.links.index(want.master) is None:
                if not context.coming(want.master):
                    reasons.append(f"needs link {want.master} as its master, which is not there")
                    needs = (("link", want.master),)
                possible.remove(change)
            elif change.attribute == "peer.master" and want.peer is not None and want.peer.master:
                if context.host is not None and context.host.index(want.peer.master) is None:
                    reasons.append(f"needs link host:{want.peer.master}, which is not there")
                    possible.remove(change)
            elif change.attribute in others:
                port = context.links.find(others[change.attribute])
                if port is None or not port.master or context.links.name(port.master) != want.name:
                    reasons.append(f"needs link {others[change.attribute]} as its port")
                    possible.remove(change)
            elif change.attribute == "state" and want.up and context.hold:
                reasons.append(context.hold)
                possible.remove(change)
        return Waits(tuple(possible), "; ".join(reasons), needs)

    def recreates(self, want: Link, changes: Sequence[Change]) -> bool:
        return any(not _changeable(want, change.attribute) for change in changes)

    def adoptable(self, want: Link, have: Have[LinkMsg], changes: Sequence[Change]) -> bool:
        return not self.recreates(want, changes)

    def reached(self, have: Have[LinkMsg], context: Context) -> bool:
        return False

    def needs(self, want: Link) -> tuple[Key, ...]:
        # A master that is missing holds up being its port, not being: that is the source's to say.
        return (("link", want.parent.name),) if want.parent is not None and not want.parent.scope else ()

    def given(self, want: Link, context: Context) -> tuple[str, ...]:
        # By index: a master made anew is another one.
        names = [want.master] if want.master else []
        if want.parent is not None and not want.parent.scope:
            names.append(want.parent.name)
        words = [f"{name} is {context.links.index(name)}" for name in names]
        if context.host is not None:
            above = [want.parent.name] if want.parent is not None and want.parent.scope else []
            if want.peer is not None and want.peer.scope and want.peer.master:
                above.append(want.peer.master)
            words += [f"host:{name} is {context.host.index(name)}" for name in above]
        return tuple(words)

    def valid(self, entry: Entry, have: Have[LinkMsg]) -> bool:
        return entry.facts.get("ifindex") == have.msg.ifindex

    def messages(self, op: Op, context: Context) -> list[Message]:
        if op.verb is Verb.DELETE:
            assert isinstance(op.have, Have)
            return [(wire.RTM_DELLINK, 0, rt.encode_link(ifindex=op.have.msg.ifindex))]
        want = op.want
        assert isinstance(want, Link)
        if op.verb is Verb.UPDATE:
            assert isinstance(op.have, Have)
            return _update(want, op.have.msg, op.changes, context)
        messages: list[Message] = []
        if op.verb is Verb.RECREATE:
            assert isinstance(op.have, Have)
            messages.append((wire.RTM_DELLINK, 0, rt.encode_link(ifindex=op.have.msg.ifindex)))
        ifindex = int(op.after.facts["ifindex"]) if op.after is not None else 0
        return [*messages, _create(want, ifindex, context)]


def info_kind(kind: str) -> str:
    """The kernel's word for a kind, IFLA_INFO_KIND."""
    registered = KINDS.get(kind)
    return (registered.info_kind or kind) if registered is not None else kind


def _changeable(want: Link, attribute: str) -> bool:
    if attribute in IMMUTABLE:
        return False
    if attribute in ("name", "master", "state") or attribute.startswith(("port.", hostside.PEER)):
        return True
    if attribute in want.options and want.kind is not None:
        return KINDS[want.kind].attributes[attribute].changeable
    return attribute not in COMMON or COMMON[attribute].changeable


def _compare_parent(want: Link, msg: LinkMsg, context: Context, found: list[Change]) -> None:
    assert want.parent is not None
    index = msg.link
    if want.kind is not None and KINDS[want.kind].parent_number:
        from linxd.sources.rtnl.info import parent_in

        index = parent_in(want.kind, msg.info_data)
    if not index:
        seen = "none"
    elif msg.link_netnsid is None:
        seen = context.links.name(index)
    elif want.parent.scope and context.host is not None:
        seen = f"host:{context.host.name(index)}"
    else:
        seen = "(another namespace)"
    if seen != str(want.parent):
        found.append(Change("parent", seen, str(want.parent)))


def _compare_options(want: Link, msg: LinkMsg, links: LinkTable, found: list[Change]) -> None:
    from linxd.sources.rtnl.info import decode_info  # for links with options alone

    assert want.kind is not None
    attributes = KINDS[want.kind].attributes
    observed = decode_info(want.kind, msg.info_data, tuple(want.options), links.name)
    for name, value in want.options.items():
        seen = observed.get(name)
        if seen != value:
            shown = None if seen is None else attributes[name].show(seen)
            found.append(Change(name, shown, attributes[name].show(value)))


def _compare_port(want: Link, msg: LinkMsg, links: LinkTable, found: list[Change]) -> None:
    from linxd.sources.rtnl.info import decode_port

    kind = msg.slave_kind or ""
    registered = KINDS.get(kind)
    if registered is None:
        return
    observed = decode_port(kind, msg.slave_data, tuple(want.port), links.name)
    for name, value in want.port.items():
        if name not in registered.ports:
            continue
        seen = observed.get(name)
        if seen != value:
            shown = None if seen is None else registered.ports[name].show(seen)
            found.append(Change(f"port.{name}", shown, registered.ports[name].show(value)))


CREATION = ("mac", "mtu", "txqueuelen", "group", "numtxqueues", "numrxqueues")
"""Common attributes that rtnl_create_link takes (net/core/rtnetlink.c); the rest is set afterwards."""


def _create(want: Link, ifindex: int, context: Context) -> Message:
    from linxd.sources.rtnl.info import encode_info, encode_veth_peer

    assert want.kind is not None
    common = {name: value for name, value in want.attributes.items() if name in CREATION}
    parent: int | None = None
    netnsid: int | None = None
    if want.parent is not None:
        if want.parent.scope:
            parent = context.host.index(want.parent.name) if context.host is not None else None
            netnsid = context.host.nsid if context.host is not None else None
        else:
            parent = context.links.index(want.parent.name)
    registered = KINDS[want.kind]
    if want.peer is not None:
        data = encode_veth_peer(
            want.peer.name,
            mtu=want.peer.mtu,
            mac=want.peer.mac,
            netns_fd=context.host.fd if want.peer.scope and context.host is not None else None,
            ifindex=0 if want.peer.scope else ifindex + 1,
        )
    else:
        carried = parent or 0 if registered.parent_number else 0
        others = link_options(want)
        options = {name: value for name, value in want.options.items() if name not in others}
        data = encode_info(want.kind, options, lambda name: context.links.index(name) or 0, parent=carried)
    if registered.parent_number:
        parent = None
    payload = rt.encode_link(
        ifindex=ifindex,
        name=want.name,
        kind=info_kind(want.kind),
        info_data=data,
        link=parent,
        link_netnsid=netnsid,
        **_common(common),
    )
    return (wire.RTM_NEWLINK, wire.NLM_F_CREATE | wire.NLM_F_EXCL, payload)


def _common(values: Mapping[str, Value]) -> dict[str, Any]:
    """Keyword arguments of `rt.encode_link` for common attributes that travel as attributes of the
    message."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        form = COMMON[name].form
        found[_FIELDS.get(name, name)] = form.words[str(value)] if isinstance(form, Choice) else value
    return found


def _update(want: Link, msg: LinkMsg, changes: Sequence[Change], context: Context) -> list[Message]:
    """Requests that bring an existing link to what is declared, each for what the kernel takes as one.

    Down first where an attribute demands it, then name, attributes, the kind's options, master, the port's
    options, and last whether it is up.
    """
    names = {change.attribute for change in changes}
    messages: list[Message] = []
    index = msg.ifindex

    def send(**fields: Any) -> None:
        messages.append((wire.RTM_NEWLINK, 0, rt.encode_link(ifindex=index, **fields)))

    is_up = bool(msg.flags & IFF_UP)
    if is_up and _needs_down(want, names, context):
        send(change=IFF_UP, flags=0)
        is_up = False
        if want.up is not False:
            names.add("state")
    if "name" in names:
        send(name=want.name)
    common = {name: value for name, value in want.attributes.items() if name in names}
    if "altnames" in common:
        _altnames(tuple(common.pop("altnames")), msg, messages)  # type: ignore[arg-type]
    flags, mask = _flags(common)
    for name, value in common.items():
        if name not in FLAGS and name != "arp":
            send(**_common({name: value}))
    if want.kind is not None and any(name in want.options for name in names):
        messages.append((wire.RTM_NEWLINK, 0, _options(want, msg, names, context)))
    if "master" in names and want.master is not None:
        master = context.links.index(want.master) if want.master else 0
        if master is not None:
            send(master=master)
    ports = {name: value for name, value in want.port.items() if f"port.{name}" in names}
    if ports and msg.slave_kind:
        from linxd.sources.rtnl.info import encode_port

        data = encode_port(msg.slave_kind, ports, lambda name: context.links.index(name) or 0)
        send(slave_kind=msg.slave_kind, slave_data=data)
    if "state" in names:
        up = is_up if want.up is None else want.up
        if want.up is None and msg.flags & IFF_UP:
            up = True
        flags |= IFF_UP if up else 0
        mask |= IFF_UP
    if mask:
        send(flags=flags, change=mask)
    return messages


def _options(want: Link, msg: LinkMsg, names: set[str], context: Context) -> bytes:
    """The request that changes a kind's own attributes, with those beside them that the kernel would reset
    if they were left out: as declared, else as they are."""
    from linxd.sources.rtnl.info import decode_info, encode_info, parent_in

    assert want.kind is not None
    attributes = KINDS[want.kind].attributes
    changed = {name for name in names if name in want.options}
    numbers = {attributes[name].number for name in changed}
    beside = {other for name in changed for other in attributes[name].sent_with}
    beside |= {name for name, attribute in attributes.items() if attribute.number in numbers}
    links = context.links
    values = decode_info(want.kind, msg.info_data, sorted(beside & attributes.keys()), links.name)
    for name in (changed | beside) & want.options.keys():
        form, value = attributes[name].form, want.options[name]
        if isinstance(form, QosMap):
            value = form.over(cast(tuple[str, ...], value), cast(tuple[str, ...], values.get(name, ())))
        values[name] = value
    for name in ("remote", "group"):
        # Two names of one attribute of a vxlan: the declared one is meant.
        other = "group" if name == "remote" else "remote"
        if name in want.options and other in values and other not in want.options:
            del values[other]
    parent = parent_in(want.kind, msg.info_data)
    data = encode_info(want.kind, values, lambda name: links.index(name) or 0, parent=parent)
    return rt.encode_link(ifindex=msg.ifindex, kind=info_kind(want.kind), info_data=data)


def _needs_down(want: Link, names: set[str], context: Context) -> bool:
    if "name" in names:
        return False
    if want.kind is not None:
        attributes = KINDS[want.kind].attributes
        if any(name in attributes and attributes[name].needs_down for name in names if name in want.options):
            return True
    if any(COMMON[name].needs_down for name in names if name in want.attributes):
        return True
    if "master" in names and want.master:
        # bond_enslave refuses a device that is up (drivers/net/bonding/bond_main.c).
        master = context.links.find(want.master)
        return master is not None and master.kind == "bond"
    return False


def _flags(common: Mapping[str, Value]) -> tuple[int, int]:
    flags = mask = 0
    for name, bit in FLAGS.items():
        if name in common:
            mask |= bit
            flags |= bit if common[name] else 0
    if "arp" in common:
        mask |= IFF_NOARP
        flags |= 0 if common["arp"] else IFF_NOARP
    return flags, mask


def _altnames(wanted: Sequence[str], msg: LinkMsg, messages: list[Message]) -> None:
    gone = [name for name in msg.altnames if name not in wanted]
    new = [name for name in wanted if name not in msg.altnames]
    if gone:
        messages.append((wire.RTM_DELLINKPROP, 0, rt.encode_altnames(msg.ifindex, gone)))
    if new:
        flags = wire.NLM_F_CREATE | wire.NLM_F_EXCL | wire.NLM_F_APPEND
        messages.append((wire.RTM_NEWLINKPROP, flags, rt.encode_altnames(msg.ifindex, new)))
