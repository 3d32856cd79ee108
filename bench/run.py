#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Every figure beside what a user would use instead, in one run on one machine: read the ratios, not the
times.

Runs as root on Debian's own Python, in namespaces that it makes and removes, and writes nowhere but the file
that `--json` names. `--quick` for a few minutes, `--only ROW` for one row.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bed
import others
from figures import FORMAT, Result, result, to_json
from words import cell, ratio

ROWS = ("heal", "flat", "quiet", "apply", "memory", "start", "idle", "scopes", "storm")
"""Modules, each with `measure(quick) -> Iterable[Figure]`, in the order of the table."""


def machine() -> dict[str, str]:
    """What it was measured on; no name of it."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in _lines("/proc/cpuinfo")
            if line.startswith("model name")
        ),
        "",
    )
    memory = next(
        (int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0
    )
    release = dict(line.split("=", 1) for line in _lines("/etc/os-release") if "=" in line)
    try:
        pyroute2 = importlib.metadata.version("pyroute2")
    except importlib.metadata.PackageNotFoundError:
        pyroute2 = "not there"
    return {
        "system": release.get("PRETTY_NAME", "").strip('"'),
        "kernel": platform.release().partition("-")[0],
        "processors": f"{os.cpu_count()}, {model}",
        "memory": f"{memory / 2**20:.0f} GiB",
        "Python": platform.python_version(),
        "iproute2": _said("ip", "-V").partition("iproute2-")[2].partition(",")[0],
        "nftables": _said("nft", "--version").partition(" v")[2].partition(" ")[0],
        "pyroute2": pyroute2,
        "ifstate": others.ifstate_version() or "not there",
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip()


def show(one: Result) -> None:
    """A figure, for a terminal."""
    print(f"\n{one.row}: {one.name}")
    for each in one.shown:
        beside = "" if each.ratio is None else f"   linxd takes {ratio(each.ratio)} of it"
        print(f"  {each.name:<26}{cell(each.summary, one.unit):<34}{beside}")
    for who, why in one.missing:
        print(f"  {who:<26}– {why}")
    for target in one.outcomes:
        verdict = {True: "reached", False: "NOT REACHED", None: "not measured"}[target.reached]
        print(f"    {target.words}: {verdict}{'' if target.value is None else f' ({target.value:g})'}")


def measured(row: str, *, quick: bool) -> Iterator[Result]:
    """The figures of one row, as they come: what breaks does not take along those before it."""
    module = importlib.import_module(row)
    yield from map(result, module.measure(quick))


def write(path: Path, document: dict[str, Any]) -> None:
    """One value a line: what changed is seen in a diff."""
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write. 1 when a row broke; one that can't be measured here is said to be so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer turns, fewer objects")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--only", choices=ROWS, action="append", help="this row; may be said again")
    options = parser.parse_args(arguments)
    if os.geteuid() != 0:
        raise SystemExit("bench: needs root, to make network namespaces")
    bed.obedient()
    began = time.monotonic()
    results: list[Result] = []
    skipped: dict[str, str] = {}
    broken = False
    told = machine()
    print("linxd bench: " + ", ".join(f"{what} {word}" for what, word in told.items()))
    for row in ROWS:
        if options.only and row not in options.only:
            continue
        start = time.monotonic()
        try:
            for one in measured(row, quick=options.quick):
                results.append(one)
                show(one)
        except ModuleNotFoundError as error:
            skipped[row] = f"{error.name} is not there"
        except bed.Unavailable as reason:
            skipped[row] = str(reason)
        except Exception as error:
            traceback.print_exc()
            broken = True
            skipped[row] = f"it broke: {error}"
        print(f"\n({row} took {time.monotonic() - start:.0f} s)", flush=True)
    print()
    for row, why in skipped.items():
        print(f"{row} was not measured: {why}")
    print(f"took {time.monotonic() - began:.0f} s")
    if options.json:
        write(options.json, {
            "format": FORMAT, "quick": options.quick, "machine": told,
            "figures": [to_json(one) for one in results], "skipped": skipped,
        })  # fmt: skip
    return 1 if broken else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
