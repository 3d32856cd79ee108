# SPDX-License-Identifier: MIT
"""A daemon from its declaration to its end, in the foreground, with or without systemd.

It enters the namespace and hands over to the scope; it decides nothing about objects. What is imported here
is what every daemon needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from linxd import statedir
from linxd.cli.asked import Asked
from linxd.cli.daemon import CONFIGURATION, REPLACED, SOFTWARE, STOPPED, UNAVAILABLE, Options
from linxd.cli.onbus import has_bus, show, stopped_for_good
from linxd.collector import take_charge
from linxd.config.apart import Again, NotRead, Reading
from linxd.config.faults import ConfigError
from linxd.config.model import ScopeConfig
from linxd.control import Answer, Control, span
from linxd.log import ERROR, NOTICE, WARNING, Entry, news
from linxd.netns import Namespace, NotThere, Refused, elsewhere, enter, find, is_replaced, open_host
from linxd.nswatch import WAIT, Watch, begins, comes_again, wait_for
from linxd.reload import ANSWERED, Reloader, faults, told, warnings
from linxd.scope import ScopeState
from linxd.serve import Served
from linxd.systemd.handed import anything_handed
from linxd.systemd.jobs import left_out
from linxd.systemd.journal import Journal, connected
from linxd.systemd.notify import Notifier

if TYPE_CHECKING:
    from linxd.cli.terminal import Lines

GRACE = 0.3
"""Seconds in which a namespace may come back under its name, for it to count as replaced."""
LINGERS = 1.0
"""Seconds in which a unit ends whose container has; one that does not may begin another."""


class Exit(Exception):  # noqa: N818 - an end, not always a fault
    """The process ends with ``code``; the text says why, and is shown."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text)
        self.code = code


def serve(options: Options, reading: Reading) -> int:
    """Serve the scope that ``reading`` reads; returns the process' exit code."""
    logging.basicConfig(
        level=logging.DEBUG if options.debug else logging.CRITICAL, format="%(name)s: %(message)s"
    )
    sink: Journal | Lines
    if connected():
        sink = Journal()
    else:
        from linxd.cli.terminal import Lines

        sink = Lines()
    try:
        return _run(options, reading, sink)
    except Exception as error:
        if options.debug:
            raise
        kind = "" if isinstance(error, OSError | NotRead) else f"{type(error).__name__}: "
        sink(news(options.scope, f"unexpected error: {kind}{error} (--debug shows where)", priority=ERROR))
        return SOFTWARE
    finally:
        sink.close()


def _run(options: Options, reading: Reading, sink: Callable[[Entry], None]) -> int:
    name, base = options.scope, statedir.root(options.state_dir)
    again = Again(name, options.file, debug=options.debug, kept=reading.kept)

    async def served(config: ScopeConfig) -> int:
        ended = asyncio.create_task(reading.ended())
        try:
            with contextlib.closing(Asked()) as asked:
                return await _serve(config, again, base, sink, asked)
        finally:
            ended.cancel()
            # Else the thread that waits for a reload would be waited for.
            again.close()

    try:
        config = reading.result()
        with asyncio.Runner() as runner:
            # Its own run() would see to SIGINT first, which is ours.
            return runner.get_loop().run_until_complete(served(config))
    except ConfigError as error:
        sink(faults(name, error, "the configuration does not load, nothing was changed"))
        return CONFIGURATION
    except Exit as end:
        sink(news(name, str(end), priority=ERROR))
        return end.code


