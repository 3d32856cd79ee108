# SPDX-License-Identifier: MIT
"""When a pass runs, and why: at once, on events, on the timer, on retries, when people ask."""

from __future__ import annotations

import asyncio
import errno
import logging

import pytest

from linxd.clock import BOOT
from linxd.feed import MOST_HINTS
from linxd.ledger import MemoryLedger
from linxd.loop import Loop, LoopState
from linxd.patch import Claim, Culprit, Entry, Op, State, Verb
from linxd.source import Blocked, Gone, Hint, Pass, Writer
from tests.core.bed import quiet, running
from tests.core.fakes import Deaf, Look, Thing, Things, World, key, things


def test_the_first_pass_comes_at_once() -> None:
    async def story() -> None:
        async with running(World(), things(a="1", b="2")) as bed:
            assert bed.triggers == ["start"]
            assert bed.world.things == things(a="1", b="2")
            assert bed.states == [LoopState.CONVERGED]
            assert bed.loop.first_pass_done.is_set()
            assert bed.loop.status.counts[State.DONE] == 2

    asyncio.run(story())


def test_an_event_is_healed_at_once_by_a_pass_over_what_it_names() -> None:
    async def story() -> None:
        async with running(World(), things(a="1", b="2")) as bed:
            bed.world.drift("a", None)
            await quiet()
            assert bed.world.things == things(a="1", b="2")
            assert bed.triggers == ["start", "event"]
            assert [hint.key for hint in bed.world.passes[1].hints] == [key("a")]
            assert bed.loop.status.drifts == 1

    asyncio.run(story())


def test_a_thousand_hints_during_a_pass_make_one_further_pass() -> None:
    async def story() -> None:
        world = World(gate=asyncio.Event())
        async with running(world, things(a="1")) as bed:
            await world.halted.wait()
            assert world.notify is not None
            for number in range(1000):
                world.notify(Hint(key(f"x{number % 100}")))
            assert world.gate is not None
            world.gate.set()
            await quiet()
            assert bed.triggers == ["start", "event"]
            assert len(world.passes[1].hints) == 100

    asyncio.run(story())


def test_merged_hints_keep_the_first_moment_the_last_content_and_a_culprit() -> None:
    async def story() -> None:
        world = World(gate=asyncio.Event())
        culprit = Culprit(7, "ip", confirmed=True)
        async with running(world, things(a="1")):
            await world.halted.wait()
            assert world.notify is not None
            world.notify(Hint(key("a"), "old", culprit, 5.0))
            world.notify(Hint(key("a"), "new", None, 6.0))
            assert world.gate is not None
            world.gate.set()
            await quiet()
            assert world.passes[1].hints == (Hint(key("a"), "new", culprit, 5.0),)

    asyncio.run(story())


def test_a_report_names_the_culprit_and_the_time_to_heal() -> None:
    async def story() -> None:
        async with running(World(), things(a="1")) as bed:
            culprit = Culprit(7, "ip", confirmed=True)
            bed.world.drift("a", hint=Hint(key("a"), None, culprit, BOOT.now() / 2))
            await quiet()
            assert bed.reports[-1].culprits == {key("a"): culprit}
            assert bed.loop.status.heal_usec[0] > 0
            # Also when a look at everything finds what the event named.
            bed.world.drift("a", hint=Hint(key("a"), None, culprit, 1.0))
            report = await bed.loop.request()
            assert report.culprits == {key("a"): culprit}

    asyncio.run(story())


def test_a_writer_is_looked_up_once_for_all_that_it_wrote() -> None:
    async def story() -> None:
        asked: list[int] = []
        culprit = Culprit(7, "ip", confirmed=True)

        def find() -> Culprit:
            asked.append(1)
            return culprit

        world = World()
        async with running(world, things(a="1", b="1")) as bed:
            writer = Writer(find)
            for name in ("a", "b"):
                world.drift(name, tell=False)
                assert world.notify is not None
                world.notify(Hint(key(name), writer=writer))
            # A later event of nobody's is about the same drift.
            world.notify(Hint(key("a"), "new"))
            assert asked == []
            await quiet()
            assert bed.reports[-1].culprits == {key("a"): culprit, key("b"): culprit}
            assert asked == [1]

    asyncio.run(story())


def test_a_lost_event_means_a_look_at_everything() -> None:
    async def story() -> None:
        async with running(World(), things(a="1")) as bed:
            bed.world.drift("a", "9", tell=False)
            assert bed.world.notify is not None
            bed.world.notify(Hint(None))
            await quiet()
            assert bed.world.things == things(a="1")
            assert bed.triggers == ["start", "event"]
            assert bed.world.passes[1].hints == ()
            assert bed.loop.status.overruns == 1

    asyncio.run(story())


