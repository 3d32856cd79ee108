# SPDX-License-Identifier: MIT
"""`linx-netns@.service`: finds the namespace that a scope's files name, and leaves a link to it where the
system's manager looks when it starts the scope's daemon inside.

It runs as root in the host's namespace, without any privilege, and enters nothing.
"""

from __future__ import annotations

import linxd.lean  # noqa: F401 - ahead of what imports asyncio

# isort: split
import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

from linxd.cli.once import default_netns
from linxd.cli.terminal import Lines
from linxd.config import ConfigError, NetnsRef, load
from linxd.log import ERROR, Entry, news
from linxd.netns import NotThere, Ref, Refused, locate
from linxd.nswatch import WAIT, wait_for
from linxd.records import replace
from linxd.reload import faults
from linxd.systemd.jobs import began, ended, ran_and_ended
from linxd.systemd.journal import Journal, connected
from linxd.systemd.notify import Notifier

DIRECTORY = "/run/linxd-netns"
UNAVAILABLE, CONFIGURATION = 69, 78


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="netns-link")
    parser.add_argument("scope")
    parser.add_argument("--wait", type=float, default=WAIT, help="seconds to wait for the namespace")
    parser.add_argument("--wanted-by", default="", help="units that had the scope started along with them")
    options = parser.parse_args(arguments)
    pulled = [unit for unit in options.wanted_by.split() if unit.endswith((".scope", ".service"))]
    sink = Journal() if connected() else Lines()
    # Whoever reads the log of the scope's unit has to find it there.
    unit = {"OBJECT_SYSTEMD_UNIT": f"linx-reconcile@{options.scope}.service"}

    def say(entry: Entry) -> None:
        sink(replace(entry, fields={**entry.fields, **unit}))

    # Whoever has it stopped wants nothing remembered; it ends by the signal all the same.
    signal.signal(signal.SIGTERM, _stopped)
    try:
        return link(options.scope, options.wait, say, pulled)
    except _Stopped:
        _forget(options.scope)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        sink.close()


class _Stopped(BaseException):
    """Raised wherever we are then."""


def _stopped(*_: object) -> None:
    raise _Stopped


def link(name: str, seconds: float, say: Callable[[Entry], None], pulled: Sequence[str] = ()) -> int:
    """Make the link, or say why there is none. Returns the exit code.

    ``pulled``: units that had the scope started along with them. When they have ended, nobody waits any
    more: a unit that ends by itself takes along what runs, but not what waits to run (systemd's
    PropagatesStopTo= does not reach that far). One may have ended before anybody could ask who they are, and
    then nobody can: so a unit whose namespace is meant, and which has run since we were started, counts.
    """
    pulled = _remembered(name, pulled)
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
        target, looked = asyncio.run(_wait(name, ref, seconds, say, pulled))
        if ref.kind == "unit":
            _remember(name, pulled, f"{ref.value} {looked * 1e6:.0f}")
        fresh = f"{DIRECTORY}/.{name}"
        if os.path.lexists(fresh):
            os.unlink(fresh)
        os.symlink(target, fresh)
        os.replace(fresh, f"{DIRECTORY}/{name}")
    except (NotThere, Refused, OSError) as error:
        _forget(name)
        if broken is not None:
            say(broken)
            return CONFIGURATION
        text = f"{ref}: {error.strerror}" if isinstance(error, OSError) else str(error)
        say(news(name, text, priority=ERROR))
        return CONFIGURATION if isinstance(error, Refused) else UNAVAILABLE
    return 0


def _forget(name: str) -> None:
    for left in (f"{DIRECTORY}/{name}", _by(name)):
        with contextlib.suppress(OSError):
            os.unlink(left)


def _by(name: str) -> str:
    # No scope's name has a colon.
    return f"{DIRECTORY}/:{name}"


def _remembered(name: str, pulled: Sequence[str]) -> Sequence[str]:
    """The units that had the scope started: those that are known, else those that were known the last time.

    A container may end after its namespace was found and before the daemon was started in it. systemd tries
    again then, and does not know any more who wanted it. Whoever ends in order removes the file.
    """
    if pulled:
        _remember(name, pulled)
        return pulled
    with contextlib.suppress(OSError), open(_by(name)) as file:
        return file.readline().split()
    return pulled


def _remember(name: str, pulled: Sequence[str], life: str = "") -> None:
    """Leave word of them for the next time and, for `units/scope-ended`, of the ``life`` of the container:
    its unit, and when we looked (µs of CLOCK_MONOTONIC). If that has begun later, it is another one."""
    if pulled:
        with contextlib.suppress(OSError), open(_by(name), "w") as file:
            file.write(f"{' '.join(pulled)}\n{life}\n")


async def _wait(
    name: str, ref: NetnsRef, seconds: float, say: Callable[[Entry], None], pulled: Sequence[str]
) -> tuple[str, float]:
    """Where the namespace is, and when that was looked for, on the monotonic clock."""
    looked = 0.0

    def look(ref: Ref) -> str:
        nonlocal looked
        looked = time.monotonic()
        return locate(ref)

    try:
        return look(ref), looked
    except NotThere:
        if not seconds or ref.kind == "pid":
            raise
    text = f"waits for {ref}, {seconds:.0f} s at most"
    say(news(name, text))
    Notifier().status(text)
    if pulled or ref.kind != "unit":
        wanting = asyncio.create_task(ended(pulled))
    else:
        pulled = (ref.value,)
        wanting = asyncio.create_task(ran_and_ended(ref.value, began()))
    try:
        found = await wait_for(ref, look, seconds=seconds, wanted=lambda: not wanting.done())
        return found, looked
    except NotThere as error:
        if not wanting.done():
            raise
        raise NotThere(f"{error}, and {' and '.join(pulled)} has ended") from None
    finally:
        wanting.cancel()


if __name__ == "__main__":
    sys.exit(main())
