# SPDX-License-Identifier: MIT
"""The tables as they are, kept up with every transaction that the kernel tells of, between two looks.

Generations follow each other without a gap, and a transaction's events tell all that it changed: so what is
held here is what the kernel has, and a commit under the generation held here is refused if it is not. It
reads nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence

from linxd.netlink.wire import WireError, text_of
from linxd.records import dataclass, field, replace
from linxd.source import Writer
from linxd.sources.netfilter import decode
from linxd.sources.netfilter import names as n
from linxd.sources.netfilter.elements import Collector
from linxd.sources.netfilter.state import Chain, Followed, Rule, Table, TableId
from linxd.sources.netfilter.touched import Touched

_HISTORY = 1024
_HALF = 1 << 31


@dataclass(frozen=True, slots=True)
class Transaction:
    """What events told of one commit. ``messages``: those about tables that matter, and about whole
    tables."""

    generation: int
    tables: frozenset[TableId]
    messages: Sequence[tuple[int, bytes]] = ()
    many: frozenset[TableId] = frozenset()
    writer: Writer | None = None


def later(a: int, b: int) -> bool:
    """Whether generation ``a`` came after ``b``: 32 bits that wrap."""
    return 0 < (a - b) & 0xFFFFFFFF < _HALF


def following(generation: int) -> int:
    """The generation after this one. 0 is left out (nf_tables_commit)."""
    return (generation + 1) & 0xFFFFFFFF or 1


@dataclass(slots=True)
class Mirror:
    """``tables``: those that matter, with what is in them; ``heads``: all. ``exact``: as it was read,
    nothing came from events since. ``unknown``: tables to be read again. ``ignored``: sets whose elements
    don't matter."""

    wanted: frozenset[TableId] = frozenset()
    others: bool = False
    generation: int = 0
    valid: bool = False
    exact: bool = False
    tables: dict[TableId, Table] = field(default_factory=dict)
    heads: dict[TableId, Table] = field(default_factory=dict)
    touched: dict[TableId, Touched] = field(default_factory=dict)
    unknown: set[TableId] = field(default_factory=set)
    ignored: frozenset[tuple[TableId, str]] = frozenset()
    history: deque[tuple[int, frozenset[TableId]]] = field(default_factory=lambda: deque(maxlen=_HISTORY))

    def lose(self) -> None:
        """Nothing is known any more."""
        self.valid = self.exact = False

    def taken(
        self, generation: int, tables: Mapping[TableId, Table], heads: Mapping[TableId, Table]
    ) -> None:
        """Everything has been read."""
        self.generation = generation
        self.tables = dict(tables)
        self.heads = dict(heads)
        self.touched = {}
        self.unknown = set()
        self.valid = self.exact = True

    def read_again(
        self, generation: int, found: Mapping[TableId, Table], asked: Collection[TableId]
    ) -> None:
        """Single tables have been read, at the generation that is held here."""
        assert generation == self.generation
        for where in asked:
            table = found.get(where)
            if table is None:
                self.tables.pop(where, None)
                self.heads.pop(where, None)
            else:
                self.tables[where] = table
                self.heads[where] = table
            self.unknown.discard(where)
            self.touched[where] = Touched(everything=True)

    def only(self, since: int, until: int, foreign_to: Collection[TableId]) -> bool:
        """Whether all that happened between two generations is known and left these tables alone."""
        known = dict(self.history)
        at = since
        while at != until:
            at = following(at)
            if at not in known or not known[at].isdisjoint(foreign_to) or later(at, until):
                return False
        return True

    # --- from events --------------------------------------------------------------------------------

    def apply(self, change: Transaction) -> None:
        """Follow one transaction."""
        self.history.append((change.generation, change.tables))
        if not self.valid or not later(change.generation, self.generation):
            return
        if change.generation != following(self.generation):
            self.lose()
            return
        self.generation = change.generation
        if not change.tables.isdisjoint(self.wanted):
            self.exact = False
        self.unknown.update(change.many & self.wanted)
        if change.messages:
            try:
                with decode.refusing("an event of nf_tables"):
                    _Following(self, change.messages).run()
            except WireError:
                self.lose()

    def matters(self, where: TableId) -> bool:
        """Whether a table, or that it is there, is anybody's business."""
        return self.others or where in self.wanted

    def followed(self, table: Table, chain: Chain) -> Followed:
        """The rules of a chain that is held here, to be changed in place from now on."""
        rules = chain.rules
        if not isinstance(rules, Followed):
            rules = Followed(rules)
            chains = {**table.chains, chain.name: replace(chain, rules=rules)}
            self.tables[table.id] = replace(table, chains=chains)
        return rules

    def mark(self, where: TableId) -> Touched:
        """What is known to have been touched in a table; to be added to."""
        return self.touched.setdefault(where, Touched())