def test_what_an_event_names_is_healed_before_the_look_at_everything() -> None:
    async def story() -> None:
        async with running(World(), things(a="1")) as bed:
            bed.world.drift("a", None)
            assert bed.world.notify is not None
            bed.world.notify(Hint(None))
            await quiet()
            assert [len(seen.hints) for seen in bed.world.passes] == [0, 1, 0]

    asyncio.run(story())


def test_too_many_hints_become_one_look_at_everything() -> None:
    async def story() -> None:
        async with running(World(), things(a="1")) as bed:
            assert bed.world.notify is not None
            for number in range(MOST_HINTS + 1):
                bed.world.notify(Hint(key(f"x{number}")))
            await quiet()
            assert [len(seen.hints) for seen in bed.world.passes] == [0, 0]

    asyncio.run(story())


# -- the timer --------------------------------------------------------------------------------------------


def test_a_resync_looks_at_everything_on_the_scope_s_own_grid() -> None:
    async def story() -> None:
        async with running(Deaf(), things(a="1")) as bed:
            assert bed.clock.next == 20.0  # 1000 s on the clock, every 30 s, no offset without a name
            bed.world.drift("a", None, tell=False)
            await bed.after(20.0)
            assert bed.triggers == ["start", "resync"]
            assert bed.world.things == things(a="1")
            assert bed.clock.next == 30.0

    asyncio.run(story())


def test_each_scope_has_an_offset_of_its_own_that_stays() -> None:
    async def first(name: str) -> float | None:
        async with running(Deaf(), {}, name=name) as bed:
            return bed.clock.next

    firsts = {name: asyncio.run(first(name)) for name in ("c1", "c2", "c3")}
    assert len(set(firsts.values())) == 3
    assert all(wait is not None and 0 < wait <= 30 for wait in firsts.values())
    assert asyncio.run(first("c1")) == firsts["c1"]


def test_events_do_not_put_off_the_resync() -> None:
    async def story() -> None:
        async with running(World(), things(a="1")) as bed:
            for _ in range(4):
                bed.world.drift("a", "1")
                await bed.after(4.9)
            assert bed.clock.next == pytest.approx(0.4)
            await bed.after(0.5)
            assert bed.triggers == ["start", *["event"] * 4, "resync"]

    asyncio.run(story())


def test_after_a_long_sleep_one_resync_comes_at_once() -> None:
    async def story() -> None:
        async with running(Deaf(), things(a="1")) as bed:
            await bed.after(8 * 3600.0)
            assert bed.triggers == ["start", "resync"]

    asyncio.run(story())


def test_without_resync_there_is_no_timer() -> None:
    async def story() -> None:
        async with running(World(), things(a="1"), resync=0) as bed:
            assert bed.clock.next is None
            await bed.after(100_000)
            assert bed.triggers == ["start"]

    asyncio.run(story())


# -- failures ---------------------------------------------------------------------------------------------


def test_what_fails_for_the_moment_is_tried_again_with_backoff() -> None:
    async def story() -> None:
        world = World(refuse={key("a"): errno.EBUSY})
        async with running(world, things(a="1", b="2"), resync=0) as bed:
            assert bed.state() is LoopState.DEGRADED
            assert bed.loop.conditions[key("a")].text == "refused"
            waits = []
            for _ in range(5):
                assert bed.clock.next is not None
                waits.append(round(bed.clock.next, 6))
                await bed.after(bed.clock.next)
            assert waits == [0.1, 0.2, 0.4, 0.8, 1.6]
            assert [[hint.key for hint in seen.hints] for seen in world.passes[1:]] == [[key("a")]] * 5
            world.refuse.clear()
            await bed.after(3.2)
            assert world.things == things(a="1", b="2")
            assert bed.state() is LoopState.CONVERGED
            assert bed.clock.next is None

    asyncio.run(story())


def test_what_fails_for_good_is_not_tried_again_by_itself() -> None:
    async def story() -> None:
        world = World(refuse={key("a"): errno.EINVAL})
        async with running(world, things(a="1")) as bed:
            for _ in range(5):
                await bed.after(30.0)
            assert world.tried == ["create thing a=1"]
            assert bed.state() is LoopState.DEGRADED
            assert len(bed.reports) == 6
            world.refuse.clear()
            report = await bed.loop.request()
            assert [op.key for op in report.applied] == [key("a")]

    asyncio.run(story())


