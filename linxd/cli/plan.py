# SPDX-License-Identifier: MIT
"""`linxctl diff` and `linxctl apply`: what would be done, and doing it once, without a daemon."""

from __future__ import annotations

import argparse
import atexit
import gc
import sys

from linxd import statedir
from linxd.cli.once import Piece, Trouble, configured, finished, visiting
from linxd.cli.output import Subparsers, print_json
from linxd.cli.terminal import GREEN, Paint
from linxd.cli.words import condition_json, condition_text, op_json, op_line, plan_lines
from linxd.config import ScopeConfig
from linxd.patch import Condition, Patch, Report, State, Trigger
from linxd.source import Blocked, Gone, Pass

AS_DECLARED, DRIFT, TROUBLE = 0, 1, 2


def add(commands: Subparsers) -> None:
    """The commands' words."""
    diff = commands.add_parser(
        "diff",
        help="show what differs from what is declared",
        description="Compares the kernel with what is declared; shows what linxd would do. Writes nothing.",
        epilog="exit codes, as diff(1): 0 as declared, 1 something differs, 2 trouble",
    )
    diff.add_argument("scope", metavar="SCOPE", nargs="?", help='"host", or a name such as c1')
    diff.add_argument("--file", metavar="FILE", help="compare with this file instead of those looked up")
    _common(diff)
    diff.set_defaults(run=run_diff)
    apply = commands.add_parser(
        "apply",
        help="make it as declared, once",
        description="Makes one pass, as linxd would, and ends. Remembers what it made, as linxd does.",
        epilog="exit codes: 0 everything is as declared, 1 something is not, 2 trouble",
    )
    apply.add_argument("file", metavar="FILE", nargs="?", help="apply this file instead of those looked up")
    apply.add_argument("--scope", metavar="NAME", help="the scope that FILE is for (default: FILE's name)")
    apply.add_argument("--once", action="store_true", required=True, help="one pass; needed")
    _common(apply)
    apply.set_defaults(run=run_apply)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print for programs")
    parser.add_argument("--state-dir", metavar="DIR", help=f"where state is kept (default: {statedir.ROOT})")


def _config(options: argparse.Namespace) -> ScopeConfig:
    if not options.scope and not options.file:
        raise Trouble("which one? Name a scope, or a file")
    # What comes now may be very much, has no cycles, and ends with the command: it is looked through neither
    # while it is made nor at the end.
    gc.disable()
    atexit.register(gc.freeze)
    return configured(options.scope, options.file)


# -- diff
# -----------------------------------------------------------------------------------------------------


def run_diff(options: argparse.Namespace) -> int:
    """Returns the exit code."""
    config = _config(options)
    base = statedir.root(options.state_dir)
    with visiting(config.name, config.netns, config, base, write=False) as pieces:
        patches = finished(plans(pieces))
    ops = sum(len(patch.ops) for patch in patches.values())
    bad = [one for patch in patches.values() for one in patch.conditions if one.state is not State.NOTED]
    if options.json:
        print_json(
            {
                "scope": config.name,
                "as_declared": not ops and not bad,
                "ops": [op_json(source, op) for source, patch in patches.items() for op in patch.ops],
                "conditions": [
                    condition_json(source, one)
                    for source, patch in patches.items()
                    for one in patch.conditions
                ],
            }
        )
    else:
        paint = Paint(sys.stdout)
        for line in plan_lines(patches, paint):
            print(line)
        if not ops and not bad:
            print(f"{config.name}: {paint('as declared', GREEN)}")
    return DRIFT if ops or bad else AS_DECLARED


async def plans(pieces: list[Piece]) -> dict[str, Patch]:
    """What each source would do. Raises Trouble."""
    patches = {}
    for piece in pieces:
        work = Pass(piece.desired, piece.ledger, Trigger.REQUEST, write=False)
        source = piece.opened.source
        try:
            patches[piece.name] = source.diff(await source.observe(work), piece.desired, piece.ledger)
        except (Blocked, Gone) as error:
            raise Trouble(f"{piece.name}: {error}") from None
    return patches


# -- apply
# ----------------------------------------------------------------------------------------------------


def run_apply(options: argparse.Namespace) -> int:
    """Returns the exit code."""
    config = _config(options)
    base = statedir.root(options.state_dir)
    with visiting(config.name, config.netns, config, base, write=True) as pieces:
        return show(config.name, finished(passes(pieces, config)), options)


async def passes(pieces: list[Piece], config: ScopeConfig | None) -> dict[str, Report | str]:
    """A pass of each source in order; the words of what kept it from running, where it could not."""
    done: dict[str, Report | str] = {}
    for piece in pieces:
        filtered = done.get("netfilter")
        wanted = None if config is None else config.netfilter
        if (
            piece.name == "rtnl"
            and wanted is not None
            and wanted.required
            and not (isinstance(filtered, Report) and filtered.converged)
        ):
            done[piece.name] = "not done: the netfilter ruleset is required and has not loaded"
            continue
        try:
            done[piece.name] = await piece.opened.source.reconcile(
                Pass(piece.desired, piece.ledger, Trigger.REQUEST)
            )
        except (Blocked, Gone) as error:
            done[piece.name] = str(error)
        except OSError as error:
            done[piece.name] = error.strerror or str(error)
    return done


def standing(done: dict[str, Report | str]) -> list[tuple[str, Condition]]:
    """The conditions that say that something is not as it should be."""
    return [
        (source, one)
        for source, report in done.items()
        if isinstance(report, Report)
        for one in report.conditions
        if one.state is not State.NOTED
    ]


def show(
    name: str, done: dict[str, Report | str], options: argparse.Namespace, *, fine: str = "as declared"
) -> int:
    """Print what passes did, and ``fine`` if all went well; returns the exit code."""
    troubles = {source: report for source, report in done.items() if isinstance(report, str)}
    reports = {source: report for source, report in done.items() if isinstance(report, Report)}
    bad = standing(done)
    code = TROUBLE if troubles else DRIFT if bad else AS_DECLARED
    if options.json:
        print_json(
            {
                "scope": name,
                fine.replace(" ", "_"): code == AS_DECLARED,
                "applied": [
                    op_json(source, op) for source, report in reports.items() for op in report.applied
                ],
                "conditions": [
                    condition_json(source, one)
                    for source, done in reports.items()
                    for one in done.conditions
                ],
                "troubles": troubles,
            }
        )
        return code
    paint = Paint(sys.stdout)
    for source, report in reports.items():
        for op in report.applied:
            print(op_line(source, op, paint))
    for report in reports.values():
        for condition in report.conditions:
            print(condition_text(condition, paint))
    for source, text in troubles.items():
        print(f"linxctl: {source}: {text}", file=sys.stderr)
    if code == AS_DECLARED:
        ops = sum(len(report.applied) for report in reports.values())
        print(f"{name}: {paint(fine, GREEN)}, {ops} op{'s' if ops != 1 else ''}")
    return code
