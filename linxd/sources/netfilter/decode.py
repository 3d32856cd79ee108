# SPDX-License-Identifier: MIT
"""From messages to tables: what a dump says, put together.

It must not know sockets, nor which namespace the messages describe.
"""

from __future__ import annotations

import itertools
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from linxd.digest import blake2b
from linxd.netlink.nft import NFGEN_HDRLEN
from linxd.netlink.wire import WireError, attr_map, attrs, pack_attr, text_of
from linxd.records import replace
from linxd.sources.netfilter import names as n
from linxd.sources.netfilter.elements import Collector
from linxd.sources.netfilter.expressions import NOTHING, Found, canonical, set_pattern, single, without_use
from linxd.sources.netfilter.state import Chain, Flowtable, Hook, Object, Ref, Rule, Set, Table, TableId

_BE32 = struct.Struct(">I")
_BES32 = struct.Struct(">i")
_BE64 = struct.Struct(">Q")
_NLA = struct.Struct("=HH")

MARK = b"\x4c\x05linxd"
"""In a table's user data: linxd made it. nft passes over types it doesn't know (libnftnl udata.h: type,
length, value), so that no listing shows it."""
_UDATA_COMMENT = 0

_SET_ATTRS = frozenset(
    (
        n.NFTA_SET_FLAGS,
        n.NFTA_SET_KEY_TYPE,
        n.NFTA_SET_KEY_LEN,
        n.NFTA_SET_DATA_TYPE,
        n.NFTA_SET_DATA_LEN,
        n.NFTA_SET_POLICY,
        n.NFTA_SET_DESC,
        n.NFTA_SET_TIMEOUT,
        n.NFTA_SET_GC_INTERVAL,
        n.NFTA_SET_USERDATA,
        n.NFTA_SET_OBJ_TYPE,
        n.NFTA_SET_EXPR,
        n.NFTA_SET_EXPRESSIONS,
    )
)
"""What defines a set. Others say what became of it (its back end, how many elements), and differ by
kernel."""


