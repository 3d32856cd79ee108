# SPDX-License-Identifier: MIT
"""`linxd`: what is said on its command line, and the beginning of a daemon.

While all that a daemon needs is imported, another process reads the files: little is imported here.
"""

from __future__ import annotations

import os
import sys

from linxd import __version__
from linxd.config.apart import Reading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Sequence

STOPPED, FAILED, UNAVAILABLE, SOFTWARE, REPLACED, CONFIGURATION = 0, 1, 69, 70, 75, 78
"""Exit codes, after sysexits.h."""

RELOAD = 90.0
"""Seconds within which a reload has to be answered: longer than it may take."""

_HELP = """\
Keeps the network of one scope as its files declare it, until it is stopped or its namespace ends.

The files of NAME are host.toml for the scope "host", else netns/NAME.toml, looked up in /etc/linxd,
/run/linxd and /usr/lib/linxd, with drop-ins in NAME.toml.d. `linxctl check` tells what is wrong with them.
"""
_EPILOG = """\
signals:
  SIGTERM, SIGINT   stop; what was made stays, unless on-stop = "remove" says otherwise;
                    a second one stops without waiting for that
  SIGHUP            read the files again; files that do not load change nothing

exit codes:
  0    stopped, or the namespace is gone
  1    --reload: the files do not load
  69   no namespace within 60 s, or another linxd serves it
  70   an error of linxd's own
  75   the namespace was replaced by another one of the same name
  78   the files do not load, or name a namespace that this scope may not touch
"""


class Options:
    """What was said on the command line."""

    def __init__(self) -> None:
        self.scope = ""
        self.file: str | None = None
        self.state_dir: str | None = None
        self.reload = False
        self.debug = False


def options_of(arguments: Sequence[str]) -> Options:
    """What the command line says. Exits with 2 and says why where it makes no sense."""
    options = Options()
    rest = list(arguments)
    while rest:
        match rest:
            case ["--scope", name, *rest] if not name.startswith("-"):
                options.scope = name
            case ["--file", file, *rest] if not file.startswith("-"):
                options.file = file
            case ["--state-dir", directory, *rest] if not directory.startswith("-"):
                options.state_dir = directory
            case ["--debug", *rest]:
                options.debug = True
            case _:
                break
    if options.scope and not rest:
        # As the units say it: argparse and what it needs would stay for as long as the daemon, a megabyte.
        return options
    return parser().parse_args(arguments, Options())


def parser() -> ArgumentParser:
    """What can be said on the command line."""
    import argparse

    from linxd import statedir

    parser = argparse.ArgumentParser(
        prog="linxd",
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--scope", metavar="NAME", required=True, help='"host", or a name such as c1 for /run/netns/c1'
    )
    parser.add_argument("--file", metavar="FILE", help="read this file instead of those that are looked up")
    parser.add_argument(
        "--state-dir", metavar="DIR", help=f"where to keep what is owned (default: {statedir.ROOT})"
    )
    parser.add_argument(
        "--reload",
        action="store_true",
        help="have the linxd that serves NAME read its files again, and wait; 1 if they do not load",
    )
    parser.add_argument("--debug", action="store_true", help="say more, with tracebacks")
    parser.add_argument("--version", action="version", version=f"linxd {__version__}")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; returns its exit code."""
    options = options_of(sys.argv[1:] if arguments is None else arguments)
    try:
        if options.reload:
            return _reload(options)
        reading = Reading(options.scope, options.file, debug=options.debug)
        import signal

        # It waits until somebody hears it (linxd.cli.asked): by itself it would end us.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        import linxd.lean  # noqa: F401 - ahead of what imports asyncio
        from linxd.cli.serving import serve

        return serve(options, reading)
    except KeyboardInterrupt:
        return STOPPED


def _reload(options: Options) -> int:
    """Ask the daemon of a scope to reload; what it says goes to stderr."""
    import linxd.lean  # noqa: F401 - ahead of what imports asyncio
    from linxd import statedir
    from linxd.config.model import HOST, valid_name
    from linxd.control import Answer, ask
    from linxd.log import clean

    name = options.scope
    if name != HOST and not valid_name(name):
        print(clean(f"{name!r} is no name of a scope"), file=sys.stderr)
        return FAILED
    try:
        answer = ask(os.path.join(statedir.root(options.state_dir), name), "reload", seconds=RELOAD)
    except OSError as error:
        answer = Answer(False, (f"no linxd answers for scope {name}: {error.strerror or error}",))
    for line in answer.lines:
        print(clean(line), file=sys.stderr)
    return STOPPED if answer.done else FAILED


if __name__ == "__main__":
    sys.exit(main())
