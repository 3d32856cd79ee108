# SPDX-License-Identifier: MIT
"""The pictures in the documentation are those of the example that they stand beside."""

from __future__ import annotations

import json
import os

import pytest

from tests.topology.tutorial import DRAWING, FORM, PAGE, drawing, files, seen


def test_the_drawing_is_that_of_the_stored_form() -> None:
    assert DRAWING.read_text() == drawing(json.loads(FORM.read_text())), "make topology"


def test_the_stored_form_and_the_page_are_what_is_seen() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces are made")
    assert [scope for scope, _ in files()] == ["host", "web"]
    form, text = seen()
    assert form == json.loads(FORM.read_text()), "make topology"
    _, _, shown = PAGE.read_text().partition("# linxctl topology\n")
    assert text == shown[: shown.index("```")]
