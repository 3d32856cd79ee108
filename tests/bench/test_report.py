# SPDX-License-Identifier: MIT
"""The page and its plots are what the figures give, and nobody has written into them by hand."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from figures import FORMAT, Figure, Series, Target, result, to_json
from limits import limit
from plot import plot
from report import page, plots, read, written

DOCS = Path(__file__).resolve().parents[2] / "docs"
FIGURES = DOCS / "performance" / "figures.json"


def document(
    *figures: Figure, quick: bool = False, skipped: dict[str, str] | None = None
) -> dict[str, object]:
    """What a run writes."""
    return {
        "format": FORMAT, "quick": quick, "machine": {"kernel": "6.1"},
        "figures": [to_json(result(each)) for each in figures], "skipped": skipped or {},
    }  # fmt: skip


HEAL = Figure(
    "heal", "a <b> & c", "s",
    (Series("linxd", (0.0004, 0.0005, 0.0006)), Series("C program", (0.0001, 0.0001, 0.0001))),
    (Target("within 6 times the C program", 6.0, "C program"), Target("half under 0.1 ms", 0.0001)),
    (("shell loop", "there is no shell"),), "How it was done.",
)  # fmt: skip


def test_the_committed_page_is_what_the_committed_figures_give() -> None:
    files = written(FIGURES, DOCS)
    for path, text in files.items():
        assert path.read_text() == text, f"{path.name} is not of these figures: make performance"
    assert {path.name for path in (DOCS / "performance").glob("*.svg")} == {
        path.name for path in files if path.suffix == ".svg"
    }


def test_the_page_names_no_machine_and_no_place() -> None:
    text = (DOCS / "performance.md").read_text() + FIGURES.read_text()
    assert "/work" not in text
    assert "/tmp" not in text
    assert "/root" not in text


def test_every_table_has_as_many_cells_as_its_head() -> None:
    cells = 0
    for line in (DOCS / "performance.md").read_text().splitlines():
        if not line.startswith("|"):
            cells = 0
        elif not cells:
            cells = line.count("|")
        else:
            assert line.count("|") == cells, line


def test_the_page_says_what_is_reached_what_is_not_and_why() -> None:
    text = page(read(document(HEAL)))
    assert "| within 6 times the C program | 5× | reached |" in text
    assert "| half under 0.1 ms | 500 µs | **not reached** |" in text
    assert "- shell loop: there is no shell." in text
    assert "How it was done." in text
    assert "quick run" not in text
    assert "quick run" in page(read(document(HEAL, quick=True)))


def test_a_row_that_was_not_measured_says_so() -> None:
    text = page(read(document(HEAL, skipped={"storm": "there is no wind"})))
    assert "Not measured: there is no wind." in text
    assert "Not measured: not in this run." in text


def test_a_figure_without_one_of_ours_has_a_line_that_says_so() -> None:
    empty = Figure("heal", "rule", "s", (Series("linxd", ()), Series("C program", (1.0,))), HEAL.targets)
    text = page(read(document(empty)))
    assert "| rule | not measured |" in text
    assert "| half under 0.1 ms | – | not measured |" in text


def test_a_reason_stands_on_the_page_only_where_the_target_is_not_reached() -> None:
    far = Figure("heal", "rule", "s", (Series("linxd", (9.0,)), Series("C", (1.0,))), HEAL.targets[:1])
    slow = Figure(
        "heal", "rule", "s", (Series("linxd", (9.0,)), Series("C program", (1.0,))), HEAL.targets[:1]
    )
    reason = limit("heal", "rule", "within 6 times the C program")
    assert reason
    assert reason in page(read(document(slow)))
    assert reason not in page(read(document(far)))
    assert limit("nothing", "", "") == ""


def test_a_reason_is_that_of_its_row_and_its_target() -> None:
    assert limit("heal", "rule", "within 6 times the C program").startswith("**Six times")
    assert limit("heal", "rule", "ahead of the shell loop by 5").startswith("**The shell loop")
    assert limit("flat", "rule", "within 6 times the C program") == ""


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format 0"):
        read({**document(HEAL), "format": 0})


def test_the_same_results_give_the_same_plot_and_it_is_well_formed() -> None:
    found = read(json.loads(json.dumps(document(HEAL)))).results
    drawn = plot(found, "a & b")
    assert drawn == plot(found, "a & b")
    root = ElementTree.fromstring(drawn)
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "a <b> & c" in texts
    assert "500 µs" in texts


def test_a_larger_value_stands_further_right() -> None:
    drawn = plot(read(document(HEAL)).results, "")
    dots = [
        float(each.attrib["cx"])
        for each in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}circle")
    ]
    assert len(dots) == 2
    assert dots[0] > dots[1]


def test_all_values_alike_and_values_of_nothing_have_a_plot() -> None:
    alike = Figure("storm", "x", "%", (Series("linxd", (1.0,)), Series("C", (1.0,)), Series("D", (0.0,))))
    drawn = plot(read(document(alike)).results, "")
    assert ElementTree.fromstring(drawn) is not None


def test_only_what_stands_beside_something_is_drawn() -> None:
    alone = Figure("idle", "CPU", "%", (Series("linxd", (1.0,)),))
    other = Figure("idle", "woken", "1/s", (Series("linxd", (1.0,)), Series("C", (2.0,))))
    assert list(plots(read(document(HEAL, alone, other)))) == ["heal.svg", "idle.svg"]
