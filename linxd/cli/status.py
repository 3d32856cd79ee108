# SPDX-License-Identifier: MIT
"""`linxctl list` and `linxctl status`: how scopes are, by the word that their daemons left, and for those
who may not read that by what they say of themselves on the bus."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from linxd import statedir
from linxd.cli.asking import asks_bus
from linxd.cli.once import Trouble
from linxd.cli.output import Subparsers, print_json
from linxd.cli.seen import on_bus
from linxd.cli.terminal import BOLD, DIM, GREEN, RED, YELLOW, Paint, table
from linxd.config import declared_names
from linxd.log import clean, clock_time, duration

CONVERGED, OTHERWISE, NOT_RUNNING = 0, 1, 3
FEW = 5
"""Objects that are named, of each sort of trouble: all of it fits on a screen of 24 lines."""

_COLOURS = {
    "converged": GREEN,
    "degraded": YELLOW,
    "contended": YELLOW,
    "paused": YELLOW,
    "blocked": RED,
    "silent": RED,
    "dead": RED,
}


def add(commands: Subparsers) -> None:
    """The commands' words."""
    listing = commands.add_parser(
        "list",
        help="list scopes: those with files, and those that run",
        description="Lists every scope that has files or a daemon, and how it is.",
        epilog="exit codes: 0 done",
    )
    status = commands.add_parser(
        "status",
        help="show how a scope is, what was healed last, what can't be and why",
        description="Shows how a scope is by the word that its daemon left; it does not look at the kernel.",
        epilog="exit codes: 0 converged, 1 in another state, 2 trouble, 3 no daemon serves it",
    )
    status.add_argument("scope", metavar="SCOPE", nargs="?", help="the scope; default: all that run")
    for parser in (listing, status):
        parser.add_argument("--json", action="store_true", help="print for programs")
        parser.add_argument(
            "--state-dir", metavar="DIR", help=f"where state is kept (default: {statedir.ROOT})"
        )
    listing.set_defaults(run=run_list)
    status.set_defaults(run=run_status)


def found(base: str) -> dict[str, dict[str, Any]]:
    """Word of each scope, by name. Of one without a daemon: that it is not running, or died unawares."""
    running = {scope: (pid, cookie) for pid, scope, cookie in statedir.holders(base)}
    words: dict[str, dict[str, Any]] = {}
    known = [name for name in statedir.scopes(base) if statedir.ledgers(base, name)]
    for name in dict.fromkeys((*declared_names(), *known, *running)):
        word = statedir.read_status(base, name) or {}
        if name in running:
            pid, cookie = running[name]
            if word.get("pid") != pid:
                readable = os.access(os.path.join(base, name), os.X_OK)
                word = {"state": "starting" if readable else "unknown"}
            word = {**word, "pid": pid, "cookie": cookie}
        else:
            word = {"state": "-" if word.get("state", "ended") == "ended" else "dead"}
        words[name] = {"scope": name, "running": name in running, **word}
    if asks_bus(base):
        # What can be read here says more than what everybody may ask.
        told = {name: word.get("pid") for name, word in words.items() if "loops" in word}
        for name, word in on_bus(lambda name, pid: told.get(name) == pid).items():
            words[name] = {"running": True, **word}
    return words


def run_list(options: argparse.Namespace) -> int:
    """Returns the exit code."""
    words = found(statedir.root(options.state_dir))
    if options.json:
        print_json([words[name] for name in sorted(words)])
        return 0
    paint = Paint(sys.stdout)
    rows = [("SCOPE", "STATE", "OBJECTS", "PID", "NAMESPACE")]
    shown = [tuple(paint(cell, DIM) for cell in rows[0])]
    for name in sorted(words):
        word = words[name]
        state = str(word["state"])
        row = (
            clean(name),
            clean(state),
            str(sum(_number(loop.get("objects")) for loop in _loops(word))) if word["running"] else "-",
            str(word.get("pid", "-")) if word["running"] else "-",
            clean(str(word.get("netns", "-"))),
        )
        rows.append(row)
        shown.append((paint(row[0], BOLD), paint(row[1], *colour(state)), *row[2:]))
    for line in table(rows, paint=shown):
        print(line)
    return 0


def run_status(options: argparse.Namespace) -> int:
    """Returns the exit code."""
    words = found(statedir.root(options.state_dir))
    if options.scope is not None:
        if options.scope not in words:
            raise Trouble(f"there is no scope {options.scope}: it has no file and no daemon")
        chosen = [words[options.scope]]
    else:
        chosen = [words[name] for name in sorted(words) if words[name]["running"]]
    if options.json:
        print_json(chosen if options.scope is None else chosen[0])
    else:
        paint = Paint(sys.stdout)
        for number, word in enumerate(chosen):
            if number:
                print()
            for line in _status(word, paint):
                print(line)
        if not chosen:
            print("no scope is served by a daemon")
    if not chosen or not all(word["running"] for word in chosen):
        return NOT_RUNNING
    return CONVERGED if all(word["state"] == "converged" for word in chosen) else OTHERWISE


