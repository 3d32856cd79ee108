# SPDX-License-Identifier: MIT
"""The diff, carried out on a model of the kernel that follows the table of cascades: it reaches what is
declared, gives back what was first, and writes nothing twice."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from linxd.ledger import MemoryLedger
from linxd.patch import Condition, State
from linxd.sources.sysctl.cascades import write
from linxd.sources.sysctl.diff import again, diff, found_first
from linxd.sources.sysctl.expand import Wanted, directories, expand
from linxd.sources.sysctl.model import Desired, Path, Setting, Sysctl, dotted, interface_of, key_of
from linxd.sources.sysctl.observed import Observed
from linxd.sources.sysctl.values import same

LINKS = ("e0", "e1", "e2")
PLACES = ("all", "default", *LINKS)
V4, V6 = ("net", "ipv4", "conf"), ("net", "ipv6", "conf")
KEYS: list[Path] = [
    ("net", "ipv4", "ip_forward"),
    ("net", "core", "somaxconn"),
    *((*V4, place, "forwarding") for place in PLACES),
    *((*V4, place, "accept_redirects") for place in PLACES),
    *((*V6, place, "forwarding") for place in PLACES),
    *((*V6, place, "disable_ipv6") for place in PLACES),
]
TWINS = (("net", "ipv4", "ip_forward"), (*V4, "all", "forwarding"))
GLOBS: list[Path] = [(*V4, "*", "forwarding"), (*V6, "*", "disable_ipv6"), (*V4, "*", "accept_redirects")]
NEIGH = ("net", "ipv4", "neigh", "e0")
COARSE, FINE = (*NEIGH, "base_reachable_time"), (*NEIGH, "base_reachable_time_ms")
ROOTS = (
    *TWINS,
    ("net", "core", "somaxconn"),
    (*V6, "all", "forwarding"),
    (*V6, "all", "disable_ipv6"),
    FINE,
)
"""Keys that no other key changes, but for their other form."""
BIT = st.sampled_from(("0", "1"))
SECONDS = st.sampled_from(("1", "2"))
MSEC = st.sampled_from(("1000", "1500", "2000"))
Values = dict[Path, str]


def kernels(draw: st.DrawFn) -> Values:
    values = {path: draw(BIT) for path in KEYS}
    values[TWINS[1]] = values[TWINS[0]]  # one value under two names
    values[FINE] = draw(MSEC)
    values[COARSE] = str(int(values[FINE]) // 1000)
    return values


def declarations(draw: st.DrawFn) -> Values:
    declared = draw(st.dictionaries(st.sampled_from([*KEYS, *GLOBS]), BIT, max_size=10))
    for path, value in ((COARSE, SECONDS), (FINE, MSEC)):
        if draw(st.booleans()):
            declared[path] = draw(value)
    return declared


KERNELS = st.composite(kernels)()
DECLARED = st.composite(declarations)()


class Model:
    """Keys, a ledger, and passes over them."""

    def __init__(self, values: Values) -> None:
        self.values = dict(values)
        self.owned = MemoryLedger()
        self.writes = 0

    def look(self, declared: Mapping[Path, str]) -> tuple[Observed, Wanted]:
        desired = Desired(tuple(Setting(path, value) for path, value in declared.items()))
        listing = {place: frozenset(PLACES) for place in directories([*KEYS, *GLOBS, COARSE])}
        wanted = expand(desired, listing)
        indices = {name: number for number, name in enumerate(LINKS, 2)}
        observed = Observed(dict(self.values), {}, frozenset(), frozenset(), listing, indices)
        return observed, wanted

    def go(self, declared: Mapping[Path, str]) -> tuple[list[Condition], Wanted]:
        """One patch, carried out as `Rounds` and `Applier` do."""
        observed, wanted = self.look(declared)
        patch = diff(observed, wanted, self.owned.of("sysctl"))
        self.owned.put((key, entry) for key, entry in patch.adopt if entry is None)
        self.owned.put((key, entry) for key, entry in patch.adopt if entry is not None)
        unknown = [op for op in patch.ops if op.after is not None and self.owned.get(op.key) is None]
        self.owned.put((op.key, found_first(op.after)) for op in unknown if op.after is not None)
        assert len({op.key for op in patch.ops}) == len(patch.ops)
        for op in patch.ops:
            assert isinstance(op.want, Sysctl)
            self.owned.put([(op.key, op.after)])
            path, value = op.want.via or (op.want.path, op.want.value)
            if not (same(self.values[op.want.path], op.want.value) and same(self.values[path], value)):
                self.writes += 1
                write(self.values, path, value)
                assert self.values[op.want.path] == op.want.value
        return list(patch.conditions), wanted

    def settle(self, declared: Mapping[Path, str]) -> tuple[list[Condition], Wanted]:
        """Passes until one writes nothing; it must be the second, or a third that only forgets."""
        conditions, wanted = self.go(declared)
        written = self.writes
        for _ in range(2):
            self.go(declared)
        assert self.writes == written, "a second pass writes again"
        return conditions, wanted


def kept(wanted: Wanted) -> Values:
    return {path: want.value for path, want in wanted.of.items() if path not in wanted.refused}


@given(KERNELS, DECLARED)
@settings(max_examples=400, deadline=None)
def test_one_patch_reaches_what_is_declared(values: Values, declared: dict[Path, str]) -> None:
    model = Model(values)
    conditions, wanted = model.settle(declared)
    for path, value in kept(wanted).items():
        assert model.values[path] == value, dotted(path)
    assert {c.key for c in conditions if c.state is State.FAILED} == {key_of(p) for p in wanted.refused}
    assert set(wanted.refused) <= {*TWINS, COARSE, FINE}
    assert len(wanted.refused) in (0, 2, 4)


@given(KERNELS, DECLARED)
@settings(max_examples=200, deadline=None)
def test_what_is_as_declared_is_left_alone(values: Values, declared: dict[Path, str]) -> None:
    model = Model(values)
    _, wanted = model.look(declared)
    if wanted.refused:
        return
    for path, value in kept(wanted).items():
        model.values[path] = value
    for path, value in kept(wanted).items():
        if path in TWINS:
            model.values.update(dict.fromkeys(TWINS, value))
        elif path == FINE:
            model.values[COARSE] = str(int(value) // 1000)
        elif path == COARSE and FINE not in wanted.of:
            model.values[FINE] = value + "000"
    before = dict(model.values)
    model.settle(declared)
    assert model.writes == 0
    model.settle({})
    assert (model.writes, model.values) == (0, before)


@given(KERNELS, DECLARED, st.lists(st.tuples(st.sampled_from(KEYS), BIT), max_size=6))
@settings(max_examples=400, deadline=None)
def test_drift_is_undone_and_what_was_first_comes_back(
    values: Values, declared: dict[Path, str], drift: list[tuple[Path, str]]
) -> None:
    model = Model(values)
    _, wanted = model.settle(declared)
    mine = kept(wanted)
    for path, value in drift:
        write(model.values, path, value)
    model.settle(declared)
    assert {path: model.values[path] for path in mine} == mine
    model.settle({})
    model.settle({})
    assert not model.owned.of("sysctl")
    assert {path: model.values[path] for path in mine} == {path: values[path] for path in mine}


@given(KERNELS, st.lists(DECLARED, min_size=1, max_size=3), st.sampled_from(KEYS), BIT)
@settings(max_examples=400, deadline=None)
def test_what_a_key_alone_calls_for_is_what_the_diff_finds(
    values: Values, declarations: list[Values], path: Path, to: str
) -> None:
    model = Model(values)
    for declared in declarations:
        _, wanted = model.settle(declared)
    want, entry = wanted.of.get(path), model.owned.get(key_of(path))
    if want is None or entry is None or path in wanted.refused:
        return
    model.values[path] = to
    observed, _ = model.look(declared)
    op = again(want, to, entry, observed.indices.get(interface_of(path) or ""))
    only = replace(observed, only=frozenset((path,)))
    if op is not None:
        assert diff(only, wanted, model.owned.of("sysctl")).ops == (op,)
        assert op.after is entry
    elif to != want.value:
        # The first value is still to be written down.
        assert entry.original == {}


@given(KERNELS, st.lists(DECLARED, min_size=1, max_size=4))
@settings(max_examples=600, deadline=None)
def test_what_was_first_survives_any_row_of_declarations(
    values: Values, declarations: list[dict[Path, str]]
) -> None:
    """Whatever comes and goes in whatever form, the keys that others follow end with their first values."""
    model = Model(values)
    for declared in declarations:
        _, wanted = model.settle(declared)
        assert {path: model.values[path] for path in kept(wanted)} == kept(wanted)
    model.settle({})
    model.settle({})
    assert {path: model.values[path] for path in ROOTS} == {path: values[path] for path in ROOTS}
    assert not model.owned.of("sysctl")


@given(KERNELS, DECLARED, st.sets(st.sampled_from(KEYS), max_size=5))
@settings(max_examples=200, deadline=None)
def test_a_key_that_is_not_there_or_read_only_is_a_matter_of_that_key_alone(
    values: Values, declared: dict[Path, str], bad: set[Path]
) -> None:
    model = Model(values)
    observed, wanted = model.look(declared)
    less = {path: value for path, value in values.items() if path not in bad}
    troubles = dict.fromkeys(bad, errno.ENOENT)
    patch = diff(replace(observed, values=less, troubles=troubles), wanted, {})
    assert not {op.key for op in patch.ops} & {key_of(path) for path in bad}
    exact = {key_of(path) for path in bad & declared.keys() - wanted.refused.keys()}
    assert exact <= {c.key for c in patch.conditions if c.state is State.PENDING}
    fixed = diff(replace(observed, readonly=frozenset(bad)), wanted, {})
    for condition in fixed.conditions:
        assert condition.key in {key_of(path) for path in bad | set(wanted.refused)}
