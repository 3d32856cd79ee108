# SPDX-License-Identifier: MIT
"""The registry of link attributes held against the kernel's headers, and what is sent against pyroute2's
message classes."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from linxd.netlink import rt
from linxd.sources.rtnl.attributes import COMMON, KINDS, Attribute, Kind
from linxd.sources.rtnl.forms import (
    Address,
    AddressList,
    AnyAddress,
    Bit,
    Choice,
    Form,
    Integer,
    Key,
    LinkName,
    Mac,
    Ports,
    QosMap,
    Signed,
    Switch,
)
from linxd.sources.rtnl.info import encode_info, encode_port
from linxd.sources.rtnl.links import info_kind

from .test_link_options import HOW, PORTS, How, values_of

PREFIX = {
    "bridge": "BR", "vlan": "VLAN", "macvlan": "MACVLAN", "macvtap": "MACVLAN", "ipvlan": "IPVLAN",
    "ipvtap": "IPVLAN", "vxlan": "VXLAN", "bond": "BOND", "vrf": "VRF", "gre": "GRE", "gretap": "GRE",
    "ip6gre": "GRE", "ip6gretap": "GRE", "ipip": "IPTUN", "sit": "IPTUN", "ip6tnl": "IPTUN",
}  # fmt: skip
PORT_PREFIX = {"bridge": "BRPORT", "bond": "BOND_SLAVE"}
CALLED = {
    "BR": {
        "group_address": "GROUP_ADDR", "group_fwd_mask": "GROUP_FWD_MASK",
        "mcast_last_member_count": "MCAST_LAST_MEMBER_CNT",
        "mcast_startup_query_count": "MCAST_STARTUP_QUERY_CNT",
        "mcast_last_member_interval": "MCAST_LAST_MEMBER_INTVL",
        "mcast_membership_interval": "MCAST_MEMBERSHIP_INTVL",
        "mcast_querier_interval": "MCAST_QUERIER_INTVL", "mcast_query_interval": "MCAST_QUERY_INTVL",
        "mcast_query_response_interval": "MCAST_QUERY_RESPONSE_INTVL",
        "mcast_startup_query_interval": "MCAST_STARTUP_QUERY_INTVL",
    },
    "BRPORT": {
        "hairpin": "MODE", "root_block": "PROTECT", "fastleave": "FAST_LEAVE", "flood": "UNICAST_FLOOD",
        "proxy_arp": "PROXYARP", "proxy_arp_wifi": "PROXYARP_WIFI", "mcast_router": "MULTICAST_ROUTER",
        "mcast_to_unicast": "MCAST_TO_UCAST",
    },
    "VLAN": {
        "reorder_hdr": "FLAGS", "gvrp": "FLAGS", "loose_binding": "FLAGS", "mvrp": "FLAGS",
        "bridge_binding": "FLAGS", "ingress-qos-map": "INGRESS_QOS", "egress-qos-map": "EGRESS_QOS",
    },
    "MACVLAN": {"nopromisc": "FLAGS", "nodst": "FLAGS", "bcqueuelen": "BC_QUEUE_LEN"},
    "IPVLAN": {"private": "FLAGS", "vepa": "FLAGS"},
    "VXLAN": {
        "remote": "GROUP", "flowlabel": "LABEL", "maxaddress": "LIMIT", "srcport": "PORT_RANGE",
        "dstport": "PORT", "udpcsum": "UDP_CSUM", "udp6zerocsumtx": "UDP_ZERO_CSUM6_TX",
        "udp6zerocsumrx": "UDP_ZERO_CSUM6_RX", "remcsumtx": "REMCSUM_TX", "remcsumrx": "REMCSUM_RX",
        "external": "COLLECT_METADATA",
    },
    "BOND": {"lacp_rate": "AD_LACP_RATE", "lacp_active": "AD_LACP_ACTIVE", "num_grat_arp": "NUM_PEER_NOTIF",
             "peer_notify_delay": "PEER_NOTIF_DELAY"},
    "GRE": {
        "iseq": "IFLAGS", "oseq": "OFLAGS", "icsum": "IFLAGS", "ocsum": "OFLAGS",
        "external": "COLLECT_METADATA", "ignore-df": "IGNORE_DF", "encaplimit": "ENCAP_LIMIT",
    },
    "IPTUN": {"external": "COLLECT_METADATA", "mode": "PROTO", "encaplimit": "ENCAP_LIMIT"},
}  # fmt: skip
"""Where the header's name is not iproute2's in capitals."""


def header_name(prefix: str, name: str) -> str:
    return f"IFLA_{prefix}_{CALLED.get(prefix, {}).get(name, name.upper().replace('-', '_'))}"


def rows() -> Iterator[tuple[str, int]]:
    """Every attribute's name in the headers, and the number that the registry has."""
    for kind in KINDS.values():
        for attribute in kind.attributes.values():
            yield header_name(PREFIX[kind.name], attribute.name), attribute.number
            if attribute.number6:
                yield f"{header_name(PREFIX[kind.name], attribute.name)}6", attribute.number6
        for attribute in kind.ports.values():
            yield header_name(PORT_PREFIX[kind.name], attribute.name), attribute.number
        if kind.parent_number:
            yield f"IFLA_{PREFIX[kind.name]}_LINK", kind.parent_number
    plain = {"mac": "ADDRESS", "txqueuelen": "TXQLEN", "alias": "IFALIAS", "altnames": "ALT_IFNAME",
             "addrgenmode": "INET6_ADDR_GEN_MODE", "numtxqueues": "NUM_TX_QUEUES",
             "numrxqueues": "NUM_RX_QUEUES"}  # fmt: skip
    for attribute in COMMON.values():
        if attribute.number:
            yield f"IFLA_{plain.get(attribute.name, attribute.name.upper())}", attribute.number


