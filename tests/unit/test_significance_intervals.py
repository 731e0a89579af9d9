"""BCa intervals: what they correct, and what they are where there is nothing to correct by."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightft.errors import InvalidSettingError
from lightft.significance import (
    bca_from_resamples,
    bca_interval,
    bootstrap_interval,
    jackknife_scores,
    percentile_from_resamples,
)

LEVEL = 0.95


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mean(totals: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return totals[..., 0] / totals[..., 1]


SCORES = rng(1).normal(0.8, 0.02, 4000)
EVEN = np.tile([0.79, 0.81], 50)


def test_jackknife_scores_leave_out_one_example_each() -> None:
    counts = rng(2).integers(1, 9, (40, 2)).astype(float)
    expected = [mean(np.delete(counts, place, axis=0).sum(axis=0)) for place in range(40)]
    assert jackknife_scores(counts, mean) == pytest.approx(expected)


def test_without_bias_and_skew_bca_is_the_percentile_interval() -> None:
    observed = float(np.median(SCORES))
    assert bca_from_resamples(observed, SCORES, EVEN, LEVEL) == percentile_from_resamples(SCORES, LEVEL)


def test_an_observed_score_above_most_resamples_moves_the_interval_up() -> None:
    moved = bca_from_resamples(float(np.quantile(SCORES, 0.6)), SCORES, EVEN, LEVEL)
    plain = percentile_from_resamples(SCORES, LEVEL)
    assert moved.low > plain.low
    assert moved.high > plain.high


def test_the_order_of_examples_does_not_matter() -> None:
    counts = rng(3).gamma(2, size=(200, 2))
    shuffled = rng(4).permutation(counts)
    assert bca_interval(counts, mean, resamples=500, rng=rng()).low == pytest.approx(
        bca_interval(shuffled, mean, resamples=500, rng=rng()).low, rel=1e-12
    )


def test_whole_counts_give_the_same_interval_in_any_order() -> None:
    counts = rng(3).integers(1, 9, (200, 2)).astype(float)
    shuffled = rng(4).permutation(counts)
    assert bca_interval(counts, mean, resamples=500, rng=rng()) == bca_interval(
        shuffled, mean, resamples=500, rng=rng()
    )


def test_equal_scores_are_an_interval_without_width() -> None:
    counts = np.ones((30, 2))
    interval = bca_interval(counts, mean, resamples=200, rng=rng())
    assert (interval.low, interval.high, interval.resamples) == (1.0, 1.0, 200)


@pytest.mark.parametrize("observed", [0.0, 1.0])
def test_resamples_on_one_side_of_the_observed_score_give_the_percentile_interval(observed: float) -> None:
    assert bca_from_resamples(observed, SCORES, EVEN, LEVEL) == percentile_from_resamples(SCORES, LEVEL)


@pytest.mark.parametrize("jackknife", [np.full(50, 0.8), np.full(50, np.nan)])
def test_without_variation_in_the_jackknife_only_the_bias_is_corrected(jackknife: np.ndarray) -> None:
    observed = float(np.quantile(SCORES, 0.55))
    assert bca_from_resamples(observed, SCORES, jackknife, LEVEL) == bca_from_resamples(observed, SCORES, EVEN, LEVEL)


def test_an_acceleration_beyond_the_formula_gives_the_percentile_interval() -> None:
    # One example alone makes all the difference, and the level is extreme: 1 − a (z₀ + z) is negative.
    jackknife = np.append(np.full(9, 0.5), 0.4)
    observed = float(np.quantile(SCORES, 0.999))
    assert bca_from_resamples(observed, SCORES, jackknife, 1 - 1e-6) == percentile_from_resamples(SCORES, 1 - 1e-6)


def test_undefined_resamples_are_counted_and_left_out() -> None:
    some_undefined = np.concatenate([SCORES, np.full(100, np.nan)])
    jackknife = rng(5).gamma(2, size=60)
    with_them = bca_from_resamples(0.8, some_undefined, jackknife, LEVEL)
    without = bca_from_resamples(0.8, SCORES, jackknife, LEVEL)
    assert (with_them.low, with_them.high) == (without.low, without.high)
    assert (with_them.resamples, with_them.undefined) == (4000, 100)


def test_an_undefined_score_has_an_undefined_interval() -> None:
    of_nothing = bca_interval(np.zeros((10, 2)), mean, resamples=20, rng=rng())
    assert math.isnan(of_nothing.low)
    assert (of_nothing.resamples, of_nothing.undefined) == (0, 20)
    assert math.isnan(bca_from_resamples(0.8, np.full(20, np.nan), EVEN, LEVEL).high)
    unscored = bca_from_resamples(math.nan, SCORES, EVEN, LEVEL)
    assert math.isnan(unscored.low)


def test_for_a_share_of_right_answers_bca_and_percentile_nearly_agree() -> None:
    counts = np.column_stack([rng(6).random(2000) < 0.7, np.ones(2000)]).astype(float)
    plain = bootstrap_interval(counts, mean, rng=rng())
    bca = bca_interval(counts, mean, rng=rng())
    assert bca.low == pytest.approx(plain.low, abs=0.001)
    assert bca.high == pytest.approx(plain.high, abs=0.001)


def test_a_level_in_percent_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match="level is 95"):
        bca_interval(np.ones((5, 2)), mean, level=95, rng=rng())
