# SPDX-License-Identifier: MIT
"""A rule's expressions: which of their bytes are run-time state, and what they lean on.

Everything that is not named here is compared and sent as the kernel dumped it, so that expressions of later
kernels work as they are. It must not know tables, nor where bytes came from.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from linxd.netlink.wire import WireError, attr_map, attrs, nested, pack_attr, text_of
from linxd.records import dataclass, field
from linxd.sources.netfilter.names import (
    NFT_DYNSET_F_EXPR,
    NFT_FIB_RESULT_OIF,
    NFT_META_IIF,
    NFT_META_OIF,
    NFT_META_SDIF,
    NFT_QUOTA_F_DEPLETED,
    NFTA_DATA_VERDICT,
    NFTA_DYNSET_EXPR,
    NFTA_DYNSET_EXPRESSIONS,
    NFTA_DYNSET_FLAGS,
    NFTA_DYNSET_SET_ID,
    NFTA_DYNSET_SET_NAME,
    NFTA_DYNSET_TIMEOUT,
    NFTA_EXPR_DATA,
    NFTA_EXPR_NAME,
    NFTA_EXTHDR_DREG,
    NFTA_EXTHDR_FLAGS,
    NFTA_EXTHDR_LEN,
    NFTA_EXTHDR_OFFSET,
    NFTA_EXTHDR_SREG,
    NFTA_FIB_F_PRESENT,
    NFTA_FIB_FLAGS,
    NFTA_FIB_RESULT,
    NFTA_FLOW_TABLE_NAME,
    NFTA_IMMEDIATE_DATA,
    NFTA_LIST_ELEM,
    NFTA_LOOKUP_SET,
    NFTA_LOOKUP_SET_ID,
    NFTA_META_KEY,
    NFTA_OBJREF_IMM_NAME,
    NFTA_OBJREF_IMM_TYPE,
    NFTA_OBJREF_SET_ID,
    NFTA_OBJREF_SET_NAME,
    NFTA_OSF_FLAGS,
    NFTA_QUOTA_CONSUMED,
    NFTA_QUOTA_FLAGS,
    NFTA_VERDICT_CHAIN,
    NFTA_VERDICT_CHAIN_ID,
    OBJECT_WORDS,
)
from linxd.sources.netfilter.state import RULE_INDEX, RULE_XT, Ref

_HEAD = struct.Struct("=HH")
_BE32 = struct.Struct(">I")


class Contents(Protocol):
    """Content of a table's anonymous sets and chains by name; it stands for the name in a comparison."""

    def get(self, name: str, /) -> bytes | None:
        """The content, None for what has a name of its own."""


NOTHING: dict[str, bytes] = {}
_NONE: dict[str, int] = {}


@dataclass(slots=True)
class Found:
    """What walking a rule's expressions found besides bytes."""

    refs: set[Ref] = field(default_factory=set)
    inner: list[str] = field(default_factory=list)
    """Names of anonymous sets and chains, in order of appearance."""
    flags: int = 0


def canonical(buf: bytes, start: int, end: int, own: Contents, found: Found) -> bytes:
    """The expressions in a list (``buf[start:end]``) without run-time fields.

    What ``own`` knows the content of stands there by content. Raises WireError.
    """
    out: list[bytes] = []
    unpack = _HEAD.unpack_from
    while start + 8 <= end:
        size, _ = unpack(buf, start)
        length, _ = unpack(buf, start + 4)
        stop = start + size
        if stop > end or length < 4 or start + 4 + length > stop:
            raise WireError(f"an expression of {size} bytes, {end - start} are left")
        name = buf[start + 8 : start + 4 + length]
        special = _SPECIAL.get(name)
        raw = buf[start:stop]
        out.append(raw if special is None else special(raw, own, found))
        start = (stop + 3) & ~3
    if start < end:
        raise WireError(f"{end - start} bytes are left after the last expression")
    return b"".join(out)


def single(payload: bytes, own: Contents, found: Found) -> bytes:
    """The same for one expression outside a list (NFTA_SET_EXPR and its like)."""
    return canonical(pack_attr(NFTA_LIST_ELEM, payload), 0, 4 + len(payload), own, found)


def sendable(wire: bytes, sets: Mapping[str, int] = _NONE, chains: Mapping[str, int] = _NONE) -> bytes:
    """A rule's expressions as the kernel takes them: not all that it dumps does it accept, and anonymous
    sets and chains are named by their ids within a transaction."""
    if not (sets or chains or any(name in wire for name in _MENDED)):
        return wire
    out: list[bytes] = []
    for _, payload in attrs(wire, 0, len(wire)):
        parts = attr_map(payload, 0, len(payload))
        name = parts.get(NFTA_EXPR_NAME, b"")
        data = parts.get(NFTA_EXPR_DATA, b"")
        places = _SET_NAMES.get(name)
        if places is not None and sets:
            data = _with_set_id(data, *places, sets)
        elif name == b"immediate\0" and chains:
            data = _with_chain_id(data, chains)
        mend = _MENDED.get(name)
        if mend is not None:
            data = mend(data)
        inside = [nested(NFTA_EXPR_DATA, data)] if data else []
        out.append(nested(NFTA_LIST_ELEM, pack_attr(NFTA_EXPR_NAME, name), *inside))
    return b"".join(out)


