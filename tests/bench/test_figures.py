# SPDX-License-Identifier: MIT
"""What series of values come to: quantiles, ratios turn by turn, targets, and the way into JSON and back."""

from __future__ import annotations

import json

import pytest
from figures import Figure, Series, Target, from_json, quantile, ratios, result, rounded, summary, to_json
from hypothesis import given
from hypothesis import strategies as st
from words import cell, digits, quantity, ratio

NUMBERS = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=50)


def test_quantiles_lie_between_two_neighbours() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0, 2.0], 0.25) == 1.25
    assert quantile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


@given(NUMBERS, st.floats(0, 1))
def test_a_quantile_is_within_its_values_and_grows(values: list[float], part: float) -> None:
    found = quantile(values, part)
    slack = max(values) * 1e-12
    assert min(values) - slack <= found <= max(values) + slack
    assert quantile(values, 0.0) - slack <= found <= quantile(values, 1.0) + slack


def test_ratios_are_of_single_turns() -> None:
    ours = Series("ours", (1.0, 2.0, 3.0, 4.0))
    assert ratios(ours, Series("other", (2.0, 2.0, 2.0, 2.0))) == (0.5, 1.0, 1.5, 2.0)


def test_one_that_has_every_second_turn_is_beside_that_turn() -> None:
    ours = Series("ours", (1.0, 100.0, 3.0, 100.0))
    assert ratios(ours, Series("slow", (2.0, 6.0), every=2)) == (0.5, 0.5)


def test_one_that_gave_up_is_beside_as_far_as_it_came_and_nothing_has_no_ratio() -> None:
    ours = Series("ours", (1.0, 2.0, 3.0))
    assert ratios(ours, Series("other", (2.0, 0.0))) == (0.5,)
    assert ratios(Series("ours", (1.0,)), Series("other", (1.0, 1.0))) == (1.0,)


def test_targets_of_values_and_of_ratios() -> None:
    figure = Figure(
        "heal", "route", "s", (Series("linxd", (0.001, 0.003, 0.002)), Series("C", (0.001, 0.001, 0.001))),
        (
            Target("under 2 ms", 0.002), Target("all under 2 ms", 0.002, quantile=1.0),
            Target("within 3", 3.0, "C"), Target("within 1", 1.0, "C"), Target("ahead of nobody", 1.0, "X"),
        ),
    )  # fmt: skip
    found = result(figure)
    assert [each.reached for each in found.outcomes] == [True, False, True, False, None]
    assert [each.value for each in found.outcomes] == [0.002, 0.003, 2.0, 2.0, None]
    assert [each.ratio for each in found.outcomes] == [False, False, True, True, True]


def test_one_without_a_value_is_not_shown() -> None:
    found = result(Figure("heal", "route", "s", (Series("linxd", (1.0,)), Series("C", ()))))
    assert [each.name for each in found.shown] == ["linxd"]


def test_without_one_of_ours_nobody_stands_in_its_place() -> None:
    found = result(Figure("heal", "route", "s", (Series("linxd", ()), Series("C", (1.0,)))))
    assert found.shown == ()


@given(NUMBERS, NUMBERS)
def test_a_result_is_the_same_after_json(ours: list[float], theirs: list[float]) -> None:
    figure = Figure(
        "heal", "IPv4 route", "s", (Series("linxd", tuple(ours)), Series("C", tuple(theirs))),
        (Target("within 6", 6.0, "C"),), (("shell", "no shell"),), "a note",
    )  # fmt: skip
    found = result(figure)
    assert from_json(json.loads(json.dumps(to_json(found)))) == found


def test_four_digits_are_kept() -> None:
    assert rounded(0.00012345678) == 0.0001235
    assert summary([1.23456, 2.34567]).p50 == 1.79


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.0000123, "s", "12.3 µs"),
        (0.00123, "s", "1.23 ms"),
        (12.3, "s", "12.3 s"),
        (0.0, "s", "0 µs"),
        (14 * 2.0**20, "B", "14 MiB"),
        (512.0, "B", "512 B"),
        (0.0281, "%", "0.0281 %"),
        (1234.0, "1/s", "1,234 1/s"),
        (0.0000012, "%", "0.000001 %"),
    ],
)
def test_quantities_in_the_unit_that_fits(value: float, unit: str, words: str) -> None:
    assert quantity(value, unit) == words


def test_spreads_in_words() -> None:
    assert cell(summary([0.001]), "s") == "1 ms"
    assert cell(summary([0.001, 0.003]), "s") == "2 ms (… 3 ms)"
    assert cell(summary([0.001] * 99 + [0.5]), "s") == "1 ms (p99 5.99 ms)"
    assert ratio(summary([2.0])) == "2×"
    assert ratio(summary([1.0, 2.0, 3.0])) == "2× (1.5 … 2.5)"
    assert digits(0.000722) == "0.000722"