async def _serve(
    config: ScopeConfig,
    read: Callable[[], ScopeConfig],
    base: str,
    sink: Callable[[Entry], None],
    asked: Asked,
) -> int:
    take_charge()
    notifier = Notifier()
    stop = asked.stop
    without = [what for what, there in (("systemd", bool(notifier)), ("a bus", has_bus())) if not there]
    if without:
        text = f"runs without {' and without '.join(without)}"
        sink(news(config.name, text if notifier else f"{text}; the log goes to stderr, Ctrl-C stops it"))
    for entry in warnings(config):
        sink(entry)
    namespace = await _namespace(config, stop, sink, notifier)
    if namespace is None:
        return STOPPED
    with contextlib.ExitStack() as stack:
        stack.callback(namespace.close)
        if notifier and namespace.home and not anything_handed() and await left_out(config.name):
            # Only whoever starts us can hand it in.
            text = "was started without its way to the host's links, and is started again"
            sink(news(config.name, text, priority=NOTICE))
            _ended(notifier)
            return REPLACED
        try:
            lock = statedir.Lock(base, namespace.cookie, config.name)
            stack.callback(lock.release)
            directory = statedir.prepare(base, config.name)
            stack.callback(os.close, statedir.occupy(base, config.name))
        except statedir.Busy as busy:
            raise Exit(UNAVAILABLE, str(busy)) from None
        except OSError as error:
            raise Exit(UNAVAILABLE, f"{error.filename}: {error.strerror}") from None
        host_fd = None if namespace.home else open_host()
        if host_fd is not None:
            stack.callback(os.close, host_fd)
        try:
            if not namespace.home:
                enter(namespace.fd)
        except OSError as error:
            raise Exit(UNAVAILABLE, f"can't enter {namespace.ref}: {error.strerror}") from None
        served = Served(config, namespace, base, directory, sink, notifier, host_fd=host_fd)
        watch = Watch(namespace, lambda: served.scope.end(gone=True)) if config.name != "host" else None
        if watch is not None:
            stack.callback(watch.close)
        reload = Reloader(served.scope, read, sink, notifier, served.beside.look)
        control = Control(
            directory,
            {
                "reload": lambda: _answer(reload),
                "resume": lambda: _resume(served),
                "release": lambda: _release(served),
            },
            {
                "pause": lambda rest: _pause(served, rest),
                "resume": lambda rest: _resume(served, rest),
            },
        )
        stack.callback(control.close)
        try:
            await control.open()
        except OSError as error:
            sink(news(config.name, f"no control socket: {error.strerror}", priority=WARNING))
        shown = show(served, namespace.cookie, reload, directory)
        try:
            await _until_ended(served, reload, asked, notifier, lambda: stopped_for_good(shown))
        finally:
            if shown is not None:
                await shown.close()
        if watch is not None:
            watch.close()
        control.close()
        gone = served.scope.gone
        if not gone:
            return STOPPED
        namespace.close()
        replaced = await _replaced(namespace)
        what = "is gone: nothing is left to do"
        if replaced and namespace.ref.kind == "unit":
            what = "has left its namespace and runs on: its next one is waited for"
        elif replaced:
            what = "was replaced by another one of the same name: nothing is left to do"
        sink(news(config.name, f"{namespace.ref} {what}", priority=NOTICE))
        return REPLACED if replaced else STOPPED


async def _answer(reload: Reloader) -> Answer:
    try:
        return Answer(True, await reload())
    except ConfigError as error:
        return Answer(False, told(error.faults, ANSWERED))


async def _pause(served: Served, rest: str) -> Answer:
    said = span(rest)
    if said is None or said[0] <= 0:
        return Answer(False, ("a pause ends by itself: say after how many seconds",))
    seconds, wanted = said
    try:
        if wanted:
            return Answer(True, (await served.scope.pause_object(wanted, seconds),))
        served.scope.pause(seconds)
        return Answer(True)
    except LookupError as error:
        return Answer(False, (str(error.args[0]),))


async def _resume(served: Served, wanted: str = "") -> Answer:
    try:
        if wanted:
            return Answer(True, (await served.scope.resume_object(wanted),))
        served.scope.resume()
        return Answer(True)
    except LookupError as error:
        return Answer(False, (str(error.args[0]),))


async def _release(served: Served) -> Answer:
    """Afterwards there is nothing to serve: the daemon ends."""
    if served.scope.state is ScopeState.STOPPING:
        return Answer(False, ("it stops already",))
    left = await served.release()
    served.scope.end()
    return Answer(not left, tuple(left))


