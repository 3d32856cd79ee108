# SPDX-License-Identifier: MIT
"""org.linxd1.Loop: one loop of a scope, to be looked at, and what it tells of drifts, patches and failures.

It changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from linxd.bus.forms import MOST, culprit_of, public_name, public_text, told
from linxd.bus.interface import Interface, Property
from linxd.log import clean
from linxd.part import Part
from linxd.patch import Key, Op, Report, State, Trigger

_NEW = (Trigger.START, Trigger.CONFIG)
REMEMBERED = 2000
"""Objects of which it is known that their drift, or their failure, has been told."""


class LoopInterface(Interface):
    """Shows ``part``."""

    name = "org.linxd1.Loop"
    properties: ClassVar[Mapping[str, Property]] = {
        "Source": Property("s", "const"),
        "Watch": Property("s", "const"),
        "State": Property("s", "true"),
        "Counts": Property("a{su}", "true"),
        "LastError": Property("s", "true"),
        "ResyncUSec": Property("t", "true"),
        "Passes": Property("t", "false"),
        "OpsApplied": Property("t", "false"),
        "Drifts": Property("t", "false"),
        "Overruns": Property("t", "false"),
        "LastPass": Property("t", "false"),
        "LastPassMonotonic": Property("t", "false"),
        "LastPatch": Property("t", "false"),
        "LastPatchMonotonic": Property("t", "false"),
        "HealLatencyUSec": Property("(ttt)", "false"),
    }
    signals: ClassVar[Mapping[str, str]] = {
        "Drifted": "a(ssa{sv})ua{sv}",
        "Patched": "a(ssa{sv})usa{sv}t",
        "ObjectFailed": "sis",
    }

    def __init__(self, part: Part, watch: str) -> None:
        self._part = part
        self._watch = watch
        self._drifting: set[Key] = set()
        self._many = 0
        self._failed: dict[Key, tuple[int, str]] = {}

    def values(self) -> Mapping[str, Any]:
        """See the XML."""
        status = self._part.status
        return {
            "Source": self._part.name,
            "Watch": self._watch,
            "State": str(status.state),
            "Counts": {str(state): status.counts.get(state, 0) for state in State},
            "LastError": _public_error(self._part.name, status.last_error or status.subscription_error),
            "ResyncUSec": int(status.resync * 1e6),
            "Passes": status.passes,
            "OpsApplied": status.ops_applied,
            "Drifts": status.drifts,
            "Overruns": status.overruns,
            "LastPass": status.last_pass,
            "LastPassMonotonic": status.last_pass_monotonic,
            "LastPatch": status.last_patch,
            "LastPatchMonotonic": status.last_patch_monotonic,
            "HealLatencyUSec": list(status.heal_usec),
        }

    def reported(self, report: Report) -> None:
        """A pass has ended: tell what it found and did."""
        source = self._part.name
        fresh = self._fresh(report)
        if fresh and report.trigger not in _NEW:
            self.signal("Drifted", told(source, fresh), len(fresh), culprit_of(report))
        if report.applied:
            self.signal(
                "Patched",
                told(source, report.applied),
                len(report.applied),
                str(report.trigger),
                culprit_of(report),
                report.heal_usec or report.usec,
            )
        self._failures(report)

    def _fresh(self, report: Report) -> Sequence[Op]:
        """The drifts that have not been told. Held back, an object is found drifted pass after pass; so
        many that it would take long to see which are the same count as a whole."""
        if len(report.drifted) > REMEMBERED:
            same = self._many == len(report.drifted) and not report.applied
            self._many = len(report.drifted)
            self._drifting.clear()
            return () if same else report.drifted
        self._many = 0
        fresh = [op for op in report.drifted if op.key not in self._drifting]
        if report.complete:
            self._drifting.clear()
        elif self._drifting:
            self._drifting -= report.looked
        if len(report.applied) <= REMEMBERED:
            self._drifting.update(op.key for op in report.drifted)
            self._drifting.difference_update(op.key for op in report.applied)
        return fresh

    def _failures(self, report: Report) -> None:
        # Of very many the first ones tell enough.
        bad = (one for one in report.conditions if one.state is State.FAILED)
        failed = {one.key: one for one in itertools.islice(bad, REMEMBERED)}
        fresh = [one for key, one in failed.items() if self._failed.get(key) != (one.errno, one.text)]
        for one in fresh[:MOST]:
            name = public_name(self._part.name, one.key, one.name)
            self.signal("ObjectFailed", name, one.errno, public_text(self._part.name, one))
        if report.complete:
            self._failed.clear()
        elif self._failed:
            for key in self._failed.keys() & report.looked:
                del self._failed[key]
        if len(self._failed) + len(failed) <= REMEMBERED:
            self._failed.update((key, (one.errno, one.text)) for key, one in failed.items())


def _public_error(source: str, error: str) -> str:
    """Why a loop is blocked, for everybody: what a ruleset says is nobody's business."""
    if error and source == "netfilter":
        return "can't run; `linxctl status` and the journal say why"
    return clean(error)
