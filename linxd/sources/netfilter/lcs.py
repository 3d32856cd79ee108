# SPDX-License-Identifier: MIT
"""The longest common subsequence of two lists of rules: which of them need not be touched.

Pure; it knows only that rules can be compared.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

MOST_PAIRS = 2_000_000
"""Equal pairs that are looked at. Beyond (thousands of rules that are all the same) of each group of equal
rules only those at the same place among their likes are paired: no longer the longest, still a common
subsequence."""


def common(have: Sequence[bytes], want: Sequence[bytes]) -> list[tuple[int, int]]:
    """Index pairs of a longest common subsequence, ascending.

    What is equal at both ends is taken as it is; for the rest Hunt and Szymanski's way over the equal pairs
    (Communications of the ACM 20, 1977): O((r + n) log n) for r pairs, so that a reordered chain of n
    different rules costs n log n.
    """
    start = 0
    stop_have, stop_want = len(have), len(want)
    while start < stop_have and start < stop_want and have[start] == want[start]:
        start += 1
    while stop_have > start and stop_want > start and have[stop_have - 1] == want[stop_want - 1]:
        stop_have -= 1
        stop_want -= 1
    middle = _middle(have[start:stop_have], want[start:stop_want])
    tail = zip(range(stop_have, len(have)), range(stop_want, len(want)), strict=True)
    return [*((n, n) for n in range(start)), *((start + a, start + b) for a, b in middle), *tail]


def _middle(have: Sequence[bytes], want: Sequence[bytes]) -> list[tuple[int, int]]:
    places: dict[bytes, list[int]] = defaultdict(list)
    for at, content in enumerate(want):
        places[content].append(at)
    pairs = sum(len(places[content]) for content in have if content in places)
    if pairs > MOST_PAIRS:
        return _by_rank(have, places)
    # The smallest end in ``want`` of a common subsequence of each length, and the pair that it ends with.
    ends: list[int] = []
    links: list[_Link] = []
    for at, content in enumerate(have):
        # descending, so that one rule of ``have`` is not used twice
        for other in reversed(places.get(content, ())):
            length = bisect_left(ends, other)
            before = links[length - 1] if length else None
            if length == len(ends):
                ends.append(other)
                links.append((at, other, before))
            elif other < ends[length]:
                ends[length] = other
                links[length] = (at, other, before)
    return _walk(links[-1] if links else None)


def _by_rank(have: Sequence[bytes], places: dict[bytes, list[int]]) -> list[tuple[int, int]]:
    ends: list[int] = []
    links: list[_Link] = []
    seen: dict[bytes, int] = defaultdict(int)
    for at, content in enumerate(have):
        rank = seen[content]
        seen[content] += 1
        if rank >= len(places.get(content, ())):
            continue
        other = places[content][rank]
        length = bisect_left(ends, other)
        before = links[length - 1] if length else None
        if length == len(ends):
            ends.append(other)
            links.append((at, other, before))
        else:
            ends[length] = other
            links[length] = (at, other, before)
    return _walk(links[-1] if links else None)


_Link = tuple[int, int, "_Link | None"]


def _walk(link: _Link | None) -> list[tuple[int, int]]:
    found = []
    while link is not None:
        at, other, link = link
        found.append((at, other))
    return found[::-1]
