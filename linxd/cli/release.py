# SPDX-License-Identifier: MIT
"""`linxctl release`: what a scope made is deleted, what it changed is given back, and then it is
forgotten."""

from __future__ import annotations

import argparse
import sys

from linxd import statedir
from linxd.cli.asking import ask
from linxd.cli.once import Trouble, default_netns, finished, visiting
from linxd.cli.output import Subparsers, print_json
from linxd.cli.plan import passes, show, standing
from linxd.config import NetnsRef, Undeclared, load
from linxd.config.faults import ConfigError
from linxd.log import clean


def add(commands: Subparsers) -> None:
    """The command's words."""
    parser = commands.add_parser(
        "release",
        help="delete what a scope made, give back what it changed, forget it",
        description=(
            "Deletes what linxd made for a scope and gives sysctls back. What was there before linxd came"
            " stays. A daemon that serves the scope does it itself, and ends. Works for a scope whose file"
            " is gone."
        ),
        epilog="exit codes: 0 all is given back, 1 something is left (and stays known), 2 trouble",
    )
    parser.add_argument("scope", metavar="SCOPE", help='"host", or a name such as c1')
    parser.add_argument(
        "--netns",
        metavar="PATH",
        help="its namespace (default: as its file says, or /run/netns/SCOPE)",
    )
    parser.add_argument("--json", action="store_true", help="print for programs")
    parser.add_argument("--state-dir", metavar="DIR", help=f"where state is kept (default: {statedir.ROOT})")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Returns the exit code."""
    name: str = options.scope
    base = statedir.root(options.state_dir)
    if any(scope == name for _, scope, _ in statedir.holders(base)):
        return _by_daemon(options)
    with visiting(name, _netns(name, options.netns), None, base, write=True) as pieces:
        for note in [piece.ledger.note for piece in pieces]:
            if note and options.netns is not None:
                raise Trouble(f"{name} owns nothing in {options.netns}: {note}")
        # The other way round: no address is left without its filter.
        pieces.reverse()
        done = finished(passes(pieces, None))
        left = {source for source, _ in standing(done)}
        for piece in pieces:
            if piece.name not in left and not isinstance(done[piece.name], str):
                piece.ledger.drop()
    statedir.remove(base, name)
    return show(name, done, options, fine="released")


def _by_daemon(options: argparse.Namespace) -> int:
    if options.netns is not None:
        raise Trouble(f"a linxd serves {options.scope}, and knows its namespace: leave --netns out")
    answer = ask(options, "Release", word="release")
    if options.json:
        print_json({"scope": options.scope, "released": answer.done, "lines": list(answer.lines)})
    else:
        for line in answer.lines:
            print(clean(line), file=sys.stderr)
        if answer.done:
            print(f"{options.scope}: released; its linxd has ended")
    return 0 if answer.done else 1


def _netns(name: str, option: str | None) -> NetnsRef:
    if option is not None:
        return NetnsRef("path", option)
    try:
        return load(name).netns
    except Undeclared:
        return default_netns(name)
    except ConfigError:
        # Where it is can't be learnt from a file that does not load; its default is a good guess, and the
        # ledger is about one namespace only.
        return default_netns(name)