class _Following:
    """One transaction on its way into a mirror."""

    def __init__(self, mirror: Mirror, messages: Sequence[tuple[int, bytes]]) -> None:
        self._mirror = mirror
        self._messages = messages
        self._lists: dict[tuple[TableId, str, bool], Collector] = {}
        self._rules: dict[tuple[TableId, str], tuple[set[int], list[Rule]]] = {}
        """Of each chain: handles of rules that went, and rules that came."""

    def run(self) -> None:
        mirror = self._mirror
        ended = {decode.table(payload).id for type, payload in self._messages if type == n.DELTABLE}
        for type, payload in self._messages:
            if ended and type not in (n.NEWTABLE, n.DELTABLE) and decode.place(payload)[0] in ended:
                continue
            if type == n.NEWTABLE:
                self._new_table(payload)
            elif type == n.DELTABLE:
                where = decode.table(payload).id
                mirror.heads.pop(where, None)
                mirror.tables.pop(where, None)
                mirror.unknown.discard(where)
                if mirror.matters(where):
                    mirror.mark(where).everything = True
            elif type in (n.NEWSETELEM, n.DELSETELEM):
                self._elements(payload, gone=type == n.DELSETELEM)
            else:
                where, found = decode.place(payload)
                table = mirror.tables.get(where)
                if table is not None and where not in mirror.unknown:
                    self._within(type, table, payload, found)
        for (where, name), (went, came) in self._rules.items():
            self._rules_done(where, name, went, came)
        for (where, name, gone), collector in sorted(self._lists.items(), key=lambda each: not each[0][2]):
            if where not in mirror.unknown:
                self._elements_done(where, name, collector, gone=gone)

    def _new_table(self, payload: bytes) -> None:
        mirror = self._mirror
        head = decode.table(payload)
        known = mirror.tables.get(head.id)
        mirror.heads[head.id] = head
        if known is not None and known.handle == head.handle:
            mirror.tables[head.id] = replace(known, flags=head.flags, owner=head.owner)
            mirror.mark(head.id).head = True
        elif mirror.matters(head.id):
            if head.id in mirror.wanted:
                mirror.unknown.add(head.id)
            mirror.mark(head.id).everything = True

    def _within(self, type: int, table: Table, payload: bytes, found: dict[int, bytes]) -> None:
        """Something in a table that is held here."""
        where = table.id
        if type in (n.NEWRULE, n.DELRULE):
            self._rule(type, table, found)
        elif type == n.NEWCHAIN:
            chain = decode.chain(payload)
            before = table.chains.get(chain.name)
            if chain.bound:
                return
            if before is not None and before.handle == chain.handle:
                self._put(table, chains={**table.chains, chain.name: replace(chain, rules=before.rules)})
                self._mirror.mark(where).rules(chain.name, len(before.rules), len(before.rules))
            elif before is None and all(each.handle != chain.handle for each in table.chains.values()):
                self._put(table, chains={**table.chains, chain.name: chain})
                self._mirror.mark(where).parts = True
            else:
                self._mirror.unknown.add(where)
        elif type == n.DELCHAIN:
            self._gone(table, "chains", decode.chain(payload).name)
        elif type == n.NEWSET:
            home = decode.set_(payload)
            if home.anonymous:
                return
            if home.name in table.sets:
                self._mirror.unknown.add(where)
            else:
                self._put(table, sets={**table.sets, home.name: home})
                self._mirror.mark(where).parts = True
        elif type == n.DELSET:
            self._gone(table, "sets", decode.set_(payload).name)
        elif type in (n.NEWOBJ, n.DELOBJ):
            thing = decode.object_(payload)
            objects = {key: each for key, each in table.objects.items() if key != (thing.kind, thing.name)}
            if type == n.NEWOBJ:
                objects[thing.kind, thing.name] = thing
            self._put(table, objects=objects)
            self._mirror.mark(where).parts = True
        else:
            # flowtables: an event tells of some of their links alone
            self._mirror.unknown.add(where)

    def _gone(self, table: Table, kind: str, name: str) -> None:
        held = getattr(table, kind)
        if name in held:
            self._put(table, **{kind: {key: each for key, each in held.items() if key != name}})
            self._mirror.mark(table.id).parts = True

    def _put(self, table: Table, **parts: object) -> None:
        self._mirror.tables[table.id] = replace(table, **parts)  # type: ignore[arg-type]

    def _rule(self, type: int, table: Table, found: dict[int, bytes]) -> None:
        name = text_of(found.get(n.NFTA_RULE_CHAIN, b""))
        if name not in table.chains:
            return  # in a chain that belongs to a rule, or in one that went with it
        went, came = self._rules.setdefault((table.id, name), (set(), []))
        handle = int.from_bytes(found.get(n.NFTA_RULE_HANDLE, b""), "big")
        if type == n.DELRULE:
            went.add(handle)
            return
        # Where it stands is not told in every case, and does not matter: it is not declared. Its content is
        # marked so that it is never taken for a rule that is.
        wire = found.get(n.NFTA_RULE_EXPRESSIONS, b"")
        userdata = found.get(n.NFTA_RULE_USERDATA, b"")
        came.append(Rule(handle, b"\0event\0" + wire + userdata, wire, userdata))

    def _rules_done(self, where: TableId, name: str, went: set[int], came: list[Rule]) -> None:
        mirror = self._mirror
        table = mirror.tables.get(where)
        chain = None if table is None else table.chains.get(name)
        if table is None or chain is None:
            return
        rules = mirror.followed(table, chain)
        size = len(rules)
        places = sorted(at for handle in went if (at := rules.place(handle)) is not None)
        # A rule that is replaced keeps its handle; one that came and went within a transaction is not there.
        known = {rules.drop(at).handle for at in reversed(places)}
        new = [rule for rule in came if rule.handle not in went or rule.handle in known]
        for rule in new:
            rules.put(len(rules), rule)
        first, last = (places[0], size - places[-1] - 1) if places else (size, size)
        mirror.mark(where).rules(name, first, 0 if new else last)

    # --- elements -----------------------------------------------------------------------------------

    def _elements(self, payload: bytes, *, gone: bool) -> None:
        where, name, (start, end) = decode.element_list(payload)
        mirror = self._mirror
        table = mirror.tables.get(where)
        if table is None or (where, name) in mirror.ignored or not start:
            return
        home = table.sets.get(name)
        if home is None:
            return  # of a set that belongs to a rule
        collector = self._lists.get((where, name, gone))
        if collector is None:
            collector = self._lists[where, name, gone] = Collector(replace(home, elements={}))
        collector.take(payload, start, end)

    def _elements_done(self, where: TableId, name: str, collector: Collector, *, gone: bool) -> None:
        mirror = self._mirror
        table = mirror.tables.get(where)
        home = table.sets.get(name) if table is not None else None
        if table is None or home is None:
            return
        change = collector.result()
        touched = mirror.mark(where)
        if gone:
            if not home.elements.keys() >= change.elements.keys():
                # half of an interval, or an element that nobody told of
                mirror.unknown.add(where)
                touched.everything = True
                return
            for identity in change.elements:
                del home.elements[identity]
        else:
            home.elements.update(change.elements)
        for identity in change.elements:
            touched.element(name, identity)
        temporary = home.temporary - change.elements.keys() if gone else home.temporary | change.temporary
        if temporary != home.temporary or change.refs:
            refs = {key: ref for key, ref in home.refs.items() if key not in change.elements}
            if not gone:
                refs.update(change.refs)
            self._put(
                table, sets={**table.sets, name: replace(home, temporary=frozenset(temporary), refs=refs)}
            )
