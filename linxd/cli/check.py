# SPDX-License-Identifier: MIT
"""`linxctl check`: whether files load, with every fault of every file. Needs no privilege and changes
nothing."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator

from linxd.cli.once import name_of
from linxd.cli.output import Subparsers, print_json
from linxd.cli.terminal import BOLD, GREEN, RED, YELLOW, Paint
from linxd.config import ConfigError, Fault, ScopeConfig, Severity, load, load_all, valid_name
from linxd.config.model import HOST
from linxd.log import clean
from linxd.sources.netfilter.compile import Compiler
from linxd.sources.netfilter.faults import RulesetError, ScratchError

FINE, FAULTY = 0, 1


def add(commands: Subparsers) -> None:
    """The command's words."""
    parser = commands.add_parser(
        "check",
        help="tell what is wrong with files, all at once",
        description="Loads files as linxd would, and tells every fault with its line. Changes nothing.",
        epilog="exit codes: 0 everything loads (perhaps with warnings), 1 something does not",
    )
    parser.add_argument(
        "files",
        metavar="FILE|SCOPE",
        nargs="*",
        help="files to check, or scopes by their names; without any, all that linxd would look up",
    )
    parser.add_argument("--scope", metavar="NAME", help="the scope that FILE is for (default: FILE's name)")
    parser.add_argument("--json", action="store_true", help="print for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Returns the exit code."""
    results = [(name, *_outcome(result)) for name, result in _results(options)]
    bad = any(fault.severity is Severity.ERROR for _, _, faults in results for fault in faults)
    if options.json:
        print_json(
            [
                {"scope": name, "loads": config is not None, "faults": [fault.as_dict() for fault in faults]}
                for name, config, faults in results
            ]
        )
        return FAULTY if bad else FINE
    paint = Paint(sys.stdout)
    for name, config, faults in results:
        for fault in faults:
            colour = RED if fault.severity is Severity.ERROR else YELLOW
            print(_shown(fault, paint, colour))
        if config is not None and not any(fault.severity is Severity.ERROR for fault in faults):
            print(f"{paint(name, BOLD)}: {paint('fine', GREEN)}, {_contents(config)}")
    if not results:
        print("no scope is declared")
    return FAULTY if bad else FINE


def _results(options: argparse.Namespace) -> Iterator[tuple[str, ScopeConfig | ConfigError]]:
    if not options.files:
        yield from load_all()
    for word in options.files:
        scope = not options.scope and _names_scope(word)
        name = word if scope else options.scope or name_of(word)
        try:
            yield name, load(name) if scope else load(name, file=word, owners=None)
        except ConfigError as error:
            yield name, error


def _names_scope(word: str) -> bool:
    """Whether a word is rather a scope's name than a file's."""
    return (word == HOST or valid_name(word)) and not word.endswith(".toml") and not os.path.exists(word)


def _outcome(result: ScopeConfig | ConfigError) -> tuple[ScopeConfig | None, list[Fault]]:
    if isinstance(result, ConfigError):
        return None, list(result.faults)
    return result, [*result.warnings, *_ruleset(result)]


def _ruleset(config: ScopeConfig) -> list[Fault]:
    """What nft has to say, in a namespace made for it."""
    if config.netfilter is None:
        return []

    async def breathe() -> None:
        await asyncio.sleep(0)

    try:
        # Links that rules name by index will be there when it counts.
        asyncio.run(Compiler().compile(config.netfilter, lambda name: 1, breathe))
    except RulesetError as error:
        severity = Severity.WARNING if isinstance(error, ScratchError) else Severity.ERROR
        return [
            Fault(
                fault.file,
                fault.line,
                fault.column,
                fault.where,
                fault.message + (f": {fault.source.strip()}" if fault.source.strip() else ""),
                fault.hint,
                severity,
            )
            for fault in error.faults
        ]
    return []


def _shown(fault: Fault, paint: Paint, colour: str) -> str:
    text = clean(str(fault))
    place, colon, rest = text.partition(": ")
    return f"{paint(place + colon, BOLD)}{paint(rest, colour)}" if colon else text


def _contents(config: ScopeConfig) -> str:
    rtnl = config.rtnl
    counts = {
        "link": len(rtnl.links),
        "address": len(rtnl.addresses),
        "route": len(rtnl.routes),
        "rule": len(rtnl.rules),
        "neighbour": len(rtnl.neighbours),
        "ruleset": 0 if config.netfilter is None else len(config.netfilter.rulesets),
        "sysctl": 0 if config.sysctl is None else len(config.sysctl.settings),
    }
    plurals = {"address": "addresses"}
    parts = [
        f"{count} {noun if count == 1 else plurals.get(noun, noun + 's')}"
        for noun, count in counts.items()
        if count
    ]
    return ", ".join(parts) or "and declares nothing"
