# SPDX-License-Identifier: MIT
"""The shipped schema is the one the tables give, takes every example, and no faulty one that it can tell."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import linxd.config
from linxd.config.build import build
from linxd.config.document import parse
from linxd.config.reference import reference
from linxd.config.schema import schema, text
from tests.config.test_files_of_faults import BAD, GOOD, scope_of

jsonschema = pytest.importorskip("jsonschema")

SHIPPED = Path(linxd.config.__file__).with_name("linxd.schema.json")
TOP = Path(linxd.config.__file__).parents[2]
READABLE = [path for path in BAD if not path.stem.startswith("syntax")]
VALIDATOR = jsonschema.Draft202012Validator(schema())

BEYOND = "# beyond the schema"
"""Marks faulty files that no schema can tell: what takes more than one key, or arithmetic."""


def examples_in(path: Path) -> list[str]:
    """The TOML examples of a document."""
    return re.findall(r"^```toml\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


DOCUMENTED = examples_in(TOP / "docs/configuration.md")


def test_the_shipped_file_is_what_the_tables_give() -> None:
    assert SHIPPED.read_text() == text(), (
        "run: python3 -m linxd.config.schema > linxd/config/linxd.schema.json"
    )


def test_the_module_prints_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "linxd.config.schema"], capture_output=True, check=True, cwd=TOP
    )
    assert done.stdout.decode() == text()


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    json.loads(text())


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_it_takes_the_good_files(path: Path) -> None:
    VALIDATOR.validate(tomllib.loads(path.read_text()))


@pytest.mark.parametrize("path", READABLE, ids=lambda path: path.stem)
def test_it_tells_the_bad_ones_as_far_as_a_schema_can(path: Path) -> None:
    text = path.read_text()
    assert VALIDATOR.is_valid(tomllib.loads(text)) == (BEYOND in text)


def test_there_are_examples_in_the_documentation() -> None:
    assert len(DOCUMENTED) >= 10


@pytest.mark.parametrize("example", DOCUMENTED)
def test_what_is_documented_loads_without_a_word(example: str) -> None:
    VALIDATOR.validate(tomllib.loads(example))
    texts = [DOCUMENTED[0], example] if example.startswith("# /etc/linxd/netns/c1.toml.d/") else [example]
    trees = [parse(f"example{layer}", one, layer=layer) for layer, one in enumerate(texts)]
    assert [str(fault) for fault in build(scope_of(example), trees).faults()] == []


def test_the_documented_reference_is_what_the_tables_give() -> None:
    told = (
        (TOP / "docs/configuration.md").read_text().partition("`python3 -m linxd.config.reference`.\n\n")[2]
    )
    assert told == reference()


def _descriptions(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["description"]] if isinstance(part.get("description"), str) else []
        return own + [text for inner in part.values() for text in _descriptions(inner)]
    return [text for inner in part for text in _descriptions(inner)] if isinstance(part, list) else []


def test_every_key_says_what_it_is_for() -> None:
    sections = schema()["properties"]
    link = schema()["$defs"]["link"]["properties"]
    for properties in (
        sections,
        link,
        sections["route"]["items"]["properties"],
        sections["scope"]["properties"],
    ):
        assert all(inner.get("description") for inner in properties.values())
    assert all(text.strip() for text in _descriptions(schema()))
