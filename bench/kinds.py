# SPDX-License-Identifier: MIT
"""The kinds of objects whose healing is timed: how each is declared and made by hand, how it is broken, by
which events that and its coming back are seen, and what a user would write to bring it back.

It makes messages and texts; who sends, times or runs them is not its business.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

import bed

from linxd.netlink import nft, rt, wire
from linxd.sources.netfilter import names

AF_INET, AF_INET6 = socket.AF_INET, socket.AF_INET6
GATEWAY, GATEWAY6 = "10.200.0.1", "fd00:200::1"
LINK = "e0"
_RP_FILTER = 3  # NETCONFA_RP_FILTER
_MTU = 4  # IFLA_MTU

Sabotage = Callable[[], None]
Seen = tuple[int, bytes]
"""Type of a message, and bytes that stand in it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One object: how it is broken, and the events of its going and of its coming back."""

    sabotage: Sabotage
    gone: Seen
    back: Seen


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. ``declare``: the TOML of so many objects, after which ``furnish`` (lines of `ip -batch`) has
    made what they stand on. ``by_hand`` makes the objects themselves where linxd does not. ``shell`` and
    ``pyroute2``: the loops; None with the reason in their place.
    """

    name: str
    protocol: int
    group: int
    furnish: Callable[[int], list[str]]
    declare: Callable[[int], str]
    by_hand: Callable[[str, int], None]
    cases: Callable[[bed.Bed, str, int], list[Case]]
    shell: str
    pyroute2: str | None
    missing: str = ""
    nft: bool = False
    count: int = 500
    """Objects: nobody is hit so often that it would count as a fight."""
    under: float = 0.001
    """Seconds within which half of them should be healed."""


def _pair(count: int) -> list[str]:
    return [
        "link set lo up", "link add e0 type veth peer name e1", "link set e0 up", "link set e1 up",
    ]  # fmt: skip


def _pair_with_gateway(count: int) -> list[str]:
    return [
        *_pair(count), "address add 10.200.0.5/24 dev e0", "address add fd00:200::5/64 dev e0 nodad",
    ]  # fmt: skip