def test_the_numbers_are_those_of_the_headers(tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc: linux/if_link.h is asked by a C program")
    expected = dict(rows())
    source = tmp_path / "numbers.c"
    lines = "".join(f'  printf("{name} %d\\n", {name});\n' for name in expected)
    source.write_text(
        "#include <stdio.h>\n#include <sys/socket.h>\n#include <linux/if.h>\n#include <linux/if_link.h>\n"
        f"#include <linux/ip.h>\n#include <linux/if_tunnel.h>\nint main(void) {{\n{lines}  return 0;\n}}\n"
    )
    program = tmp_path / "numbers"
    done = subprocess.run(
        [compiler, "-o", str(program), str(source)], capture_output=True, text=True, check=False
    )
    unknown = {
        word
        for word in expected
        if f"‘{word}’ undeclared" in done.stderr or f"'{word}' undeclared" in done.stderr
    }
    assert not unknown, f"not in this machine's headers: {sorted(unknown)}"
    assert done.returncode == 0, done.stderr
    said = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    assert {name: int(number) for name, number in (line.split() for line in said.splitlines())} == expected


INDEX = 77
"""What every name is taken for."""


def cases() -> list[Any]:
    return [
        pytest.param(kind, attribute, port, id=f"{kind.name}-{'port-' if port else ''}{attribute.name}")
        for kind in KINDS.values()
        for port, table in ((False, kind.attributes), (True, kind.ports))
        for attribute in table.values()
    ]


@pytest.mark.parametrize(("kind", "attribute", "port"), cases())
def test_pyroute2_reads_what_is_sent(kind: Kind, attribute: Attribute, port: bool) -> None:
    ifinfmsg = pytest.importorskip("pyroute2.netlink.rtnl.ifinfmsg", reason="no pyroute2")
    how = (PORTS if port else HOW).get((kind.name, attribute.name), How())
    value = attribute.parse(values_of(attribute, how)[-1])
    if port:
        data = encode_port(kind.name, {attribute.name: value}, lambda name: INDEX)
        payload = rt.encode_link(ifindex=9, slave_kind=info_kind(kind.name), slave_data=data)
        name = header_name(PORT_PREFIX[kind.name], attribute.name)
    else:
        data = encode_info(kind.name, {attribute.name: value}, lambda name: INDEX)
        payload = rt.encode_link(ifindex=9, kind=info_kind(kind.name), info_data=data)
        name = header_name(PREFIX[kind.name], attribute.name)
        if attribute.number6 and ":" in str(value):
            name += "6"
    message = ifinfmsg.ifinfmsg(struct.pack("=IHHII", 16 + len(payload), 16, 0, 1, 0) + payload)
    message.decode()
    info = message.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_SLAVE_KIND" if port else "IFLA_INFO_KIND") == info_kind(kind.name)
    told = info.get_attr("IFLA_INFO_SLAVE_DATA" if port else "IFLA_INFO_DATA")
    if not port and kind.name in THEIR_PREFIX:
        name = name.replace(f"IFLA_{PREFIX[kind.name]}_", f"IFLA_{THEIR_PREFIX[kind.name]}_")
    if told is None or isinstance(told, (str, bytes)):
        pytest.skip(f"pyroute2 does not know {kind.name}")
    if name not in {row[0] for row in type(told).nla_map}:
        pytest.skip(f"pyroute2 does not know {name}")
    [seen] = [each[1] for each in told["attrs"] if each[0] == name]
    said = [seen]
    if name in THEIR_ORDER:
        size = THEIR_ORDER[name]
        said.append(int.from_bytes(seen.to_bytes(size, "little"), "big"))
    assert any(as_pyroute2_says(attribute.form, value, each) for each in said), (value, seen)


THEIR_PREFIX = {
    "macvtap": "MACVTAP", "ipip": "IPIP", "sit": "SIT", "ip6tnl": "IP6TNL", "ip6gre": "IP6GRE",
    "ip6gretap": "IP6GRE",
}  # fmt: skip
"""Where pyroute2 has names of its own for a kind's attributes."""
THEIR_ORDER = {"IFLA_VXLAN_LABEL": 4, "IFLA_IP6GRE_IFLAGS": 2, "IFLA_IP6GRE_OFLAGS": 2}
"""What it reads in the machine's order and the kernel in that of the network (nla_get_be32 in
drivers/net/vxlan/vxlan_core.c, nla_get_be16 in net/ipv6/ip6_gre.c), with the size in bytes."""


def as_pyroute2_says(form: Form, value: Any, seen: Any) -> bool:
    """Whether what pyroute2 decoded is the value that was encoded."""
    match form:
        case Bit(masked=True):
            return bool(seen == {"flags": form.bit, "mask": form.bit})
        case Bit():
            return seen in (form.bit, *(("nopromisc",) if form.bit == 1 else ()))
        case Choice():
            return seen in (form.words[value], value)
        case Switch():
            return int(seen) == int(value)
        case LinkName():
            return bool(seen == INDEX)
        case Ports():
            return bool(f"{seen['low']}-{seen['high']}" == value)
        case QosMap():
            return [f"{pair['from']}:{pair['to']}" for _, pair in seen["attrs"]] == list(value)
        case AddressList():
            return list(seen) == list(value)
        case Key():
            return seen in (value, str(value))
        case Integer() | Signed():
            return bool(seen == value)
    assert isinstance(form, (Mac, Address, AnyAddress)), form
    return bool(seen == value)


@pytest.mark.parametrize(
    "said", ["::ffff:192.0.2.1", "::192.0.2.1", "FD00:0::5", "2001:db8:0:0:1:0:0:1", "::", "10.0.0.1"]
)
def test_an_address_is_spelled_as_it_is_read_back(said: str) -> None:
    """IPv4-mapped ones have two spellings, of which the kernel's tools know one."""
    forms = [AnyAddress(), Address(family=6 if ":" in said else 4)]
    for form in forms:
        value = form.parse(said)
        assert form.unpack(form.pack(value, lambda name: 0), lambda index: "") == value
        assert value == socket.inet_ntop(
            socket.AF_INET6 if ":" in said else socket.AF_INET,
            socket.inet_pton(socket.AF_INET6 if ":" in said else socket.AF_INET, said),
        )


@pytest.mark.parametrize(
    "said", ["10.0.0.256", "010.0.0.1", "fd00::5%eth0", "fd00::5/64", "", "10.0.0.1\0", 7, None]
)
def test_what_is_no_address_is_refused(said: object) -> None:
    for form in (AnyAddress(), Address(family=4), Address(family=6)):
        with pytest.raises(ValueError, match="address"):
            form.parse(said)
