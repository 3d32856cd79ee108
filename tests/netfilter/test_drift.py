# SPDX-License-Identifier: MIT
"""Every kind of drift: healed on its event in one transaction, what was not touched left as it was."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import NamedTuple

import pytest

from linxd.patch import Trigger

from .conftest import Bed, Watch

RULESET = """
table inet guarded {
	comment "all of it"
	counter hits {
	}
	set allow {
		type ipv4_addr
		flags interval
		elements = { 10.0.0.0/25, 192.0.2.7, 198.51.100.0-198.51.100.9 }
	}
	set plain {
		type inet_service
		elements = { 22, 80, 443 }
	}
	map verdicts {
		type inet_service : verdict
		elements = { 53 : jump inner, 99 : drop }
	}
	map marks {
		type ipv4_addr : mark
		flags interval
		elements = { 10.0.0.0/24 : 0x1, 10.0.1.0/24 : 0x2 }
	}
	chain inner {
		counter accept
	}
	chain input {
		type filter hook input priority 0; policy drop;
		ct state established,related counter accept comment "first"
		ip saddr @allow counter accept
		tcp dport { 1, 2, 3 } counter drop
		tcp dport vmap @verdicts
		tcp dport @plain counter name "hits" accept
		meta mark set ip saddr map @marks
		counter comment "last"
	}
	chain output {
		type filter hook output priority 0; policy accept;
		udp dport 9 counter
	}
}
"""
FOREIGN = """
table ip foreign {
	set s {
		type ipv4_addr
		elements = { 192.0.2.1 }
	}
	chain c {
		type filter hook input priority 5; policy accept;
		ip saddr @s counter packets 5 bytes 55
	}
}
"""


class Drift(NamedTuple):
    """What somebody does, by nft's own words; ``HANDLE n`` is the handle of the n-th rule of chain input."""

    name: str
    commands: tuple[str, ...]


DRIFTS = [
    Drift("rule deleted", ("delete rule inet guarded input HANDLE 2",)),
    Drift(
        "several rules deleted",
        ("delete rule inet guarded input HANDLE 1", "delete rule inet guarded input HANDLE 5"),
    ),
    Drift("rule with an anonymous set deleted", ("delete rule inet guarded input HANDLE 3",)),
    Drift("rule inserted", ("insert rule inet guarded input tcp dport 666 accept",)),
    Drift("rule appended", ("add rule inet guarded input counter accept",)),
    Drift(
        "rule with an anonymous set inserted", ("insert rule inet guarded input tcp dport { 6, 7 } accept",)
    ),
    Drift(
        "the same rule twice",
        ("insert rule inet guarded input accept", "add rule inet guarded input accept"),
    ),
    Drift(
        "rule moved",
        (
            "delete rule inet guarded input HANDLE 2",
            "add rule inet guarded input ip saddr @allow counter accept",
        ),
    ),
    Drift("rule edited in place", ("replace rule inet guarded input HANDLE 5 tcp dport @plain accept",)),
    Drift("chain flushed", ("flush chain inet guarded input",)),
    Drift("policy changed", ("add chain inet guarded input { policy accept ; }",)),
    Drift(
        "priority changed",
        (
            "delete chain inet guarded output",
            "add chain inet guarded output { type filter hook output priority 10 ; policy accept ; }",
            "add rule inet guarded output udp dport 9 counter",
        ),
    ),
    Drift("chain deleted", ("flush chain inet guarded output", "delete chain inet guarded output")),
    Drift("chain added", ("add chain inet guarded mine", "add rule inet guarded mine accept")),
    Drift(
        "base chain added",
        (
            "add chain inet guarded mine { type filter hook input priority -5 ; }",
            "add rule inet guarded mine accept",
        ),
    ),
    Drift("element removed", ("delete element inet guarded plain { 80 }",)),
    Drift("element added", ("add element inet guarded plain { 8080 }",)),
    Drift("interval removed", ("delete element inet guarded allow { 10.0.0.0/25 }",)),
    Drift("interval added", ("add element inet guarded allow { 203.0.113.0/24, 203.0.114.5 }",)),
    Drift("set flushed", ("flush set inet guarded allow",)),
    Drift(
        "verdict changed",
        ("delete element inet guarded verdicts { 99 }", "add element inet guarded verdicts { 99 : accept }"),
    ),
    Drift("jump element removed", ("delete element inet guarded verdicts { 53 }",)),
    Drift(
        "map interval changed",
        (
            "delete element inet guarded marks { 10.0.1.0/24 }",
            "add element inet guarded marks { 10.0.1.0/24 : 0x9 }",
        ),
    ),
    Drift(
        "set deleted",
        (
            "delete rule inet guarded input HANDLE 5",
            "flush set inet guarded plain",
            "delete set inet guarded plain",
        ),
    ),
    Drift(
        "set added",
        ("add set inet guarded more { type ipv4_addr ; }", "add element inet guarded more { 192.0.2.1 }"),
    ),
    Drift(
        "counter deleted", ("delete rule inet guarded input HANDLE 5", "delete counter inet guarded hits")
    ),
    Drift("counter added", ("add counter inet guarded mine",)),
    Drift("dormant", ("add table inet guarded { flags dormant ; }",)),
    Drift("table deleted", ("delete table inet guarded",)),
    Drift("table flushed", ("flush table inet guarded",)),
    Drift(
        "table replaced by another",
        ("delete table inet guarded", "add table inet guarded", "add chain inet guarded input"),
    ),
]