class refusing:  # noqa: N801 - to be read as a word
    """Around the reading of what should be well-formed: what is not is a WireError, whatever it trips
    over."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        known = (struct.error, LookupError, ValueError, OverflowError)
        if isinstance(error, known) and not isinstance(error, WireError):
            raise WireError(f"{self._what}: {error}") from None


def _number(found: Mapping[int, bytes], type: int, default: int = 0) -> int:
    value = found.get(type)
    return default if value is None else int(_BE32.unpack(value)[0])


def _handle(found: Mapping[int, bytes], type: int) -> int:
    value = found.get(type)
    return 0 if value is None else int(_BE64.unpack(value)[0])


def place(payload: bytes) -> tuple[TableId, dict[int, bytes]]:
    """Family and attributes of a message. The first attribute of every kind names the table."""
    found = attr_map(payload, NFGEN_HDRLEN, len(payload))
    return (payload[0], text_of(found.get(1, b""))), found


def table(payload: bytes) -> Table:
    """A table, empty."""
    (family, name), found = place(payload)
    userdata = found.get(n.NFTA_TABLE_USERDATA, b"")
    kept = b"".join(part for part in udata(userdata) if part[0] == _UDATA_COMMENT)
    return Table(
        family,
        name,
        _handle(found, n.NFTA_TABLE_HANDLE),
        _number(found, n.NFTA_TABLE_FLAGS),
        # later versions of nft leave their version and build date beside the comment
        kept,
        MARK in udata(userdata),
        _number(found, n.NFTA_TABLE_OWNER),
    )


def udata(data: bytes) -> list[bytes]:
    """The parts (type, length, value) of user data."""
    parts = []
    at = 0
    while at + 2 <= len(data):
        parts.append(data[at : at + 2 + data[at + 1]])
        at += 2 + data[at + 1]
    return parts


def comment(data: bytes) -> str:
    """The comment in a rule's, chain's, table's or element's user data, "" without one."""
    return next((text_of(part[2:]) for part in udata(data) if part[0] == _UDATA_COMMENT), "")


def _devices(payload: bytes) -> list[str]:
    # type 2 of later kernels is a prefix
    return [
        text_of(name) + ("*" if type != n.NFTA_DEVICE_NAME else "")
        for type, name in attrs(payload, 0, len(payload))
    ]


def _hook(payload: bytes) -> Hook:
    found = attr_map(payload, 0, len(payload))
    devices = _devices(found.get(n.NFTA_HOOK_DEVS, b""))
    if not devices and n.NFTA_HOOK_DEV in found:
        devices = [text_of(found[n.NFTA_HOOK_DEV])]
    priority = _BES32.unpack(found.get(n.NFTA_HOOK_PRIORITY, bytes(4)))[0]
    return Hook(_number(found, n.NFTA_HOOK_HOOKNUM), priority, tuple(sorted(set(devices))))


def chain(payload: bytes) -> Chain:
    """A chain, without its rules."""
    found = place(payload)[1]
    hook = found.get(n.NFTA_CHAIN_HOOK)
    return Chain(
        text_of(found.get(n.NFTA_CHAIN_NAME, b"")),
        _handle(found, n.NFTA_CHAIN_HANDLE),
        text_of(found.get(n.NFTA_CHAIN_TYPE, b"")),
        None if hook is None else _hook(hook),
        None if hook is None else _number(found, n.NFTA_CHAIN_POLICY, n.NF_ACCEPT),
        _number(found, n.NFTA_CHAIN_FLAGS),
        found.get(n.NFTA_CHAIN_USERDATA, b""),
    )


def set_(payload: bytes) -> Set:
    """A set, without its elements."""
    found = place(payload)[1]
    kept: list[tuple[int, bytes]] = []
    for type in sorted(_SET_ATTRS & found.keys()):
        value = found[type]
        if type == n.NFTA_SET_DESC and len(value) == 0:
            continue
        kept.append((type, value))
    return Set(
        text_of(found.get(n.NFTA_SET_NAME, b"")),
        _handle(found, n.NFTA_SET_HANDLE),
        _number(found, n.NFTA_SET_FLAGS),
        tuple(kept),
    )


def set_canon(home: Set) -> bytes:
    """What defines a set, without the use that its expressions have seen."""
    out = []
    for type, value in home.attrs:
        if type == n.NFTA_SET_EXPR:
            value = single(value, NOTHING, Found())
        elif type == n.NFTA_SET_EXPRESSIONS:
            value = canonical(value, 0, len(value), NOTHING, Found())
        out.append(pack_attr(type, value))
    return b"".join(out)


def element_list(payload: bytes) -> tuple[TableId, str, tuple[int, int]]:
    """Table and set that a message of elements is about, and where in the payload its elements stand."""
    at = NFGEN_HDRLEN
    name = table_name = ""
    bounds = (0, 0)
    while at + 4 <= len(payload):
        size = int.from_bytes(payload[at : at + 2], "little" if _LITTLE else "big")
        type = int.from_bytes(payload[at + 2 : at + 4], "little" if _LITTLE else "big") & 0x3FFF
        if size < 4:
            break
        if type == n.NFTA_SET_ELEM_LIST_TABLE:
            table_name = text_of(payload[at + 4 : at + size])
        elif type == n.NFTA_SET_ELEM_LIST_SET:
            name = text_of(payload[at + 4 : at + size])
        elif type == n.NFTA_SET_ELEM_LIST_ELEMENTS:
            bounds = (at + 4, at + size)
        at += (size + 3) & ~3
    return (payload[0], table_name), name, bounds


_LITTLE = struct.pack("=H", 1) == b"\1\0"


def object_(payload: bytes) -> Object:
    """A stateful object."""
    found = place(payload)[1]
    kind = _number(found, n.NFTA_OBJ_TYPE)
    data = found.get(n.NFTA_OBJ_DATA, b"")
    word = {n.OBJECT_COUNTER: b"counter\0", n.OBJECT_QUOTA: b"quota\0"}.get(kind)
    userdata = found.get(n.NFTA_OBJ_USERDATA, b"")
    canon = data if word is None else without_use(word, data)
    return Object(
        text_of(found.get(n.NFTA_OBJ_NAME, b"")),
        kind,
        _handle(found, n.NFTA_OBJ_HANDLE),
        canon,
        data,
        userdata,
    )


def flowtable(payload: bytes) -> Flowtable:
    """A flowtable."""
    found = place(payload)[1]
    inner = found.get(n.NFTA_FLOWTABLE_HOOK, b"")
    hook = attr_map(inner, 0, len(inner))
    devices = _devices(hook.get(n.NFTA_FLOWTABLE_HOOK_DEVS, b""))
    priority = _BES32.unpack(hook.get(n.NFTA_FLOWTABLE_HOOK_PRIORITY, bytes(4)))[0]
    return Flowtable(
        text_of(found.get(n.NFTA_FLOWTABLE_NAME, b"")),
        _handle(found, n.NFTA_FLOWTABLE_HANDLE),
        Hook(_number(hook, n.NFTA_FLOWTABLE_HOOK_NUM), priority, tuple(sorted(set(devices)))),
        _number(found, n.NFTA_FLOWTABLE_FLAGS),
    )


class Own:
    """Anonymous sets and chains of one table: their content by name, found out when first asked for."""

    def __init__(self, sets: Mapping[str, Set], chains: Mapping[str, Chain]) -> None:
        self.sets = sets
        self.chains = chains
        self._digests: dict[str, bytes] = {}

    def get(self, name: str, /) -> bytes | None:
        """A digest of the content, None for what has a name of its own."""
        digest = self._digests.get(name)
        if digest is not None:
            return digest
        home = self.sets.get(name)
        if home is not None and home.anonymous:
            digest = _set_digest(home)
        else:
            bound = self.chains.get(name)
            if bound is None or not bound.bound:
                return None
            digest = blake2b(b"\0".join(rule.canon for rule in bound.rules), digest_size=16).digest()
        self._digests[name] = digest
        return digest

    def inner(self, found: Found) -> tuple[Set | Chain, ...]:
        """What was met, and what hangs on it."""
        return tuple(self.sets[name] if name in self.sets else self.chains[name] for name in found.inner)


def _set_digest(home: Set) -> bytes:
    digest = blake2b(set_canon(home), digest_size=16)
    # the name of a meter is the user's, other names are the kernel's
    digest.update(set_pattern(home.name).encode())
    for identity in sorted(home.elements):
        digest.update(home.elements[identity])
    return digest.digest()


Known = Mapping[bytes, Rule]
"""Rules by their expressions as they were dumped, of such as have no sets or chains of their own."""
UNKNOWN: Known = {}


def known(tables: Iterable[Table]) -> dict[bytes, Rule]:
    """The rules in ``tables`` that another dump of theirs need not take apart again; the first of them,
    where they are very many."""
    rules = (
        rule for table in tables for chain in table.chains.values() for rule in chain.rules if not rule.inner
    )
    return {rule.wire: rule for rule in itertools.islice(rules, _KNOWN)}


def rule(payload: bytes, found_attrs: Mapping[int, bytes], own: Own, known: Known = UNKNOWN) -> Rule:
    """A rule; anonymous sets and chains that it uses must be known to ``own``."""
    wire = found_attrs.get(n.NFTA_RULE_EXPRESSIONS, b"")
    userdata = found_attrs.get(n.NFTA_RULE_USERDATA, b"")
    twin = known.get(wire)
    if twin is not None and twin.userdata == userdata and b"__" not in wire:
        # The same bytes mean the same, where none of them is the kernel's name for what belongs to a rule.
        handle = _handle(found_attrs, n.NFTA_RULE_HANDLE)
        return Rule(handle, twin.canon, twin.wire, twin.userdata, twin.refs, (), twin.flags)
    found = Found()
    canon = canonical(wire, 0, len(wire), own, found)
    refs: set[Ref] = found.refs
    inner = own.inner(found) if found.inner else ()
    flags = found.flags
    for each in inner:
        if isinstance(each, Set):
            refs.update(each.refs.values())
        else:
            for deep in each.rules:
                refs |= deep.refs
                flags |= deep.flags
    return Rule(
        _handle(found_attrs, n.NFTA_RULE_HANDLE),
        canon + b"\0" + userdata,
        wire,
        userdata,
        frozenset(refs),
        inner,
        flags,
    )


Dumped = Iterable[tuple[int, bytes]]
"""Messages as (type, payload), in any order that has a chain's rules in theirs."""