def test_what_is_held_back_fails_and_drifts_only_once() -> None:
    async def story() -> None:
        world = World(refuse={key("a"): errno.EBUSY})
        async with running(world, things(a="1", b="2"), resync=0) as bed:
            for _ in range(6):
                assert bed.clock.next is not None
                await bed.after(bed.clock.next)
            wait, tried = bed.clock.next, len(world.tried)
            assert wait == pytest.approx(6.4)
            for _ in range(5):
                assert world.notify is not None
                world.notify(Hint(None))
                await quiet()
            assert bed.clock.next == wait
            assert len(world.tried) == tried
            assert bed.loop.conditions[key("a")].text == "refused"
            assert bed.loop.status.drifts == 0  # it was never there

            world.drift("b", None)
            world.refuse[key("b")] = errno.EINVAL
            for _ in range(5):
                assert world.notify is not None
                world.notify(Hint(None))
                await quiet()
            assert bed.loop.status.drifts == 1

    asyncio.run(story())


def test_one_bad_object_holds_up_no_other() -> None:
    async def story() -> None:
        world = World(refuse={key("b"): errno.EINVAL})
        async with running(world, things(a="1", b="2", c="3")) as bed:
            assert world.things == things(a="1", c="3")
            counts = bed.loop.status.counts
            assert (counts[State.DONE], counts[State.FAILED]) == (2, 1)

    asyncio.run(story())


def test_a_fight_is_slowed_down_shown_and_over_after_a_quiet_minute() -> None:
    async def story() -> None:
        async with running(World(), things(a="1"), resync=0) as bed:
            for number in range(5):
                bed.world.drift("a", f"x{number}")
                await bed.after(0.5)
            assert bed.state() is LoopState.CONTENDED
            assert bed.loop.status.counts[State.CONTENDED] == 1
            assert bed.world.things == things(a="1")
            bed.world.drift("a", "again", hint=Hint(key("a"), culprit=Culprit(5, "cron", confirmed=True)))
            await quiet()
            assert bed.world.things == things(a="again")
            assert bed.loop.conditions[key("a")].state is State.CONTENDED
            (line,) = bed.loop.summary()
            assert "thing a=1: healed 5 times" in line
            assert "cron[5]" in line
            await bed.after(0.5)
            assert bed.world.things == things(a="1")
            await bed.after(59.0)
            assert bed.state() is LoopState.CONTENDED
            await bed.after(1.0)
            assert bed.state() is LoopState.CONVERGED
            assert bed.loop.conditions == {}

    asyncio.run(story())


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (Blocked("the ruleset does not load"), "the ruleset does not load"),
        (KeyError("x"), "unexpected error in the source: KeyError: 'x'"),
        (asyncio.CancelledError(), "unexpected error in the source: CancelledError: "),
    ],
)
def test_a_pass_that_can_t_run_is_tried_again_with_backoff(
    trouble: Exception, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with running(World(trouble=trouble), things(a="1")) as bed:
            assert bed.state() is LoopState.BLOCKED
            assert bed.loop.last_error == words
            assert bed.loop.first_pass_done.is_set()
            waits = []
            for _ in range(12):
                assert bed.clock.next is not None
                waits.append(round(bed.clock.next, 6))
                await bed.after(bed.clock.next)
            assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0]
            bed.world.trouble = None
            await bed.after(60.0)
            assert bed.states == [LoopState.BLOCKED, LoopState.CONVERGED]
            assert bed.loop.last_error == ""
            assert set(bed.triggers) == {"start"}

    caplog.set_level(logging.INFO)
    asyncio.run(story())
    assert caplog.text == ""  # no traceback at a user


def test_an_unexpected_error_leaves_its_traceback_to_whoever_debugs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        async with running(World(trouble=KeyError("x")), {}):
            pass

    caplog.set_level(logging.DEBUG, "linxd")
    asyncio.run(story())
    assert "Traceback" in caplog.text


def test_events_do_not_hurry_a_blocked_loop() -> None:
    async def story() -> None:
        async with running(World(trouble=OSError(errno.EIO, "no")), things(a="1")) as bed:
            await bed.after(0.1)
            for _ in range(10):
                bed.world.drift("a", "2")
                await quiet()
            assert len(bed.triggers) == 2
            bed.world.trouble = None
            await bed.after(0.2)
            assert bed.world.things == things(a="2")  # a stranger's, by the time of the first look
            assert bed.state() is LoopState.DEGRADED

    asyncio.run(story())