async def _namespace(
    config: ScopeConfig, stop: asyncio.Event, sink: Callable[[Entry], None], notifier: Notifier
) -> Namespace | None:
    """The namespace, waited for if need be; None when we are stopped before it is there, or were started in
    it and it has ended meanwhile."""
    started_in_it = bool(notifier) and elsewhere()
    search = asyncio.ensure_future(wait_for(config.netns, find, seconds=0.0 if started_in_it else WAIT))
    stopped = asyncio.ensure_future(stop.wait())
    try:
        done, _ = await asyncio.wait({search, stopped}, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            text = f"waits for {config.netns}, {WAIT:.0f} s at most"
            sink(news(config.name, text))
            notifier.status(f"waiting: {text}")
            await asyncio.wait({search, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not search.done():
            return None
        namespace = search.result()
    except NotThere as error:
        if not started_in_it:
            raise Exit(UNAVAILABLE, str(error)) from None
        if await begins(config.netns, seconds=LINGERS):
            raise Exit(REPLACED, f"{error}, yet it runs: its next one is waited for") from None
        sink(news(config.name, f"{error}: nothing is left to do", priority=NOTICE))
        _ended(notifier)
        return None
    except Refused as error:
        raise Exit(CONFIGURATION, str(error)) from None
    except OSError as error:
        raise Exit(UNAVAILABLE, f"{config.netns}: {error.strerror}") from None
    finally:
        search.cancel()
        stopped.cancel()
    if namespace.host and config.name != "host":
        namespace.close()
        text = f"{config.netns} is the host's own network namespace, which only the scope host may touch"
        raise Exit(CONFIGURATION, text)
    if started_in_it and not namespace.home:
        namespace.close()
        raise Exit(REPLACED, f"{config.netns} was replaced by another one meanwhile")
    return namespace


def _ended(notifier: Notifier) -> None:
    """The namespace has ended. That is no failure; for systemd, a unit that was never ready would be one."""
    notifier.send(READY="1")


async def _replaced(namespace: Namespace) -> bool:
    """Whether another namespace stands under the same name, or comes there at once: `ip netns del c1; ip
    netns add c1` is two steps."""
    if namespace.ref.kind == "unit":
        return await comes_again(namespace, seconds=LINGERS)
    if namespace.ref.kind == "path":
        with contextlib.suppress(NotThere, Refused, OSError):
            (await wait_for(namespace.ref, find, seconds=GRACE)).close()
    return is_replaced(namespace)


async def _until_ended(
    served: Served,
    reload: Reloader,
    asked: Asked,
    notifier: Notifier,
    stopped: Callable[[], Awaitable[bool | None]],
) -> None:
    """Run the scope until it ends, and do meanwhile what signals ask for. ``stopped``: whether a stop is
    meant for good."""
    scope = served.scope
    running = asyncio.create_task(served.run())

    async def reloads() -> None:
        while await asked.reload.wait():
            asked.reload.clear()
            with contextlib.suppress(ConfigError):
                await reload()

    async def stops() -> None:
        await asked.stop.wait()
        # Under a service manager only it knows whether this is a stop or the first half of a restart.
        remove = scope.config.on_stop == "remove" and not scope.gone
        if remove and notifier:
            for_good = await stopped()
            if for_good is None:
                text = "can't learn whether this is a stop or a restart: everything stays"
                served.reporter.say(news(scope.config.name, text, priority=WARNING))
            remove = bool(for_good)
        if remove:
            release = asyncio.ensure_future(served.release())
            hurry = asyncio.ensure_future(asked.hurry.wait())
            await asyncio.wait({release, hurry}, return_when=asyncio.FIRST_COMPLETED)
            release.cancel()
            hurry.cancel()
        scope.end()

    tasks = [asyncio.create_task(reloads()), asyncio.create_task(stops())]
    try:
        await running
    finally:
        if scope.gone:
            _ended(notifier)
        notifier.send(STOPPING="1")
        for task in tasks:
            task.cancel()