def assemble(dumped: Dumped, known: Known = UNKNOWN) -> Iterator[dict[TableId, Table] | None]:
    """Put messages together; rules ``known`` are not taken apart. Yields None after each slice of work of a
    few milliseconds, and at last the tables that there are, with everything in them that the messages tell.
    Raises WireError."""
    with refusing("a dump of nf_tables"):
        yield from _assemble(dumped, known)


def _assemble(dumped: Dumped, known: Known) -> Iterator[dict[TableId, Table] | None]:
    tables: dict[TableId, Table] = {}
    chains: dict[TableId, dict[str, Chain]] = defaultdict(dict)
    collectors: dict[TableId, dict[str, Collector]] = defaultdict(dict)
    objects: dict[TableId, dict[tuple[int, str], Object]] = defaultdict(dict)
    flowtables: dict[TableId, dict[str, Flowtable]] = defaultdict(dict)
    lines: list[bytes] = []
    lists: list[bytes] = []
    for type, payload in dumped:
        if type == n.NEWRULE:
            lines.append(payload)
        elif type == n.NEWSETELEM:
            lists.append(payload)
        elif type == n.NEWTABLE:
            found = table(payload)
            tables[found.id] = found
        elif type == n.NEWCHAIN:
            link = chain(payload)
            chains[place(payload)[0]][link.name] = link
        elif type == n.NEWSET:
            home = set_(payload)
            collectors[place(payload)[0]][home.name] = Collector(home)
        elif type == n.NEWOBJ:
            thing = object_(payload)
            objects[place(payload)[0]][thing.kind, thing.name] = thing
        elif type == n.NEWFLOWTABLE:
            flow = flowtable(payload)
            flowtables[place(payload)[0]][flow.name] = flow
    for payload in lists:
        where, name, (start, end) = element_list(payload)
        collector = collectors[where].get(name)
        if collector is not None and start:
            collector.take(payload, start, end)
            yield None
    sets: dict[TableId, dict[str, Set]] = {}
    for where, each in collectors.items():
        sets[where] = {}
        for name, collector in each.items():
            sets[where][name] = collector.result()
            if len(collector.elements) > 1000:
                yield None
    yield from _place_rules(lines, chains, sets, known)
    for where, empty in tables.items():
        tables[where] = replace(
            empty,
            chains={name: link for name, link in chains[where].items() if not link.bound},
            sets={name: home for name, home in sets.get(where, {}).items() if not home.anonymous},
            objects=objects[where],
            flowtables=flowtables[where],
        )
    yield tables


