# SPDX-License-Identifier: MIT
"""`linxctl`: the command for people. Here are its words; each group of verbs has a module of its own."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

import linxd.lean  # noqa: F401 - ahead of what imports asyncio
from linxd import __version__
from linxd.cli.once import Trouble
from linxd.cli.pager import paged
from linxd.cli.terminal import RED, Paint
from linxd.log import clean

COMMANDS = {
    "list": "status", "status": "status", "topology": "topology", "watch": "watch", "log": "journal",
    "check": "check", "diff": "plan", "apply": "plan", "pause": "asking", "resume": "asking",
    "reload": "asking", "release": "release", "capture": "capture",
}  # fmt: skip
"""Which module has a command. What only others need is not imported for one."""
TROUBLE = 2
PAGED = frozenset({"list", "status", "log", "diff", "capture", "topology"})
"""Commands whose output may be long."""

_DESCRIPTION = """\
Shows and handles network state that linxd keeps as declared.

A scope is one network namespace with what is declared for it: "host", or a name such as c1.
"""
_EPILOG = """\
`linxctl COMMAND --help` tells more, and what each exit code means.

try:
  linxctl capture --netns c1 > c1.toml   a first file from what is there
  linxctl check c1.toml                  whether it loads
  linxctl diff --file c1.toml            what linxd would do
  linxctl apply --once c1.toml           do it, once
"""


def parser(command: str = "") -> argparse.ArgumentParser:
    """What can be said on the command line; of commands, where one is named, only what its module has."""
    parser = argparse.ArgumentParser(
        prog="linxctl",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("--version", action="version", version=f"linxctl {__version__}")
    parser.add_argument("--no-pager", action="store_true", help="print long output as it comes")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command", prog="linxctl")
    for module in dict.fromkeys([COMMANDS[command]] if command in COMMANDS else COMMANDS.values()):
        importlib.import_module(f"linxd.cli.{module}").add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    first = next((word for word in words if word == "--" or not word.startswith("-")), "")
    options = parser(first).parse_args(words)
    try:
        code: int = 0
        with paged(wanted=options.command in PAGED and not options.no_pager and not _follows(options)):
            code = options.run(options)
        sys.stdout.flush()
        return code
    except Trouble as trouble:
        for line in trouble.details:
            print(clean(line), file=sys.stderr)
        return _trouble(str(trouble))
    except BrokenPipeError:
        # Whoever read us has seen enough; nothing may be flushed into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if options.debug:
            raise
        kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
        return _trouble(f"unexpected error: {kind}{error} (--debug shows where)")


def _follows(options: argparse.Namespace) -> bool:
    return bool(getattr(options, "follow", False))


def _trouble(text: str) -> int:
    print(f"{Paint(sys.stderr)('linxctl:', RED)} {clean(text)}", file=sys.stderr)
    return TROUBLE


if __name__ == "__main__":
    sys.exit(main())
