# SPDX-License-Identifier: MIT
"""Elements of sets and maps: from the kernel's dump to identity and form, and back into messages.

There may be 100,000 of them: bytes in dictionaries, no object for any. It must not know tables or sockets.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Iterator

from linxd.netlink.wire import (
    NLA_F_NESTED,
    WireError,
    attr_map,
    attrs,
    nested,
    pack_attr,
    text_of,
)
from linxd.records import dataclass, field, replace
from linxd.sources.netfilter.expressions import NOTHING, Found, canonical, object_ref, single, verdict_chain
from linxd.sources.netfilter.names import (
    NFT_SET_ELEM_CATCHALL,
    NFT_SET_ELEM_INTERVAL_END,
    NFT_SET_EVAL,
    NFT_SET_MAP,
    NFT_SET_OBJECT,
    NFT_SET_TIMEOUT,
    NFTA_LIST_ELEM,
    NFTA_SET_ELEM_DATA,
    NFTA_SET_ELEM_EXPIRATION,
    NFTA_SET_ELEM_EXPR,
    NFTA_SET_ELEM_EXPRESSIONS,
    NFTA_SET_ELEM_FLAGS,
    NFTA_SET_ELEM_KEY,
    NFTA_SET_ELEM_KEY_END,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_OBJREF,
    NFTA_SET_ELEM_PAD,
    NFTA_SET_ELEM_TIMEOUT,
    NFTA_SET_EXPR,
    NFTA_SET_EXPRESSIONS,
    NFTA_SET_KEY_LEN,
    NFTA_SET_OBJ_TYPE,
)
from linxd.sources.netfilter.state import Elements, Ref, Set

_HEAD = struct.Struct("=HH")
_BE32 = struct.Struct(">I")
_NOTHING = bytes(8)
MESSAGE_BYTES = 60_000
"""Elements of one message: their list is an attribute, so that 64 KiB is the end of it."""


@functools.cache
def _row(size: int) -> struct.Struct:
    """An element of so many bytes in a list of such."""
    return struct.Struct(f"=HH{size}s{-size & 3}x")


@dataclass(slots=True)
class Collector:
    """Takes in a set's elements as they come, and gives the set with all of them."""

    home: Set
    elements: Elements = field(default_factory=dict)
    fresh: dict[bytes, bytes] = field(default_factory=dict)
    temporary: set[bytes] = field(default_factory=set)
    refs: dict[bytes, Ref] = field(default_factory=dict)
    halves: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    """Of intervals: (key with its side, form, form when made)."""

    def take(self, buf: bytes, start: int, end: int) -> None:
        """The payload of a list of elements. Raises WireError."""
        home = self.home
        special = home.paired or _stateful(home)
        plain = -1 if special else 8 + (_key_length(home) + 3 & ~3)
        elements = self.elements
        if plain >= 0:
            start = self._plain(buf, start, end, plain)
        unpack = _HEAD.unpack_from
        while start + 4 <= end:
            size, _ = unpack(buf, start)
            stop = start + size
            if size < 4 or stop > end:
                raise WireError(f"an element of {size} bytes, {end - start} are left")
            if size - 4 == plain:
                # a key and nothing else: identity and form are one
                body = buf[start + 4 : stop]
                elements[body] = body
            else:
                self._one(buf[start + 4 : stop])
            start = (stop + 3) & ~3

    def _plain(self, buf: bytes, start: int, end: int, size: int) -> int:
        """Take a key and nothing else, ``size`` bytes of it, for as long as that is what comes; returns
        where it ends."""
        form = _row(size)
        elements = self.elements
        want = size + 4
        stop = start + (end - start) // form.size * form.size
        for have, _, body in form.iter_unpack(buf[start:stop]):
            if have != want:
                break
            elements[body] = body
            start += form.size
        return start

    def _one(self, payload: bytes) -> None:
        key = end = b""
        flags = 0
        form: list[bytes] = []
        fresh: list[bytes] = []
        temporary = False
        ref: Ref | None = None
        for type, value in attrs(payload, 0, len(payload)):
            if type == NFTA_SET_ELEM_PAD:
                continue
            if type == NFTA_SET_ELEM_EXPIRATION:
                temporary = True
                continue
            raw = same = _attribute(type, value)
            if type == NFTA_SET_ELEM_KEY:
                key = raw
            elif type == NFTA_SET_ELEM_KEY_END:
                end = raw
            elif type == NFTA_SET_ELEM_FLAGS:
                flags = _BE32.unpack(value)[0]
            elif type == NFTA_SET_ELEM_TIMEOUT:
                temporary = temporary or value != _NOTHING
            elif type == NFTA_SET_ELEM_DATA:
                chain = verdict_chain(value)
                ref = None if chain is None else ("chain", chain)
            elif type == NFTA_SET_ELEM_OBJREF:
                ref = object_ref(_object_kind(self.home), text_of(value))
            elif type == NFTA_SET_ELEM_EXPR:
                same = pack_attr(type, single(value, NOTHING, Found()))
            elif type == NFTA_SET_ELEM_EXPRESSIONS:
                same = pack_attr(type, canonical(value, 0, len(value), NOTHING, Found()))
            form.append(same)
            fresh.append(raw)
        body = b"".join(form)
        made = body if form == fresh else b"".join(fresh)
        if self.home.paired and not flags & NFT_SET_ELEM_CATCHALL:
            side = b"\0" if flags & NFT_SET_ELEM_INTERVAL_END else b"\1"
            self.halves.append((key + side, body, made))
            identity = key
        else:
            identity = key + end if key else b"*"
            self.elements[identity] = body
            if made != body:
                self.fresh[identity] = made
        if temporary:
            self.temporary.add(identity)
        if ref is not None:
            self.refs[identity] = ref

    def result(self) -> Set:
        """The set with what was taken in."""
        if self.halves:
            self._pair()
        return replace(
            self.home,
            elements=self.elements,
            fresh=self.fresh,
            temporary=frozenset(self.temporary),
            refs=self.refs,
        )

    def _pair(self) -> None:
        """Join the first and the last key of each interval.

        The kernel keeps them apart, in descending order (net/netfilter/nft_set_rbtree.c); an interval that
        goes up to the highest key has no end. An end without a beginning, which nft puts at key 0, says
        nothing.
        """
        halves = self.halves
        halves.sort()
        at = 0
        while at < len(halves):
            key, body, made = halves[at]
            at += 1
            if key[-1] == 0:
                continue
            identity = first = key[:-1]
            forms, fresh = list_of(body), list_of(made)
            if at < len(halves) and halves[at][0][-1] == 0:
                last, body, made = halves[at]
                at += 1
                identity = first + last[:-1]
                forms, fresh = forms + list_of(body), fresh + list_of(made)
            self.elements[identity] = forms
            if fresh != forms:
                self.fresh[identity] = fresh
            if first in self.temporary:
                self.temporary.discard(first)
                self.temporary.add(identity)
            if first in self.refs:
                self.refs[identity] = self.refs.pop(first)


