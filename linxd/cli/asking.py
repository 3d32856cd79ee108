# SPDX-License-Identifier: MIT
"""`linxctl pause`, `resume` and `reload`, and whatever else is asked of the daemon that serves a scope: over
the bus, or without one by its control socket.

It knows how daemons are found and reached, and nothing of what they do.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import Any

from linxd import control, statedir
from linxd.cli.once import Trouble
from linxd.cli.output import Subparsers, print_json
from linxd.config.faults import Wrong
from linxd.config.values import seconds
from linxd.log import clean

LONGEST_PAUSE = 7 * 86400.0
"""Seconds: what is paused for longer is forgotten."""
PATIENCE = 150.0
"""Seconds within which a daemon has done what it was asked for, a person's password included."""

_NOBODY = (
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
)


class Unanswered(Exception):  # noqa: N818 - a fact
    """No daemon serves the scope, or none can be reached."""


def add(commands: Subparsers) -> None:
    """The commands' words."""
    pause = commands.add_parser(
        "pause",
        help="write nothing for a while, so that a repair by hand stays",
        description=(
            "Has the daemon of a scope look and report, but write nothing, or nothing of one object. Ends by"
            " itself; `linxctl resume` ends it sooner. A restart of the daemon ends it, too."
        ),
        epilog="exit codes: 0 done, 2 trouble",
    )
    pause.add_argument("scope", metavar="SCOPE", help='"host", or a name such as c1')
    pause.add_argument(
        "object",
        metavar="OBJECT",
        nargs="*",
        help='leave this object alone, and keep the others: "route default", "link eth0", a sysctl'
        " (as it is listed; its kind, or its end, may be left out)",
    )
    pause.add_argument(
        "--for", dest="span", metavar="TIME", type=_span, default=600.0, help='such as "10m"; default: 10m'
    )
    pause.set_defaults(run=run_pause)
    resume = commands.add_parser(
        "resume",
        help="end a pause",
        description="Has the daemon of a scope heal again what drifts.",
        epilog="exit codes: 0 done, 2 trouble",
    )
    resume.add_argument("scope", metavar="SCOPE", help='"host", or a name such as c1')
    resume.add_argument(
        "object",
        metavar="OBJECT",
        nargs="*",
        help="end the pause of this object alone; default: every pause",
    )
    resume.set_defaults(run=run_resume)
    reload = commands.add_parser(
        "reload",
        help="read the files again",
        description=(
            "Has the daemon of a scope read its files again, and waits until what they declare is in force."
            " Files that do not load change nothing."
        ),
        epilog="exit codes: 0 done, 1 the files do not load, 2 trouble",
    )
    reload.add_argument("scope", metavar="SCOPE", help='"host", or a name such as c1')
    reload.set_defaults(run=run_reload)
    for parser in (pause, resume, reload):
        parser.add_argument("--json", action="store_true", help="print for programs")
        parser.add_argument(
            "--state-dir", metavar="DIR", help=f"where state is kept (default: {statedir.ROOT})"
        )


def _span(text: str) -> float:
    try:
        return seconds(text, low=1, high=LONGEST_PAUSE)
    except Wrong as wrong:
        raise argparse.ArgumentTypeError(f"{text!r} is not {wrong.want}") from None


def run_pause(options: argparse.Namespace) -> int:
    """Returns the exit code."""
    usec, wanted = int(options.span * 1e6), _said(options.object)
    end = f"`linxctl resume {options.scope}` ends it"
    said = f"for {_words(options.span)}; {end}"
    if not wanted:
        answer = ask(options, "Pause", "t", [usec], word=f"pause {options.span:.6f}")
        return _show(options, answer, f"{options.scope}: writes nothing {said}")
    answer = ask(options, "PauseObject", "st", [wanted, usec], word=f"pause {options.span:.6f} {wanted}")
    return _show_object(options, answer, f"is left alone {said}")


