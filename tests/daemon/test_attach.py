# SPDX-License-Identifier: MIT
"""Scopes that go with units: which jobs it takes, whatever happened while nobody looked."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linxd.attach import (
    Followed,
    Run,
    Verb,
    decide,
    from_text,
    glob_of,
    literal,
    runs_of,
    scope_for,
    to_text,
)
from linxd.config.model import Attach

MACHINES = Attach(re.compile(r"machine-(?P<name>.+)\.scope"), "{name}")
PODMAN = Attach(re.compile(r"libpod-(?P<id>.+)\.scope"), "pod.{id}")
ANY = Attach(re.compile(r"(?P<name>.+)\.(scope|service)"), "{name}")
C1 = Run("machine-c1.scope", "aa")
AGAIN = Run("machine-c1.scope", "bb")
OTHER = Run("box-c1.scope", "cc")


def running(*runs: Run) -> Mapping[str, str]:
    return {run.unit: run.invocation for run in runs}


@pytest.mark.parametrize(
    ("unit", "scope"),
    [
        ("machine-c1.scope", "c1"),
        (r"machine-web\x2d1.scope", "web-1"),
        ("machine-web-1.scope", "web-1"),
        ("machine-c1.service", None),
        ("xmachine-c1.scope", None),
        ("machine-host.scope", None),
        (r"machine-a\x2fb.scope", None),
        ("libpod-0123.scope", "pod.0123"),
        ("libpod-conmon-0123.scope", None),
    ],
)
def test_a_unit_has_the_scope_of_the_first_rule_that_has_one_for_it(unit: str, scope: str | None) -> None:
    assert scope_for(unit, (MACHINES, PODMAN)) == scope


@pytest.mark.parametrize(
    "unit", ["linxd.service", "linx-reconcile@c1.service", "linx-netns@c1.service", "libpod-conmon-1.scope"]
)
def test_no_rule_means_our_own_units_or_podmans_monitor(unit: str) -> None:
    assert scope_for(unit, (ANY,)) is None


def test_only_scopes_with_files_count() -> None:
    units = running(C1, Run("machine-c2.scope", "x"), Run("ssh.service", "y"))
    assert runs_of(units, (MACHINES,), {"c1", "c3"}) == {"c1": [C1]}


def test_two_units_of_one_scope_come_in_order_of_their_names() -> None:
    either = Attach(re.compile(r"(machine|box)-(?P<name>.+)\.scope"), "{name}")
    assert runs_of(running(C1, OTHER), (either,), {"c1"}) == {"c1": [OTHER, C1]}


# -- what is decided ----------------------------------------------------------------------------------------

OURS = Followed(C1, ours=True, asked=True)
ASKING = Followed(C1, ours=True, asked=False)
THEIRS = Followed(C1, ours=False, asked=False)


@pytest.mark.parametrize(
    ("followed", "runs", "active", "verb", "after"),
    [
        # Seen for the first time.
        (None, [C1], False, Verb.START, OURS),
        (None, [C1], True, None, THEIRS),
        (None, [], True, None, None),
        # It runs on: whoever stopped the scope by hand meanwhile wants it so.
        (OURS, [C1], True, None, OURS),
        (OURS, [C1], False, None, OURS),
        (THEIRS, [C1], False, None, THEIRS),
        # Systemd may not have heard us.
        (ASKING, [C1], False, Verb.START, OURS),
        (ASKING, [C1], True, Verb.RESTART, OURS),
        # The rule, or the file, went: it stays with the run it began with.
        (OURS, None, True, None, OURS),
        # It ended.
        (OURS, [], True, Verb.STOP, None),
        (OURS, [], False, Verb.STOP, None),
        (ASKING, [], True, Verb.STOP, None),
        (THEIRS, [], True, None, None),
        # It ended and came again; what runs may be about to end with the one before.
        (OURS, [AGAIN], True, Verb.RESTART, Followed(AGAIN, ours=True, asked=True)),
        (OURS, [AGAIN], False, Verb.START, Followed(AGAIN, ours=True, asked=True)),
        (THEIRS, [AGAIN], True, None, Followed(AGAIN, ours=False, asked=False)),
        (THEIRS, [AGAIN], False, Verb.START, Followed(AGAIN, ours=True, asked=True)),
        # Another unit of the same scope takes over.
        (OURS, [OTHER], True, Verb.RESTART, Followed(OTHER, ours=True, asked=True)),
        (OURS, [OTHER, C1], True, None, OURS),
    ],
)
def test_what_is_decided(
    followed: Followed | None,
    runs: list[Run] | None,
    active: bool,
    verb: Verb | None,
    after: Followed | None,
) -> None:
    units = running(C1) if runs is None else running(*runs)
    decision = decide(followed, runs or [], units, active=active)
    assert (decision.verb, decision.after) == (verb, after)
    if verb in (Verb.START, Verb.RESTART):
        # What is begun is known before systemd is asked for it.
        assert decision.before == Followed(after.run, ours=True, asked=False)  # type: ignore[union-attr]
    else:
        assert decision.before == (followed if verb is Verb.STOP else after)


EVENTS = st.lists(
    st.sampled_from(
        ["container starts", "container ends", "daemon asks", "by hand stopped", "by hand started"]
    ),
    max_size=30,
)


@given(EVENTS, st.lists(st.booleans(), min_size=30, max_size=30), st.booleans())
@settings(max_examples=400, deadline=None)
def test_once_looked_at_a_scope_runs_if_its_container_does(
    events: list[str], lost: list[bool], pinned: bool
) -> None:
    """Whatever happened between two looks, and whether systemd heard us or not (``lost``)."""
    followed: Followed | None = None
    invocation, alive, active, held = 0, False, False, False
    serves = -1
    """The run that what runs was started for."""

    def look(*, hears: bool = True) -> None:
        nonlocal followed, active, serves
        run = Run("machine-c1.scope", str(invocation))
        decision = decide(followed, [run] if alive else [], running(run) if alive else {}, active=active)
        followed = decision.before
        if decision.verb is None or not hears:
            return
        followed = decision.after
        if decision.verb is Verb.STOP:
            active = False
        else:
            if not active or decision.verb is Verb.RESTART:
                serves = invocation
            active = True

    for event, deaf in zip(events, lost, strict=False):
        match event:
            case "container starts" if not alive:
                invocation, alive, held = invocation + 1, True, False
            case "container ends" if alive:
                alive = False
                # A namespace of the container's own takes the daemon along.
                active = active and pinned
            case "daemon asks":
                look(hears=not deaf)
            case "by hand stopped":
                active, held = False, alive
            case "by hand started" if alive:
                active, held, serves = True, True, invocation
    look()
    look()
    if followed is not None and followed.ours and not held:
        assert alive
        assert active
        assert serves == invocation
    if not alive:
        assert followed is None
    elif not held:
        assert active


# -- what systemd is asked for ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "glob"),
    [
        (r"machine-(?P<name>.+)\.scope", "machine-*.scope"),
        (r"libpod-.*\.scope", "libpod-*.scope"),
        (r"ab?(?P<name>.*)", "a*"),
        (r"(?P<name>.*)@x\.service", "*.service"),
        (r"a\.scope|b\.service", "*"),
        (r"(?i)machine-(?P<name>.+)\.scope", "*"),
        (r"(?P<name>.+)\.scope$", "*.scope"),
        (r"(?P<name>.+)\.s[a-z]+", "*"),
        (r"(?P<name>.+)(\.scope)", "*"),
    ],
)
def test_units_are_listed_by_a_glob_that_is_no_narrower(pattern: str, glob: str) -> None:
    assert glob_of(re.compile(pattern)) == glob


def test_one_unit_is_listed_by_its_name() -> None:
    assert literal(r"machine-web\x2d1.scope") == r"machine-web\\x2d1.scope"


# -- kept ---------------------------------------------------------------------------------------------------


def test_what_is_followed_can_be_read_back() -> None:
    followed = {"c1": OURS, "c2": THEIRS, "c3": ASKING}
    assert from_text(to_text(followed)) == followed


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"c1": 1}', '{"c1": ["u", "i", 1, 2]}', '{"c1": ["u"]}', "null"]
)
def test_what_can_not_be_read_is_nothing(text: str) -> None:
    assert from_text(text) == {}
