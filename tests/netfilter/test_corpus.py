# SPDX-License-Identifier: MIT
"""Rulesets that cover the language: applied as nft would have, and then left alone."""

from __future__ import annotations

import difflib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linxd.patch import Trigger
from linxd.sources.netfilter.compile import Compiler

from .conftest import Bed, Tool

CORPUS = sorted(Path(__file__).with_name("corpus").glob("*.nft"))
_RUNTIME = re.compile(r" expires [0-9a-z]+")
PLACEHOLDERS = ("dummy-a", "dummy-b")


def expected(bed: Bed, tool: Tool, path: Path) -> str:
    """The listing after nft itself has loaded the file in a namespace of its own; skips what can't be."""
    text = path.read_text()
    wanted = re.search(r"^# nft: ([0-9.]+)", text, re.M)
    if wanted and tool.version < tuple(map(int, wanted[1].split("."))):
        pytest.skip(f"nft {wanted[1]} has what this needs, this is {tool.words}")
    for name in PLACEHOLDERS:
        bed.ip(f"link add {name} type {LINK_KIND}")
    done = subprocess.run(
        ["ip", "netns", "exec", bed.name, *tool.command, "-f", "-"],
        input=text,
        text=True,
        capture_output=True,
    )
    if done.returncode:
        needs = re.search(r"^# needs: (.*)", text, re.M)
        if needs and "Could not process rule" in done.stderr:
            pytest.skip(f"this kernel has no {needs[1]}")
        raise AssertionError(done.stderr)
    return listing(bed, tool)


LINK_KIND = "ifb"


def listing(bed: Bed, tool: Tool) -> str:
    command = ["ip", "netns", "exec", bed.name, *tool.command, "list", "ruleset"]
    done = subprocess.run(command, text=True, capture_output=True, check=True)
    return _RUNTIME.sub("", done.stdout)


def _cases() -> list[Any]:
    """Those that not every kernel can load are tried on a distribution's, too."""
    marks = {path: [pytest.mark.kinds] if "\n# needs:" in f"\n{path.read_text()}" else [] for path in CORPUS}
    return [pytest.param(path, id=path.stem, marks=marks[path]) for path in CORPUS]


@pytest.mark.parametrize("path", _cases())
async def test_ruleset_is_loaded_as_nft_would_and_then_left_alone(
    path: Path, tool: Tool, make_bed: Callable[[], Bed]
) -> None:
    theirs, ours = make_bed(), make_bed()
    want = expected(theirs, tool, path)
    for name in PLACEHOLDERS:
        ours.ip(f"link add {name} type {LINK_KIND}")
    ours.new_source(Compiler(tool.command))
    text = path.read_text()

    report = await ours.apply(text)

    assert report.converged, report.conditions
    got = listing(ours, tool)
    assert got == want, "\n".join(difflib.unified_diff(want.splitlines(), got.splitlines()))

    # A second pass, and one after a restart that compiles anew, write nothing.
    written = len(ours.writes)
    assert not (await ours.run()).drifted
    ours.new_source(Compiler(tool.command))
    report = await ours.run(Trigger.START)
    assert not report.drifted, [op.describe() for op in report.drifted]
    assert report.converged
    assert len(ours.writes) == written


def test_there_are_enough_of_them() -> None:
    assert len(CORPUS) >= 60
