# SPDX-License-Identifier: MIT
"""Every option of every kind of link, on the kernel: made with it, changed by the declaration, changed from
outside, left alone.

What is sent is watched: a pass over what is as declared writes nothing. The kernel's state is read back
through a socket of its own.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from linxd.config import declare
from linxd.netlink import rt, wire
from linxd.netlink.socket import Requests, open_netlink
from linxd.patch import State
from linxd.sources.rtnl.attributes import COMMON, KINDS, Attribute, Kind
from linxd.sources.rtnl.forms import Bit, Choice, Integer, Mac, Present, Switch
from linxd.sources.rtnl.info import decode_info, decode_port, encode_info, encode_port
from linxd.sources.rtnl.links import info_kind

from ..rtnl.harness import World, batch, ip
from .test_kernel_has_kinds import WORDS

V4 = {"local": "192.0.2.1", "remote": "192.0.2.2"}
V6 = {"local": "2001:db8::1", "remote": "2001:db8::2"}
BASE: Mapping[str, Mapping[str, Any]] = {
    "vlan": {"id": 5},
    "vxlan": {"id": 7, "dstport": 4789},
    "vrf": {"table": 100},
    "macvlan": {"mode": "bridge"},
    "macvtap": {"mode": "bridge"},
    "ipvlan": {"mode": "l3"},
    "ipvtap": {"mode": "l3"},
    "ipip": V4,
    "sit": V4,
    "gre": V4,
    "gretap": V4,
    "ip6tnl": V6,
    "ip6gre": V6,
    "ip6gretap": V6,
    "veth": {"peer": {"name": "x1"}},
}


@dataclass(frozen=True)
class How:
    """Two values, and what else must be declared for the kernel to take them. ``without``: what of the base
    must not. ``alone``: not to be set back from outside. ``none``: nothing sets it back."""

    values: tuple[Any, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    ports: bool = False
    parent: bool = False
    why_not: str = ""


AD = {"mode": "802.3ad"}
ARP = {"mode": "active-backup", "arp_interval": 100, "arp_ip_target": ["192.0.2.1"]}
MON = {"miimon": 100}
BACKUP = {"mode": "active-backup"}
HOW: Mapping[tuple[str, str], How] = {
    ("bridge", "forward_delay"): How((400, 1500)),
    ("bridge", "hello_time"): How((200, 300)),
    ("bridge", "max_age"): How((2000, 1600)),
    ("bridge", "ageing_time"): How((30000, 12000)),
    ("bridge", "priority"): How((32768, 4096)),
    ("bridge", "group_fwd_mask"): How((8, 16)),
    ("bridge", "group_address"): How(("01:80:c2:00:00:05", "01:80:c2:00:00:06")),
    ("bridge", "mcast_hash_max"): How((512, 1024)),
    ("bridge", "mcast_last_member_interval"): How((200, 300)),
    ("bridge", "mcast_membership_interval"): How((20000, 30000)),
    ("bridge", "mcast_querier_interval"): How((20000, 30000)),
    ("bridge", "mcast_query_interval"): How((20000, 30000)),
    ("bridge", "mcast_query_response_interval"): How((2000, 3000)),
    ("bridge", "mcast_startup_query_interval"): How((2000, 3000)),
    ("bridge", "vlan_default_pvid"): How((1, 7)),
    ("vlan", "id"): How((5, 6)),
    ("vlan", "ingress-qos-map"): How((["1:2", "3:4"], ["1:3", "5:6"])),
    ("vlan", "egress-qos-map"): How((["1:2", "3:4"], ["1:3", "5:6"])),
    ("vlan", "bridge_binding"): How((False, True), {"parent": "b0"}),
    ("macvlan", "mode"): How(("bridge", "vepa")),
    ("macvtap", "mode"): How(("bridge", "vepa")),
    ("macvlan", "nopromisc"): How((False, True), {"mode": "passthru"}),
    ("macvtap", "nopromisc"): How((False, True), {"mode": "passthru"}),
    ("macvlan", "nodst"): How((False, True), {"mode": "source"}),
    ("macvtap", "nodst"): How((False, True), {"mode": "source"}),
    ("macvlan", "bcqueuelen"): How((1000, 2000)),
    ("macvtap", "bcqueuelen"): How((1000, 2000)),
    ("ipvlan", "private"): How((False, True)),
    ("ipvlan", "mode"): How(("l2", "l3")),
    ("ipvtap", "mode"): How(("l2", "l3")),
    ("vxlan", "id"): How((7, 8)),
    ("vxlan", "remote"): How(("192.0.2.1", "192.0.2.2")),
    ("vxlan", "group"): How(("239.0.0.1", "239.0.0.2"), parent=True),
    ("vxlan", "local"): How(("192.0.2.1", "192.0.2.2")),
    ("vxlan", "tos"): How((8, 16)),
    ("vxlan", "flowlabel"): How((5, 6), {"local": "2001:db8::1"}),
    ("vxlan", "ageing"): How((300, 600)),
    ("vxlan", "maxaddress"): How((100, 200)),
    ("vxlan", "srcport"): How(("40000-50000", "41000-51000")),
    ("vxlan", "dstport"): How((4789, 4790)),
    ("vxlan", "external"): How((True,), without=("id",)),
    ("vxlan", "vnifilter"): How((True,), {"external": True}, without=("id",)),
    ("vxlan", "gpe"): How((True,), {"external": True, "learning": False}, without=("id",)),
    ("bond", "active_slave"): How(("s0", "s1"), {**BACKUP, **MON}, ports=True),
    ("bond", "primary"): How(("s0", "s1"), {**BACKUP, **MON}, ports=True),
    ("bond", "mode"): How(("active-backup", "802.3ad")),
    ("bond", "miimon"): How((100, 200)),
    ("bond", "updelay"): How((100, 200), MON),
    ("bond", "downdelay"): How((100, 200), MON),
    ("bond", "peer_notify_delay"): How((100, 200), MON),
    ("bond", "arp_interval"): How((100, 200), BACKUP),
    ("bond", "arp_ip_target"): How(
        (["192.0.2.1"], ["192.0.2.2", "192.0.2.3"]), {**BACKUP, "arp_interval": 100}
    ),
    ("bond", "arp_validate"): How(("active", "all"), ARP),
    ("bond", "arp_all_targets"): How(("any", "all"), ARP),
    ("bond", "xmit_hash_policy"): How(("layer2", "layer3+4"), {"mode": "balance-xor"}),
    ("bond", "packets_per_slave"): How((1, 2)),
    ("bond", "lacp_rate"): How(("slow", "fast"), AD),
    ("bond", "lacp_active"): How((True, False), AD),
    ("bond", "ad_select"): How(("stable", "count"), AD),
    ("bond", "ad_actor_sys_prio"): How((10, 20), AD),
    ("bond", "ad_user_port_key"): How((10, 20), AD),
    ("bond", "ad_actor_system"): How(("02:00:00:00:00:01", "02:00:00:00:00:02"), AD),
    ("bond", "tlb_dynamic_lb"): How((True, False), {"mode": "balance-tlb"}),
    ("bond", "resend_igmp"): How((1, 2)),
    ("bond", "num_grat_arp"): How((1, 2)),
    ("bond", "lp_interval"): How((1, 2)),
    ("bond", "missed_max"): How((2, 3)),
    ("bond", "use_carrier"): How((True,), why_not=""),
    ("vrf", "table"): How((100, 101)),
    ("ipip", "mode"): How(("ipip", "any")),
    ("sit", "mode"): How(("ip6ip", "any")),
    ("ip6tnl", "mode"): How(("ip6ip6", "any")),
}
for _kind in ("ipip", "sit", "gre", "gretap"):
    HOW = {
        **HOW,
        (_kind, "local"): How(("192.0.2.1", "192.0.2.3")),
        (_kind, "remote"): How(("192.0.2.2", "192.0.2.3")),
        (_kind, "tos"): How((8, 16)),
        (_kind, "pmtudisc"): How((True, False)),
        (_kind, "ignore-df"): How((False, True), {"pmtudisc": False}),
    }
for _kind in ("ip6tnl", "ip6gre", "ip6gretap"):
    HOW = {
        **HOW,
        (_kind, "local"): How(("2001:db8::1", "2001:db8::3")),
        (_kind, "remote"): How(("2001:db8::2", "2001:db8::3")),
        (_kind, "ttl"): How((64, 32)),
    }
for _kind in ("ipip", "sit", "gre", "gretap", "ip6tnl", "ip6gre", "ip6gretap"):
    HOW = {**HOW, (_kind, "external"): How((True,), without=("local", "remote"))}

PORTS: Mapping[tuple[str, str], How] = {
    ("bridge", "group_fwd_mask"): How((8, 16)),
    ("bridge", "priority"): How((32, 16)),
    ("bridge", "cost"): How((5, 6)),
    ("bridge", "mcast_router"): How((1, 2)),
    ("bridge", "root_block"): How((False, True)),
    ("bond", "prio"): How((1, 2), {**BACKUP, **MON}),
    ("bond", "queue_id"): How((1, 2), BACKUP),
}
PLAIN: Mapping[str, How] = {
    "mac": How(("02:00:00:00:05:01", "02:00:00:00:05:02")),
    "mtu": How((1400, 1300)),
    "txqueuelen": How((500, 700)),
    "alias": How(("one", "two and three")),
    "altnames": How((["first0", "second0"], ["second0", "a-much-longer-name-than-fifteen"])),
    "group": How((5, 6)),
    "addrgenmode": How(("none", "random")),
    "numtxqueues": How((2, 3)),
    "numrxqueues": How((2, 3)),
}


def values_of(attribute: Attribute, how: How) -> tuple[Any, ...]:
    """Two values, one for what the kernel takes only once."""
    if how.values:
        return how.values
    form = attribute.form
    if isinstance(form, Present):
        return (True,)
    if isinstance(form, (Bit, Switch)):
        return (False, True)
    if isinstance(form, Choice):
        return tuple(form.words)[:2]
    if isinstance(form, Mac):
        return ("02:00:00:00:05:01", "02:00:00:00:05:02")
    assert isinstance(form, Integer) or attribute.name in ("ikey", "okey"), attribute
    low = getattr(form, "low", 0)
    return (low + 1, low + 2) if low + 2 <= getattr(form, "highest", 1 << 30) else (low, low + 1)


def cases() -> Iterator[Any]:
    for kind in KINDS.values():
        for attribute in kind.attributes.values():
            yield pytest.param(kind, attribute, id=f"{kind.name}-{attribute.name}")


def port_cases() -> Iterator[Any]:
    for kind in KINDS.values():
        for attribute in kind.ports.values():
            yield pytest.param(kind, attribute, id=f"{kind.name}-{attribute.name}")


def prepared(netns: str) -> None:
    batch(
        netns,
        "link set lo up",
        "link add p0 type veth peer name p1",
        "link add s0 type veth peer name t0",
        "link add s1 type veth peer name t1",
        "link add b0 type bridge",
        # The kernel tells nothing of options of a link that is down.
        *(f"link set {name} up" for name in ("p0", "p1", "s0", "s1", "t0", "t1", "b0")),
    )


def declared(kind: Kind, name: str, value: Any, how: How, *, port: bool = False) -> dict[str, Any]:
    """A file's content: the link x0 with that option, and an address that has to outlive what is done to
    it."""
    link: dict[str, Any] = {"kind": kind.name, **BASE.get(kind.name, {}), **how.extra}
    for key in how.without:
        link.pop(key, None)
    if kind.needs_parent or how.parent:
        link.setdefault("parent", "p0")
    if not port:
        link[name] = value
    links: dict[str, Any] = {"x0": link}
    if how.ports or port:
        links |= {"s0": {"master": "x0"}, "s1": {"master": "x0"}}
    if port:
        links["s0"]["port"] = {name: value}
    if kind.name not in ("bridge", "bond", "vrf"):
        link["addresses"] = ["10.9.0.1/24"]
    return {"link": links}


class Outside:
    """Somebody else: reads and writes through sockets of his own."""

    def __init__(self, netns: str) -> None:
        self._fd = os.open(f"/run/netns/{netns}", os.O_RDONLY)
        self._requests = Requests(open_netlink(netns_fd=self._fd))

    def close(self) -> None:
        self._requests.close()
        os.close(self._fd)

    def link(self, name: str = "x0") -> rt.LinkMsg:
        [reply] = self._requests.request(wire.RTM_GETLINK, 0, rt.query_link(name=name))
        return rt.decode_link(reply.buf, reply.start, reply.end)

    def name_of(self, index: int) -> str:
        [reply] = self._requests.request(wire.RTM_GETLINK, 0, rt.query_link(ifindex=index))
        return rt.decode_link(reply.buf, reply.start, reply.end).name

    def option(self, kind: Kind, name: str) -> Any:
        return decode_info(kind.name, self.link().info_data, [name], self.name_of).get(name)

    def port_option(self, kind: Kind, name: str) -> Any:
        return decode_port(kind.name, self.link("s0").slave_data, [name], self.name_of).get(name)

    def index(self, name: str) -> int:
        return self.link(name).ifindex

    def set(self, **fields: Any) -> None:
        self._requests.request(wire.RTM_NEWLINK, 0, rt.encode_link(**fields))

    def set_option(self, kind: Kind, name: str, value: Any) -> None:
        """Change one option, with those beside it that the kernel would reset, as they are."""
        link = self.link()
        attribute = kind.attributes[name]
        number = {name, *attribute.sent_with}
        number |= {other for other, each in kind.attributes.items() if each.number == attribute.number}
        beside = decode_info(kind.name, link.info_data, sorted(number), self.name_of)
        if name == "remote":
            beside.pop("group", None)
        if name == "group":
            beside.pop("remote", None)
        beside[name] = value
        data = encode_info(kind.name, beside, self.index)
        up = link.flags & 1
        if attribute.needs_down and up:
            self.set(ifindex=link.ifindex, change=1, flags=0)
        self.set(ifindex=link.ifindex, kind=info_kind(kind.name), info_data=data)
        if attribute.needs_down and up:
            self.set(ifindex=link.ifindex, change=1, flags=1)

    def set_port_option(self, kind: Kind, name: str, value: Any) -> None:
        data = encode_port(kind.name, {name: value}, self.index)
        self.set(ifindex=self.index("s0"), slave_kind=info_kind(kind.name), slave_data=data)


def run(
    netns: str,
    directory: Path,
    texts: list[dict[str, Any]],
    read: Callable[[Outside], Any],
    wanted: list[Any],
    drift: Callable[[Outside], None] | None,
    *,
    in_place: bool,
    without: dict[str, Any] | None,
) -> None:
    """Make it, declare another value, have it changed from outside, and leave it. ``without``: the content
    that no longer says anything of it."""

    async def story() -> None:
        world = World(netns, directory)
        outside = Outside(netns)
        index = 0

        async def settle() -> None:
            report = await world.go()
            said = [c for c in report.conditions if c.state is not State.DONE]
            lacks = [c for c in said if c.errno == errno.EOPNOTSUPP or c.text.endswith("kernel has none")]
            if lacks and not os.environ.get("LINXD_ALL_KINDS"):
                pytest.skip(f"this kernel: {lacks[0].text}")
            assert not said, said
            await world.quiet()

        try:
            for number, (text, value) in enumerate(zip(texts, wanted, strict=True)):
                world.desired = declare(netns, text).rtnl
                await settle()
                assert read(outside) == value
                # Made anew or not, what was on it is there.
                if "addresses" in text["link"]["x0"]:
                    assert "10.9.0.1/24" in ip(netns, "-4 -o address show dev x0")
                if number and in_place:
                    assert outside.link().ifindex == index
                index = outside.link().ifindex
            if drift is not None:
                async with world.kept():
                    world.forgive()
                    drift(outside)
                    await world.until(lambda: read(outside) == wanted[-1], what="healed on the event")
                await world.quiet()
            if without is not None:
                world.desired = declare(netns, without).rtnl
                since = len(world.sent)
                await settle()
                assert world.writes(since) == []
                assert outside.link().ifindex == index
                assert read(outside) == wanted[-1]
        finally:
            outside.close()
            world.close()

    asyncio.run(story())


def silent(text: dict[str, Any], name: str, *, link: str = "x0", table: str = "") -> dict[str, Any]:
    """The same content without that option."""
    links = {each: dict(said) for each, said in text["link"].items()}
    if table:
        links[link][table] = {key: value for key, value in links[link][table].items() if key != name}
    else:
        del links[link][name]
    return {"link": links}


@pytest.mark.kinds
@pytest.mark.parametrize(("kind", "attribute"), list(cases()))
def test_an_option_of_a_kind(
    kind: Kind, attribute: Attribute, netns: str, tmp_path: Path, has_kind: Callable[..., None]
) -> None:
    how = HOW.get((kind.name, attribute.name), How())
    if how.why_not:
        pytest.skip(how.why_not)
    has_kind(kind.name, *WORDS.get(kind.name, ()), parent=bool(kind.needs_parent))
    if attribute.name.startswith("nf_call") and not Path("/proc/sys/net/bridge").exists():
        pytest.skip("the kernel has no br_netfilter loaded")
    prepared(netns)
    name, form = attribute.name, attribute.form
    values = values_of(attribute, how)
    normal = [form.parse(value) for value in values]
    drift = None
    if attribute.changeable and len(values) > 1:

        def drift(outside: Outside) -> None:
            outside.set_option(kind, name, normal[0])

    texts = [declared(kind, name, value, how) for value in values]
    run(
        netns,
        tmp_path,
        texts,
        lambda outside: outside.option(kind, name),
        normal,
        drift,
        in_place=attribute.changeable,
        without=None if name in kind.required else silent(texts[-1], name),
    )


@pytest.mark.kinds
@pytest.mark.parametrize(("kind", "attribute"), list(port_cases()))
def test_an_option_of_a_port(
    kind: Kind, attribute: Attribute, netns: str, tmp_path: Path, has_kind: Callable[..., None]
) -> None:
    how = PORTS.get((kind.name, attribute.name), How())
    has_kind(kind.name)
    prepared(netns)
    name, form = attribute.name, attribute.form
    values = values_of(attribute, how)
    normal = [form.parse(value) for value in values]
    texts = [declared(kind, name, value, how, port=True) for value in values]
    run(
        netns,
        tmp_path,
        texts,
        lambda outside: outside.port_option(kind, name),
        normal,
        lambda outside: outside.set_port_option(kind, name, normal[0]),
        in_place=True,
        without=silent(texts[-1], name, link="s0", table="port"),
    )


FLAGS = {"arp": 0x80, "multicast": 0x1000, "promisc": 0x100, "allmulticast": 0x200}


@pytest.mark.kinds
@pytest.mark.parametrize("attribute", list(COMMON.values()), ids=lambda attribute: str(attribute.name))
@pytest.mark.parametrize("kind", ["veth", "bridge", "dummy", "macvlan"])
def test_what_every_link_has(
    kind: str, attribute: Attribute, netns: str, tmp_path: Path, has_kind: Callable[..., None]
) -> None:
    has_kind(kind, *WORDS.get(kind, ()), parent=bool(KINDS[kind].needs_parent))
    prepared(netns)
    name = attribute.name
    how = PLAIN.get(name, How((False, True)))
    if name in ("numtxqueues", "numrxqueues") and kind != "veth":
        pytest.skip("a kind of one queue, or of as many as its parent has")
    normal = [attribute.parse(value) for value in how.values]

    def read(outside: Outside) -> Any:
        link = outside.link()
        if name in FLAGS:
            return bool(link.flags & FLAGS[name]) != (name == "arp")
        if name == "altnames":
            return tuple(sorted(link.altnames))
        field = {"txqueuelen": "txqlen", "numtxqueues": "num_tx_queues", "numrxqueues": "num_rx_queues"}
        value = getattr(link, field.get(name, name))
        return (
            next((w for w, n in attribute.form.words.items() if n == value), value)
            if isinstance(attribute.form, Choice)
            else value
        )

    def drift(outside: Outside) -> None:
        index = outside.link().ifindex
        value = normal[0]
        if name in FLAGS:
            on = bool(value) != (name == "arp")
            outside.set(ifindex=index, change=FLAGS[name], flags=FLAGS[name] if on else 0)
        elif name == "altnames":
            payload = rt.encode_altnames(index, ["second0"])
            outside._requests.request(wire.RTM_DELLINKPROP, 0, payload)
        else:
            key = "txqlen" if name == "txqueuelen" else name
            if isinstance(attribute.form, Choice):
                value = attribute.form.words[str(value)]
            outside.set(ifindex=index, **{key: value})

    texts = [declared(KINDS[kind], name, value, How()) for value in how.values]
    run(
        netns,
        tmp_path,
        texts,
        read,
        normal,
        drift if attribute.changeable else None,
        in_place=attribute.changeable,
        without=silent(texts[-1], name),
    )


REFUSED: tuple[tuple[str, Mapping[str, Any], int, str], ...] = (
    ("veth", {"mtu": 70000}, errno.EINVAL, ""),
    ("veth", {"mac": "01:00:00:00:00:01"}, errno.EADDRNOTAVAIL, ""),
    ("bridge", {"forward_delay": 100, "stp_state": True}, errno.ERANGE, ""),
    ("bridge", {"group_address": "02:00:00:00:00:01"}, errno.EINVAL, ""),
    ("vxlan", {"group": "239.0.0.1"}, errno.EINVAL, "required for multicast"),
    ("vxlan", {"remote": "2001:db8::1", "local": "192.0.2.1"}, errno.EINVAL, "from the same family"),
    ("macvlan", {"mode": "bridge", "nopromisc": True, "mtu": 9000}, errno.EINVAL, ""),
    ("vlan", {"mtu": 9000}, errno.EINVAL, ""),
    (
        "bond",
        {"updelay": 100, "mode": "802.3ad", "arp_interval": 100},
        errno.EACCES,
        "not supported in mode",
    ),
)


@pytest.mark.kinds
@pytest.mark.parametrize(("kind", "options", "number", "words"), REFUSED)
def test_a_value_that_the_kernel_refuses(
    kind: str,
    options: Mapping[str, Any],
    number: int,
    words: str,
    netns: str,
    tmp_path: Path,
    has_kind: Callable[..., None],
) -> None:
    """It fails with the kernel's number and words; everything beside it is done."""
    has_kind(kind, *WORDS.get(kind, ()), parent=bool(KINDS[kind].needs_parent))
    prepared(netns)
    link = {"kind": kind, **BASE.get(kind, {}), **options}
    if KINDS[kind].needs_parent:
        link["parent"] = "p0"
    text = {"link": {"x0": link, "s0": {"addresses": ["10.8.0.1/24"], "mtu": 1400}}}

    async def story() -> None:
        world = World(netns, tmp_path)
        try:
            world.desired = declare(netns, text).rtnl
            report = await world.go()
            said = [c for c in report.conditions if c.state is not State.DONE]
            failed, *others = sorted(said, key=lambda condition: condition.name)
            # The other end of a pair that is not there waits for it.
            assert [c.name for c in others] == (["link x1"] if kind == "veth" else []), said
            assert (failed.key, failed.state) == (("link", "x0"), State.FAILED)
            assert failed.errno == number, failed
            assert words in failed.text.lower(), failed
            assert "mtu 1400" in ip(netns, "link show s0")
            assert "10.8.0.1/24" in ip(netns, "-4 -o address show dev s0")
        finally:
            world.close()

    asyncio.run(story())