def _words(span: float) -> str:
    """``10 min``."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if span >= size and span % size == 0:
            return f"{span / size:.0f} {unit}"
    return f"{span:g} s"


def run_resume(options: argparse.Namespace) -> int:
    """Returns the exit code."""
    wanted = _said(options.object)
    if not wanted:
        return _show(options, ask(options, "Resume", word="resume"), f"{options.scope}: heals again")
    answer = ask(options, "ResumeObject", "s", [wanted], word=f"resume {wanted}")
    return _show_object(options, answer, "is kept as declared again")


def run_reload(options: argparse.Namespace) -> int:
    """Returns the exit code."""
    return _show(options, ask(options, "Reload", word="reload"), f"{options.scope}: reloaded")


def _said(words: Sequence[str]) -> str:
    """What was said of an object, as one line."""
    return " ".join(" ".join(words).split())


def _show_object(options: argparse.Namespace, answer: control.Answer, what: str) -> int:
    """The daemon's answer is the whole name of what was meant, or why nothing could be."""
    if not answer.done:
        raise Trouble(f"{options.scope}: {'; '.join(answer.lines)}")
    (name,) = answer.lines
    if options.json:
        print_json({"scope": options.scope, "done": True, "object": name, "lines": []})
        return 0
    print(clean(f"{options.scope}: {name} {what}"))
    return 0


def _show(options: argparse.Namespace, answer: control.Answer, done: str) -> int:
    if options.json:
        print_json({"scope": options.scope, "done": answer.done, "lines": list(answer.lines)})
        return 0 if answer.done else 1
    for line in answer.lines:
        print(clean(line), file=sys.stderr)
    if answer.done:
        print(clean(done))
    return 0 if answer.done else 1


def ask(
    options: argparse.Namespace, member: str, signature: str = "", body: Sequence[Any] = (), *, word: str
) -> control.Answer:
    """Have the daemon of ``options.scope`` do something: a method of org.linxd1.Scope, or a word on its
    control socket where no bus leads to it. Raises Trouble."""
    name: str = options.scope
    base = statedir.root(options.state_dir)
    if asks_bus(base):
        try:
            return _by_bus(name, member, signature, body)
        except Unanswered:
            pass
    try:
        return control.ask(os.path.join(base, name), word, seconds=PATIENCE)
    except TimeoutError:
        raise Trouble(f"the linxd that serves {name} does not answer") from None
    except PermissionError:
        raise Trouble(f"no linxd serves {name} on the bus, and its control socket is root's") from None
    except OSError as error:
        raise Trouble(f"no linxd serves {name}: {error.strerror or error}") from None


def asks_bus(base: str) -> bool:
    """Whether the daemons whose state is in ``base`` are those on the bus: not those of a state directory of
    one's own, unless a bus is named, too."""
    return base == statedir.ROOT or "DBUS_SYSTEM_BUS_ADDRESS" in os.environ


def has_bus() -> bool:
    """Whether the library for the bus is there."""
    return importlib.util.find_spec("dbus_next") is not None


def _by_bus(name: str, member: str, signature: str, body: Sequence[Any]) -> control.Answer:
    """Raises Unanswered where nobody is there, Trouble where somebody refuses."""
    if not has_bus():
        raise Unanswered("there is no library for the bus")
    from linxd.bus import names
    from linxd.bus.connection import BusError, Connection, Unreachable, system_bus

    async def call() -> Sequence[Any]:
        connection = Connection(system_bus())
        try:
            await connection.open()
        except (OSError, ValueError, Unreachable, BusError) as error:
            raise Unanswered(str(error)) from None
        try:
            return await connection.call(
                names.bus_name(name),
                names.scope_path(name),
                "org.linxd1.Scope",
                member,
                signature,
                body,
                seconds=PATIENCE,
                interactive=True,
            )
        finally:
            connection.close()

    try:
        answer = asyncio.run(call())
    except BusError as error:
        if error.name in _NOBODY:
            raise Unanswered(str(error)) from None
        if error.name == names.INVALID_CONFIG:
            return control.Answer(False, tuple(str(error).splitlines()))
        raise Trouble(f"{name}: {error}") from None
    except Unreachable as error:
        raise Trouble(f"{name}: {error}") from None
    lines = answer[0] if answer else []
    return control.Answer(True, tuple(map(str, lines)) if isinstance(lines, list) else (str(lines),))
