# SPDX-License-Identifier: MIT
"""Others write at the same time: nothing of theirs is lost, nothing of ours is half done, nothing slips
through."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable

import pytest

from linxd.netlink.nft import NFNL_MSG_BATCH_BEGIN
from linxd.patch import State, Trigger
from linxd.source import Hint
from linxd.sources.netfilter import run

from .conftest import Bed, udp_in

OURS = """
table inet ours {
	set allow {
		type ipv4_addr
		elements = { 192.0.2.1, 192.0.2.2 }
	}
	chain input {
		type filter hook input priority 0; policy drop;
		ip saddr @allow accept
		tcp dport 22 counter accept
	}
}
"""


def race(bed: Bed, times: int, write: Callable[[int], None]) -> None:
    """Have another process commit ``times`` times, each time right before our own transaction is sent."""
    left = iter(range(times))

    def tap(datagram: bytes) -> None:
        bed.sent.append(datagram)
        if int.from_bytes(datagram[4:6], "little") == NFNL_MSG_BATCH_BEGIN:
            for number in left:
                write(number)
                break

    bed.source.requests.tap = tap


@pytest.mark.parametrize("subscribed", [False, True])
async def test_a_hundred_lost_races_lose_no_update(bed: Bed, subscribed: bool) -> None:
    await bed.apply(OURS)
    good = bed.nft("-s", "list", "table", "inet", "ours")
    bed.nft(text="table ip theirs {\n\tchain c {\n\t}\n}\n")
    if subscribed:
        bed.watch()
        await bed.run()

    def write(number: int) -> None:
        bed.nft("add", "rule", "ip", "theirs", "c", "tcp", "dport", str(number + 1), "accept")

    race(bed, 100, write)
    bed.nft("delete", "rule", "inet", "ours", "input", "handle", handle_of(bed, "tcp dport 22"))
    report = await bed.run()

    assert report.converged, report.conditions
    assert bed.source.races == 100
    assert bed.source.commits == 2
    assert bed.nft("-s", "list", "table", "inet", "ours") == good
    theirs = bed.nft("list", "chain", "ip", "theirs", "c")
    assert [f"tcp dport {number} accept" in theirs for number in range(1, 101)].count(False) == 0


def handle_of(bed: Bed, words: str) -> str:
    listed = bed.nft("-a", "list", "table", "inet", "ours")
    return next(line.split()[-1] for line in listed.splitlines() if words in line)


@pytest.mark.parametrize("subscribed", [False, True])
async def test_what_others_do_to_the_same_table_meanwhile_is_seen_too(bed: Bed, subscribed: bool) -> None:
    bed.declare(OURS)
    watch = bed.watch() if subscribed else None
    await bed.run(Trigger.START)
    good = bed.nft("-s", "list", "table", "inet", "ours")

    moves = [
        ("insert", "rule", "inet", "ours", "input", "accept"),
        ("flush", "chain", "inet", "ours", "input"),
        ("delete", "element", "inet", "ours", "allow", "{ 192.0.2.1 }"),
        ("add", "chain", "inet", "ours", "more"),
        ("add", "table", "inet", "ours", "{ flags dormant ; }"),
        ("add", "chain", "inet", "ours", "input", "{ policy accept ; }"),
        ("delete", "table", "inet", "ours"),
        ("add", "table", "inet", "ours"),
    ]
    race(bed, len(moves), lambda number: bed.nft(*moves[number]) and None)
    bed.nft("add", "rule", "inet", "ours", "input", "drop")
    hints: list[Hint] = []
    if watch is not None:
        while not watch.hints:
            await asyncio.sleep(0)
        hints = watch.hints
    report = await bed.run(Trigger.EVENT if hints else Trigger.RESYNC, hints)

    assert report.converged, report.conditions
    assert bed.source.races == len(moves)
    assert bed.nft("-s", "list", "table", "inet", "ours") == good
    assert not (await bed.run()).drifted


async def test_who_is_always_outrun_says_so_and_is_tried_again(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "RACES", 3)
    await bed.apply(OURS)
    bed.nft("add", "table", "ip", "theirs")
    race(bed, 1000, lambda number: bed.nft("add", "chain", "ip", "theirs", f"c{number}") and None)
    bed.nft("flush", "chain", "inet", "ours", "input")
    report = await bed.run()
    assert not report.applied
    assert {condition.state for condition in report.conditions} == {State.FAILED}
    assert all(condition.transient for condition in report.conditions)
    assert "other writers were faster" in report.conditions[0].text
    bed.source.requests.tap = None
    assert (await bed.run()).converged


# --- packets ----------------------------------------------------------------------------------------

GUARD = """
table inet ours {{
	chain input {{
		type filter hook input priority {priority}; policy {policy};
		{rule}
	}}
}}
"""


class Sender:
    """Sends a packet every half millisecond to a port that must not be reached, from a thread of its own."""

    def __init__(self, bed: Bed) -> None:
        self._receiver = udp_in(bed.fd)
        self._receiver.bind(("127.0.0.1", 0))
        self._receiver.setblocking(False)
        self._sender = udp_in(bed.fd)
        self.port: int = self._receiver.getsockname()[1]
        self.sent = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.0005):
            self._sender.sendto(b"x", ("127.0.0.1", self.port))
            self.sent += 1

    def received(self) -> int:
        count = 0
        try:
            while True:
                self._receiver.recv(16)
                count += 1
        except BlockingIOError:
            return count

    def close(self) -> None:
        self._receiver.close()
        self._sender.close()


@pytest.mark.parametrize(
    ("policy", "rule"), [("accept", "udp dport PORT drop"), ("drop", "tcp dport 22 accept")]
)
async def test_while_the_priority_changes_no_packet_slips_through(bed: Bed, policy: str, rule: str) -> None:
    bed.ip("link set lo up")
    sender = Sender(bed)
    rule = rule.replace("PORT", str(sender.port))
    try:
        await bed.apply(GUARD.format(priority=0, policy=policy, rule=rule))
        with sender:
            began = time.monotonic()
            for number in range(1, 1001):
                text = GUARD.format(priority=number % 2 * 10, policy=policy, rule=rule)
                report = await bed.apply(text)
                assert [op.verb for op in report.applied] == ["recreate"]
            while sender.sent < 1000:
                await asyncio.sleep(0.001)
            assert time.monotonic() > began
        assert sender.received() == 0
        # the same packets do come when nothing stands in their way
        bed.nft("flush", "ruleset")
        with socket.socket(fileno=sender._sender.dup().detach()) as again:
            again.sendto(b"x", ("127.0.0.1", sender.port))
        assert sender.received() == 1
    finally:
        sender.close()
