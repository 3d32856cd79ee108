#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""docs/performance.md and its plots, out of the JSON that bench/run.py wrote.

It shows what is in there and measures nothing; a test holds the page against the figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from figures import FORMAT, Outcome, Result, from_json
from limits import below, limit
from plot import plot
from words import cell, digits, quantity, ratio

DOCS = Path(__file__).resolve().parents[1] / "docs"


class Row(NamedTuple):
    """A section of the page."""

    title: str
    text: str


ROWS = {
    "heal": Row(
        "Healing, kind by kind",
        "An object is broken by another process: how long is it gone? The C program (bench/limit.c) does "
        "the least that can be done: it asks for what the event says has gone, whatever that is. The loops "
        "are what one writes in a quarter of an hour. None of them knows what is declared.",
    ),
    "flat": Row(
        "Healing among many",
        "The same with 10 to 100,000 declared routes in the namespace. The object that the event names is "
        "healed first and looked up by its name; what the kernel may have dropped with it has to be looked "
        "for.",
    ),
    "quiet": Row(
        "Looking at everything when nothing has changed",
        "Every scope looks at everything now and then. That is what it costs.",
    ),
    "apply": Row(
        "The first apply",
        "From nothing to all of it. linxd writes down what it is about to own before it asks the kernel, "
        "and looks at what became of it afterwards; the C tools do neither.",
    ),
    "memory": Row("Memory of one more scope", "What one more process takes of the machine."),
    "start": Row("From start to ready", "From the start of the process until all is as declared."),
    "idle": Row("When nothing happens", "CPU and wake-ups of scopes in which nobody does anything."),
    "scopes": Row("Very many scopes", "One process for each namespace. Do they stand in each other's way?"),
    "storm": Row(
        "A storm of others' changes",
        "Somebody else's routing daemon changes routes without end, next to a few of ours.",
    ),
}


class Document(NamedTuple):
    """What a run wrote."""

    quick: bool
    machine: dict[str, str]
    results: tuple[Result, ...]
    skipped: dict[str, str]


def read(found: dict[str, Any]) -> Document:
    """The JSON of a run. Raises ValueError for another format."""
    if found.get("format") != FORMAT:
        raise ValueError(f"format {found.get('format')!r}, not {FORMAT}")
    results = tuple(from_json(each) for each in found["figures"])
    return Document(found["quick"], found["machine"], results, found["skipped"])


def plots(document: Document) -> dict[str, str]:
    """The plots by file name: one for each row and unit in which somebody stands beside somebody."""
    made = {}
    for row, title in ROWS.items():
        units: dict[str, list[Result]] = {}
        for each in document.results:
            if each.row == row and len(each.shown) > 1:
                units.setdefault(each.unit, []).append(each)
        for number, results in enumerate(units.values()):
            name = row if not number else f"{row}-{number + 1}"
            made[f"{name}.svg"] = plot(results, title.title)
    return made


def page(document: Document) -> str:
    """The page."""
    drawn = plots(document)
    parts = [_HEAD]
    if document.quick:
        parts.append(
            "> **These are figures of a quick run** (`make bench QUICK=1`): fewer turns, fewer objects, and "
            "no care that nobody else uses the machine. Ratios are roughly right; times are not.\n"
        )
    parts.append(_machine(document))
    parts.append(_targets(document))
    for row, (title, text) in ROWS.items():
        results = [each for each in document.results if each.row == row]
        parts.append(f"## {title}\n\n{text}\n")
        if row in document.skipped or not results:
            parts.append(f"Not measured: {document.skipped.get(row, 'not in this run')}.\n")
            continue
        parts += [
            f"![{title}](performance/{name})\n" for name in drawn if name.split(".")[0].split("-")[0] == row
        ]
        parts.append(_table(results))
        parts += [f"{note}\n" for note in dict.fromkeys(each.note for each in results) if note]
        missing = dict.fromkeys(
            (who, why, "" if _everywhere(results, who, why) else each.name)
            for each in results
            for who, why in each.missing
        )
        if missing:
            lines = "\n".join(
                f"- {who}{f', {where}' if where else ''}: {why}." for who, why, where in missing
            )
            parts.append(f"Not beside it:\n\n{lines}\n")
        if words := below(row):
            parts.append(f"{words}\n")
    return "\n".join(parts)