def test_what_people_ask_for_does_not_wait_for_a_blocked_loop() -> None:
    async def story() -> None:
        async with running(World(trouble=OSError(errno.EIO, "no")), things(a="1")) as bed:
            for _ in range(6):
                assert bed.clock.next is not None
                await bed.after(bed.clock.next)
            with pytest.raises(Blocked, match="no"):
                await bed.loop.request()
            bed.world.trouble = None
            bed.loop.declare(things(a="3"))
            await quiet()
            assert bed.world.things == things(a="3")

    asyncio.run(story())


def test_when_the_namespace_is_gone_it_ends() -> None:
    async def story() -> None:
        world = World(gate=asyncio.Event())
        async with running(world, things(a="1")) as bed:
            await world.halted.wait()
            asking = asyncio.create_task(bed.loop.request())
            planning = asyncio.create_task(bed.loop.plan())
            await quiet()
            world.trouble = Gone("ip netns del")
            assert world.gate is not None
            world.gate.set()
            with pytest.raises(Gone):
                await asking
            with pytest.raises(Gone):
                await planning
            await bed.task
            assert bed.loop.gone
            assert bed.states == []

    asyncio.run(story())


# -- the subscription -------------------------------------------------------------------------------------


def test_a_subscription_that_fails_is_tried_again_and_then_everything_looked_at() -> None:
    async def story() -> None:
        world = World(no_events=OSError(errno.ENOBUFS, "No buffer space available"))
        async with running(world, things(a="1"), resync=0) as bed:
            assert bed.triggers == ["start"]
            assert bed.state() is LoopState.CONVERGED
            assert bed.loop.status.watch == "timer"
            assert bed.loop.status.subscription_error == "no events: No buffer space available"
            assert bed.clock.next == pytest.approx(0.1)
            await bed.after(0.1)
            assert bed.clock.next == pytest.approx(0.2)
            world.drift("a", None, tell=False)
            world.no_events = None
            await bed.after(0.2)
            assert bed.triggers == ["start", "event"]
            assert world.things == things(a="1")
            assert bed.loop.status.watch == "event"
            assert bed.loop.status.subscription_error == ""

    asyncio.run(story())


def test_a_subscription_that_breaks_is_made_again_never_in_a_hurry() -> None:
    async def story() -> None:
        async with running(World(), things(a="1"), resync=0) as bed:
            waits = []
            for _ in range(4):
                assert bed.world.notify is not None
                bed.world.notify(Hint(None, broken=True))
                await quiet()
                assert bed.world.subscriptions == 0
                assert bed.clock.next is not None
                waits.append(round(bed.clock.next, 6))
                await bed.after(bed.clock.next)
                assert bed.world.subscriptions == 1
            assert waits == [0.1, 0.2, 0.4, 0.8]
            assert bed.triggers == ["start", *["event"] * 4]
            await bed.after(3600)
            assert bed.world.notify is not None
            bed.world.notify(Hint(None, broken=True))
            await quiet()
            assert bed.clock.next == pytest.approx(0.1)

    asyncio.run(story())


def test_without_events_the_timer_drives_it() -> None:
    async def story() -> None:
        async with running(Deaf(), things(a="1")) as bed:
            assert bed.loop.status.watch == "timer"
            assert bed.loop.status.subscription_error == ""
            await bed.after(20)
            assert bed.triggers == ["start", "resync"]

    asyncio.run(story())


# -- asked ------------------------------------------------------------------------------------------------


def test_a_request_is_answered_by_a_pass_that_starts_after_it() -> None:
    async def story() -> None:
        world = World(gate=asyncio.Event())
        async with running(world, things(a="1")) as bed:
            await world.halted.wait()
            asked = [asyncio.create_task(bed.loop.request()) for _ in range(3)]
            await quiet()
            assert world.gate is not None
            world.gate.set()
            reports = await asyncio.gather(*asked)
            assert bed.triggers == ["start", "request"]
            assert [report.trigger for report in reports] == ["request"] * 3

    asyncio.run(story())


def test_who_asks_and_goes_away_disturbs_nobody() -> None:
    async def story() -> None:
        world = World(gate=asyncio.Event())
        async with running(world, things(a="1")) as bed:
            asked = [asyncio.create_task(bed.loop.request()) for _ in range(2)]
            await quiet()
            asked[0].cancel()
            assert world.gate is not None
            world.gate.set()
            assert (await asked[1]).converged
            assert asked[0].cancelled()

    asyncio.run(story())


