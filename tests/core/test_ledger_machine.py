# SPDX-License-Identifier: MIT
"""Whatever is done to it in whatever order, a ledger in a file is the one in memory, opened again too."""

from __future__ import annotations

import shutil
import tempfile
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from linxd.ledger import FileLedger, MemoryLedger
from linxd.patch import Claim, Entry, Key

keys = st.sampled_from([(kind, number) for kind in ("route", "link") for number in range(6)])
texts = st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2", "ü"]), max_size=2)
entries = st.none() | st.builds(
    Entry,
    st.sampled_from(Claim),
    original=texts,
    asked=texts,
    settled=texts,
    facts=st.dictionaries(st.just("ifindex"), st.integers(1, 9), max_size=1),
)
some_keys = st.lists(keys, max_size=6)
some_entries = st.lists(st.tuples(keys, entries), max_size=6)


class Ledgers(RuleBasedStateMachine):
    """Each call goes to both. Rewrites are due after every few records, in steps of two."""

    @initialize()
    def open(self) -> None:
        self.small = patch.multiple("linxd.ledger", _STEP=2, _GARBAGE=4)
        self.small.start()
        self.directory = tempfile.mkdtemp(prefix="linxd-ledger-")
        self.memory = MemoryLedger()
        self.dead: list[FileLedger] = []
        self.file = self.opened()

    def opened(self) -> FileLedger:
        return FileLedger(self.directory, boot_id="b", cookie=1, source="rtnl")

    @rule(what=some_entries)
    def intend(self, what: list[tuple[Key, Entry | None]]) -> None:
        self.memory.intend(what)
        self.file.intend(what)

    @rule(what=some_entries)
    def put(self, what: list[tuple[Key, Entry | None]]) -> None:
        self.memory.put(what)
        self.file.put(what)

    @rule(what=some_keys)
    def settle(self, what: list[Key]) -> None:
        self.memory.settle(what)
        self.file.settle(what)

    @rule(what=some_keys)
    def revert(self, what: list[Key]) -> None:
        self.memory.revert(what)
        self.file.revert(what)

    @rule()
    def settle_all(self) -> None:
        self.file.settle(self.memory.in_doubt())
        self.memory.settle(self.memory.in_doubt())

    @rule()
    def die_and_come_back(self) -> None:
        # What a killed process leaves behind: files as they are, a rewrite half done.
        self.dead.append(self.file)
        self.file = self.opened()
        assert self.file.problem is None
        assert self.file.note is None

    @invariant()
    def both_are_the_same(self) -> None:
        for kind in ("route", "link"):
            assert self.file.of(kind) == self.memory.of(kind)
        assert self.file.in_doubt() == self.memory.in_doubt()

    def teardown(self) -> None:
        for ledger in (*self.dead, self.file):
            ledger.close()
        self.small.stop()
        shutil.rmtree(self.directory)


TestLedgers = Ledgers.TestCase
TestLedgers.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
