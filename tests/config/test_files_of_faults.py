# SPDX-License-Identifier: MIT
"""A folder of files that are wrong, each with what must be said about it, and one of files that are right.

A file of ``bad/`` ends in ``# expect:`` lines, one for each fault, in order and complete.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from linxd.config.build import build
from linxd.config.document import parse
from linxd.config.faults import ConfigError

HERE = Path(__file__).parent
BAD = sorted((HERE / "bad").glob("*.toml"))
GOOD = sorted((HERE / "good").glob("*.toml"))


def scope_of(text: str) -> str:
    """The scope that a file is for, where it says so."""
    match = re.search(r"^# scope: (\S+)$", text, re.MULTILINE)
    return match[1] if match else "c1"


def faults_of(text: str) -> list[str]:
    """What is said about a file, without its name."""
    try:
        faults = build(scope_of(text), [parse("F", text)]).faults()
    except ConfigError as error:
        faults = list(error.faults)
    return [str(fault).removeprefix("F:") for fault in faults]


def test_there_are_many_ways_to_be_wrong() -> None:
    assert len(BAD) >= 60


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_every_fault_is_told_at_once_where_it_stands(path: Path) -> None:
    text = path.read_text()
    expected = re.findall(r"^# expect: (.*)$", text, re.MULTILINE)
    assert expected
    assert faults_of(text) == expected


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_file_gives_no_configuration(path: Path) -> None:
    text = path.read_text()
    with pytest.raises(ConfigError) as error:
        build(scope_of(text), [parse("F", text)]).finish()
    assert error.value.errors


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_file_has_nothing_said_about_it(path: Path) -> None:
    assert faults_of(path.read_text()) == []


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_message_never_shows_the_inside(path: Path) -> None:
    for line in faults_of(path.read_text()):
        assert not re.search(r"Traceback|<class|linxd\.|NoneType|object at", line)
