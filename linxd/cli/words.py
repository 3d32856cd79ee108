# SPDX-License-Identifier: MIT
"""Ops as an operator would type them: in the words of `ip`, `nft` and `sysctl`, one line each.

For reading; what is done is done by netlink, and a line may leave out what makes it exact.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

from linxd.cli.terminal import BOLD, DIM, GREEN, RED, YELLOW, Paint
from linxd.log import clean, condition_line
from linxd.patch import Condition, Op, Patch, State, Verb
from linxd.sources.rtnl.model import Link

_SIGNS = {Verb.CREATE: "+", Verb.DELETE: "-", Verb.UPDATE: "~", Verb.RECREATE: "±"}
_COLOURS = {"+": GREEN, "-": RED, "~": YELLOW, "±": YELLOW}
_VERBS = {Verb.CREATE: "add", Verb.DELETE: "delete", Verb.UPDATE: "replace", Verb.RECREATE: "replace"}
_IP = {"address", "route", "neighbour", "rule"}
_MOST_CHANGES = 6


def command(source: str, op: Op) -> str:
    """``ip address add 10.0.0.5/24 dev eth0``."""
    kind = str(op.key[0])
    words = op.subject.words()
    if source == "sysctl":
        value = next((change.want for change in op.changes if change.attribute == "value"), None) or ""
        return f"sysctl -w {shlex.quote(f'{words}={value}')}"
    if source == "rtnl" and kind == "link":
        return _link(op)
    if source == "rtnl" and kind in _IP:
        return f"ip {_of_family(kind, words, _VERBS[op.verb])}"
    if source == "netfilter":
        return f"nft {_VERBS[op.verb]} {kind} {words}"
    return op.describe()


def _of_family(kind: str, words: str, verb: str) -> str:
    if kind == "rule":
        family, _, words = words.partition(" ")
        return f"{'-6 ' if family == 'ipv6' else ''}rule {verb} {words}"
    six = kind == "route" and ":" in words
    return f"{'-6 ' if six else ''}{kind} {verb} {words}"


def _link(op: Op) -> str:
    name = str(op.key[1])
    match op.verb:
        case Verb.DELETE:
            return f"ip link delete {name}"
        case Verb.UPDATE:
            text = f"ip link set {name}"
            for change in op.changes[:_MOST_CHANGES]:
                want = change.want or "''"
                text += f" {want}" if change.attribute == "state" else f" {change.attribute} {want}"
            return text
    text = f"ip link {_VERBS[op.verb]} {name}"
    if not isinstance(op.want, Link):
        return text
    link = op.want
    if link.parent is not None:
        text += f" link {link.parent}"
    text += "".join(f" {key} {_value(value)}" for key, value in link.attributes.items())
    text += f" type {link.kind}" if link.kind else ""
    if link.peer is not None:
        text += f" peer name {link.peer.name}"
    return text + "".join(f" {key} {_value(value)}" for key, value in link.options.items())


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def plan_lines(patches: Mapping[str, Patch], paint: Paint) -> Iterable[str]:
    """A plan, one line per op, and below it what can't be done and why."""
    for source, patch in patches.items():
        for op in patch.ops:
            yield op_line(source, op, paint)
    for patch in patches.values():
        for condition in patch.conditions:
            yield condition_text(condition, paint)


def op_line(source: str, op: Op, paint: Paint) -> str:
    """``+ ip address add 10.0.0.5/24 dev eth0``, with what changes from what."""
    sign = _SIGNS[op.verb]
    line = f"{paint(sign, BOLD, _COLOURS[sign])} {clean(command(source, op))}"
    if op.changes and op.verb in (Verb.UPDATE, Verb.RECREATE):
        shown = [change.words() for change in op.changes[:_MOST_CHANGES]]
        if len(op.changes) > _MOST_CHANGES:
            shown.append(f"{len(op.changes) - _MOST_CHANGES} more")
        line += paint(clean(f"   # {', '.join(shown)}"), DIM)
    return line


def condition_text(condition: Condition, paint: Paint) -> str:
    """``! route default via 10.0.0.1 is pending: needs link eth0``."""
    sign, colour = ("=", DIM) if condition.state is State.NOTED else ("!", YELLOW)
    return f"{paint(sign, BOLD, colour)} {clean(condition_line(condition))}"


def op_json(source: str, op: Op) -> dict[str, object]:
    """An op for programs."""
    return {
        "source": source,
        "verb": str(op.verb),
        "object": op.name,
        "key": list(op.key),
        "changes": [
            {"attribute": change.attribute, "have": change.have, "want": change.want}
            for change in op.changes
        ],
        "command": command(source, op),
    }


def condition_json(source: str, condition: Condition) -> dict[str, object]:
    """A condition for programs."""
    return {
        "source": source,
        "object": condition.name,
        "key": list(condition.key),
        "state": str(condition.state),
        "text": condition.text,
        "errno": condition.errno,
    }
