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
from collections.abc import Sequence
from dataclasses import replace

from linxd.cli.once import default_netns
from linxd.cli.terminal import Lines
from linxd.config import ConfigError, NetnsRef, load
from linxd.log import ERROR, Entry, news
from linxd.netns import NotThere, Refused, locate
from linxd.nswatch import WAIT, wait_for
from linxd.reload import faults
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
    try:
        error = link(options.scope, options.wait)
        if error is None:
            return 0
        entry, code = error
        # Whoever reads the log of the scope's unit has to find it there.
        unit = {"OBJECT_SYSTEMD_UNIT": f"linx-reconcile@{options.scope}.service"}
        sink(replace(entry, fields={**entry.fields, **unit}))
        return code
    finally:
        sink.close()


def link(name: str, seconds: float) -> tuple[Entry, int] | None:
    """Make the link, or say why there is none."""
    broken: tuple[Entry, int] | None = None
    try:
        ref = load(name, check_others=False).netns
    except ConfigError as error:
        # With a namespace, the daemon is started, and says all there is to say about its files.
        ref, seconds = default_netns(name), 0.0
        broken = faults(name, error, "the configuration does not load, nothing was changed"), CONFIGURATION
    if ref.kind == "host":
        text = "the host's own namespace is kept by linxd.service"
        return news(name, text, priority=ERROR), CONFIGURATION
    try:
        target = asyncio.run(_wait(ref, seconds))
        fresh = f"{DIRECTORY}/.{name}"
        if os.path.lexists(fresh):
            os.unlink(fresh)
        os.symlink(target, fresh)
        os.replace(fresh, f"{DIRECTORY}/{name}")
    except NotThere as error:
        return broken or (news(name, str(error), priority=ERROR), UNAVAILABLE)
    except Refused as error:
        return broken or (news(name, str(error), priority=ERROR), CONFIGURATION)
    except OSError as error:
        return broken or (news(name, f"{ref}: {error.strerror}", priority=ERROR), UNAVAILABLE)
    return None


async def _wait(ref: NetnsRef, seconds: float) -> str:
    if seconds:
        Notifier().status(f"waiting for {ref}, {seconds:.0f} s at most")
    return await wait_for(ref, locate, seconds=seconds)


if __name__ == "__main__":
    sys.exit(main())