def _status(word: Mapping[str, Any], paint: Paint) -> Iterator[str]:
    name, state = clean(str(word["scope"])), str(word["state"])
    if not word["running"]:
        died = " (its daemon died)" if state == "dead" else ""
        yield f"{paint('○', DIM)} {paint(name, BOLD)}: not served by a daemon{died}"
        yield f"    `linxctl diff {name}` asks the kernel"
        return
    since = f" since {_moment(word['since'])}" if "since" in word else ""
    yield f"{paint('●', *colour(state))} {paint(name, BOLD)}: {paint(clean(state), *colour(state))}{since}"
    facts = [("daemon", f"linxd[{word['pid']}]"), ("namespace", str(word.get("netns", "?")))]
    if word.get("files"):
        facts.append(("files", ", ".join(map(str, word["files"]))))
    for key, value in facts:
        yield f"    {key + ':':11}{clean(value)}"
    if word.get("paused_until"):
        yield f"    paused, until {_coming(word['paused_until'])}"
    left = [one for one in word.get("paused", ()) if isinstance(one, dict)]
    for one in left[:FEW]:
        named = clean(str(one.get("object")))
        yield f"    {paint('left alone', YELLOW)}: {named}, until {_coming(one.get('until'))}"
    if len(left) > FEW:
        yield f"    … and {len(left) - FEW} more"
    rows = [_loop(loop) for loop in _loops(word)]
    if rows:
        yield from (f"    {line}" for line in table(rows))
    for loop in _loops(word):
        ways = loop.get("watched")
        if isinstance(ways, dict) and ways:
            told = {"event": "by event", "poll": "by a look each second"}
            parts = (f"{len(objects)} {told.get(way, way)}" for way, objects in ways.items())
            yield clean(f"    {loop.get('source')} watches {', '.join(parts)} (--json names them)")
    last = word.get("last_patch")
    if isinstance(last, dict):
        yield f"    last patch {_moment(last.get('at'))}"
        yield f"        {clean(str(last.get('source')))}: {clean(str(last.get('text')))}"
    conditions = [one for one in word.get("conditions", ()) if one.get("state") != "noted"]
    if conditions:
        yield "    not as declared:"
        for one in conditions[:FEW]:
            yield f"        {clean(str(one.get('text')))}"
        # Of very many the daemon names the first ones, and counts all.
        bad = sum(_number(count) for loop in _loops(word) for _, count in _bad(loop))
        if max(bad, len(conditions)) > FEW:
            yield f"        … and {max(bad, len(conditions)) - FEW} more"


def _loop(loop: Mapping[str, Any]) -> tuple[str, ...]:
    bad = ", ".join(f"{count} {state}" for state, count in _bad(loop))
    last, median, _ = (*loop.get("heal_usec", ()), 0, 0, 0)[:3]
    return (
        clean(str(loop.get("source"))),
        clean(str(loop.get("state"))),
        _count(loop.get("objects"), "object"),
        _count(loop.get("drifts"), "drift"),
        f"healed in {duration(_number(last))} (median {duration(_number(median))})" if last else "",
        clean(str(loop.get("error") or bad)),
    )


def _bad(loop: Mapping[str, Any]) -> list[tuple[str, object]]:
    """How many objects are in each state that is not as declared."""
    counts = loop.get("counts", {})
    return [(state, count) for state, count in counts.items() if state not in ("done", "noted")]


def _loops(word: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [loop for loop in word.get("loops", ()) if isinstance(loop, dict)]


def _count(value: object, noun: str) -> str:
    number = _number(value)
    return f"{number} {noun if number == 1 else noun + 's'}"


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def colour(state: str) -> tuple[str, ...]:
    return (_COLOURS[state],) if state in _COLOURS else ()


def _coming(at: object) -> str:
    """``12:30:11 (in 5 min)``."""
    if not isinstance(at, int | float):
        return "?"
    left = max(0, round(at - time.time()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if left >= size:
            return f"{clock_time(at)} (in {left // size} {unit})"
    return f"{clock_time(at)} (in {left} s)"


def _moment(at: object) -> str:
    """``12:30:11 (5 min ago)``."""
    if not isinstance(at, int | float):
        return "?"
    ago = max(0, int(time.time() - at))
    form = "%H:%M:%S" if ago < 86400 else "%Y-%m-%d %H:%M:%S"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if ago >= size:
            return f"{time.strftime(form, time.localtime(at))} ({ago // size} {unit} ago)"
    return f"{time.strftime(form, time.localtime(at))} ({ago} s ago)"
