# SPDX-License-Identifier: MIT
"""Whose table it is: made, found, taken, foreign, iptables-nft's; kept over restarts and crashes."""

from __future__ import annotations

from pathlib import Path

import pytest

from linxd.ledger import FileLedger, MemoryLedger
from linxd.netlink.nft import batch, nfgen
from linxd.netlink.wire import NLM_F_APPEND, NLM_F_CREATE, nested, pack_attr
from linxd.patch import Claim, State, Trigger
from linxd.sources.netfilter import names as n

from .conftest import Bed

OURS = """
table inet ours {
	chain input {
		type filter hook input priority 0; policy drop;
		tcp dport 22 accept
	}
}
"""
OTHER = OURS.replace("policy drop", "policy accept").replace("22", "23")
THEIRS = """
table ip theirs {
	chain c {
		ip saddr 192.0.2.1 counter packets 1 bytes 1
	}
}
"""
KEY = ("table", "inet", "ours")


def claim(bed: Bed) -> Claim | None:
    entry = bed.owned.get(KEY)
    return None if entry is None else entry.claim


def tables(bed: Bed) -> list[str]:
    return bed.nft("list", "tables").split("\n")[:-1]


async def test_a_table_that_linxd_made_goes_with_its_declaration(bed: Bed) -> None:
    bed.nft(text=THEIRS)
    theirs = bed.nft("-a", "list", "table", "ip", "theirs")
    await bed.apply(OURS)
    assert claim(bed) is Claim.MADE
    report = await bed.apply("")
    assert [op.describe() for op in report.applied] == ["delete table inet ours"]
    assert bed.nft("-a", "list", "table", "ip", "theirs") == theirs
    assert tables(bed) == ["table ip theirs"]
    assert claim(bed) is None


async def test_a_table_undeclared_while_stopped_is_deleted_at_the_start(bed: Bed) -> None:
    await bed.apply(OURS)
    bed.declare("")
    bed.new_source()
    report = await bed.run(Trigger.START)
    assert [op.describe() for op in report.applied] == ["delete table inet ours"]
    assert tables(bed) == []


async def test_one_of_several_tables_goes_and_the_others_are_not_touched(bed: Bed) -> None:
    await bed.apply(OURS + THEIRS)
    before = bed.nft("-a", "list", "table", "inet", "ours")
    report = await bed.apply(OURS)
    assert [op.describe() for op in report.applied] == ["delete table ip theirs"]
    assert bed.nft("-a", "list", "table", "inet", "ours") == before


async def test_a_different_table_that_stood_there_first_is_a_conflict(bed: Bed) -> None:
    bed.nft(text=OTHER)
    before = bed.nft("-a", "list", "ruleset")
    report = await bed.apply(OURS + THEIRS)
    [condition] = report.conditions
    assert condition.state is State.CONFLICT
    assert condition.key == KEY
    assert "policy accept -> drop" in condition.text
    assert "(and 2 more)" in condition.text
    # the other declared table is no part of the quarrel
    assert [op.describe() for op in report.applied] == ["create table ip theirs"]
    assert bed.nft("-a", "list", "table", "inet", "ours") == before.rstrip("\n") + "\n"
    assert claim(bed) is None
    assert not bed.source.loaded_once
    # and stays one, said again by every look at everything, at no cost
    written = len(bed.writes)
    assert (await bed.run()).conditions == report.conditions
    assert len(bed.writes) == written


@pytest.mark.parametrize(
    ("there", "back"),
    [
        ("add element inet ours s { 192.0.2.2 }", "delete element inet ours s { 192.0.2.2 }"),
        ("add chain inet ours more", "delete chain inet ours more"),
        ("add rule inet ours other tcp dport 5", "delete rule inet ours other handle {}"),
    ],
)
async def test_a_conflict_is_not_over_because_something_else_changes(
    bed: Bed, there: str, back: str
) -> None:
    """What an event names is as declared again; the rest is another's as before."""
    theirs = OTHER.replace("ours {", "ours {\n\tset s { type ipv4_addr; }\n\tchain other { }\n", 1)
    bed.nft(text=theirs)
    watch = bed.watch()
    report = await bed.apply(theirs.replace("23", "22"))
    assert [condition.state for condition in report.conditions] == [State.CONFLICT]
    bed.nft(there)
    await watch.heal()
    if "{}" in back:
        listed = bed.nft("-a", "list", "chain", "inet", "ours", "other")
        back = back.format(next(line.split()[-1] for line in listed.splitlines() if "dport 5" in line))
    bed.nft(back)
    report = await watch.heal()
    assert [condition.state for condition in report.conditions] == [State.CONFLICT]
    assert claim(bed) is None
    written = len(bed.writes)
    assert (await bed.run()).conditions == report.conditions
    assert len(bed.writes) == written
    assert "tcp dport 23" in bed.list()


