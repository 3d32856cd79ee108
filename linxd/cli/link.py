# SPDX-License-Identifier: MIT
"""`linx-netns@.service`: finds the namespace that a scope's files name, and leaves a link to it where the
system's manager looks when it starts the scope's daemon inside.

It runs as root in the host's namespace, without any privilege, and enters nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from linxd.cli.once import default_netns
from linxd.cli.terminal import Lines
from linxd.config import ConfigError, NetnsRef, load
from linxd.log import ERROR, Entry, news
from linxd.netns import NotThere, Refused, locate, unit_cgroup
from linxd.nswatch import WAIT, wait_for
from linxd.reload import faults
from linxd.systemd.jobs import wanted_by
from linxd.systemd.journal import Journal, connected
from linxd.systemd.notify import Notifier

DIRECTORY = "/run/linxd-netns"
UNAVAILABLE, CONFIGURATION = 69, 78


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="netns-link")
    parser.add_argument("scope")
    parser.add_argument("--wait", type=float, default=WAIT, help="seconds to wait for the namespace")
    options = parser.parse_args(arguments)
    sink = Journal() if connected() else Lines()
    # Whoever reads the log of the scope's unit has to find it there.
    unit = {"OBJECT_SYSTEMD_UNIT": f"linx-reconcile@{options.scope}.service"}

    def say(entry: Entry) -> None:
        sink(replace(entry, fields={**entry.fields, **unit}))

    try:
        return link(options.scope, options.wait, say)
    finally:
        sink.close()


def link(name: str, seconds: float, say: Callable[[Entry], None]) -> int:
    """Make the link, or say why there is none. Returns the exit code."""
    broken: Entry | None = None
    try:
        ref = load(name, check_others=False).netns
    except ConfigError as error:
        # With a namespace, the daemon is started, and says all there is to say about its files.
        ref, seconds = default_netns(name), 0.0
        broken = faults(name, error, "the configuration does not load, nothing was changed")
    if ref.kind == "host":
        say(news(name, "the host's own namespace is kept by linxd.service", priority=ERROR))
        return CONFIGURATION
    try:
        target = asyncio.run(_wait(name, ref, seconds, say))
        fresh = f"{DIRECTORY}/.{name}"
        if os.path.lexists(fresh):
            os.unlink(fresh)
        os.symlink(target, fresh)
        os.replace(fresh, f"{DIRECTORY}/{name}")
    except (NotThere, Refused, OSError) as error:
        if broken is not None:
            say(broken)
            return CONFIGURATION
        text = f"{ref}: {error.strerror}" if isinstance(error, OSError) else str(error)
        say(news(name, text, priority=ERROR))
        return CONFIGURATION if isinstance(error, Refused) else UNAVAILABLE
    return 0


async def _wait(name: str, ref: NetnsRef, seconds: float, say: Callable[[Entry], None]) -> str:
    try:
        return locate(ref)
    except NotThere:
        if not seconds or ref.kind == "pid":
            raise
    text = f"waits for {ref}, {seconds:.0f} s at most"
    say(news(name, text))
    Notifier().status(text)
    wanting = Wanting(await wanted_by(f"linx-reconcile@{name}.service"))
    try:
        return await wait_for(ref, locate, seconds=seconds, wanted=wanting)
    except NotThere as error:
        if wanting():
            raise
        raise NotThere(f"{error}, and {' and '.join(wanting.units)} has ended") from None


class Wanting:
    """Whether any of these units, which had us started, may still want it.

    A unit that ends by itself takes along what runs, but not what waits to run: systemd's PropagatesStopTo=
    does not reach that far. ``units`` may not run yet: they have ended when they were seen and are not any
    more.
    """

    def __init__(self, units: Sequence[str], find: Callable[[str], str | None] = unit_cgroup) -> None:
        self.units = tuple(units)
        self._find = find
        self._seen = dict.fromkeys(units, "")

    def __call__(self) -> bool:
        for unit, seen in self._seen.items():
            if not seen or not os.path.isdir(seen):
                self._seen[unit] = self._find(unit) or seen
        return not self._seen or any(not seen or os.path.isdir(seen) for seen in self._seen.values())


if __name__ == "__main__":
    sys.exit(main())