def commands_of(bed: Bed, drift: Drift) -> str:
    """One nft text: one transaction, so that one event tells of all of it."""
    listed = bed.nft("-a", "list", "chain", "inet", "guarded", "input")
    handles = re.findall(r"# handle (\d+)$", listed.split("policy", 1)[1], re.M)

    def handle(match: re.Match[str]) -> str:
        return f"handle {handles[int(match[1]) - 1]}"

    return "".join(re.sub(r"HANDLE (\d+)", handle, command) + "\n" for command in drift.commands)


def sections(listing: str) -> dict[str, str]:
    """A table's listing by object: the order of sets and chains in it is that of their making."""
    found: dict[str, str] = {}
    for part in re.split(r"^\t(?=\S)", listing, flags=re.M):
        found[part.split("{")[0].strip()] = part.rstrip("}\n\t ")
    return found


async def settled(bed: Bed) -> Watch:
    bed.nft(text=FOREIGN)
    bed.declare(RULESET)
    watch = bed.watch()
    report = await bed.run(Trigger.START)
    assert report.converged, report.conditions
    return watch


@pytest.mark.parametrize("drift", DRIFTS, ids=lambda drift: drift.name.replace(" ", "-"))
async def test_drift_is_healed_on_its_event_in_one_transaction(drift: Drift, bed: Bed) -> None:
    watch = await settled(bed)
    good, foreign = (
        sections(bed.nft("-s", "list", "table", "inet", "guarded")),
        bed.nft("-a", "list", "table", "ip", "foreign"),
    )
    commits, writes = bed.source.commits, len(bed.writes)

    bed.nft(text=commands_of(bed, drift))
    report = await watch.heal()

    assert report.converged, report.conditions
    assert sections(bed.nft("-s", "list", "table", "inet", "guarded")) == good
    assert bed.nft("-a", "list", "table", "ip", "foreign") == foreign
    assert (bed.source.commits - commits, len(bed.writes) - writes) == (1, 1)
    assert report.applied
    assert report.heal_usec > 0
    assert {culprit.comm for culprit in report.culprits.values()} == {"nft"}
    assert report.culprits.keys() == {op.key for op in report.drifted}

    # Our own commit is no news, and a look at everything agrees.
    await asyncio.sleep(0)
    assert not watch.hints
    report = await bed.run()
    assert not report.drifted, [op.describe() for op in report.drifted]
    assert not watch.hints


@pytest.mark.parametrize("drift", DRIFTS, ids=lambda drift: drift.name.replace(" ", "-"))
async def test_drift_is_healed_by_the_resync_alone(drift: Drift, bed: Bed) -> None:
    bed.declare(RULESET)
    await bed.run(Trigger.START)
    good = sections(bed.nft("-s", "list", "table", "inet", "guarded"))

    bed.nft(text=commands_of(bed, drift))
    report = await bed.run()

    assert report.converged, report.conditions
    assert report.applied
    assert sections(bed.nft("-s", "list", "table", "inet", "guarded")) == good
    assert not (await bed.run()).drifted


async def test_flush_ruleset_brings_back_ours_and_leaves_theirs_gone(bed: Bed) -> None:
    watch = await settled(bed)
    good = sections(bed.nft("-s", "list", "table", "inet", "guarded"))
    bed.nft("flush", "ruleset")
    report = await watch.heal()
    assert [op.describe() for op in report.applied] == ["create table inet guarded"]
    assert sections(bed.nft("-s", "list", "table", "inet", "guarded")) == good
    assert bed.nft("list", "tables") == "table inet guarded\n"


async def test_counters_of_untouched_rules_keep_counting(make_bed: Callable[[], Bed]) -> None:
    bed = make_bed()
    watch = await settled(bed)
    bed.ip("link set lo up")
    bed.ping("127.0.0.1")
    before = counters(bed)
    assert before["output"] >= 0
    kept = {
        chain: re.findall(r"# handle (\d+)", bed.nft("-a", "list", "chain", "inet", "guarded", chain))
        for chain in ("input", "inner", "output")
    }
    bed.nft("insert", "rule", "inet", "guarded", "input", "tcp", "dport", "666", "accept")
    await watch.heal()
    bed.nft(text=commands_of(bed, Drift("", ("delete rule inet guarded input HANDLE 3",))))
    await watch.heal()
    after = {
        chain: re.findall(r"# handle (\d+)", bed.nft("-a", "list", "chain", "inet", "guarded", chain))
        for chain in kept
    }
    assert after["inner"] == kept["inner"]
    assert after["output"] == kept["output"]
    assert [old == new for old, new in zip(kept["input"], after["input"], strict=True)].count(False) == 1
    assert counters(bed)["last"] >= before["last"] > 0


def counters(bed: Bed) -> dict[str, int]:
    listed = bed.nft("list", "table", "inet", "guarded")
    output = re.search(r"udp dport 9 counter packets (\d+)", listed)
    last = re.search(r'counter packets (\d+) bytes \d+ comment "last"', listed)
    assert output
    assert last
    return {"output": int(output[1]), "last": int(last[1])}
