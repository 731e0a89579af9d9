"""Tests without resampling, several comparisons, and power: what they say at the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightft.errors import InvalidSettingError
from lightft.significance import (
    auc_interval,
    benjamini_hochberg_adjusted,
    delong_test,
    effect_size,
    holm_adjusted,
    mcnemar_exact,
    mcnemar_mid_p,
    rows_needed,
    smallest_detectable_difference,
)

GOLD = np.array([True, False] * 20)
SCORES = np.random.default_rng(0).normal(size=40) + GOLD


def test_mid_p_lies_below_the_exact_p() -> None:
    right_a, right_b = np.arange(40) < 30, np.arange(40) >= 12
    assert mcnemar_mid_p(right_a, right_b) < mcnemar_exact(right_a, right_b)


def test_mid_p_of_equal_answers_is_one() -> None:
    right = SCORES > 0
    assert mcnemar_mid_p(right, right) == 1.0


def test_mid_p_holds_for_tens_of_thousands_of_examples() -> None:
    right_a, right_b = np.arange(50_000) % 2 == 0, np.arange(50_000) % 2 == 1
    assert mcnemar_mid_p(right_a, right_b) == pytest.approx(1.0)


def test_areas_of_rankings_that_rank_alike_do_not_differ() -> None:
    difference, interval, p = delong_test(GOLD, SCORES, 3 * SCORES + 1)
    assert (difference, interval.low, interval.high, p) == (0.0, 0.0, 0.0, 1.0)


def test_exchanging_the_rankings_turns_the_sign() -> None:
    other = np.random.default_rng(1).normal(size=40)
    difference, interval, p = delong_test(GOLD, SCORES, other)
    turned, turned_interval, same_p = delong_test(GOLD, other, SCORES)
    assert (turned, same_p) == (pytest.approx(-difference), pytest.approx(p))
    assert (turned_interval.low, turned_interval.high) == pytest.approx((-interval.high, -interval.low))


def test_the_interval_of_an_area_near_one_stays_below_one() -> None:
    scores = GOLD + 0.0
    scores[0] = -1.0
    interval = auc_interval(GOLD, scores)
    assert interval.low < 0.95 < interval.high < 1.0
    assert 0.95 - interval.low > interval.high - 0.95


def test_a_perfect_ranking_has_no_interval() -> None:
    interval = auc_interval(GOLD, GOLD + 0.0)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_a_perfect_ranking_against_its_reverse_has_no_p() -> None:
    difference, interval, p = delong_test(GOLD, GOLD + 0.0, 1.0 - GOLD)
    assert difference == 1.0
    assert math.isnan(interval.low)
    assert math.isnan(p)


@pytest.mark.parametrize("gold", [np.zeros(40, bool), np.arange(40) == 3], ids=["no positive", "one positive"])
def test_classes_too_small_to_vary_have_no_interval_and_no_p(gold: np.ndarray) -> None:
    assert math.isnan(auc_interval(gold, SCORES).low)
    _, interval, p = delong_test(gold, SCORES, -SCORES)
    assert math.isnan(interval.low)
    assert math.isnan(p)


def test_adjusted_p_values_keep_what_is_undefined() -> None:
    adjusted = benjamini_hochberg_adjusted([0.02, math.nan, 0.03])
    assert adjusted[0] == pytest.approx(0.03)
    assert math.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.03)


def test_benjamini_and_hochberg_follow_their_definition() -> None:
    assert benjamini_hochberg_adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.02, 0.04, 0.04, 0.02))
    assert benjamini_hochberg_adjusted([0.9, 0.8]) == (0.9, 0.9)
    assert benjamini_hochberg_adjusted([]) == ()


def test_benjamini_and_hochberg_never_adjust_more_than_holm() -> None:
    p_values = (np.random.default_rng(2).random(30) ** 3).tolist()
    pairs = zip(p_values, benjamini_hochberg_adjusted(p_values), holm_adjusted(p_values), strict=True)
    assert all(p <= gentle <= strict for p, gentle, strict in pairs)


def test_power_of_one_half_detects_what_just_reaches_the_level() -> None:
    assert smallest_detectable_difference(0.01, 0.95, 0.5) == pytest.approx(0.0196, abs=1e-5)
    assert smallest_detectable_difference(0.01) == pytest.approx(0.028016, abs=1e-5)


def test_four_times_the_rows_show_half_the_difference() -> None:
    needed = rows_needed(0.02, 0.01, 1000)
    assert rows_needed(-0.02, 0.01, 1000) == needed
    assert rows_needed(0.01, 0.01, 1000) == pytest.approx(4 * needed, abs=4)
    assert smallest_detectable_difference(0.01 * math.sqrt(1000 / needed)) == pytest.approx(0.02, rel=1e-3)


def test_what_seeds_hide_no_number_of_rows_shows() -> None:
    assert rows_needed(0.02, 0.01, 1000, seed_error=0.01) == math.inf
    assert rows_needed(0.02, 0.01, 1000) < rows_needed(0.02, 0.01, 1000, seed_error=0.005) < math.inf
    assert rows_needed(0.0, 0.01, 1000) == math.inf


def test_unknown_numbers_need_an_unknown_number_of_rows() -> None:
    assert math.isnan(rows_needed(math.nan, 0.01, 1000))
    assert math.isnan(rows_needed(0.02, math.nan, 1000))
    assert math.isnan(effect_size(math.nan, 0.01, 1000))


def test_where_nothing_varies_there_is_no_effect_size() -> None:
    assert math.isnan(effect_size(0.1, 0.0, 50))
    assert effect_size(-0.02, 0.01, 400) == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: smallest_detectable_difference(0.01, level=95), "level is 95"),
        (lambda: smallest_detectable_difference(0.01, power=0.3), "power is 0.3"),
        (lambda: rows_needed(0.02, 0.01, 1000, power=1.0), "power is 1.0"),
        (lambda: auc_interval(GOLD, SCORES[1:]), "do not pair up"),
        (lambda: auc_interval(GOLD, SCORES, level=0.0), "level is 0.0"),
        (lambda: delong_test(GOLD, SCORES, SCORES[1:]), "do not pair up"),
        (lambda: auc_interval(GOLD.astype(int), SCORES), "gold holds values of type int64"),
        (lambda: mcnemar_mid_p(GOLD, GOLD[1:]), "do not pair up"),
    ],
)
def test_settings_out_of_range_are_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidSettingError, match=message):
        call()
