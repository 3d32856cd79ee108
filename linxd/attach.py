# SPDX-License-Identifier: MIT
"""Scopes that start and stop with units (``[[attach]]``): which jobs it takes, given the units that run, the
rules, the files there are and what was begun before.

Pure: it knows neither the bus nor systemd, and keeps nothing.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from linxd.config.model import Attach
from linxd.records import dataclass, replace

OWN = ("linx-", "linxd.")
"""How the names of our own units begin, which no rule can mean."""
_SUFFIX = re.compile(r".*\\(\.[a-z]+)\$?", re.S)
_PLAIN = re.compile(r"[A-Za-z0-9_:@-]*")
_QUANTIFIER = ("*", "+", "?", "{")


class Verb(enum.StrEnum):
    """What systemd is asked to do with a scope's unit."""

    START = "start"
    RESTART = "restart"
    STOP = "stop"


@dataclass(frozen=True, slots=True, order=True)
class Run:
    """One life of a unit, from start to stop: ``invocation`` is systemd's InvocationID, in hex."""

    unit: str
    invocation: str


@dataclass(frozen=True, slots=True)
class Followed:
    """A scope that goes with a run. ``ours``: whether it was us who had it started, so that stopping it is
    ours, too; ``asked``: whether systemd has taken that job."""

    run: Run
    ours: bool
    asked: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done for one scope, and what is followed from then on; before the job is asked for and,
    in `after`, once systemd has taken it."""

    verb: Verb | None
    before: Followed | None
    after: Followed | None


def scope_for(unit: str, rules: Iterable[Attach]) -> str | None:
    """The scope that goes with a unit by the first rule which has one for it."""
    if unit.startswith(OWN):
        return None
    return next((scope for rule in rules if (scope := rule.scope_for(unit)) is not None), None)


def runs_of(
    running: Mapping[str, str], rules: Sequence[Attach], declared: Collection[str]
) -> dict[str, list[Run]]:
    """By scope that has a file: the runs it goes with, in order of names. ``running``: by unit that runs,
    its invocation."""
    found: dict[str, list[Run]] = {}
    for unit in sorted(running):
        scope = scope_for(unit, rules)
        if scope is not None and scope in declared:
            found.setdefault(scope, []).append(Run(unit, running[unit]))
    return found


def decide(
    followed: Followed | None, runs: Sequence[Run], running: Mapping[str, str], *, active: bool
) -> Decision:
    """What is to be done for one scope.

    ``followed``: what it went with so far; ``runs``: those it may go with now; ``running``: as in `runs_of`,
    all of them. ``active``: whether the scope's unit runs or starts already.

    A scope is started once for each run: who stops it by hand while the container lives wants it stopped.
    """
    if followed is not None and running.get(followed.run.unit) == followed.run.invocation:
        if not followed.ours or followed.asked:
            return Decision(None, followed, followed)
        # It is not known whether systemd heard us; what runs may be what ran for an earlier run.
        return _begin(followed.run, active=active, anew=True)
    if runs:
        return _begin(runs[0], active=active, anew=followed is not None and followed.ours)
    if followed is not None and followed.ours:
        return Decision(Verb.STOP, followed, None)
    return Decision(None, None, None)


def _begin(run: Run, *, active: bool, anew: bool) -> Decision:
    if active and not anew:
        # Somebody else had it started, and will see to its end.
        theirs = Followed(run, ours=False, asked=False)
        return Decision(None, theirs, theirs)
    # What still runs for the last run may be about to end: to start it would do nothing then.
    verb = Verb.RESTART if active else Verb.START
    ours = Followed(run, ours=True, asked=False)
    return Decision(verb, ours, replace(ours, asked=True))


# -- what systemd is asked for ------------------------------------------------------------------------------


def glob_of(pattern: re.Pattern[str]) -> str:
    """A glob(7) that matches at least every unit that the pattern does, so that not all units have to be
    listed."""
    text = pattern.pattern
    if "|" in text or pattern.flags & (re.IGNORECASE | re.VERBOSE):
        return "*"
    plain = _PLAIN.match(text)
    prefix = plain[0] if plain is not None else ""
    if text[len(prefix) : len(prefix) + 1] in _QUANTIFIER:
        prefix = prefix[:-1]
    suffix = _SUFFIX.fullmatch(text)
    return f"{prefix}*{suffix[1] if suffix is not None else ''}"


def literal(unit: str) -> str:
    """A glob(7) that matches one unit alone."""
    return re.sub(r"([\\*?\[])", r"\\\1", unit)


# -- kept over a restart ------------------------------------------------------------------------------------


def to_text(followed: Mapping[str, Followed]) -> str:
    """What is followed, to be read back by `from_text`."""
    return json.dumps(
        {
            scope: [one.run.unit, one.run.invocation, one.ours, one.asked]
            for scope, one in sorted(followed.items())
        }
    )


def from_text(text: str) -> dict[str, Followed]:
    """What `to_text` wrote. What can't be read is left out: it would be what somebody else wrote."""
    try:
        read = json.loads(text)
    except ValueError:
        return {}
    found: dict[str, Followed] = {}
    for scope, row in read.items() if isinstance(read, dict) else ():
        one = _row(row)
        if one is not None:
            found[scope] = one
    return found


def _row(row: Any) -> Followed | None:
    match row:
        case [str(unit), str(invocation), bool(ours), bool(asked)]:
            return Followed(Run(unit, invocation), ours=ours, asked=asked)
    return None
