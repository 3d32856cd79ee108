# SPDX-License-Identifier: MIT
"""The kinds' own attributes on the wire: IFLA_INFO_DATA and IFLA_INFO_SLAVE_DATA, by the registry's
table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping

from linxd.netlink.rt import encode_link
from linxd.netlink.wire import NLA_F_NESTED, VETH_INFO_PEER, attr_map, attr_u32, pack_attr
from linxd.sources.rtnl.attributes import KINDS, Attribute
from linxd.sources.rtnl.forms import AddressList, Bit, NameOf, Present, QosMap, Resolve
from linxd.sources.rtnl.model import Value

_FLAGS = 2
"""Bytes of a word of flags that `Attribute.also` speaks of."""


def encode_info(kind: str, options: Mapping[str, Value], resolve: Resolve, *, parent: int = 0) -> bytes:
    """The payload of IFLA_INFO_DATA. ``resolve`` gives a link's index by name; ``parent`` is the parent's,
    for kinds that carry it there."""
    registered = KINDS[kind]
    payload = _encode(registered.attributes, options, resolve)
    if parent and registered.parent_number:
        payload += attr_u32(registered.parent_number, parent)
    return payload


def encode_port(master: str, options: Mapping[str, Value], resolve: Resolve) -> bytes:
    """The payload of IFLA_INFO_SLAVE_DATA for a port of a master of kind ``master``."""
    return _encode(KINDS[master].ports, options, resolve)


def decode_info(kind: str, data: bytes, names: Iterable[str], name_of: NameOf) -> dict[str, Value]:
    """The named attributes in IFLA_INFO_DATA, in the registry's normal form; one that is not there is left
    out."""
    return _decode(KINDS[kind].attributes, data, names, name_of)


def decode_port(master: str, data: bytes, names: Iterable[str], name_of: NameOf) -> dict[str, Value]:
    """The same of IFLA_INFO_SLAVE_DATA."""
    return _decode(KINDS[master].ports, data, names, name_of)


def parent_in(kind: str, data: bytes) -> int:
    """The parent's index, for kinds that carry it among their own attributes; 0 for none."""
    number = KINDS[kind].parent_number
    payload = attr_map(data, 0, len(data)).get(number) if number else None
    return int.from_bytes(payload[:4], sys.byteorder) if payload else 0


def encode_veth_peer(
    name: str,
    *,
    mtu: int | None = None,
    mac: str | None = None,
    netns_fd: int | None = None,
    ifindex: int = 0,
) -> bytes:
    """The payload of a veth's IFLA_INFO_DATA: its other end, made in the namespace of ``netns_fd`` if
    given."""
    peer = encode_link(name=name, mtu=mtu, mac=mac, netns_fd=netns_fd, ifindex=ifindex)
    return pack_attr(VETH_INFO_PEER | NLA_F_NESTED, peer)


def _encode(table: Mapping[str, Attribute], options: Mapping[str, Value], resolve: Resolve) -> bytes:
    words: dict[int, bytes] = {}
    """Flags that travel together: each attribute's bits in one word."""
    parts: list[bytes] = []
    for name, value in options.items():
        attribute = table[name]
        form = attribute.form
        if isinstance(form, Present):
            if value:
                parts.append(pack_attr(attribute.number, b""))
            continue
        payload = form.pack(value, resolve)
        if attribute.also is not None:
            number, bits = attribute.also
            words[number] = _either(words.get(number), bits.to_bytes(_FLAGS, "big"))
        if isinstance(form, Bit):
            words[attribute.number] = _either(words.get(attribute.number), payload)
        elif isinstance(form, AddressList | QosMap):
            parts.append(pack_attr(attribute.number | NLA_F_NESTED, payload))
        else:
            v6 = attribute.number6 and len(payload) == 16
            parts.append(pack_attr(attribute.number6 if v6 else attribute.number, payload))
    return b"".join([*parts, *(pack_attr(number, word) for number, word in words.items())])


def _either(word: bytes | None, bits: bytes) -> bytes:
    return bits if word is None else bytes(a | b for a, b in zip(word, bits, strict=True))


def _decode(
    table: Mapping[str, Attribute], data: bytes, names: Iterable[str], name_of: Callable[[int], str]
) -> dict[str, Value]:
    found = attr_map(data, 0, len(data))
    values: dict[str, Value] = {}
    for name in names:
        attribute = table.get(name)
        if attribute is None:
            continue
        payload = found.get(attribute.number)
        if payload is None and attribute.number6:
            payload = found.get(attribute.number6)
        if payload is None:
            if isinstance(attribute.form, Present | Bit):
                values[name] = False  # a word of flags that is zero may be left out
            elif isinstance(attribute.form, AddressList | QosMap):
                values[name] = ()
            continue
        value = attribute.form.unpack(payload, name_of)
        if value is not None:
            values[name] = value
    return values