async def test_a_conflict_ends_when_the_other_table_goes(bed: Bed) -> None:
    bed.nft(text=OTHER)
    bed.declare(OURS)
    watch = bed.watch()
    assert (await bed.run(Trigger.START)).conditions
    bed.nft("delete", "table", "inet", "ours")
    report = await watch.heal()
    assert report.converged
    assert [op.describe() for op in report.applied] == ["create table inet ours"]
    assert KEY in report.looked
    assert claim(bed) is Claim.MADE


async def test_a_foreign_table_is_taken_over_in_one_transaction(bed: Bed) -> None:
    bed.nft(text=OTHER + THEIRS)
    theirs = bed.nft("-a", "list", "table", "ip", "theirs")
    report = await bed.apply(OURS, take=True)
    assert [op.verb for op in report.applied] == ["recreate"]
    assert len(bed.writes) == 1
    assert claim(bed) is Claim.TAKEN
    assert bed.nft("-a", "list", "table", "ip", "theirs") == theirs
    assert "tcp dport 22" in bed.list()
    assert not (await bed.run()).drifted
    report = await bed.apply("")
    assert [op.describe() for op in report.applied] == ["delete table inet ours"]


async def test_an_equal_table_is_found_guarded_and_left_when_undeclared(bed: Bed) -> None:
    bed.nft(text=OURS)
    report = await bed.apply(OURS)
    assert not report.drifted
    assert not bed.writes
    assert claim(bed) is Claim.FOUND
    bed.nft("flush", "table", "inet", "ours")
    assert (await bed.run()).applied
    bed.nft("delete", "table", "inet", "ours")
    assert (await bed.run()).applied
    assert claim(bed) is Claim.FOUND
    report = await bed.apply("")
    assert not report.drifted
    assert tables(bed) == ["table inet ours"]
    assert claim(bed) is None


async def test_without_its_ledger_a_table_that_bears_the_mark_is_ours(bed: Bed) -> None:
    await bed.apply(OURS)
    bed.nft("add", "rule", "inet", "ours", "input", "accept")
    bed.owned = MemoryLedger()
    bed.new_source()
    report = await bed.run(Trigger.START)
    assert [op.verb for op in report.applied] == ["delete"]
    assert claim(bed) is Claim.MADE

    bed.owned = MemoryLedger()
    bed.declare("")
    bed.new_source()
    report = await bed.run(Trigger.START)
    assert [op.describe() for op in report.applied] == ["delete table inet ours"]


async def test_the_mark_shows_in_no_listing(bed: Bed) -> None:
    await bed.apply(OURS)
    bed.nft("add", "table", "inet", "plain")
    ours = bed.nft("list", "table", "inet", "ours")
    assert ours.strip() == OURS.strip().replace("priority 0", "priority filter")
    assert "linxd" not in bed.nft("-j", "list", "ruleset")


async def test_without_its_ledger_an_unmarked_table_is_not_ours(bed: Bed) -> None:
    bed.nft(text=OURS)
    bed.declare("")
    assert not (await bed.run(Trigger.START)).drifted
    assert tables(bed) == ["table inet ours"]


async def test_foreign_tables_go_if_the_policy_says_so(bed: Bed) -> None:
    bed.nft(text=THEIRS)
    report = await bed.apply(OURS, foreign_remove=True)
    assert sorted(op.describe() for op in report.applied) == [
        "create table inet ours",
        "delete table ip theirs",
    ]
    assert tables(bed) == ["table inet ours"]
    watch = bed.watch()
    await bed.run()
    bed.nft(text=THEIRS)
    report = await watch.heal()
    assert [op.describe() for op in report.applied] == ["delete table ip theirs"]


