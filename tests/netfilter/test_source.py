# SPDX-License-Identifier: MIT
"""What is run-time state, what a wrong declaration does, what events cost, and the source in a loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from linxd.loop import Loop, LoopState
from linxd.netlink.nft import NFNL_MSG_BATCH_BEGIN
from linxd.netlink.socket import Events, open_netlink
from linxd.netlink.wire import NETLINK_NETFILTER
from linxd.patch import Condition, Op, Report, State, Trigger
from linxd.source import Blocked, Pass
from linxd.sources.netfilter.compile import Compiler
from linxd.sources.netfilter.events import GROUPS
from linxd.sources.netfilter.faults import RulesetError
from linxd.sources.netfilter.model import Desired, Ruleset

from .conftest import Bed

BASE = """
table inet ours {
	set allow {
		type ipv4_addr
		elements = { 192.0.2.1, 192.0.2.2 }
	}
	chain input {
		type filter hook input priority 0; policy drop;
		ip saddr @allow accept
		tcp dport 22 counter accept
		udp dport 53 counter accept
	}
}
"""


# --- run-time state ---------------------------------------------------------------------------------

LIVE = """
table inet live {
	counter hits {
	}
	quota cap {
		over 1 mbytes
	}
	set seen {
		type ipv4_addr
		size 128
		flags dynamic,timeout
		timeout 5m
		counter
	}
	set guests {
		type ipv4_addr
		flags timeout
	}
	set both {
		type inet_service
		flags timeout
		elements = { 22, 80 timeout 1h }
	}
	set fixed {
		type ipv4_addr
		elements = { 127.0.0.1 }
		counter
	}
	set counted {
		type inet_service
		size 64
		flags dynamic
		elements = { 22 }
	}
	map lent {
		type ipv4_addr : inet_service
		elements = { 192.0.2.1 : 80 }
	}
	chain output {
		type filter hook output priority 0; policy accept;
		udp dport 9 counter name "hits" quota name "cap" continue
		udp dport 9 counter limit rate 1/second burst 3 packets quota 100 bytes continue
		ip daddr @fixed counter
		udp dport 9 add @seen { ip daddr } counter
		udp dport 9 add @counted { udp dport }
	}
}
"""


async def test_what_packets_change_is_no_drift(bed: Bed) -> None:
    bed.ip("link set lo up")
    await bed.apply(LIVE, filled=("inet live lent",))
    bed.ping("127.0.0.1", count=20)
    listed = bed.nft("list", "table", "inet", "live")
    assert "127.0.0.1 expires" in listed or "127.0.0.1 counter" in listed
    assert "packets 20" in listed
    for command in (
        "add element inet live guests { 10.0.0.1 timeout 1h }",
        "add element inet live guests { 10.0.0.2 }",
        "add element inet live seen { 10.9.9.9 }",
        "add element inet live lent { 192.0.2.2 : 81 }",
        "delete element inet live lent { 192.0.2.1 }",
        "delete element inet live both { 80 }",
    ):
        bed.nft(*command.split(" ", 4))
    bed.new_source()
    report = await bed.run(Trigger.START)
    assert not report.drifted, [op.describe() for op in report.drifted]
    assert report.converged


async def test_what_packets_change_is_no_drift_for_events_either(bed: Bed) -> None:
    bed.ip("link set lo up")
    bed.declare(LIVE)
    watch = bed.watch()
    await bed.run(Trigger.START)
    bed.nft("add", "element", "inet", "live", "guests", "{ 10.0.0.1 timeout 1h }")
    report = await watch.heal()
    assert not report.drifted
    assert bed.source.reads == 2
    # fixed elements of the same table are guarded
    bed.nft("delete", "element", "inet", "live", "fixed", "{ 127.0.0.1 }")
    assert len((await watch.heal()).applied) == 1
    bed.nft("delete", "element", "inet", "live", "both", "{ 22 }")
    assert [op.describe() for op in (await watch.heal()).applied] == ["create element inet live both { 22 }"]
    bed.nft("delete", "element", "inet", "live", "counted", "{ 22 }")
    assert len((await watch.heal()).applied) == 1


async def test_an_element_with_a_timeout_is_loaded_again_when_the_declaration_is_new(bed: Bed) -> None:
    await bed.apply(LIVE)
    bed.nft("delete", "element", "inet", "live", "both", "{ 80 }")
    assert not (await bed.run()).drifted
    report = await bed.apply(LIVE.replace("80 timeout 1h", "80 timeout 1h, 443 timeout 1h"))
    assert len(report.applied) == 2
    assert "443" in bed.list()
    assert "80" in bed.list()


async def test_quotas_and_limits_changed_by_hand_are_drift(bed: Bed) -> None:
    await bed.apply(LIVE)
    good = bed.list()
    bed.nft("add", "quota", "inet", "live", "cap", "{ over 5 mbytes ; }")
    assert bed.list() != good
    report = await bed.run()
    assert report.converged
    assert "over 1 mbytes" in bed.list()
    assert not (await bed.run()).drifted


# --- a wrong declaration ----------------------------------------------------------------------------


async def test_one_wrong_rule_among_many_and_nothing_is_applied(bed: Bed) -> None:
    await bed.apply(BASE)
    before = bed.nft("-a", "list", "ruleset")
    lines = "\n".join(f"\t\ttcp dport {port} accept" for port in range(100, 200))
    wrong = BASE.replace("udp dport 53 counter accept", f"{lines}\n\t\tjump nowhere\n{lines}")
    report = await bed.apply(wrong)
    assert bed.nft("-a", "list", "ruleset") == before
    [condition] = report.conditions
    assert condition.state is State.FAILED
    assert condition.text.startswith("test.nft:111:")
    assert "chain input of table inet ours" in condition.text
    assert "No such file or directory: jump nowhere" in condition.text
    assert "stays in force" in condition.text

    # what was in force is guarded all the while
    bed.nft("flush", "chain", "inet", "ours", "input")
    report = await bed.run()
    assert len(report.applied) == 3
    assert [condition.state for condition in report.conditions] == [State.FAILED]
    assert bed.source.compiler.runs == 2

    # and the mended text takes its place
    report = await bed.apply(wrong.replace("jump nowhere", "accept"))
    assert report.converged
    assert bed.list().count("tcp dport") == 201


async def test_a_wrong_declaration_at_the_start_blocks(bed: Bed) -> None:
    with pytest.raises(Blocked, match=r"test\.nft:5:3: set allow of table inet ours"):
        await bed.apply(BASE.replace("elements =", "elemnts ="))
    assert not bed.writes
    assert not bed.source.loaded_once
    with pytest.raises(RulesetError):
        await bed.source.check(bed.desired)


async def test_without_a_scratch_namespace_a_loaded_ruleset_stays_guarded(bed: Bed, tmp_path: Path) -> None:
    await bed.apply(BASE)
    cache = str(tmp_path)
    bed.new_source(Compiler(cache=cache))
    await bed.run(Trigger.START)
    # from here on nft and the interpreter are gone, as if no namespace could be had
    broken = Compiler(cache=cache)
    broken._load = None  # type: ignore[method-assign, assignment]
    bed.new_source(broken)
    bed.nft("flush", "chain", "inet", "ours", "input")
    report = await bed.run(Trigger.START)
    assert len(report.applied) == 3


async def test_loaded_once_tells_when_addresses_may_come(bed: Bed) -> None:
    assert not bed.source.loaded_once
    await bed.apply(BASE, required=True)
    assert bed.source.loaded_once


async def test_paused_it_tells_and_writes_nothing(bed: Bed) -> None:
    await bed.apply(BASE)
    written = len(bed.writes)
    bed.nft("flush", "chain", "inet", "ours", "input")
    report = await bed.run(write=False)
    assert len(report.drifted) == 3
    assert not report.applied
    assert {condition.state for condition in report.conditions} == {State.PENDING}
    assert len(bed.writes) == written
    report = await bed.run()
    assert len(report.applied) == 3
    assert report.converged


async def test_what_is_fought_over_is_left_and_the_rest_is_healed(bed: Bed) -> None:
    await bed.apply(BASE)
    bed.nft("flush", "chain", "inet", "ours", "input")

    def admit(op: Op) -> Condition | None:
        return Condition(op.key, op.name, State.CONTENDED, "busy") if "tcp dport 22" in op.name else None

    report = await bed.run(admit=admit)
    assert [op.name for op in report.applied] == [
        "rule inet ours input ip saddr @allow accept",
        "rule inet ours input udp dport 53 counter accept",
    ]
    assert [condition.state for condition in report.conditions] == [State.CONTENDED]
    report = await bed.run()
    assert [op.name for op in report.applied] == ["rule inet ours input tcp dport 22 counter accept"]
    assert bed.list().index("saddr") < bed.list().index("22") < bed.list().index("53")


async def test_what_leans_on_something_held_back_waits_for_it(bed: Bed) -> None:
    await bed.apply(BASE)
    bed.nft(text="flush chain inet ours input\ndelete set inet ours allow\n")

    def admit(op: Op) -> Condition | None:
        return Condition(op.key, op.name, State.CONTENDED, "busy") if op.key[0] == "set" else None

    report = await bed.run(admit=admit)
    assert len(report.applied) == 2
    waiting = [condition for condition in report.conditions if condition.state is State.PENDING]
    assert [condition.text for condition in waiting] == ["needs set inet ours allow"]


# --- events -----------------------------------------------------------------------------------------


async def test_a_quiet_resync_reads_nothing_and_writes_nothing(bed: Bed) -> None:
    bed.declare(BASE)
    bed.watch()
    await bed.run(Trigger.START)
    await bed.run()
    reads, sent = bed.source.reads, len(bed.sent)
    for _ in range(5):
        assert (await bed.run()).converged
    assert bed.source.reads == reads
    assert len(bed.sent) == sent + 5


async def test_other_tables_cause_no_pass_and_no_read(bed: Bed) -> None:
    bed.declare(BASE)
    watch = bed.watch()
    await bed.run(Trigger.START)
    reads = bed.source.reads
    for number in range(20):
        bed.nft("add", "table", "ip", f"t{number}")
        bed.nft("add", "chain", "ip", f"t{number}", "c")
    bed.nft("delete", "rule", "inet", "ours", "input", "handle", handle(bed, "tcp dport 22"))
    report = await watch.heal()
    assert len(report.applied) == 1
    assert bed.source.races == 0
    assert bed.source.reads == reads
    assert not watch.hints


def handle(bed: Bed, words: str) -> str:
    listed = bed.nft("-a", "list", "table", "inet", "ours")
    return next(line.split()[-1] for line in listed.splitlines() if words in line)


async def test_the_culprit_is_the_process_that_wrote(bed: Bed) -> None:
    bed.declare(BASE)
    watch = bed.watch()
    await bed.run(Trigger.START)
    bed.nft("flush", "set", "inet", "ours", "allow")
    report = await watch.heal()
    assert {culprit.comm for culprit in report.culprits.values()} == {"nft"}
    assert all(culprit.pid > 1 for culprit in report.culprits.values())
    # it is not blamed for what happens later
    bed.source.mirror.lose()
    assert not (await bed.run()).culprits


async def test_lost_events_lead_to_a_look_at_everything(bed: Bed) -> None:
    bed.declare(BASE)
    bed.source._open_events = lambda: Events(
        open_netlink(NETLINK_NETFILTER, netns_fd=bed.fd), GROUPS, receive_buffer=4096
    )
    watch = bed.watch()
    await bed.run(Trigger.START)
    good = bed.list()
    elements = ", ".join(f"10.1.{number >> 8}.{number & 255}" for number in range(5000))
    bed.nft(text=f"add element inet ours allow {{ {elements} }}\nflush chain inet ours input\n")
    while not watch.hints:
        await asyncio.sleep(0)
    assert None in [hint.key for hint in watch.hints]
    report = await bed.run()
    assert report.converged
    assert bed.list() == good


async def test_a_huge_transaction_is_read_again_instead_of_followed(bed: Bed) -> None:
    bed.declare(BASE)
    watch = bed.watch()
    await bed.run(Trigger.START)
    good, reads = bed.list(), bed.source.reads
    elements = ", ".join(f"10.1.{number >> 8}.{number & 255}" for number in range(5000))
    bed.nft(text=f"add element inet ours allow {{ {elements} }}\n")
    report = await watch.heal()
    assert [op.verb for op in report.applied] == ["delete"]
    assert "4992 more" in report.applied[0].describe()
    assert bed.list() == good
    assert bed.source.reads > reads


async def test_a_heal_sends_only_what_is_missing(bed: Bed) -> None:
    elements = ", ".join(f"10.1.{number >> 8}.{number & 255}" for number in range(10_000))
    rules = "\n".join(f"\t\tip saddr 10.2.{number >> 8}.{number & 255} counter" for number in range(2_000))
    bed.declare(BASE.replace("192.0.2.1, 192.0.2.2", elements).replace("tcp dport 22 counter accept", rules))
    watch = bed.watch()
    assert (await bed.run(Trigger.START)).converged
    await bed.run()
    reads = bed.source.reads
    bed.nft("delete", "element", "inet", "ours", "allow", "{ 10.1.3.4 }")
    sent = len(bed.sent)
    report = await watch.heal()
    assert [op.describe() for op in report.applied] == ["create element inet ours allow { 10.1.3.4 }"]
    assert bed.source.reads == reads
    assert sum(map(len, bed.sent[sent:])) < 300
    # what two processes did one after the other is healed in one go
    bed.nft("delete", "element", "inet", "ours", "allow", "{ 10.1.3.4 }")
    bed.nft("delete", "rule", "inet", "ours", "input", "handle", handle(bed, "10.2.5.5 counter"))
    commits = bed.source.commits
    await asyncio.sleep(0)
    report = await watch.heal()
    assert len(report.applied) == 2
    assert bed.source.commits == commits + 1
    assert not (await bed.run()).drifted


async def test_a_subscription_ends_without_a_trace(bed: Bed) -> None:
    bed.declare(BASE)
    await bed.run(Trigger.START)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        watch = bed.watch()
        bed.nft("add", "rule", "inet", "ours", "input", "counter")
        assert (await watch.heal()).applied
        watch.close()
    assert len(os.listdir("/proc/self/fd")) == before
    bed.nft("add", "rule", "inet", "ours", "input", "counter")
    await asyncio.sleep(0)
    assert not watch.hints
    assert (await bed.run()).applied


# --- links that come later --------------------------------------------------------------------------

EARLY = """
table netdev early {
	chain ingress {
		type filter hook ingress devices = { lo, later0 } priority 0; policy accept;
		counter
	}
}
"""


async def test_a_chain_on_a_link_that_comes_later_hangs_there_when_it_is_there(bed: Bed) -> None:
    bed.declare(EARLY)
    bed.watch()
    report = await bed.run(Trigger.START)
    assert {condition.state for condition in report.conditions} <= {State.PENDING}
    bed.ip("link add later0 type ifb")
    report = await bed.run()
    assert report.converged
    assert "later0" in bed.list()
    bed.ip("link del later0")
    bed.ip("link add later0 type ifb")
    assert (await bed.run()).converged
    assert "later0" in bed.list()


async def test_forwarding_to_a_link_follows_its_index(bed: Bed) -> None:
    bed.ip("link add out0 type ifb")
    text = """