def test_a_plan_says_what_would_be_done_and_does_nothing() -> None:
    async def story() -> None:
        async with running(World(), things(a="1", b="2")) as bed:
            bed.world.drift("a", "9", tell=False)
            patch = await bed.loop.plan()
            assert [op.describe() for op in patch.ops] == ["update thing a=1: value 9 -> 1"]
            assert bed.world.things == things(a="9", b="2")
            assert bed.triggers == ["start"]
            bed.world.trouble = OSError(errno.EIO, "no")
            with pytest.raises(Blocked, match="no"):
                await bed.loop.plan()
            assert bed.state() is LoopState.CONVERGED

    asyncio.run(story())


def test_a_plan_can_be_had_without_running() -> None:
    async def story() -> None:
        loop: Loop[Things, Look] = Loop(World(), things(a="1"))
        patch = await loop.plan()
        assert [op.describe() for op in patch.ops] == ["create thing a=1"]

    asyncio.run(story())


def test_a_new_declaration_is_carried_out_at_once_and_forgives() -> None:
    async def story() -> None:
        world = World(refuse={key("a"): errno.EINVAL})
        async with running(world, things(a="1", b="1")) as bed:
            assert (bed.loop.generation, bed.loop.reached) == (1, 1)
            world.refuse.clear()
            bed.loop.declare(things(a="1"))
            assert (bed.loop.generation, bed.loop.reached) == (2, 1)
            await quiet()
            assert world.things == things(a="1")
            assert bed.triggers == ["start", "config"]
            assert (bed.loop.generation, bed.loop.reached) == (2, 2)
            assert bed.loop.status.drifts == 0

    asyncio.run(story())


def test_a_pass_under_way_ends_as_declared_before_and_the_next_follows_at_once() -> None:
    async def story() -> None:
        world = World(gate=asyncio.Event())
        async with running(world, things(a="1")) as bed:
            await world.halted.wait()
            bed.loop.declare(things(a="2"))
            assert world.gate is not None
            world.gate.set()
            await quiet()
            assert [seen.desired for seen in world.passes] == [things(a="1"), things(a="2")]
            assert bed.triggers == ["start", "config"]
            assert world.things == things(a="2")
            assert bed.loop.reached == 2

    asyncio.run(story())


def test_paused_it_looks_and_reports_and_writes_nothing_until_resumed() -> None:
    async def story() -> None:
        ledger = MemoryLedger()
        async with running(World(), things(a="1"), owned=ledger) as bed:
            bed.loop.pause(bed.clock.now() + 600)
            assert bed.state() is LoopState.PAUSED
            assert bed.loop.status.paused_until == bed.clock.now() + 600
            bed.world.drift("a", None)
            bed.loop.declare(things(a="1", b="2"))
            await bed.after(20.0)
            assert bed.world.things == {}
            assert ledger.get(key("b")) is None
            assert bed.reports[-1].converged is False
            assert bed.loop.conditions[key("a")].state is State.PENDING
            assert not any(seen.write for seen in bed.world.passes[1:])
            bed.loop.resume()
            assert bed.state() is LoopState.STARTING
            await quiet()
            assert bed.world.things == things(a="1", b="2")
            assert bed.state() is LoopState.CONVERGED
            bed.loop.resume()
            await quiet()
            assert bed.triggers[-1] == "request"

    asyncio.run(story())


def test_a_pause_ends_by_itself() -> None:
    async def story() -> None:
        async with running(World(), things(a="1"), resync=0) as bed:
            bed.loop.pause(bed.clock.now() + 600)
            bed.world.drift("a", None)
            await bed.after(599.0)
            assert bed.world.things == {}
            await bed.after(1.0)
            assert bed.world.things == things(a="1")
            assert bed.states[-3:] == [LoopState.PAUSED, LoopState.STARTING, LoopState.CONVERGED]

    asyncio.run(story())


class Calling(World):
    """Does something in the middle of a patch."""

    def __init__(self, after: str) -> None:
        super().__init__()
        self.after = after
        self.loop: Loop[Things, Look] | None = None

    def apply(self, op: Op) -> None:
        super().apply(op)
        assert self.loop is not None
        if op.key == key(self.after):
            self.react()

    def react(self) -> None:
        raise NotImplementedError


def test_a_pause_stops_a_pass_under_way_at_its_next_op() -> None:
    class Pausing(Calling):
        def react(self) -> None:
            assert self.loop is not None
            self.loop.pause(2000.0)

    async def story() -> None:
        world = Pausing("b")
        world.gate = asyncio.Event()
        async with running(world, things(a="1", b="2", c="3")) as bed:
            world.loop = bed.loop
            world.gate.set()
            await quiet()
            assert world.things == things(a="1", b="2")
            assert bed.loop.conditions[key("c")].state is State.PENDING

    asyncio.run(story())


