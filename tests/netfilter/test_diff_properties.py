# SPDX-License-Identifier: MIT
"""The diff of chains and sets: carried out on a model of the kernel it reaches what is declared, and touches
nothing that it need not."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from linxd.netlink.nft import nfgen
from linxd.netlink.wire import NLA_F_NESTED, attr_str, nested, pack_attr
from linxd.patch import Op, Verb
from linxd.sources.netfilter import lcs
from linxd.sources.netfilter import names as n
from linxd.sources.netfilter.diff import Terms, table_ops
from linxd.sources.netfilter.mirror import Mirror, Transaction
from linxd.sources.netfilter.names import NFT_SET_EVAL, NFTA_SET_KEY_LEN, NFTA_SET_KEY_TYPE
from linxd.sources.netfilter.state import Chain, Rule, Set, Table
from linxd.sources.netfilter.things import ElementsThing, RuleThing
from linxd.sources.netfilter.touched import Touched

CONTENT = st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"f"]), max_size=12)


def longest(have: Sequence[bytes], want: Sequence[bytes]) -> int:
    """Length of a longest common subsequence, by the table that everybody knows."""
    row = [0] * (len(want) + 1)
    for a in have:
        before = 0
        for at, b in enumerate(want, 1):
            before, row[at] = row[at], before + 1 if a == b else max(row[at], row[at - 1])
    return row[-1]


def follow(have: list[tuple[int, bytes]], ops: Sequence[Op]) -> list[tuple[int, bytes]]:
    """What the kernel makes of rule ops: deletions first, then each new rule before the one it names."""
    rules = list(have)
    for op in ops:
        if op.have is not None:
            assert isinstance(op.have, RuleThing)
            handle = op.have.rule.handle
            assert handle in [known for known, _ in rules]
            rules = [rule for rule in rules if rule[0] != handle]
    fresh = 1000
    for op in ops:
        if op.want is None:
            continue
        assert isinstance(op.want, RuleThing)
        place = len(rules)
        if op.want.before:
            place = [handle for handle, _ in rules].index(op.want.before)
        rules.insert(place, (fresh, op.want.rule.canon))
        fresh += 1
    return rules


def table_of(rules: Sequence[tuple[int, bytes]], sets: dict[str, Set] | None = None) -> Table:
    made = tuple(Rule(handle, canon, canon) for handle, canon in rules)
    return Table(1, "t", 1, chains={"c": Chain("c", 1, rules=made)}, sets=sets or {})


@given(CONTENT, CONTENT)
def test_common_subsequence_is_one_and_the_longest(have: list[bytes], want: list[bytes]) -> None:
    pairs = lcs.common(have, want)
    assert all(have[a] == want[b] for a, b in pairs)
    assert pairs == sorted(pairs)
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
    assert len(pairs) == longest(have, want)


@given(CONTENT, CONTENT)
def test_many_equal_rules_still_give_a_common_subsequence(have: list[bytes], want: list[bytes]) -> None:
    before, lcs.MOST_PAIRS = lcs.MOST_PAIRS, 0
    try:
        pairs = lcs.common(have, want)
    finally:
        lcs.MOST_PAIRS = before
    assert all(have[a] == want[b] for a, b in pairs)
    assert all(a < c and b < d for (a, b), (c, d) in itertools.pairwise(pairs))


@given(CONTENT, CONTENT)
def test_rules_reach_what_is_declared_and_the_rest_keeps_its_handles(
    have: list[bytes], want: list[bytes]
) -> None:
    there = [(handle, canon) for handle, canon in enumerate(have, 1)]
    ops = table_ops(table_of([(0, canon) for canon in want]), table_of(there), Terms())

    after = follow(there, ops)

    assert [canon for _, canon in after] == want
    kept = longest(have, want)
    assert sum(handle < 1000 for handle, _ in after) == kept
    # Each rule that is missing or astray costs one op, and a move is both at once.
    missing = Counter(want) - Counter(have)
    astray = Counter(have) - Counter(want)
    moved = len(want) - kept - missing.total()
    assert len(ops) == missing.total() + astray.total() + moved
    assert sum(op.verb is Verb.RECREATE for op in ops) == moved


@given(CONTENT, st.randoms(use_true_random=False))
def test_what_was_not_touched_is_not_compared(have: list[bytes], random: object) -> None:
    there = table_of([(handle, canon) for handle, canon in enumerate(have, 1)])
    want = table_of([(0, b"something else")])
    assert table_ops(want, there, Terms(touched=Touched())) == []
    assert table_ops(want, there, Terms(touched=Touched(chains={"c": (0, 0)})))


STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 11)), min_size=1, max_size=4)


@given(CONTENT, st.lists(STEPS, min_size=1, max_size=3))
def test_of_rules_that_events_told_of_the_rest_is_known_to_be_the_same(
    content: list[bytes], transactions: list[list[tuple[bool, int]]]
) -> None:
    """Rules go and come, one transaction after the other: what is compared then is what differs."""
    where = (1, "t")
    want = table_of([(0, canon) for canon in content])
    there = table_of([(handle, canon) for handle, canon in enumerate(content, 1)])
    mirror = Mirror(wanted=frozenset((where,)))
    mirror.taken(1, {where: there}, {where: there})
    place = nfgen(1) + attr_str(n.NFTA_RULE_TABLE, "t") + attr_str(n.NFTA_RULE_CHAIN, "c")
    come = iter(range(100, 200))
    for generation, steps in enumerate(transactions, 2):
        messages = []
        for goes, number in steps:
            handle = (number + 1 if goes else next(come)).to_bytes(8, "big")
            rule = place + pack_attr(n.NFTA_RULE_HANDLE, handle)
            messages.append((n.DELRULE, rule) if goes else (n.NEWRULE, rule))
        mirror.apply(Transaction(generation, frozenset((where,)), messages))
    assert mirror.valid
    table = mirror.tables[where]
    ops = table_ops(want, table, Terms(touched=mirror.touched[where]))
    assert ops == table_ops(want, table, Terms())
    left = [(rule.handle, rule.canon) for rule in table.chains["c"].rules]
    assert [canon for _, canon in follow(left, ops)] == content


def key(number: int) -> bytes:
    return pack_attr(1 | NLA_F_NESTED, pack_attr(1, number.to_bytes(4, "big")))


def set_of(elements: dict[bytes, bytes], flags: int = 0, temporary: frozenset[bytes] = frozenset()) -> Set:
    attrs = ((NFTA_SET_KEY_TYPE, (7).to_bytes(4, "big")), (NFTA_SET_KEY_LEN, (4).to_bytes(4, "big")))
    return Set("s", 1, flags, attrs, dict(elements), temporary=temporary)


ELEMENTS = st.dictionaries(
    st.integers(0, 200).map(key), st.sampled_from([b"", b"one", b"two"]), max_size=90
).map(lambda found: {one: one + (nested(6, extra) if extra else b"") for one, extra in found.items()})


def elements_after(have: dict[bytes, bytes], ops: Sequence[Op]) -> dict[bytes, bytes]:
    found = dict(have)
    for op in ops:
        if op.have is not None:
            assert isinstance(op.have, ElementsThing)
            for one in op.have.identities:
                del found[one]
    for op in ops:
        if op.want is not None:
            assert isinstance(op.want, ElementsThing)
            for one in op.want.identities:
                assert one not in found
                found[one] = op.want.set.elements[one]
    return found


@given(ELEMENTS, ELEMENTS)
def test_elements_reach_what_is_declared_and_equal_ones_are_left_alone(
    have: dict[bytes, bytes], want: dict[bytes, bytes]
) -> None:
    ops = table_ops(table_of([], {"s": set_of(want)}), table_of([], {"s": set_of(have)}), Terms())
    assert elements_after(have, ops) == want
    touched = {
        one
        for op in ops
        for thing in (op.want, op.have)
        if isinstance(thing, ElementsThing)
        for one in thing.identities
    }
    assert touched == {one for one in have.keys() | want.keys() if have.get(one) != want.get(one)}


@given(ELEMENTS, ELEMENTS)
def test_dynamic_sets_keep_what_packets_added(have: dict[bytes, bytes], want: dict[bytes, bytes]) -> None:
    ops = table_ops(
        table_of([], {"s": set_of(want, NFT_SET_EVAL)}),
        table_of([], {"s": set_of(have, NFT_SET_EVAL)}),
        Terms(),
    )
    if want:
        assert elements_after(have, ops) == {**have, **want}
    else:
        assert not ops


@given(ELEMENTS, ELEMENTS)
def test_elements_with_a_timeout_are_loaded_once(have: dict[bytes, bytes], want: dict[bytes, bytes]) -> None:
    temporary = frozenset(want)
    asked = table_of([], {"s": set_of(want, temporary=temporary)})
    there = table_of([], {"s": set_of(have, temporary=frozenset(have))})
    later = elements_after(have, table_ops(asked, there, Terms()))
    assert later == {one: body for one, body in have.items() if one in want}
    fresh = elements_after(have, table_ops(asked, there, Terms(reload=True)))
    assert fresh.keys() == want.keys()


@settings(max_examples=20)
@given(st.integers(500, 2000), st.randoms(use_true_random=False))
def test_a_moved_rule_in_a_long_chain_costs_one_op(length: int, random: object) -> None:
    names = [str(number).encode() for number in range(length)]
    there = [(handle, canon) for handle, canon in enumerate(names, 1)]
    at, to = random.randrange(length), random.randrange(length)  # type: ignore[attr-defined]
    moved = list(there)
    moved.insert(to, moved.pop(at))
    ops = table_ops(table_of([(0, canon) for canon in names]), table_of(moved), Terms())
    assert len(ops) == (0 if at == to else 1)
    assert [canon for _, canon in follow(moved, ops)] == names