def _attribute(type: int, value: bytes) -> bytes:
    flag = NLA_F_NESTED if type in _NESTED else 0
    return pack_attr(type | flag, value)


_NESTED = frozenset(
    (
        NFTA_SET_ELEM_KEY,
        NFTA_SET_ELEM_KEY_END,
        NFTA_SET_ELEM_DATA,
        NFTA_SET_ELEM_EXPR,
        NFTA_SET_ELEM_EXPRESSIONS,
    )
)


def _stateful(home: Set) -> bool:
    """Its elements may hold more than a key that never changes."""
    if home.flags & (NFT_SET_TIMEOUT | NFT_SET_EVAL | NFT_SET_MAP | NFT_SET_OBJECT):
        return True
    return any(type in (NFTA_SET_EXPR, NFTA_SET_EXPRESSIONS) for type, _ in home.attrs)


def _key_length(home: Set) -> int:
    for type, value in home.attrs:
        if type == NFTA_SET_KEY_LEN:
            length: int = _BE32.unpack(value)[0]
            return length
    return 0


def _object_kind(home: Set) -> int:
    for type, value in home.attrs:
        if type == NFTA_SET_OBJ_TYPE:
            kind: int = _BE32.unpack(value)[0]
            return kind
    return 0


def list_of(body: bytes) -> bytes:
    """One kernel element as a list has it."""
    return nested(NFTA_LIST_ELEM, body)


def wire_form(home: Set, identity: bytes, *, made: bool) -> bytes:
    """One element as a list has it (both of its halves, for an interval), to be made or to be deleted."""
    body = home.elements[identity]
    if made:
        body = home.fresh.get(identity, body)
    elif not home.paired or identity == b"*":
        # for a deletion the key is enough, and what packets changed would be in the way
        body = b"".join(
            _attribute(type, value)
            for type, value in attrs(body, 0, len(body))
            if type in (NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_KEY_END, NFTA_SET_ELEM_FLAGS)
        )
    else:
        return b"".join(_bare(payload) for _, payload in attrs(body, 0, len(body)))
    if home.paired and identity != b"*":
        return body
    return list_of(body)


def _bare(payload: bytes) -> bytes:
    kept = [
        _attribute(type, value)
        for type, value in attrs(payload, 0, len(payload))
        if type in (NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_FLAGS)
    ]
    return list_of(b"".join(kept))


def lists(home: Set, identities: Iterable[bytes], *, made: bool) -> Iterator[bytes]:
    """Attributes NFTA_SET_ELEM_LIST_ELEMENTS that hold these elements in ascending order, as many as needed.

    Ascending, an interval's end right behind its beginning: the kernel finds overlaps by looking at
    neighbours (nft_rbtree_insert), and refuses orders that would pass for one.
    """
    chunk: list[bytes] = []
    size = 0
    for identity in sorted(identities):
        form = wire_form(home, identity, made=made)
        if size + len(form) > MESSAGE_BYTES:
            yield nested(NFTA_SET_ELEM_LIST_ELEMENTS, *chunk)
            chunk, size = [], 0
        chunk.append(form)
        size += len(form)
    if chunk:
        yield nested(NFTA_SET_ELEM_LIST_ELEMENTS, *chunk)


def key_bytes(identity: bytes) -> list[bytes]:
    """The raw keys of an identity: one, or the ends of an interval."""
    keys = []
    for _, payload in attrs(identity, 0, len(identity)) if identity != b"*" else ():
        keys.append(attr_map(payload, 0, len(payload)).get(1, b""))
    return keys
