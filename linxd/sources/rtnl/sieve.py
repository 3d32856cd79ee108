# SPDX-License-Identifier: MIT
"""Which events the kernel need not queue for us: a classic BPF program that passes over others' routes and
neighbours by their addresses, so that a storm of them does not even wake us.

Pure. It must let through whatever `linxd.sources.rtnl.events` would make a hint of, and may let through
more.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Mapping
from typing import TypeAlias

from linxd.netlink import wire
from linxd.netlink.text import address_bytes, prefix_bytes
from linxd.patch import Key
from linxd.source import Owned
from linxd.sources.rtnl.look import Index
from linxd.sources.rtnl.model import PROTO_LINXD, Address
from linxd.sources.rtnl.prefixes import network

Program: TypeAlias = list[tuple[int, int, int, int]]
"""Steps of (code, jt, jf, k), as `linxd.netlink.socket.Events.attach_filter` takes them."""

MOST = 400
"""Addresses that the kernel goes through with each event: half a microsecond. Where there are more, all
events of that kind are let through."""

# include/uapi/linux/bpf_common.h
_LD_W, _LD_H, _LD_B, _LD_LEN = 0x20, 0x28, 0x30, 0x80
_JA, _JEQ, _JGE, _RET = 0x05, 0x15, 0x35, 0x06
_TAX, _XOR_X = 0x07, 0xAC
_TAKE: Program = [(_RET, 0, 0, 0xFFFFFFFF)]
_DROP: Program = [(_RET, 0, 0, 0)]

_HEADER = 16
_TYPE = 4
_PID = 12
_DST_LEN = _HEADER + 1
_PROTOCOL = _HEADER + 5
_RTPROT_KERNEL = 2
_ROUTE_ATTRS = _HEADER + 12
"""RTA_TABLE comes first in every route that the kernel tells of, and RTA_DST after it (fib_dump_info,
rt6_fill_node)."""
_NEIGH_ATTRS = _HEADER + 12
"""NDA_DST comes first in a neighbour (net/core/neighbour.c neigh_fill_info)."""


def sieve(index: Index, owned: Owned) -> Program:
    """The program for what is declared, or in the ledger still."""
    if index.desired.foreign_remove:
        return _TAKE
    routes = _route_sections(_both(index.desired.routes, owned, "route"), index.desired.addresses)
    neighbours = _neighbours(_both(index.desired.neighbours, owned, "neighbour"))
    sections = [
        ((wire.RTM_NEWROUTE, wire.RTM_DELROUTE), routes),
        ((wire.RTM_NEWNEIGH, wire.RTM_DELNEIGH), neighbours),
    ]
    head: Program = [(_LD_H, 0, 0, _TYPE)]
    tail: Program = []
    size = 1 + 2 * sum(len(types) for types, _ in sections) + len(_TAKE)
    for types, section in sections:
        for type in types:
            # One step on if it is another type; else over the rest of the head to where its section begins.
            there = size + len(tail) - (len(head) + 2)
            head += [(_JEQ, 0, 1, _as_loaded(struct.pack("=H", type))), (_JA, 0, 0, there)]
        tail += section
    return [*head, *_TAKE, *tail]


def overlooking(program: Program, port: int) -> Program:
    """The same without the routes with our mark that come by a socket's requests: of very many that are made
    it is the answers that tell."""
    steps = [
        (_PID, _LD_W, struct.pack("=I", port)),
        (_TYPE, _LD_H, struct.pack("=H", wire.RTM_NEWROUTE)),
        (_PROTOCOL, _LD_B, struct.pack("=B", PROTO_LINXD)),
    ]
    # A route has its protocol, however short the message.
    ours: Program = []
    for left, (at, load, field) in zip((5, 3, 1), steps, strict=True):
        ours += [(load, 0, 0, at), (_JEQ, 0, left, _as_loaded(field))]
    return [*ours, *_DROP, *program]


def _both(declared: Collection[Key], owned: Owned, kind: str) -> set[Key] | None:
    """The keys that count; None where they are too many, which is found out without going through them."""
    ours = owned.of(kind)
    if max(len(declared), len(ours)) > MOST:
        return None
    keys = {*declared, *ours}
    return keys if len(keys) <= MOST else None


def _route_sections(keys: set[Key] | None, addresses: Mapping[Key, Address]) -> Program:
    if keys is None or len(keys) + len(addresses) > MOST:
        return _TAKE
    connected = {network(one.peer or one.address, one.prefixlen) for one in addresses.values()}
    prefixes = {prefix_bytes(one)[0] for one in {*connected, *(str(key[3]) for key in keys)}}
    return [
        *_need_length(_ROUTE_ATTRS + 16),
        (_LD_B, 0, 0, _DST_LEN),
        # A default route has no destination.
        (_JEQ, 0, 1, 0),
        *_TAKE,
        # The kernel's own routes come and go with addresses and links, which are declared; what bears our
        # mark counts as ours.
        (_LD_B, 0, 0, _PROTOCOL),
        (_JEQ, 1, 0, _RTPROT_KERNEL),
        (_JEQ, 0, 1, PROTO_LINXD),
        *_TAKE,
        *_need(_ROUTE_ATTRS, struct.pack("=HH", 8, wire.RTA_TABLE)),
        *_by_family(_ROUTE_ATTRS + 8, wire.RTA_DST, prefixes),
    ]


def _neighbours(keys: set[Key] | None) -> Program:
    if keys is None:
        return _TAKE
    if not keys:
        return _DROP
    addresses = {address_bytes(str(key[2])) for key in keys}
    return [*_need_length(_NEIGH_ATTRS + 8), *_by_family(_NEIGH_ATTRS, 1, addresses)]


def _by_family(at: int, attribute: int, addresses: set[bytes]) -> Program:
    """Take messages whose attribute at an offset is one of ``addresses``, and those that have something else
    there."""
    narrow = [
        *_need(at, struct.pack("=HH", 8, attribute)),
        (_LD_W, 0, 0, at + 4),
        *_among(_as_loaded(address) for address in addresses if len(address) == 4),
    ]
    wide = [
        *_need_length(at + 20),
        *_need(at, struct.pack("=HH", 20, attribute)),
        *_folded(at + 4),
        *_among(_fold(address) for address in addresses if len(address) == 16),
    ]
    return [
        (_LD_B, 0, 0, _HEADER),
        (_JEQ, 0, 1, wire.AF_INET),
        (_JA, 0, 0, 3),
        (_JEQ, 1, 0, wire.AF_INET6),
        *_TAKE,
        (_JA, 0, 0, len(narrow)),
        *narrow,
        *wide,
    ]


def _among(numbers: Iterable[int]) -> Program:
    """Take what has just been loaded if it is one of these."""
    steps: Program = []
    for number in sorted(set(numbers)):
        steps += [(_JEQ, 0, 1, number), *_TAKE]
    return [*steps, *_DROP]


def _need(at: int, word: bytes) -> Program:
    """Go on if these four bytes are there, else take it."""
    return [(_LD_W, 0, 0, at), (_JEQ, 1, 0, _as_loaded(word)), *_TAKE]


def _need_length(size: int) -> Program:
    # A load beyond the end would drop the message.
    return [(_LD_LEN, 0, 0, 0), (_JGE, 1, 0, size), *_TAKE]


def _folded(at: int) -> Program:
    """Load sixteen bytes as one number: what others' addresses have in common with ours is only let
    through."""
    steps: Program = [(_LD_W, 0, 0, at)]
    for more in (4, 8, 12):
        steps += [(_TAX, 0, 0, 0), (_LD_W, 0, 0, at + more), (_XOR_X, 0, 0, 0)]
    return steps


def _fold(address: bytes) -> int:
    number = 0
    for at in range(0, 16, 4):
        number ^= _as_loaded(address[at : at + 4])
    return number


def _as_loaded(field: bytes) -> int:
    """BPF loads what is longer than a byte as if it were in network order."""
    return int.from_bytes(field, "big")