def test_an_object_is_left_alone_for_its_time_and_the_others_are_kept() -> None:
    async def story() -> None:
        async with running(World(), things(a="1", b="2"), resync=0) as bed:
            bed.loop.leave(key("a"), bed.clock.now() + 600, "paused until noon")
            bed.world.drift("a", "7")
            bed.world.drift("b", None)
            await quiet()
            assert bed.world.things == things(a="7", b="2")
            assert bed.loop.conditions[key("a")].text == "has drifted; paused until noon"
            assert bed.loop.conditions[key("a")].paused
            assert bed.state() is LoopState.DEGRADED
            bed.loop.declare(things(a="1", b="3"))
            await bed.after(599.0)
            assert bed.world.things == things(a="7", b="3")
            await bed.after(1.0)
            assert bed.world.things == things(a="1", b="3")
            assert bed.state() is LoopState.CONVERGED
            assert bed.loop.left == {}

    asyncio.run(story())


def test_an_object_left_alone_is_taken_up_at_once_when_asked() -> None:
    async def story() -> None:
        async with running(World(), things(a="1"), resync=0) as bed:
            bed.loop.leave(key("a"), bed.clock.now() + 600)
            bed.world.drift("a", None)
            await quiet()
            assert bed.world.things == {}
            bed.loop.take_up(key("b"))
            await quiet()
            assert bed.world.things == {}
            bed.loop.take_up(key("a"))
            await quiet()
            assert bed.world.things == things(a="1")

    asyncio.run(story())


def test_an_object_left_alone_within_a_pass_is_not_written_by_it_any_more() -> None:
    class Leaving(Calling):
        def react(self) -> None:
            assert self.loop is not None
            self.loop.leave(key("c"), 2000.0)

    async def story() -> None:
        world = Leaving("b")
        world.gate = asyncio.Event()
        async with running(world, things(a="1", b="2", c="3")) as bed:
            world.loop = bed.loop
            world.gate.set()
            await quiet()
            assert world.things == things(a="1", b="2")
            assert bed.loop.conditions[key("c")].paused

    asyncio.run(story())


def test_a_pass_that_a_pause_held_is_not_taken_for_one_that_did_it() -> None:
    """Resumed while it runs, nobody holds back its ops; it writes none of them all the same."""

    async def story() -> None:
        world = World()
        async with running(world, things(a="1"), resync=0) as bed:
            bed.loop.pause(bed.clock.now() + 600)
            world.gate = asyncio.Event()
            world.drift("a", None)
            asked = asyncio.create_task(bed.loop.request())
            await quiet()
            await world.halted.wait()
            bed.loop.resume()
            bed.states.clear()
            world.gate.set()
            report = await asked
            assert report.applied == ()
            assert not report.converged
            await quiet()
            assert world.things == things(a="1")
            assert bed.states[-1] is LoopState.CONVERGED

    asyncio.run(story())


# -- ends -------------------------------------------------------------------------------------------------


def test_stop_ends_a_pass_under_way_at_its_next_checkpoint() -> None:
    class Stopping(Calling):
        def react(self) -> None:
            assert self.loop is not None
            self.loop.stop()

    async def story() -> None:
        world, ledger = Stopping("b"), MemoryLedger()
        world.gate = asyncio.Event()
        async with running(world, things(a="1", b="2", c="3"), owned=ledger) as bed:
            world.loop = bed.loop
            world.gate.set()
            await bed.task
            assert world.things == things(a="1", b="2")
            assert ledger.get(key("b")) == Entry(Claim.MADE)
            assert not ledger.in_doubt()
            assert not bed.loop.gone
            with pytest.raises(asyncio.CancelledError):
                await bed.loop.request()
            with pytest.raises(RuntimeError):
                await bed.loop.run()

    asyncio.run(story())


def test_stopped_before_it_runs_it_does_nothing() -> None:
    async def story() -> None:
        world = World()
        loop: Loop[Things, Look] = Loop(world, things(a="1"))
        loop.stop()
        await loop.run()
        assert world.passes == []

    asyncio.run(story())


def test_cancelled_it_cleans_up_and_says_so() -> None:
    async def story() -> None:
        world = World(gate=asyncio.Event())
        async with running(world, things(a="1")) as bed:
            await world.halted.wait()
            asked = asyncio.create_task(bed.loop.request())
            await quiet()
            bed.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await bed.task
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert world.subscriptions == 0

    asyncio.run(story())