def _many_links(count: int) -> list[str]:
    return [f"link add v{n} type veth peer name w{n}" for n in range(count // 2)]


def _names(count: int) -> list[str]:
    return [f"{side}{n}" for n in range(count // 2) for side in "vw"]


def batch(netns: str, lines: list[str]) -> None:
    """`ip -batch`."""
    bed.run("ip", "-n", netns, "-batch", "-", text="\n".join(lines) + "\n")


def _index(netns: str, name: str) -> int:
    with bed.inside(netns):
        return socket.if_nametoindex(name)


def sends(sock: socket.socket, data: bytes) -> Sabotage:
    """What sends it."""

    def send() -> None:
        sock.send(data)

    return send


def _sends(sock: socket.socket, type: int, payload: bytes) -> Sabotage:
    return sends(sock, wire.message(type, wire.NLM_F_REQUEST, 1, payload))


# -- addresses -------------------------------------------------------------------------------------------


def _v4(number: int) -> str:
    return f"10.{number >> 8 & 255}.{number & 255}.5"


def _v6(number: int) -> str:
    return f"fd00:0:0:{number:x}::5"


def _v4_address(count: int) -> str:
    words = ", ".join(f'"{_v4(n)}/24"' for n in range(count))
    return f"[link.{LINK}]\naddresses = [{words}]\n"


def _v6_address(count: int) -> str:
    words = ", ".join(f'{{ address = "{_v6(n)}/64", nodad = true }}' for n in range(count))
    return f"[link.{LINK}]\naddresses = [{words}]\n"


def _address_cases(family: int, name: Callable[[int], str], length: int) -> Callable[..., list[Case]]:
    def cases(on: bed.Bed, netns: str, count: int) -> list[Case]:
        sock, index = on.socket(netns, wire.NETLINK_ROUTE), _index(netns, LINK)
        made = []
        for number in range(count):
            word = socket.inet_pton(family, name(number))
            payload = rt.encode_addr(family=family, ifindex=index, address=name(number), prefixlen=length)
            made.append(
                Case(
                    _sends(sock, wire.RTM_DELADDR, payload),
                    (wire.RTM_DELADDR, word),
                    (wire.RTM_NEWADDR, word),
                )
            )
        return made

    return cases


# -- routes and rules ------------------------------------------------------------------------------------


def destination(number: int) -> str:
    """The number-th of a row of /24s that stand nowhere else."""
    return f"{20 + (number >> 16)}.{number >> 8 & 255}.{number & 255}.0"


def _destination6(number: int) -> str:
    return f"fd01:0:0:{number:x}::"


def routes(count: int) -> str:
    """The TOML of so many IPv4 routes."""
    return "".join(
        f'[[route]]\nto = "{destination(n)}/24"\nvia = "{GATEWAY}"\ndev = "{LINK}"\n' for n in range(count)
    )


def _routes6(count: int) -> str:
    return "".join(
        f'[[route]]\nto = "{_destination6(n)}/64"\nvia = "{GATEWAY6}"\ndev = "{LINK}"\n'
        for n in range(count)
    )


def _route_cases(family: int, name: Callable[[int], str], length: int) -> Callable[..., list[Case]]:
    def cases(on: bed.Bed, netns: str, count: int) -> list[Case]:
        sock = on.socket(netns, wire.NETLINK_ROUTE)
        made = []
        for number in range(count):
            dst = f"{name(number)}/{length}"
            payload = rt.encode_route(
                family=family, dst=dst, type=0, scope=255 if family == AF_INET else 0
            )  # any type, any scope
            word = socket.inet_pton(family, name(number))
            made.append(
                Case(
                    _sends(sock, wire.RTM_DELROUTE, payload),
                    (wire.RTM_DELROUTE, word),
                    (wire.RTM_NEWROUTE, word),
                )
            )
        return made

    return cases


def _source(number: int) -> str:
    return f"10.77.{number >> 8 & 255}.{number & 255}"


def _rules(count: int) -> str:
    return "".join(
        f'[[rule]]\nfrom = "{_source(n)}/32"\ntable = 100\npriority = {1000 + n}\n' for n in range(count)
    )


def _rule_cases(on: bed.Bed, netns: str, count: int) -> list[Case]:
    sock = on.socket(netns, wire.NETLINK_ROUTE)
    made = []
    for number in range(count):
        payload = rt.encode_rule(
            family=AF_INET, priority=1000 + number, src=f"{_source(number)}/32", table=100
        )
        word = socket.inet_pton(AF_INET, _source(number))
        made.append(
            Case(_sends(sock, wire.RTM_DELRULE, payload), (wire.RTM_DELRULE, word), (wire.RTM_NEWRULE, word))
        )
    return made


# -- links and sysctls -----------------------------------------------------------------------------------


def _mtus(count: int) -> str:
    return "".join(f"[link.{name}]\nmtu = 1500\n" for name in _names(count))


def _mtu_cases(on: bed.Bed, netns: str, count: int) -> list[Case]:
    sock = on.socket(netns, wire.NETLINK_ROUTE)
    made = []
    for name in _names(count):
        index = _index(netns, name)
        head = bytes(4) + index.to_bytes(4, "little")  # struct ifinfomsg up to the index
        payload = head + bytes(8) + wire.attr_u32(_MTU, 1400)
        made.append(
            Case(
                _sends(sock, wire.RTM_NEWLINK, payload),
                (wire.RTM_NEWLINK, wire.attr_u32(_MTU, 1400)),
                (wire.RTM_NEWLINK, wire.attr_u32(_MTU, 1500)),
            )
        )
    return made


def _keys(count: int) -> str:
    words = "\n".join(f'"net.ipv4.conf.{name}.rp_filter" = 1' for name in _names(count))
    return f"[sysctl]\n{words}\n"


def _keys_by_hand(netns: str, count: int) -> None:
    words = [f"net.ipv4.conf.{name}.rp_filter=1" for name in _names(count)]
    bed.run("ip", "netns", "exec", netns, "sysctl", "-q", "-w", *words)


def _key_cases(on: bed.Bed, netns: str, count: int) -> list[Case]:
    made = []
    with bed.inside(netns):
        for name in _names(count):
            fd = os.open(f"/proc/sys/net/ipv4/conf/{name}/rp_filter", os.O_WRONLY)
            on.closes(fd)
            made.append(
                Case(
                    _writes(fd),
                    (wire.RTM_NEWNETCONF, wire.attr_u32(_RP_FILTER, 0)),
                    (wire.RTM_NEWNETCONF, wire.attr_u32(_RP_FILTER, 1)),
                )
            )
    return made


def _writes(fd: int) -> Sabotage:
    def write() -> None:
        os.pwrite(fd, b"0", 0)

    return write


# -- nftables --------------------------------------------------------------------------------------------


def ruleset(elements: int, rules: int) -> str:
    """A table with so many elements in one set and so many rules in one chain."""
    addresses = ", ".join(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(elements))
    lines = "\n".join(f"    ip saddr {_nft_source(n)} accept" for n in range(rules))
    filled = f"elements = {{ {addresses} }};" if elements else ""
    return f"""table inet filter {{
  set allow {{ type ipv4_addr; {filled} }}
  chain input {{
    type filter hook input priority 0; policy accept;
{lines}
  }}
}}
"""


def _nft_source(number: int) -> str:
    return f"172.16.{number >> 8 & 255}.{number & 255}"


def declared(text: str) -> str:
    """A ruleset in TOML."""
    return f"[netfilter]\nruleset = '''\n{text}'''\n"


def load(netns: str, text: str) -> None:
    """`nft -f -`."""
    bed.run("ip", "netns", "exec", netns, "nft", "-f", "-", text=text)


def _transaction(sock: socket.socket, type: int, payload: bytes) -> Sabotage:
    parts = nft.batch(None, [(type, 0, payload)])
    data = b"".join(
        wire.message(kind, flags & ~wire.NLM_F_ACK | wire.NLM_F_REQUEST, 1 + n, body)
        for n, (kind, flags, body) in enumerate(parts)
    )
    return sends(sock, data)


def _nft_rule_cases(on: bed.Bed, netns: str, count: int) -> list[Case]:
    sock = on.socket(netns, wire.NETLINK_NETFILTER)
    listed = bed.run("ip", "netns", "exec", netns, "nft", "-a", "list", "chain", "inet", "filter", "input")
    handles = {
        line.split()[2]: int(line.split()[-1])
        for line in listed.splitlines()
        if line.strip().startswith("ip saddr")
    }
    made = []
    for number in range(count):
        word = socket.inet_pton(AF_INET, _nft_source(number))
        payload = (
            nft.nfgen(1)  # NFPROTO_INET
            + wire.attr_str(names.NFTA_RULE_TABLE, "filter")
            + wire.attr_str(names.NFTA_RULE_CHAIN, "input")
            + wire.pack_attr(names.NFTA_RULE_HANDLE, handles[_nft_source(number)].to_bytes(8, "big"))
        )
        made.append(
            Case(_transaction(sock, names.DELRULE, payload), (names.DELRULE, word), (names.NEWRULE, word))
        )
    return made


def _element_cases(on: bed.Bed, netns: str, count: int) -> list[Case]:
    sock = on.socket(netns, wire.NETLINK_NETFILTER)
    made = []
    for number in range(count):
        word = bytes((10, number >> 16, number >> 8 & 255, number & 255))
        key = wire.nested(names.NFTA_SET_ELEM_KEY, wire.pack_attr(names.NFTA_DATA_VALUE, word))
        payload = (
            nft.nfgen(1)
            + wire.attr_str(names.NFTA_SET_ELEM_LIST_TABLE, "filter")
            + wire.attr_str(names.NFTA_SET_ELEM_LIST_SET, "allow")
            + wire.nested(names.NFTA_SET_ELEM_LIST_ELEMENTS, wire.nested(names.NFTA_LIST_ELEM, key))
        )
        made.append(
            Case(
                _transaction(sock, names.DELSETELEM, payload),
                (names.DELSETELEM, word),
                (names.NEWSETELEM, word),
            )
        )
    return made


# -- what a user would write -----------------------------------------------------------------------------

_PYROUTE2 = """\
from pyroute2 import IPRoute

watch, write = IPRoute(), IPRoute()
watch.bind(groups=1 << {group} - 1)
while True:
    for said in watch.get():
        if said["event"] == "{event}"{condition}:
            {again}
"""

_NFT_RULE_LOOP = """\
declare -A rules
while read -r line; do
    case $line in *"# handle "*) rules[${line##* }]=${line%% # handle *};; esac
done < <(nft -a list chain inet filter input)
nft -a monitor rules | while read -r verb what family table chain rest; do
    case $verb in
    add) rules[${rest##* }]=${rest%% # handle *};;
    delete) nft add rule $family $table $chain ${rules[${rest##* }]};;
    esac
done
"""

_NO_EVENTS = (
    "pyroute2's IPRoute reads no events of nftables, and its nftables module adds no elements of sets"
)


def _loop(group: int, event: str, again: str, condition: str = "") -> str:
    return _PYROUTE2.format(group=group, event=event, again=again, condition=condition)


KINDS = (
    Kind(
        "IPv4 address", wire.NETLINK_ROUTE, wire.RTNLGRP_IPV4_IFADDR, _pair, _v4_address,
        lambda netns, count: batch(netns, [f"address add {_v4(n)}/24 dev {LINK}" for n in range(count)]),
        _address_cases(AF_INET, _v4, 24),
        'ip monitor address | while read -r a b dev d address rest; do [ "$a" = Deleted ] && '
        'ip address add "$address" dev "$dev"; done',
        _loop(
            wire.RTNLGRP_IPV4_IFADDR, "RTM_DELADDR",
            'write.addr("add", index=said["index"], address=said.get_attr("IFA_ADDRESS"), '
            'prefixlen=said["prefixlen"])',
        ),
    ),
    Kind(
        "IPv6 address", wire.NETLINK_ROUTE, wire.RTNLGRP_IPV6_IFADDR, _pair, _v6_address,
        lambda netns, count: batch(
            netns, [f"address add {_v6(n)}/64 dev {LINK} nodad" for n in range(count)]
        ),
        _address_cases(AF_INET6, _v6, 64),
        'ip monitor address | while read -r a b dev d address rest; do [ "$a" = Deleted ] && '
        'ip address add "$address" dev "$dev" nodad; done',
        _loop(
            wire.RTNLGRP_IPV6_IFADDR, "RTM_DELADDR",
            'write.addr("add", index=said["index"], address=said.get_attr("IFA_ADDRESS"), '
            'prefixlen=said["prefixlen"], flags=2)  # nodad',
        ),
    ),
    Kind(
        "IPv4 route", wire.NETLINK_ROUTE, wire.RTNLGRP_IPV4_ROUTE, _pair_with_gateway, routes,
        lambda netns, count: batch(
            netns, [f"route add {destination(n)}/24 via {GATEWAY} dev {LINK}" for n in range(count)]
        ),
        _route_cases(AF_INET, destination, 24),
        'ip monitor route | while read -r a rest; do [ "$a" = Deleted ] && ip route add $rest; done',
        _loop(
            wire.RTNLGRP_IPV4_ROUTE, "RTM_DELROUTE",
            'write.route("add", dst=said.get_attr("RTA_DST"), mask=said["dst_len"], '
            'gateway=said.get_attr("RTA_GATEWAY"), oif=said.get_attr("RTA_OIF"))',
        ),
    ),
    Kind(
        "IPv6 route", wire.NETLINK_ROUTE, wire.RTNLGRP_IPV6_ROUTE, _pair_with_gateway, _routes6,
        lambda netns, count: batch(
            netns, [f"route add {_destination6(n)}/64 via {GATEWAY6} dev {LINK}" for n in range(count)]
        ),
        _route_cases(AF_INET6, _destination6, 64),
        'ip monitor route | while read -r a rest; do [ "$a" = Deleted ] && ip -6 route add $rest; done',
        _loop(
            wire.RTNLGRP_IPV6_ROUTE, "RTM_DELROUTE",
            'write.route("add", family=10, dst=said.get_attr("RTA_DST"), dst_len=said["dst_len"], '
            'gateway=said.get_attr("RTA_GATEWAY"), oif=said.get_attr("RTA_OIF"))',
        ),
    ),
    Kind(
        "link attribute (mtu)", wire.NETLINK_ROUTE, wire.RTNLGRP_LINK, _many_links, _mtus,
        lambda netns, count: None, _mtu_cases,
        'ip monitor link | while read -r a dev rest; do case "$rest" in *"mtu 1400"*) '
        'ip link set "${dev%%[@:]*}" mtu 1500;; esac; done',
        _loop(
            wire.RTNLGRP_LINK, "RTM_NEWLINK", 'write.link("set", index=said["index"], mtu=1500)',
            ' and said.get_attr("IFLA_MTU") != 1500',
        ),
        count=200,
    ),
    Kind(
        "rule", wire.NETLINK_ROUTE, wire.RTNLGRP_IPV4_RULE, _pair, _rules,
        lambda netns, count: batch(
            netns, [f"rule add from {_source(n)} lookup 100 pref {1000 + n}" for n in range(count)]
        ),
        _rule_cases,
        'ip monitor rule | while read -r a pref rest; do [ "$a" = Deleted ] && '
        'ip rule add pref "${pref%:}" $rest; done',
        _loop(
            wire.RTNLGRP_IPV4_RULE, "RTM_DELRULE",
            'write.rule("add", priority=said.get_attr("FRA_PRIORITY"), src=said.get_attr("FRA_SRC"), '
            'src_len=said["src_len"], table=said.get_attr("FRA_TABLE"))',
        ),
    ),
    Kind(
        "nft rule", wire.NETLINK_NETFILTER, wire.NFNLGRP_NFTABLES, lambda count: [],
        lambda count: declared(ruleset(0, count)), lambda netns, count: load(netns, ruleset(0, count)),
        _nft_rule_cases, _NFT_RULE_LOOP, None, _NO_EVENTS, nft=True, under=0.002,
    ),
    Kind(
        "nft set element", wire.NETLINK_NETFILTER, wire.NFNLGRP_NFTABLES, lambda count: [],
        lambda count: declared(ruleset(count, 0)), lambda netns, count: load(netns, ruleset(count, 0)),
        _element_cases,
        'nft monitor | while read -r a b rest; do [ "$a $b" = "delete element" ] && '
        'nft add element $rest; done',
        None, _NO_EVENTS, nft=True, under=0.002,
    ),
    Kind(
        "sysctl (rp_filter)", wire.NETLINK_ROUTE, wire.RTNLGRP_IPV4_NETCONF, _many_links, _keys,
        _keys_by_hand, _key_cases,
        'ip monitor netconf | while read -r a dev key value; do [ "$key $value" = "rp_filter off" ] && '
        'sysctl -qw "net.ipv4.conf.$dev.rp_filter=1"; done',
        None, "pyroute2's IPRoute does not decode RTM_NEWNETCONF", count=200,
    ),
)  # fmt: skip
