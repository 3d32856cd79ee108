# SPDX-License-Identifier: MIT
"""Very many things, some at a time: others have their turn, nothing is left out, and nothing is kept."""

from __future__ import annotations

import asyncio
import weakref

import pytest

from linxd.slices import chunks, give_up, let_go, slices


class Thing:
    """Something that can be seen to go."""


def test_chunks_have_everything_once_and_in_order() -> None:
    assert [len(some) for some in chunks(range(2500), 1000)] == [1000, 1000, 500]
    assert [one for some in chunks(range(2500)) for one in some] == list(range(2500))
    assert list(chunks(())) == []


def test_others_have_their_turn_between_two_slices_and_few_things_wait_for_nobody() -> None:
    async def main() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        found = [one async for some in slices(range(10), 10) for one in some]
        assert turns == 0
        found += [one async for some in slices(range(10, 50), 10) for one in some]
        assert turns == 3
        assert found == list(range(50))
        task.cancel()

    asyncio.run(main())


def test_what_is_let_go_of_goes_step_by_step_and_all_of_it() -> None:
    async def main() -> None:
        things = {number: Thing() for number in range(5000)}
        alive = weakref.WeakSet(things.values())
        let_go(things)
        assert len(things) == 5000  # whoever still has it is not disturbed
        del things
        assert len(alive) == 5000
        while alive:
            await asyncio.sleep(0)

    asyncio.run(main())


@pytest.mark.parametrize("kind", [list, dict, set])
def test_what_is_given_up_goes_without_being_copied(kind: type) -> None:
    async def main() -> None:
        things = [Thing() for _ in range(5000)]
        alive = weakref.WeakSet(things)
        container = dict.fromkeys(things) if kind is dict else kind(things)
        del things
        give_up(container)
        assert len(container) == len(alive) == 5000
        while alive:
            await asyncio.sleep(0)
        assert not container

    asyncio.run(main())


def test_what_one_event_loop_left_the_next_one_lets_go_of() -> None:
    async def begin() -> weakref.WeakSet[Thing]:
        things = [Thing() for _ in range(5000)]
        alive = weakref.WeakSet(things)
        let_go(things)
        return alive

    alive = asyncio.run(begin())

    async def end() -> None:
        let_go()
        while alive:
            await asyncio.sleep(0)

    asyncio.run(end())