def _mend_dynset(data: bytes) -> bytes:
    """nft_dynset_dump tells of a timeout of 0 too, which nft_dynset_init refuses for a set without timeouts,
    and leaves out the flag that several expressions need."""
    parts = attrs(data, 0, len(data))
    several = any(type == NFTA_DYNSET_EXPRESSIONS for type, _ in parts)
    out = []
    for type, payload in parts:
        if type == NFTA_DYNSET_TIMEOUT and payload == bytes(8):
            continue
        if type == NFTA_DYNSET_FLAGS and several:
            payload = _BE32.pack(_BE32.unpack(payload)[0] | NFT_DYNSET_F_EXPR)
        out.append(pack_attr(type, payload))
    return b"".join(out)


def _mend_exthdr(data: bytes) -> bytes:
    """nft_exthdr_dump_common tells of fields that setting and stripping an option must not name."""
    parts = attrs(data, 0, len(data))
    types = {type for type, _ in parts}
    if NFTA_EXTHDR_DREG in types:
        return data
    unwanted = {NFTA_EXTHDR_FLAGS}
    if NFTA_EXTHDR_SREG not in types:
        unwanted |= {NFTA_EXTHDR_OFFSET, NFTA_EXTHDR_LEN}
    return b"".join(pack_attr(type, payload) for type, payload in parts if type not in unwanted)


def _mend_osf(data: bytes) -> bytes:
    """nft_osf_dump tells of flags 0, which nft_osf_init refuses."""
    return b"".join(
        pack_attr(type, payload)
        for type, payload in attrs(data, 0, len(data))
        if type != NFTA_OSF_FLAGS or payload != bytes(4)
    )


_MENDED = {b"dynset\0": _mend_dynset, b"exthdr\0": _mend_exthdr, b"osf\0": _mend_osf}


def set_pattern(name: str) -> str:
    """``__set%d`` for ``__set12``: the kernel puts a number of its own there. A meter keeps the name it
    has."""
    return name.rstrip("0123456789") + "%d" if name.startswith("__") else name


def verdict_chain(payload: bytes) -> str | None:
    """The chain that a data payload (of an immediate, or of a map's element) jumps to, if it does."""
    verdict = attr_map(payload, 0, len(payload)).get(NFTA_DATA_VERDICT)
    if verdict is None:
        return None
    chain = attr_map(verdict, 0, len(verdict)).get(NFTA_VERDICT_CHAIN)
    return None if chain is None else text_of(chain)


def object_ref(kind: int, name: str) -> Ref:
    """How a rule leans on a named counter, quota …"""
    return (OBJECT_WORDS.get(kind, f"object {kind}"), name)


def without_use(name: bytes, data: bytes) -> bytes:
    """The data of a counter, quota or last (expression or object) without what packets change."""
    if name == b"quota\0":
        kept = []
        for type, payload in attrs(data, 0, len(data)):
            if type == NFTA_QUOTA_FLAGS:
                payload = _BE32.pack(_BE32.unpack(payload)[0] & ~NFT_QUOTA_F_DEPLETED)
            elif type == NFTA_QUOTA_CONSUMED:
                continue
            kept.append(pack_attr(type, payload))
        return b"".join(kept)
    return b""


def _with_set_id(data: bytes, name_at: int, id_at: int, sets: Mapping[str, int]) -> bytes:
    out = []
    for type, payload in attrs(data, 0, len(data)):
        name = text_of(payload) if type == name_at else ""
        if name in sets:
            out += [
                pack_attr(type, set_pattern(name).encode() + b"\0"),
                pack_attr(id_at, _BE32.pack(sets[name])),
            ]
        else:
            out.append(pack_attr(type, payload))
    return b"".join(out)


def _with_chain_id(data: bytes, chains: Mapping[str, int]) -> bytes:
    target = attr_map(data, 0, len(data)).get(NFTA_IMMEDIATE_DATA, b"")
    chain = verdict_chain(target)
    if chain is None or chain not in chains:
        return data
    verdict = attr_map(target, 0, len(target))[NFTA_DATA_VERDICT]
    parts = [
        pack_attr(NFTA_VERDICT_CHAIN_ID, _BE32.pack(chains[chain]))
        if type == NFTA_VERDICT_CHAIN
        else pack_attr(type, payload)
        for type, payload in attrs(verdict, 0, len(verdict))
    ]
    return b"".join(
        nested(type, nested(NFTA_DATA_VERDICT, *parts))
        if type == NFTA_IMMEDIATE_DATA
        else pack_attr(type, payload)
        for type, payload in attrs(data, 0, len(data))
    )


Special: TypeAlias = Callable[[bytes, Contents, Found], bytes]