table netdev early {
	chain ingress {
		type filter hook ingress device "lo" priority 0; policy accept;
		fwd to "out0"
	}
}
"""
    assert (await bed.apply(text)).converged
    assert 'fwd to "out0"' in bed.list()
    bed.ip("link del out0")
    bed.ip("link add veth7 type ifb")
    bed.ip("link add out0 type ifb")
    report = await bed.run()
    assert report.converged
    assert len(report.applied) == 2
    assert 'fwd to "out0"' in bed.list()


# --- in a loop --------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def running(bed: Bed, reports: asyncio.Queue[Report]) -> AsyncIterator[Loop[Desired, object]]:
    loop = Loop(bed.source, bed.desired, owned=bed.owned, resync=0, on_report=reports.put_nowait, name="c1")
    task = asyncio.create_task(loop.run())
    try:
        await asyncio.wait_for(loop.first_pass_done.wait(), 20)
        yield loop
    finally:
        loop.stop()
        await task


async def applied(reports: asyncio.Queue[Report]) -> Report:
    """The next report of a pass that changed something."""
    while True:
        report = await asyncio.wait_for(reports.get(), 10)
        if report.applied:
            return report


async def test_in_a_loop_drift_is_healed_by_itself(bed: Bed) -> None:
    reports: asyncio.Queue[Report] = asyncio.Queue()
    bed.declare(BASE)
    async with running(bed, reports) as loop:
        assert (await applied(reports)).trigger is Trigger.START
        while loop.state is not LoopState.CONVERGED:
            await asyncio.wait_for(reports.get(), 10)
        good = bed.list()
        for command in (
            "flush chain inet ours input",
            "delete table inet ours",
            "flush set inet ours allow",
        ):
            bed.nft(*command.split())
            report = await applied(reports)
            assert report.trigger is Trigger.EVENT
            assert report.heal_usec
            assert {culprit.comm for culprit in report.culprits.values()} == {"nft"}
            assert bed.list() == good
        loop.declare(bed.declare(BASE.replace("udp dport 53", "udp dport 54")))
        report = await applied(reports)
        assert report.trigger is Trigger.CONFIG
        assert len(report.applied) == 2
        await loop.plan()


async def test_a_heal_need_not_wait_for_a_look_at_everything(bed: Bed) -> None:
    """Drift that comes while everything is being read is healed from within the reading."""
    reports: asyncio.Queue[Report] = asyncio.Queue()
    elements = ", ".join(f"10.1.{number >> 8}.{number & 255}" for number in range(20_000))
    bed.declare(BASE.replace("192.0.2.1, 192.0.2.2", elements))
    async with running(bed, reports) as loop:
        await applied(reports)
        while loop.state is not LoopState.CONVERGED:
            await asyncio.wait_for(reports.get(), 10)
        await loop.request()
        bed.source.mirror.exact = False
        began, go = asyncio.Event(), asyncio.Event()
        read = bed.source._look.reader.messages

        async def messages(*arguments: object) -> object:
            began.set()
            await go.wait()
            return await read(*arguments)  # type: ignore[arg-type]

        bed.source._look.reader.messages = messages  # type: ignore[method-assign, assignment]
        asked = asyncio.ensure_future(loop.request())
        await began.wait()
        bed.nft("delete", "rule", "inet", "ours", "input", "handle", handle(bed, "tcp dport 22"))
        go.set()
        report = await applied(reports)
        assert report.trigger is Trigger.EVENT
        outer = await reports.get()
        assert (outer.trigger, outer.applied) == (Trigger.REQUEST, ())
        assert (await asked).converged


async def test_it_is_driven_in_a_few_lines_without_a_loop(bed: Bed) -> None:
    desired = Desired((Ruleset(BASE, "here"),))
    report = await bed.source.reconcile(Pass(desired, bed.owned))
    assert report.converged
    assert sum(sent[4:6] == NFNL_MSG_BATCH_BEGIN.to_bytes(2, "little") for sent in bed.sent) == 1


def test_importing_it_needs_neither_bus_nor_systemd(make_bed: Callable[[], Bed]) -> None:
    import subprocess
    import sys

    code = (
        "import sys; import linxd.sources.netfilter.source; "
        "print([name for name in sys.modules if name.split('.')[0] in ('dbus_next', 'systemd', 'pyroute2')])"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"
