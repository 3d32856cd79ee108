# SPDX-License-Identifier: MIT
"""A rule or elements that one transaction took away are back before the pass begins that accounts for it;
whatever comes between the two, nothing is written twice, nothing of others is lost, and nothing is said
that is not so.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from linxd.clock import BOOT
from linxd.loop import Loop
from linxd.netlink.errors import NetlinkError, lost
from linxd.netlink.socket import Request
from linxd.patch import Culprit, Key, Report
from linxd.source import Pass
from tests.bed.between import Between

from .conftest import Bed

OURS = """
table inet ours {
	set allow {
		type ipv4_addr
		elements = { 192.0.2.1, 192.0.2.2, 192.0.2.3 }
	}
	set nets {
		type ipv4_addr
		flags interval
		elements = { 10.1.0.0/24, 10.3.0.0/24 }
	}
	chain input {
		type filter hook input priority 0; policy accept;
		tcp dport 22 accept
		ip saddr @allow counter accept
		tcp dport 80 accept
		ip saddr @nets accept
		tcp dport 443 accept
	}
}
"""
TABLE: Key = ("table", "inet", "ours")
ELEMENT = "delete element inet ours allow { 192.0.2.2 }"
BACK: Key = ("element", "inet", "ours", "allow", "192.0.2.2")


class Told(Between):
    """A ruleset in a namespace, kept by a running loop."""

    def __init__(self, bed: Bed, loop: Loop[Any, Any], reports: list[Report]) -> None:
        super().__init__(loop, lambda: len(bed.writes))
        self.bed = bed
        self.reports = reports
        self.good = bed.list()

    async def until(self, holds: Any) -> None:
        for _ in range(500):
            if holds():
                return
            await asyncio.sleep(0.02)
        raise AssertionError(self.bed.list())

    async def drift(self, words: str) -> list[Report]:
        """Have nft do something, and wait for all that comes of it: the reports."""
        await self.begin()
        before = len(self.reports)
        self.bed.nft(*words.split())
        await self.until(lambda: len(self.reports) > before)
        await self.rest()
        return self.reports[before:]

    def rule(self, words: str) -> str:
        """The command that deletes a rule."""
        listed = self.bed.nft("-a", "list", "table", "inet", "ours")
        handle = next(line.split()[-1] for line in listed.splitlines() if words in line)
        return f"delete rule inet ours input handle {handle}"

    @property
    def missing(self) -> bool:
        return "192.0.2.2" not in self.bed.list()


@contextlib.asynccontextmanager
async def kept(bed: Bed) -> AsyncIterator[Told]:
    """At the end all is as declared, and a source that remembers nothing sees it so."""
    reports: list[Report] = []
    bed.declare(OURS)
    loop = Loop(
        bed.source,
        bed.desired,
        owned=bed.owned,
        resync=0,
        on_report=reports.append,
        name="c1",
        patience=lambda: bed.patience,
    )
    task = asyncio.create_task(loop.run())
    try:
        await asyncio.wait_for(loop.first_pass_done.wait(), 20)
        await asyncio.sleep(0.1)
        told = Told(bed, loop, reports)
        yield told
        told.then = told.before = lambda: None
        await told.rest()
    finally:
        loop.stop()
        await asyncio.wait_for(task, 20)
    bed.desired = loop.desired
    bed.new_source()
    before = len(bed.writes)
    report = await bed.run()
    assert (report.drifted, report.conditions) == ((), ())
    assert len(bed.writes) == before


def applied(reports: Sequence[Report]) -> list[Key]:
    return [op.key for report in reports for op in report.applied]


@pytest.mark.parametrize(
    "drift",
    [
        ELEMENT,
        "delete element inet ours nets { 10.3.0.0/24 }",
        "add element inet ours allow { 192.0.2.9 }",
        "tcp dport 22 accept",
        "ip saddr @allow",
        "ip saddr @nets",
        "tcp dport 443 accept",
        "add rule inet ours input tcp dport 99 accept",
        "insert rule inet ours input tcp dport 99 accept",
    ],
)
async def test_it_is_in_the_kernel_before_the_pass_begins(bed: Bed, drift: str) -> None:
    async with kept(bed) as told:
        words = drift if drift.split()[0] in ("add", "delete", "insert") else told.rule(drift)
        before, reads = told.written(), bed.source.reads
        reports = await told.drift(words)
        assert told.begun[0] == told.written() == before + 1
        assert [op.key for op in told.admitted] == applied(reports)
        assert len(told.admitted) == 1
        assert [op.describe() for r in reports for op in r.drifted] == [told.admitted[0].describe()]
        assert bed.list() == told.good
        assert bed.source.reads == reads
        assert [report.conditions for report in reports] == [()] * len(reports)
        assert reports[0].heal_usec > 0
        assert {culprit.comm for culprit in reports[0].culprits.values()} == {"nft"}


async def test_in_a_crowd_it_is_told_of_later(bed: Bed) -> None:
    bed.patience = 30.0
    async with kept(bed) as told:
        await told.begin()
        before = len(told.reports)
        bed.nft(*ELEMENT.split())
        await told.rest()
        assert (bed.list(), len(told.admitted), told.begun) == (told.good, 1, [])
        bed.nft("delete", "element", "inet", "ours", "allow", "{ 192.0.2.1 }")
        await told.until(lambda: bed.list() == told.good)
        assert applied(told.reports[before:])[0] == BACK
        assert len(applied(told.reports[before:])) == 2


@pytest.mark.parametrize(
    "drift",
    [
        "delete element inet ours allow { 192.0.2.1, 192.0.2.3 }",
        "flush chain inet ours input",
        "delete table inet ours",
        "add chain inet ours input { policy drop ; }",
        "add set inet ours more { type ipv4_addr ; }",
        "flush ruleset",
    ],
)
async def test_what_is_more_than_that_is_left_to_the_pass(bed: Bed, drift: str) -> None:
    async with kept(bed) as told:
        await told.drift(drift)
        assert told.admitted == []
        assert bed.list() == told.good


async def test_one_rule_after_the_other_comes_back_to_its_place(bed: Bed) -> None:
    async with kept(bed) as told:
        for words in ("tcp dport 22", "ip saddr @allow", "tcp dport 80", "tcp dport 443", "tcp dport 22"):
            await told.drift(told.rule(words))
            assert len(told.admitted) == 1
            assert bed.list() == told.good


async def test_what_somebody_does_meanwhile_is_noticed(bed: Bed) -> None:
    """Unseen, and right before our transaction: it is made for another generation, and not carried out."""
    bed.nft("add", "table", "ip", "theirs")
    async with kept(bed) as told:
        told.before = lambda: bed.nft("add", "rule", "inet", "ours", "input", "udp", "dport", "1", "drop")
        reports = await told.drift(told.rule("tcp dport 80"))
        assert len(told.admitted) == 1
        assert bed.source.races == 1
        assert bed.list() == told.good
        assert len(applied(reports)) == 2
        told.before = lambda: bed.nft("add", "chain", "ip", "theirs", "c")
        reports = await told.drift(ELEMENT)
        assert (bed.source.races, applied(reports)) == (2, [BACK])
        assert "chain c" in bed.nft("list", "table", "ip", "theirs")


async def test_two_transactions_at_once_are_left_to_the_pass(bed: Bed) -> None:
    async with kept(bed) as told:
        await told.begin()
        bed.nft(*ELEMENT.split())
        bed.nft("delete", "element", "inet", "ours", "allow", "{ 192.0.2.1 }")
        await told.until(lambda: bed.list() == told.good)
        assert told.admitted == []


async def test_what_was_done_before_a_pause_is_told_as_done(bed: Bed) -> None:
    async with kept(bed) as told:
        told.then = lambda: told.loop.pause(BOOT.now() + 3600)
        reports = await told.drift(ELEMENT)
        assert applied(reports) == [BACK]
        assert [one for report in reports for one in report.conditions] == []
        await told.drift(ELEMENT)
        assert told.admitted == []
        assert told.missing
        told.then = lambda: None
        told.loop.resume()
        await told.until(lambda: bed.list() == told.good)


async def test_a_table_that_is_left_alone_is_not_touched(bed: Bed) -> None:
    async with kept(bed) as told:
        told.loop.leave(TABLE, BOOT.now() + 3600)
        await told.drift(ELEMENT)
        assert told.admitted == []
        assert told.missing
        told.loop.take_up(TABLE)
        await told.until(lambda: bed.list() == told.good)


async def test_what_is_fought_over_waits(bed: Bed) -> None:
    async with kept(bed) as told:
        await told.drift(ELEMENT)
        for _ in range(4):
            bed.nft(*ELEMENT.split())
            await told.until(lambda: not told.missing)
            await told.rest()
        assert len(told.admitted) == 5
        assert told.loop.fights
        bed.nft(*ELEMENT.split())
        await told.rest()
        assert len(told.admitted) == 5
        assert told.missing
        told.loop._gate.declared()
        await told.loop.request()


async def test_what_is_declared_no_more_goes_though_it_was_just_made(bed: Bed) -> None:
    async with kept(bed) as told:
        desired = bed.declare(OURS.replace("192.0.2.2, ", ""))
        told.then = lambda: told.loop.declare(desired)
        await told.drift(ELEMENT)
        await told.until(lambda: told.missing)


async def test_who_asks_for_a_look_at_everything_hides_no_heal(bed: Bed) -> None:
    async with kept(bed) as told:
        asked: list[asyncio.Task[Report]] = []
        told.then = lambda: asked.append(asyncio.ensure_future(told.loop.request()))
        reports = await told.drift(ELEMENT)
        assert applied(reports) == [BACK]
        assert [(await one).converged for one in asked] == [True]


async def test_a_pass_within_the_pass_that_tells_of_it_does_not_tell_again(bed: Bed) -> None:
    async with kept(bed) as told:
        look = bed.source.look

        async def disturbed(work: Pass[Any], *, full: bool) -> Any:
            bed.source.look = look  # type: ignore[method-assign]
            bed.nft("delete", "element", "inet", "ours", "allow", "{ 192.0.2.1 }")
            await asyncio.sleep(0.1)
            await work.checkpoint()
            return await look(work, full=full)

        def ask() -> None:
            told.then = lambda: None
            bed.source.look = disturbed  # type: ignore[method-assign]
            asked.append(asyncio.ensure_future(told.loop.request()))

        asked: list[asyncio.Task[Report]] = []
        # The request comes before the pass of the event.
        bed.patience = 30.0
        told.then = ask
        reports = await told.drift(ELEMENT)
        await asked[0]
        assert len(told.begun) >= 2
        assert applied(reports).count(BACK) == 1
        assert len(applied(reports)) == 2
        assert told.loop.status.drifts == 2


async def test_it_is_not_put_down_to_who_wrote_to_the_table_later(bed: Bed) -> None:
    bed.patience = 30.0
    async with kept(bed) as told:
        await told.begin()
        before = len(told.reports)
        bed.nft(*ELEMENT.split())
        await told.rest()
        bed.nft("delete", "element", "inet", "ours", "allow", "{ 192.0.2.1 }")
        await told.until(lambda: bed.list() == told.good and len(told.reports) > before)
        culprits = {key: one.pid for r in told.reports[before:] for key, one in r.culprits.items()}
        assert len(set(culprits.values())) == len(culprits) == 2


async def test_what_goes_again_and_is_left_then_is_still_spoken_of(bed: Bed) -> None:
    """It was healed once in the pass, and is not as declared at its end."""
    async with kept(bed) as told:

        def again() -> None:
            told.then = lambda: None
            told.loop.leave(TABLE, BOOT.now() + 3600)
            bed.nft(*ELEMENT.split())

        bed.patience = 30.0
        told.then = again
        await told.drift(ELEMENT)
        assert told.missing
        assert list(told.loop.conditions) == [BACK]
        await told.drift("add element inet ours allow { 192.0.2.9 }")
        assert set(told.loop.conditions) == {BACK, ("element", "inet", "ours", "allow", "192.0.2.9")}
        told.loop.take_up(TABLE)
        await told.until(lambda: bed.list() == told.good)


async def test_a_loop_that_stops_tells_of_it(bed: Bed) -> None:
    async with kept(bed) as told:
        told.then = told.loop.stop
        assert applied(await told.drift(ELEMENT)) == [BACK]


async def test_what_goes_again_at_once_is_healed_again(bed: Bed) -> None:
    async with kept(bed) as told:

        def again() -> None:
            told.then = lambda: None
            bed.nft(*ELEMENT.split())

        told.then = again
        reports = await told.drift(ELEMENT)
        assert applied(reports) == [BACK, BACK]


async def test_what_the_kernel_refuses_is_met_by_the_pass(bed: Bed) -> None:
    async with kept(bed) as told:
        transact = bed.source.requests.transact

        def refused(messages: Sequence[Request], **more: Any) -> list[NetlinkError | None]:
            return [NetlinkError(errno.EPERM, "Operation not permitted")] * len(messages)

        bed.source.requests.transact = refused  # type: ignore[method-assign]
        reports = await told.drift(ELEMENT)
        assert len(told.admitted) == 1
        assert applied(reports) == []
        # The whole table was tried, too.
        assert list(told.loop.conditions) == [TABLE]
        bed.source.requests.transact = transact  # type: ignore[method-assign]
        await told.loop.request()
        assert bed.list() == told.good


async def test_an_answer_that_is_lost_leads_to_a_look(bed: Bed) -> None:
    async with kept(bed) as told:
        transact, reads = bed.source.requests.transact, bed.source.reads

        def silent(messages: Sequence[Request], **more: Any) -> list[NetlinkError | None]:
            bed.source.requests.transact = transact  # type: ignore[method-assign]
            transact(messages, **more)
            raise lost()

        bed.source.requests.transact = silent  # type: ignore[method-assign]
        before = told.written()
        await told.drift(ELEMENT)
        assert bed.list() == told.good
        assert told.written() == before + 1
        assert bed.source.reads > reads


async def test_who_did_it_is_looked_up_when_what_heals_is_sent(bed: Bed) -> None:
    order: list[str] = []

    def identify(pid: int, comm: str) -> Culprit:
        order.append("look")
        return Culprit(pid, comm)

    bed.new_source(identify=identify)
    async with kept(bed) as told:
        bed.source.requests.tap = lambda sent: (order.append("send"), bed.sent.append(sent))[1]
        reports = await told.drift(ELEMENT)
        assert order[:2] == ["send", "look"]
        assert order.count("look") == 1
        assert [culprit.comm for culprit in reports[0].culprits.values()] == ["nft"]
        order.clear()
        told.loop.pause(BOOT.now() + 3600)
        await told.drift(ELEMENT)
        assert order == ["look"]
        told.loop.resume()
        await told.until(lambda: bed.list() == told.good)


async def test_while_a_plan_is_made_nothing_is_touched(bed: Bed) -> None:
    async with kept(bed) as told:
        diff, seen = bed.source.diff, []

        def slow(*arguments: Any) -> Any:
            bed.nft(*ELEMENT.split())
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.1), told_loop).result()
            seen.append((list(told.admitted), bed.source.mirror.touched.copy()))
            bed.source.diff = diff  # type: ignore[method-assign]
            return diff(*arguments)

        told_loop = asyncio.get_running_loop()
        await told.begin()
        bed.source.diff = slow  # type: ignore[method-assign]
        assert (await told.loop.plan()).ops == ()
        assert seen == [([], {})]
        await told.until(lambda: bed.list() == told.good)
