# SPDX-License-Identifier: MIT
"""The order of a patch: what must go first, what others stand on, and the reverse of it for taking down.

Pure, and stable: the same ops always come in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from linxd.patch import Key, Op, Verb
from linxd.sources.rtnl.model import Link, Route

BUILD = {"link": 10, "address": 20, "neighbour": 30, "route": 40, "rule": 50}
TEARDOWN = {"rule": 1, "route": 2, "neighbour": 3, "address": 4, "link": 5}


def order(ops: Iterable[Op]) -> tuple[Op, ...]:
    """Links by what they stand on, then addresses, neighbours, routes by reachability, rules.

    Addresses, neighbours and links that go, go before anything is made (a name or a subnet may be wanted
    again); routes and rules that go, go last, so that traffic has its new way before it loses the old one. A
    patch that only takes down does so from the top.
    """
    ops = tuple(ops)
    if len(ops) == 1:
        return ops
    builds = [op for op in ops if op.verb is not Verb.DELETE]
    deletes = [op for op in ops if op.verb is Verb.DELETE]
    deletes.sort(key=lambda op: (TEARDOWN[str(op.key[0])], _descending(op)))
    depth = link_depths({op.key: op.want for op in builds if isinstance(op.want, Link)})
    builds = _sorted(builds, depth)
    if not builds:
        return tuple(deletes)
    first = [op for op in deletes if op.key[0] not in ("route", "rule")]
    last = [op for op in deletes if op.key[0] in ("route", "rule")]
    return (*first, *builds, *last)


def _sorted(builds: Sequence[Op], depth: Mapping[Key, int]) -> list[Op]:
    """By kind and rank, and links of one rank by name: in heaps, for there are few ranks and many ops."""
    near: list[Op] = []
    far: list[Op] = []
    heaps: dict[tuple[int, int], list[Op]] = {(BUILD["route"], 0): near, (BUILD["route"], 1): far}
    for op in builds:
        want = op.want
        if isinstance(want, Route):
            # A gateway must be reached by a route without one (net/ipv4/fib_semantics.c fib_check_nh).
            gateway = want.via or (want.nexthops and any(hop.via for hop in want.nexthops))
            (far if gateway else near).append(op)
        else:
            rank = depth[op.key] if isinstance(want, Link) else 0
            heaps.setdefault((BUILD[str(op.key[0])], rank), []).append(op)
    found: list[Op] = []
    for place in sorted(heaps):
        heap = heaps[place]
        if place[0] == BUILD["link"]:
            heap.sort(key=lambda op: op.name)
        found += heap
    return found


def _descending(op: Op) -> int:
    # A link made later may stand on one made earlier: the higher index goes first.
    msg = getattr(op.have, "msg", None)
    return -int(getattr(msg, "ifindex", 0)) if op.key[0] == "link" else 0


def link_depths(links: Mapping[Key, object]) -> dict[Key, int]:
    """How many declared links each one stands on, by its longest way down. A loop counts as 0: it is refused
    when files are loaded."""
    depths: dict[Key, int] = {}

    def depth(key: Key, path: Sequence[Key]) -> int:
        if key in depths:
            return depths[key]
        link = links.get(key)
        if not isinstance(link, Link) or key in path:
            return -1
        below = [link.parent.name] if link.parent is not None and not link.parent.scope else []
        if link.master:
            below.append(link.master)
        depths[key] = 1 + max((depth(("link", name), (*path, key)) for name in below), default=-1)
        return depths[key]

    for key in links:
        depth(key, ())
    return depths