def test_a_listener_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def listener(news: object) -> None:
        raise ZeroDivisionError

    async def story() -> None:
        async with running(World(gate=asyncio.Event()), things(a="1")) as bed:
            bed.loop._on_report = bed.loop._on_state = listener
            assert bed.world.gate is not None
            bed.world.gate.set()
            await quiet()
            bed.world.drift("a", None)
            await quiet()
            assert bed.world.things == things(a="1")

    asyncio.run(story())
    assert "a listener failed" in caplog.text


# -- nested passes ----------------------------------------------------------------------------------------


class Interruptible(World):
    """Looks in three steps, between which the test may do something."""

    interruptible = True

    async def observe(self, work: Pass[Things]) -> Look:
        seen = await super().observe(work)
        await work.checkpoint()
        await work.checkpoint()
        return seen


def test_an_event_during_a_long_look_is_healed_within_it() -> None:
    async def story() -> None:
        world = Interruptible()
        async with running(world, things(a="1", b="2")) as bed:
            world.gate = asyncio.Event()
            asked = asyncio.create_task(bed.loop.request())
            await world.halted.wait()
            world.drift("a", None)
            world.gate.set()
            report = await asked
            assert [report.trigger for report in bed.reports] == ["start", "event", "request"]
            assert [op.key for op in bed.reports[1].applied] == [key("a")]
            assert world.things == things(a="1", b="2")
            assert report.converged

    asyncio.run(story())


def test_a_source_that_can_t_be_interrupted_is_not() -> None:
    async def story() -> None:
        world = World()
        async with running(world, things(a="1")) as bed:
            world.gate = asyncio.Event()
            asked = asyncio.create_task(bed.loop.request())
            await world.halted.wait()
            world.drift("a", "1")
            world.gate.set()
            await asked
            await quiet()
            assert [report.trigger for report in bed.reports] == ["start", "request", "event"]

    asyncio.run(story())


def test_the_first_pass_is_never_interrupted() -> None:
    async def story() -> None:
        world = Interruptible(gate=asyncio.Event())
        async with running(world, things(a="1")) as bed:
            await world.halted.wait()
            world.drift("x", "1")
            assert world.gate is not None
            world.gate.set()
            await quiet()
            assert [report.trigger for report in bed.reports] == ["start", "event"]

    asyncio.run(story())


def test_a_nested_pass_is_not_interrupted_itself() -> None:
    class Busy(Interruptible):
        depth = deepest = 0

        async def observe(self, work: Pass[Things]) -> Look:
            self.depth += 1
            self.deepest = max(self.deepest, self.depth)
            if not work.full and len(self.passes) < 6:
                self.drift(f"x{len(self.passes)}", "1")
            try:
                return await super().observe(work)
            finally:
                self.depth -= 1

    async def story() -> None:
        world = Busy()
        async with running(world, things(a="1")) as bed:
            world.gate = asyncio.Event()
            asked = asyncio.create_task(bed.loop.request())
            await world.halted.wait()
            world.drift("a", None)
            world.gate.set()
            await asked
            await quiet()
            assert world.deepest == 2
            assert len(world.passes) == 6
            assert world.things[key("a")].value == "1"

    asyncio.run(story())


def test_a_nested_pass_that_fails_leaves_the_outer_one_alone() -> None:
    class Shaky(Interruptible):
        async def observe(self, work: Pass[Things]) -> Look:
            if not work.full and self.depth:
                raise OSError(errno.EIO, "no")
            self.depth += 1
            try:
                return await super().observe(work)
            finally:
                self.depth -= 1

        depth = 0

    async def story() -> None:
        world = Shaky()
        async with running(world, things(a="1")) as bed:
            world.gate = asyncio.Event()
            asked = asyncio.create_task(bed.loop.request())
            await world.halted.wait()
            world.drift("a", "1", hint=Hint(key("a")))
            world.gate.set()
            assert (await asked).converged
            await quiet()
            # What it was for came after the outer pass.
            assert [report.trigger for report in bed.reports] == ["start", "request", "event"]
            assert bed.state() is LoopState.CONVERGED

    asyncio.run(story())


def test_what_a_nested_pass_saw_to_is_looked_at_again_if_the_outer_one_knows_it_otherwise() -> None:
    class Overtaken(Interruptible):
        async def observe(self, work: Pass[Things]) -> Look:
            seen = await super().observe(work)
            if work.trigger == "request":
                self.drift("a", "1")  # somebody makes it after the look, before the comparison
                await work.checkpoint()
            return seen

    async def story() -> None:
        world = Overtaken(refuse={key("a"): errno.EINVAL})
        async with running(world, things(a="1"), resync=0) as bed:
            assert bed.state() is LoopState.DEGRADED
            assert not (await bed.loop.request()).converged
            await quiet()
            assert [report.trigger for report in bed.reports] == ["start", "event", "request", "event"]
            assert bed.state() is LoopState.CONVERGED

    asyncio.run(story())