_KNOWN = 20_000
"""Rules that are kept in mind: a millisecond or two."""
_SLICE = 100
"""Rules put together between two pauses: 2 ms."""


def _rule_head(payload: bytes) -> int:
    """Where the names of a rule's table and chain end, which the kernel tells first
    (nf_tables_fill_rule_info); else where its attributes begin."""
    at = NFGEN_HDRLEN
    for name in (n.NFTA_RULE_TABLE, n.NFTA_RULE_CHAIN):
        size, type = _NLA.unpack_from(payload, at)
        if type != name or size < 4:
            return NFGEN_HDRLEN
        at += (size + 3) & ~3
    return at if at <= len(payload) else NFGEN_HDRLEN


def _place_rules(
    lines: list[bytes],
    chains: dict[TableId, dict[str, Chain]],
    sets: dict[TableId, dict[str, Set]],
    known: Known,
) -> Iterator[None]:
    waiting: dict[tuple[TableId, str], list[tuple[bytes, dict[int, bytes]]]] = defaultdict(list)
    homes: dict[bytes, tuple[TableId, str]] = {}
    for count, payload in enumerate(lines, 1):
        # Every rule of a chain begins with the same bytes.
        start = _rule_head(payload)
        home = homes.get(payload[:start])
        if home is None:
            where, found = place(payload)
            home = where, text_of(found.get(n.NFTA_RULE_CHAIN, b""))
            if start > NFGEN_HDRLEN:
                homes[payload[:start]] = home
        waiting[home].append((payload, attr_map(payload, start, len(payload))))
        if count % (8 * _SLICE) == 0:
            yield None
    owns = {where: Own(sets.get(where, {}), chains[where]) for where in {where for where, _ in waiting}}
    done: set[tuple[TableId, str]] = set()

    def depth(key: tuple[TableId, str]) -> int:
        # What is bound to a rule must be known before the rule: chains that are bound come first, and among
        # them those made last are inside those made before.
        link = chains[key[0]].get(key[1])
        return link.handle if link is not None and link.bound else -1

    for key in sorted(waiting, key=depth, reverse=True):
        where, name = key
        link = chains[where].get(name)
        if link is None or key in done:
            continue
        done.add(key)
        rules = []
        own = owns[where]
        for count, (payload, found) in enumerate(waiting[key], 1):
            rules.append(rule(payload, found, own, known))
            if count % _SLICE == 0:
                yield None
        chains[where][name] = replace(link, rules=tuple(rules))
