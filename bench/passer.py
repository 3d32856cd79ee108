# SPDX-License-Identifier: MIT
"""Passes of a scope's sources, one for each line that it is told, in a process like a daemon's; and the same
questions asked of the kernel by others' Python.

`passer.py linxd SCOPE FILE STATE [SOURCE]` and `passer.py pyroute2|bare` in the namespace. Each answers a
line with a line: seconds of CPU, seconds that passed, what was done. It measures and judges nothing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PROTO = 76


async def passes(scope: str, file: str, state: str, *only: str) -> None:
    """Passes over everything, of all sources or of some only; the first one applies what is declared. Then
    they listen to events, as a daemon's do."""
    from linxd.cli.once import configured, visiting
    from linxd.collector import settle, take_charge
    from linxd.patch import Trigger
    from linxd.source import Pass

    take_charge()
    config = configured(scope, file)
    with visiting(scope, config.netns, config, state, write=True) as all_of_them:
        pieces = [piece for piece in all_of_them if not only or piece.name in only]
        settle()
        subscriptions = [piece.opened.source.subscribe(lambda hint: None) for piece in pieces]
        print("ready", flush=True)
        while sys.stdin.readline():
            # Events that have come since are read first, as a loop would have.
            for _ in range(5):
                await asyncio.sleep(0)
            cpu, began = time.process_time(), time.perf_counter()
            ops = 0
            for piece in pieces:
                report = await piece.opened.source.reconcile(
                    Pass(piece.desired, piece.ledger, Trigger.RESYNC)
                )
                if not report.converged:
                    raise SystemExit(f"{piece.name}: {report.conditions[:3]}")
                ops += len(report.applied)
            print(time.process_time() - cpu, time.perf_counter() - began, ops, flush=True)
        for subscription in subscriptions:
            subscription.close()


def answering(ask: Callable[[], Any]) -> None:
    """Ask once for each line."""
    print("ready", flush=True)
    while sys.stdin.readline():
        cpu, began = time.process_time(), time.perf_counter()
        ask()
        print(time.process_time() - cpu, time.perf_counter() - began, 0, flush=True)


def pyroute2() -> None:
    """All links, addresses and routes by IPRoute."""
    from pyroute2 import IPRoute

    way = IPRoute()
    answering(lambda: [list(way.get_links()), list(way.get_addr()), list(way.get_routes(table=254))])


def bare() -> None:
    """A dump of the routes that bear our mark, filtered by the kernel, and not looked into."""
    from linxd.netlink import rt, wire
    from linxd.netlink.socket import Requests, open_netlink

    requests = Requests(open_netlink())
    query = rt.query_routes(2, protocol=PROTO)
    answering(lambda: [None for _ in requests.dump(wire.RTM_GETROUTE, query)])


def main() -> None:
    """Which of them."""
    match sys.argv[1:]:
        case ["linxd", scope, file, state, *only]:
            asyncio.run(passes(scope, file, state, *only))
        case ["pyroute2"]:
            pyroute2()
        case ["bare"]:
            bare()
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