# -- being a good neighbour -------------------------------------------------------------------------------


def test_a_long_pass_lets_others_run() -> None:
    class Long(World):
        async def observe(self, work: Pass[Things]) -> Look:
            for _ in range(20):
                until = asyncio.get_running_loop().time() + 0.011
                while asyncio.get_running_loop().time() < until:
                    pass
                await work.checkpoint()
            return await super().observe(work)

    async def story() -> None:
        ticks = 0

        async def ticking() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        loop: Loop[Things, Look] = Loop(Long(), things(a="1"))
        ticker = asyncio.create_task(ticking())
        running = asyncio.create_task(loop.run())
        while not loop.progress:
            await asyncio.sleep(0)
        before = ticks
        await loop.first_pass_done.wait()
        assert ticks - before >= 19
        assert loop.progress >= 20
        assert loop.stalled() == 0.0
        loop.stop()
        await running
        ticker.cancel()

    asyncio.run(story())


def test_a_pass_that_hangs_is_seen_to() -> None:
    async def story() -> None:
        world = World(gate=asyncio.Event())
        async with running(world, things(a="1")) as bed:
            await world.halted.wait()
            progress, stalled = bed.loop.progress, bed.loop.stalled()
            await quiet()
            assert bed.loop.progress == progress
            assert bed.loop.stalled() > stalled

    asyncio.run(story())


def test_conditions_of_what_a_pass_did_not_look_at_stay() -> None:
    async def story() -> None:
        world = World(refuse={key("a"): errno.EINVAL, key("b"): errno.EINVAL})
        async with running(world, things(a="1", b="2", c="3")) as bed:
            assert set(bed.loop.conditions) == {key("a"), key("b")}
            world.drift("c", None)
            await quiet()
            assert set(bed.loop.conditions) == {key("a"), key("b")}
            world.drift("a", "1")  # somebody made it
            await quiet()
            assert set(bed.loop.conditions) == {key("b")}
            assert bed.loop.status.counts[State.FAILED] == 1
            bed.loop.declare(things(c="3"))
            await quiet()
            assert bed.loop.conditions == {}

    asyncio.run(story())


def test_an_op_is_admitted_ahead_of_its_pass_only_where_that_pass_comes_next_and_would_admit_it() -> None:
    async def story() -> None:
        world = World()
        op = Op(Verb.CREATE, Thing("a"), None)
        assert not world.admits(op)
        async with running(world, things(a="1")) as bed:
            loop = bed.loop
            assert world.admits(op)
            assert world.notify is not None
            world.notify(Hint(key("b")))
            assert not world.admits(op)  # something else was told of first
            await quiet()
            assert world.admits(op)
            world.notify(Hint(None))
            assert not world.admits(op)  # something was lost
            await quiet()
            loop.declare(things(a="1"))
            assert not world.admits(op)
            await quiet()
            loop.pause(bed.clock.now() + 60)
            assert not world.admits(op)
            await quiet()
            assert not world.admits(op)
            loop.resume()
            await quiet()
            loop.leave(key("a"), bed.clock.now() + 60)
            await quiet()
            assert not world.admits(op)
            assert world.admits(Op(Verb.CREATE, Thing("c"), None))
            loop.take_up(key("a"))
            await quiet()
            assert world.admits(op)
            world.trouble = Blocked("not now")
            world.drift("a")
            await quiet()
            assert loop.state is LoopState.BLOCKED
            assert not world.admits(op)
            world.trouble = None
            await bed.after(1)
            assert world.admits(op)
            plan = asyncio.ensure_future(loop.plan())
            await asyncio.sleep(0)
            assert not world.admits(op)
            await plan
            await quiet()
            world.gate = asyncio.Event()
            asked = asyncio.ensure_future(loop.request())
            await world.halted.wait()
            assert not world.admits(op)  # a pass runs
            world.gate.set()
            await asked
            await quiet()
            assert world.admits(op)
            loop.stop()
            assert not world.admits(op)

    asyncio.run(story())


def test_what_is_fought_over_is_not_admitted_ahead() -> None:
    async def story() -> None:
        world = World()
        async with running(world, things(a="1")):
            op = Op(Verb.CREATE, Thing("a"), None)
            for _ in range(5):
                assert world.admits(op)
                world.drift("a")
                await quiet()
            assert not world.admits(op)

    asyncio.run(story())