def iptables_rule(bed: Bed, family: int, table: str, chain: str) -> None:
    """Write what iptables-nft writes for ``-m comment --comment hello``: a match of xtables."""
    info = pack_attr(1, b"comment\0") + pack_attr(2, bytes(4)) + pack_attr(3, b"hello".ljust(256, b"\0"))
    expression = nested(1, pack_attr(1, b"match\0"), nested(2, info))
    payload = nfgen(family) + pack_attr(1, table.encode() + b"\0") + pack_attr(2, chain.encode() + b"\0")
    request = (n.NEWRULE, NLM_F_CREATE | NLM_F_APPEND, payload + nested(n.NFTA_RULE_EXPRESSIONS, expression))
    results = bed.source.requests.transact(batch(None, [request]))
    if any(results):
        pytest.skip(f"this kernel has no xtables match: {results}")
    bed.sent.clear()


@pytest.mark.parametrize("take", [False, True])
async def test_a_table_with_iptables_rules_is_always_a_conflict(bed: Bed, take: bool) -> None:
    bed.nft(text=OURS)
    iptables_rule(bed, n.NFPROTO_INET, "ours", "input")
    before = bed.nft("-a", "list", "ruleset")
    report = await bed.apply(OURS, take=take)
    [condition] = report.conditions
    assert condition.state is State.CONFLICT
    assert "iptables-nft" in condition.text
    assert bed.nft("-a", "list", "ruleset") == before
    assert not bed.writes


async def test_iptables_rules_put_into_our_own_table_are_drift(bed: Bed) -> None:
    await bed.apply(OURS)
    iptables_rule(bed, n.NFPROTO_INET, "ours", "input")
    report = await bed.run()
    assert [op.verb for op in report.applied] == ["delete"]
    assert report.converged


# --- crashes ----------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class Dying(FileLedger):
    """A ledger whose process is killed at one of its calls."""

    dies_at = ""

    def intend(self, entries: object) -> None:
        super().intend(entries)  # type: ignore[arg-type]
        if self.dies_at == "intended":
            raise Killed

    def settle(self, keys: object) -> None:
        settled = list(keys)  # type: ignore[call-overload]
        if self.dies_at == "committed" and settled:
            raise Killed
        super().settle(settled)


def ledger(tmp_path: Path) -> Dying:
    return Dying(tmp_path, boot_id="boot", cookie=1, source="netfilter")


@pytest.mark.parametrize("moment", ["intended", "committed"])
async def test_killed_while_making_a_table_it_is_still_pruned_and_nothing_foreign_is_claimed(
    bed: Bed, tmp_path: Path, moment: str
) -> None:
    bed.owned = dying = ledger(tmp_path)
    dying.dies_at = moment
    with pytest.raises(Killed):
        await bed.apply(OURS)
    dying.close()
    there = moment == "committed"
    assert tables(bed) == (["table inet ours"] if there else [])

    # Un-declared while dead: ours goes …
    bed.owned = again = ledger(tmp_path)
    bed.declare("")
    bed.new_source()
    report = await bed.run(Trigger.START)
    assert [op.describe() for op in report.applied] == (["delete table inet ours"] if there else [])
    assert tables(bed) == []
    again.close()


async def test_killed_before_the_commit_somebody_elses_table_is_not_ours(bed: Bed, tmp_path: Path) -> None:
    bed.owned = dying = ledger(tmp_path)
    dying.dies_at = "intended"
    with pytest.raises(Killed):
        await bed.apply(OURS)
    dying.close()
    bed.nft(text=OURS)

    bed.owned = again = ledger(tmp_path)
    bed.new_source()
    assert not (await bed.run(Trigger.START)).drifted
    assert claim(bed) is Claim.FOUND
    assert not (await bed.apply("")).drifted
    assert tables(bed) == ["table inet ours"]
    again.close()


async def test_killed_after_deleting_a_table_its_successor_is_foreign(bed: Bed, tmp_path: Path) -> None:
    bed.owned = dying = ledger(tmp_path)
    await bed.apply(OURS)
    dying.dies_at = "committed"
    with pytest.raises(Killed):
        await bed.apply("")
    dying.close()
    bed.nft(text=OTHER)

    bed.owned = again = ledger(tmp_path)
    bed.new_source()
    bed.declare("")
    assert not (await bed.run(Trigger.START)).drifted
    assert tables(bed) == ["table inet ours"]
    again.close()