# --- the expressions that are more than bytes -------------------------------------------------------


def _data(raw: bytes) -> tuple[bytes, bytes]:
    """Name and data of one list element."""
    name = data = b""
    for type, payload in attrs(raw, 4, len(raw)):
        if type == NFTA_EXPR_NAME:
            name = payload
        elif type == NFTA_EXPR_DATA:
            data = payload
    return name, data


def _used(raw: bytes, own: Contents, found: Found) -> bytes:
    name, data = _data(raw)
    return name + without_use(name, data)


def _named(place: int) -> Special:
    """An expression with the name of a set in attribute ``place``."""

    def special(raw: bytes, own: Contents, found: Found) -> bytes:
        name, data = _data(raw)
        out = [name]
        for type, payload in attrs(data, 0, len(data)):
            if type == place:
                payload = _set(text_of(payload), own, found)
            elif name == b"dynset\0" and type in (NFTA_DYNSET_EXPR, NFTA_DYNSET_EXPRESSIONS):
                walk = single if type == NFTA_DYNSET_EXPR else _whole
                # one expression is dumped as EXPR, several are as EXPRESSIONS
                payload = walk(payload, own, found)
            out.append(pack_attr(type, payload))
        return b"".join(out)

    return special


def _whole(payload: bytes, own: Contents, found: Found) -> bytes:
    return canonical(payload, 0, len(payload), own, found)


def _set(name: str, own: Contents, found: Found) -> bytes:
    content = own.get(name)
    if content is None:
        found.refs.add(("set", name))
        return name.encode() + b"\0"
    found.inner.append(name)
    return content


def _objref(raw: bytes, own: Contents, found: Found) -> bytes:
    _, data = _data(raw)
    parts = attr_map(data, 0, len(data))
    if NFTA_OBJREF_IMM_NAME in parts:
        kind: int = _BE32.unpack(parts.get(NFTA_OBJREF_IMM_TYPE, bytes(4)))[0]
        found.refs.add(object_ref(kind, text_of(parts[NFTA_OBJREF_IMM_NAME])))
        return raw
    return _named(NFTA_OBJREF_SET_NAME)(raw, own, found)


@functools.lru_cache(maxsize=4096)
def _target(raw: bytes) -> str | None:
    _, data = _data(raw)
    return verdict_chain(attr_map(data, 0, len(data)).get(NFTA_IMMEDIATE_DATA, b""))


def _immediate(raw: bytes, own: Contents, found: Found) -> bytes:
    chain = _target(raw)
    if chain is None:
        return raw
    content = own.get(chain)
    if content is None:
        found.refs.add(("chain", chain))
        return raw
    found.inner.append(chain)
    # the code tells jump from goto
    return raw.replace(chain.encode() + b"\0", b"") + content


def _flow(raw: bytes, own: Contents, found: Found) -> bytes:
    _, data = _data(raw)
    found.refs.add(("flowtable", text_of(attr_map(data, 0, len(data)).get(NFTA_FLOW_TABLE_NAME, b""))))
    return raw


def _xt(raw: bytes, own: Contents, found: Found) -> bytes:
    found.flags |= RULE_XT
    return raw


def _indexed(raw: bytes, own: Contents, found: Found) -> bytes:
    if _holds_index(raw):
        found.flags |= RULE_INDEX
    return raw


@functools.lru_cache(maxsize=4096)
def _holds_index(raw: bytes) -> bool:
    """Whether a meta or fib expression loads an interface index. There are few different ones in a
    ruleset."""
    name, data = _data(raw)
    parts = attr_map(data, 0, len(data))
    if name == b"meta\0":
        key = parts.get(NFTA_META_KEY)
        return key is not None and _BE32.unpack(key)[0] in (NFT_META_IIF, NFT_META_OIF, NFT_META_SDIF)
    present: int = _BE32.unpack(parts.get(NFTA_FIB_FLAGS, bytes(4)))[0] & NFTA_FIB_F_PRESENT
    return not present and parts.get(NFTA_FIB_RESULT) == _BE32.pack(NFT_FIB_RESULT_OIF)


_SPECIAL: dict[bytes, Special] = {
    b"counter\0": _used,
    b"quota\0": _used,
    b"last\0": _used,
    b"lookup\0": _named(NFTA_LOOKUP_SET),
    b"dynset\0": _named(NFTA_DYNSET_SET_NAME),
    b"objref\0": _objref,
    b"immediate\0": _immediate,
    b"flow_offload\0": _flow,
    b"match\0": _xt,
    b"target\0": _xt,
    b"meta\0": _indexed,
    b"fib\0": _indexed,
}
_SET_NAMES = {
    b"lookup\0": (NFTA_LOOKUP_SET, NFTA_LOOKUP_SET_ID),
    b"dynset\0": (NFTA_DYNSET_SET_NAME, NFTA_DYNSET_SET_ID),
    b"objref\0": (NFTA_OBJREF_SET_NAME, NFTA_OBJREF_SET_ID),
}
