# SPDX-License-Identifier: MIT
"""The daemon's way onto the bus, for where there is a library for it, and for where there is none.

It imports all that the bus needs before the daemon says that it is ready: an upgrade may replace the files.
"""

from __future__ import annotations

from collections.abc import Sequence

from linxd.log import INFO, WARNING, news
from linxd.reload import Reloader
from linxd.serve import Served
from linxd.systemd import jobs
from linxd.systemd.jobs import own_unit

try:
    from linxd.bus.connection import system_bus
    from linxd.bus.jobs import stopped_for_good as asked_on_bus
    from linxd.bus.serve import OnBus, there
except ImportError:
    _LIBRARY = False
else:
    _LIBRARY = True


def has_bus() -> bool:
    """Whether there is a library for it and something that may be a bus, for now."""
    return _LIBRARY and there(system_bus())


async def stopped_for_good(shown: OnBus | None) -> bool | None:
    """Whether our unit is being stopped because somebody wants it stopped, asked in the way that is there.
    None where nobody can tell."""
    unit = own_unit()
    if unit is None:
        return None
    if shown is not None and shown.connection.up.is_set():
        return await asked_on_bus(shown.connection, unit)
    return await jobs.stopped_for_good()


def show(served: Served, cookie: int, reload: Reloader, directory: str) -> OnBus | None:
    """Have a scope on the bus as soon as there is one; None where there is no library for it. ``directory``:
    its state."""
    name = served.scope.config.name
    if not _LIBRARY:
        if served.scope.config.attach:
            text = "[[attach]] needs the bus, and there is no library for that (python3-dbus-next)"
            served.reporter.say(news(name, text, priority=WARNING))
        return None
    known = has_bus()

    def say(text: str) -> None:
        nonlocal known
        lost = text.startswith("no bus")
        if known or not lost:
            served.reporter.say(news(name, text, priority=WARNING if lost else INFO))
        # That there is none to begin with has been said.
        known = True

    async def release() -> Sequence[str]:
        left = await served.release()
        served.scope.end()
        return left

    shown = OnBus(
        served.scope,
        cookie,
        own_unit() or "",
        word=served.word,
        reload=reload,
        release=release,
        say=say,
    )
    if name == "host":
        # No other scope has it, nor keeps it in memory.
        from linxd.bus.attach import Attacher
        from linxd.bus.networkmanager import NetworkManager
        from linxd.declared import Declared

        shown.follow(
            Attacher(
                shown.connection,
                lambda: served.scope.config.attach,
                Declared(),
                directory,
                say=lambda text: served.reporter.say(news(name, text)),
                warn=lambda text: served.reporter.say(news(name, text, priority=WARNING)),
            )
        )
        other = NetworkManager(shown.connection, lambda: served.beside.again(other))
        served.beside.add(other)
        shown.heard.append(other.heard)
        shown.opened.append(other.opened)
    served.reported.append(shown.reported)
    served.before_ready.append(shown.tried)
    shown.start()
    return shown
