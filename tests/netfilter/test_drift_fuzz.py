# SPDX-License-Identifier: MIT
"""Random rulesets, random drifts at random moments by several writers at once, on the real kernel.

After the last drift the listing is what it was, the next pass writes nothing, and a foreign table is as it
was. `LINXD_FUZZ_SEED` and `LINXD_FUZZ_N` choose the run; a failure prints both.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator

from linxd.loop import Loop
from linxd.patch import Report
from linxd.sources.netfilter.model import Desired

from .conftest import Bed

SEED = int(os.environ.get("LINXD_FUZZ_SEED", random.randrange(1 << 32)))
DRIFTS = int(os.environ.get("LINXD_FUZZ_N", 120))
ADDRESSES = [f"10.{n}.0.{n}" for n in range(1, 9)]
RULES = (
    "ct state established,related counter accept",
    "ip saddr @allow counter accept",
    "tcp dport { 1, 2, 3 } counter drop",
    "tcp dport { 22, 80 } accept",
    "tcp dport vmap { 53 : jump inner, 99 : drop }",
    "udp dport 53 limit rate 5/second accept",
    'counter name "hits" comment "named"',
    "meta mark set 7 counter",
    'ip daddr 192.0.2.0/24 log prefix "seen " accept',
    "icmp type echo-request accept",
)
FOREIGN = """
table ip foreign {
	set s { type ipv4_addr; elements = { 192.0.2.1 }; }
	chain c { type filter hook input priority 5; policy accept; ip saddr @s counter packets 5 bytes 55; }
}
"""


def ruleset(rng: random.Random) -> str:
    rules = "\n".join(f"\t\t{rule}" for rule in rng.sample(RULES, rng.randrange(3, len(RULES))))
    elements = ", ".join(rng.sample(ADDRESSES, rng.randrange(1, 6)))
    ranges = ", ".join(
        rng.sample(["10.0.0.0/25", "192.0.2.7", "198.51.100.0-198.51.100.9", "203.0.113.0/24"], 2)
    )
    policy = rng.choice(("accept", "drop"))
    priority = rng.choice((0, 5, -100))
    second = rng.choice(("", "table ip other {\n\tchain c {\n\t\tcounter\n\t}\n}\n"))
    return f"""
table inet guarded {{
	counter hits {{ }}
	set allow {{ type ipv4_addr; elements = {{ {elements} }}; }}
	set wide {{ type ipv4_addr; flags interval; elements = {{ {ranges} }}; }}
	chain inner {{ counter accept; }}
	chain input {{
		type filter hook input priority {priority}; policy {policy};
{rules}
		ip daddr @wide drop
	}}
}}
{second}"""


def drift(rng: random.Random) -> str:
    address = rng.choice(ADDRESSES)
    rule = rng.choice(RULES)
    return rng.choice(
        (
            f"delete element inet guarded allow {{ {address} }}",
            f"add element inet guarded allow {{ {address} }}",
            "flush set inet guarded allow",
            "flush set inet guarded wide",
            "add element inet guarded wide { 172.16.0.0/12 }",
            f"insert rule inet guarded input {rule}",
            f"add rule inet guarded input {rule}",
            f"add rule inet guarded inner {rule}",
            "flush chain inet guarded input",
            "flush chain inet guarded inner",
            "delete rule inet guarded input handle {handle}",
            "delete rule inet guarded input handle {handle}",
            "replace rule inet guarded input handle {handle} counter drop",
            "add chain inet guarded input {{ policy accept ; }}",
            "add chain inet guarded input {{ policy drop ; }}",
            "add chain inet guarded strange",
            "add set inet guarded strange2 {{ type mark ; }}",
            "add table inet guarded {{ flags dormant ; }}",
            "delete table inet guarded",
            "delete table ip other",
            "flush table inet guarded",
            "reset counters",
        )
    )


@contextlib.asynccontextmanager
async def running(bed: Bed, reports: list[Report]) -> AsyncIterator[Loop[Desired, object]]:
    loop = Loop(bed.source, bed.desired, owned=bed.owned, resync=0, on_report=reports.append, name="c1")
    task = asyncio.create_task(loop.run())
    try:
        await asyncio.wait_for(loop.first_pass_done.wait(), 20)
        yield loop
    finally:
        loop.stop()
        await task


async def attack(bed: Bed, commands: list[str], rng: random.Random) -> None:
    for command in commands:
        if "{handle}" in command:
            listed = bed.nft("-a", "list", "chain", "inet", "guarded", "input", check=False)
            handles = [line.split()[-1] for line in listed.splitlines() if "# handle" in line][1:] or ["1"]
            command = command.replace("{handle}", rng.choice(handles))
        process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", bed.name, "nft", command.replace("{{", "{").replace("}}", "}"),
            stderr=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await process.wait()
        await asyncio.sleep(rng.choice((0, 0, 0.001, 0.02)))


async def test_whatever_happens_it_ends_as_declared(bed: Bed) -> None:
    print(f"seed {SEED}, {DRIFTS} drifts")
    rng = random.Random(SEED)
    bed.nft(text=FOREIGN)
    foreign = bed.nft("list", "table", "ip", "foreign")
    reports: list[Report] = []
    bed.declare(ruleset(rng))
    async with running(bed, reports) as loop:
        good = tables(bed.list())
        left = DRIFTS
        story: list[str] = []
        while left > 0:
            story = [drift(rng) for _ in range(min(left, rng.randrange(1, 7)))]
            left -= len(story)
            writers = rng.choice((1, 2, 3))
            await asyncio.gather(*(attack(bed, story[n::writers], rng) for n in range(writers)))
            if rng.random() < 0.25:
                loop.declare(bed.declare(ruleset(rng)))
                report = await loop.request()
                good = await fresh(bed)
                assert report.converged, (SEED, story, report.conditions)
            for attempt in range(300):
                if tables(bed.list()) == good:
                    break
                loop._gate.declared()
                await asyncio.sleep(0.02)
                assert attempt < 250, (
                    SEED,
                    story,
                    tables(bed.list()),
                    good,
                    [r.conditions for r in reports[-4:]],
                )
            loop._gate.declared()
    written = len(bed.writes)
    report = await bed.run()
    assert not report.drifted, [op.describe() for op in report.drifted]
    assert len(bed.writes) == written
    assert bed.nft("list", "table", "ip", "foreign") == foreign


async def fresh(bed: Bed) -> list[str]:
    """What nft itself makes of the same text beside the same foreign table, in a namespace of its own."""
    other = Bed()
    try:
        other.nft(text=FOREIGN)
        other.nft(text=bed.desired.rulesets[0].text)
        return tables(other.list())
    finally:
        other.remove()


def tables(listed: str) -> list[str]:
    """A listing, table by table: they stand in it in the order in which they were made."""
    return sorted(f"table {part.strip()}" for part in listed.split("table ") if part.strip())
