# SPDX-License-Identifier: MIT
"""Ops, culprits and objects in the form in which the bus carries them. What everybody hears names objects
and tells no contents.

Pure; it knows no connection.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from linxd.bus.connection import Variant
from linxd.log import clean
from linxd.patch import Condition, Culprit, Key, Op, Patch, Report, State

MOST = 100
"""Ops in one signal."""
_SECRET = ("key", "psk", "secret", "password")

OpForm: TypeAlias = list[Any]
"""Verb, object, attributes. The library takes a list for a structure, and nothing else."""
ObjectForm: TypeAlias = list[Any]
"""Kind, key, condition, since, detail."""


def told(source: str, ops: Sequence[Op]) -> list[OpForm]:
    """The first ops as everybody may hear of them."""
    return [[str(op.verb), public_name(source, op.key, op.name), _public(source, op)] for op in ops[:MOST]]


def public_name(source: str, key: Key, name: str) -> str:
    """What an object is called before everybody: a rule by its chain and place, elements by their set."""
    if source != "netfilter":
        return clean(name)
    kind, *rest = key
    if kind in ("rule", "element"):
        rest = [part for part in rest[:3] if isinstance(part, str)] + [
            part for part in rest[3:] if isinstance(part, int)
        ]
    return clean(" ".join(map(str, (kind, *rest))))


def public_text(source: str, condition: Condition) -> str:
    """Why an object failed, as everybody may hear it."""
    if source != "netfilter":
        return clean(condition.text)
    return os.strerror(condition.errno) if condition.errno else str(condition.state)


def _public(source: str, op: Op) -> dict[str, Variant]:
    # What a link or a route is like anybody can ask of the kernel; of rulesets and of some sysctls nobody
    # but root can.
    if source != "rtnl":
        return {}
    return {
        key: Variant("s", clean(value))
        for key, value in op.attributes().items()
        if not any(word in key for word in _SECRET)
    }


def planned(patches: Iterable[Patch], offset: int, limit: int) -> list[OpForm]:
    """Some of the ops of a plan, with what they would make of each attribute."""
    ops = itertools.chain.from_iterable(patch.ops for patch in patches)
    return [
        [
            str(op.verb),
            clean(op.name),
            {key: Variant("s", clean(value)) for key, value in op.attributes().items()},
        ]
        for op in itertools.islice(ops, offset, offset + limit)
    ]


def culprit_form(culprit: Culprit | None) -> dict[str, Variant]:
    """Who did it; empty where nobody knows."""
    if culprit is None:
        return {}
    form = {"pid": Variant("u", culprit.pid), "confirmed": Variant("b", culprit.confirmed)}
    for key, value in (("comm", culprit.comm), ("unit", culprit.unit)):
        if value is not None:
            form[key] = Variant("s", clean(value))
    return form


def culprit_of(report: Report) -> dict[str, Variant]:
    """The one who caused most of what a report is about, as far as its first thousand objects tell."""
    counts = Counter(itertools.islice(report.culprits.values(), 1000))
    return culprit_form(max(counts, key=lambda one: counts[one]) if counts else None)


def listed(
    objects: Iterable[tuple[Key, str]], conditions: Mapping[Key, Condition], wanted: str
) -> Iterator[tuple[Key, str, Condition | None]]:
    """The objects of one source that are in the condition ``wanted``, "" being any, each with its condition
    if it is not simply done: in the order in which they are declared, then those that are not."""
    declared: set[Key] = set()
    for key, name in objects:
        condition = conditions.get(key)
        if condition is not None:
            declared.add(key)
        if wanted in ("", State.DONE if condition is None else condition.state):
            yield key, name, condition
    for key, condition in conditions.items():
        if key not in declared and wanted in ("", condition.state):
            yield key, condition.name, condition


def object_form(
    key: Key,
    name: str,
    condition: Condition | None,
    since: Mapping[Key, tuple[State, int]],
    *,
    paused_until: int = 0,
) -> ObjectForm:
    """One of them. ``paused_until``: as the bus has it, 0 where it is not paused by itself."""
    detail = {"paused-until": Variant("t", paused_until)} if paused_until else {}
    if condition is None:
        return [str(key[0]), _words(key, name), str(State.DONE), 0, detail]
    detail["text"] = Variant("s", clean(condition.text))
    detail["id"] = Variant("s", json.dumps(condition.key))
    if condition.errno:
        detail["errno"] = Variant("i", condition.errno)
    if condition.needs:
        detail["needs"] = Variant("as", [clean(" ".join(map(str, need))) for need in condition.needs])
    _, moment = since.get(key, (condition.state, 0))
    return [str(key[0]), _words(key, condition.name), str(condition.state), moment, detail]


def _words(key: Key, name: str) -> str:
    return clean(name.removeprefix(f"{key[0]} "))