_HEAD = """\
# Performance

One linxd process for each namespace must cost so little that nobody thinks about it, and healing should be
limited by the kernel. This page puts every figure beside what one would use instead. **Read the ratios**:
they are of single turns, taken in turn in one run on one machine (A, B, A, B …), with their median and, in
brackets, their quartiles; times are of this machine. A ratio of 0.2× says that linxd takes a fifth of what
the other takes.

    make bench                          # everything, some 20 minutes
    make bench QUICK=1                  # the same with fewer turns and fewer objects
    make bench JSON=docs/performance/figures.json && make performance    # this page, and its plots

In plots the thick part is from the first quartile to the third, the dot is the median, the tick the 99th
percentile, on a logarithmic axis.
"""


def _everywhere(results: Sequence[Result], who: str, why: str) -> bool:
    return all((who, why) in each.missing for each in results)


def _machine(document: Document) -> str:
    words = ", ".join(f"{what} {word}" for what, word in document.machine.items() if word)
    return f"Measured on: {words}.\n"


def _targets(document: Document) -> str:
    lines = ["## What is reached", "", "| what | should be | is | |", "| --- | --- | --- | --- |"]
    for each in document.results:
        for target in each.outcomes:
            title = ROWS[each.row].title
            lines.append(
                f"| {title}: {each.name} | {target.words} | {_value(each, target)} | {_verdict(target)} |"
            )
    reasons = dict.fromkeys(
        reason
        for each in document.results
        for target in each.outcomes
        if target.reached is False and (reason := limit(each.row, each.name, target.words))
    )
    if reasons:
        lines += ["", "Why what is not reached isn't:", "", *(f"- {reason}" for reason in reasons)]
    return "\n".join(lines) + "\n"


def _value(each: Result, target: Outcome) -> str:
    if target.value is None:
        return "–"
    # A ratio's bound is a bare number; a time's is said in its unit.
    return f"{digits(target.value)}×" if target.ratio else quantity(target.value, each.unit)


def _verdict(target: Outcome) -> str:
    return {True: "reached", False: "**not reached**", None: "not measured"}[target.reached]


def _table(results: Sequence[Result]) -> str:
    lines = [
        "| what | ours | takes | beside | takes | ours, of that |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each in results:
        if not each.shown:
            lines.append(f"| {each.name} | not measured | | | | |")
            continue
        ours, *others = each.shown
        first = f"| {each.name} | {ours.name} | {cell(ours.summary, each.unit)} |"
        for other in others:
            took = cell(other.summary, each.unit)
            beside = "–" if other.ratio is None else ratio(other.ratio)
            lines.append(f"{first} {other.name} | {took} | {beside} |")
            first = "| | | |"
        if not others:
            lines.append(f"{first} | | |")
    return "\n".join(lines) + "\n"


def written(source: Path, docs: Path) -> dict[Path, str]:
    """Every file that comes of the figures, with what is to stand in it."""
    document = read(json.loads(source.read_text()))
    files = {docs / "performance.md": page(document)}
    files |= {docs / "performance" / name: text for name, text in plots(document).items()}
    return files


def main() -> None:
    """Write the page and the plots; plots of figures that are no more go."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=DOCS / "performance" / "figures.json", metavar="FILE")
    parser.add_argument("--docs", type=Path, default=DOCS, metavar="DIRECTORY")
    options = parser.parse_args()
    files = written(options.json, options.docs)
    (options.docs / "performance").mkdir(exist_ok=True)
    for old in (options.docs / "performance").glob("*.svg"):
        if old not in files:
            old.unlink()
    for path, text in files.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
