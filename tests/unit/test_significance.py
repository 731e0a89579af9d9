"""Intervals and tests: equal to other programs where there are some, and sane where nothing varies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from lightft.errors import InvalidSettingError
from lightft.significance import (
    approximate_randomization,
    approximate_randomization_by_rows,
    bootstrap_interval,
    bootstrap_interval_by_rows,
    holm_adjusted,
    mcnemar_exact,
    paired_bootstrap_difference,
    paired_bootstrap_difference_by_rows,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mean(totals: np.ndarray) -> np.ndarray:
    return totals[..., 0] / totals[..., 1]


def f1(totals: np.ndarray) -> np.ndarray:
    return 2 * totals[..., 0] / (totals[..., 1] + totals[..., 2])


def hits(n: int, share: float, seed: int) -> np.ndarray:
    return np.column_stack([rng(seed).random(n) < share, np.ones(n)]).astype(float)


def span_counts(n: int, skill: float, seed: int) -> np.ndarray:
    gold = rng(99).poisson(1.5, n)
    found = rng(seed).binomial(gold, skill)
    return np.column_stack([found, found + rng(seed + 1000).poisson(0.3, n), gold]).astype(float)


# Few distinct rows are drawn by a multinomial, many by place: both ways are tested.
CONTINUOUS = np.column_stack([rng(5).gamma(2, size=300), np.ones(300)])
ALIKE = hits(300, 0.7, 5)


@pytest.mark.parametrize("counts", [CONTINUOUS, ALIKE], ids=["all rows differ", "two kinds of rows"])
def test_interval_equals_scipys_percentile_bootstrap(counts: np.ndarray) -> None:
    ours = bootstrap_interval(counts, mean, resamples=20_000, rng=rng())
    theirs = scipy.stats.bootstrap(
        (counts[:, 0],), np.mean, n_resamples=20_000, method="percentile", rng=rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    # A share of 300 answers moves by steps of 1/300.
    tolerance = 1.01 / 300 if counts is ALIKE else 0.03 * width
    assert ours.low == pytest.approx(theirs.low, abs=tolerance)
    assert ours.high == pytest.approx(theirs.high, abs=tolerance)


def test_paired_interval_equals_scipys() -> None:
    a, b = span_counts(400, 0.8, 1), span_counts(400, 0.75, 2)

    def difference(rows: np.ndarray, axis: int) -> np.ndarray:
        return f1(a[rows].sum(axis=axis - 1)) - f1(b[rows].sum(axis=axis - 1))

    ours = paired_bootstrap_difference(a, b, f1, resamples=20_000, rng=rng())
    theirs = scipy.stats.bootstrap(
        (np.arange(400),),
        difference,
        n_resamples=20_000,
        method="percentile",
        batch=500,
        rng=rng(1),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.value == pytest.approx(f1(a.sum(axis=0)) - f1(b.sum(axis=0)))
    assert ours.interval.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.interval.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_randomization_p_equals_scipys_permutation_test() -> None:
    a, b = CONTINUOUS, CONTINUOUS + np.column_stack([rng(7).normal(0.05, 0.6, 300), np.zeros(300)])
    ours = approximate_randomization(a, b, mean, trials=20_000, rng=rng())
    theirs = scipy.stats.permutation_test(
        (a[:, 0], b[:, 0]),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        permutation_type="samples",
        n_resamples=20_000,
        vectorized=True,
        rng=rng(1),
    ).pvalue
    assert 0.02 < theirs < 0.98
    assert ours == pytest.approx(theirs, abs=0.02)


@pytest.mark.parametrize("seed", range(10))
def test_mcnemar_equals_scipys_binomial_test(seed: int) -> None:
    right_a, right_b = rng(seed).random(200) < 0.8, rng(seed + 100).random(200) < 0.7
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    expected = scipy.stats.binomtest(only_a, only_a + only_b).pvalue
    assert mcnemar_exact(right_a, right_b) == pytest.approx(expected)


def test_mcnemar_of_equal_answers_is_one() -> None:
    right = rng().random(50) < 0.5
    assert mcnemar_exact(right, right) == 1.0


def test_mcnemar_holds_for_tens_of_thousands_of_examples() -> None:
    right_a, right_b = rng(1).random(50_000) < 0.5, rng(2).random(50_000) < 0.51
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    expected = scipy.stats.binomtest(only_a, only_a + only_b).pvalue
    assert mcnemar_exact(right_a, right_b) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_randomization_of_right_and_wrong_tends_to_mcnemar(seed: int) -> None:
    a, b = hits(300, 0.8, seed), hits(300, 0.76, seed + 50)
    p = approximate_randomization(a, b, mean, trials=40_000, rng=rng())
    assert p == pytest.approx(mcnemar_exact(a[:, 0] == 1, b[:, 0] == 1), abs=0.01)


def test_the_drawing_of_many_distinct_rows_has_the_distribution_of_that_of_few() -> None:
    few = span_counts(3000, 0.8, 1)
    # A tiny change makes every row different, so that the other way of drawing is taken.
    many = few + np.arange(3000)[:, None] * 1e-9
    by_multinomial = bootstrap_interval(few, f1, resamples=10_000, rng=rng())
    by_place = bootstrap_interval(many, f1, resamples=10_000, rng=rng())
    width = by_place.high - by_place.low
    assert by_multinomial.low == pytest.approx(by_place.low, abs=0.04 * width)
    assert by_multinomial.high == pytest.approx(by_place.high, abs=0.04 * width)


def test_p_is_never_zero() -> None:
    p = approximate_randomization(hits(300, 1.0, 0), hits(300, 0.0, 0), mean, trials=999, rng=rng())
    assert p == 1 / 1000


def test_equal_answers_are_no_difference() -> None:
    counts = span_counts(100, 0.8, 0)
    assert approximate_randomization(counts, counts, f1, trials=500, rng=rng()) == 1.0
    difference = paired_bootstrap_difference(counts, counts, f1, resamples=500, rng=rng())
    assert (difference.value, difference.interval.low, difference.interval.high) == (0.0, 0.0, 0.0)


def test_exchanging_the_runs_turns_the_sign() -> None:
    a, b = span_counts(200, 0.9, 1), span_counts(200, 0.7, 2)
    one = paired_bootstrap_difference(a, b, f1, resamples=4000, rng=rng())
    other = paired_bootstrap_difference(b, a, f1, resamples=4000, rng=rng())
    assert one.value == -other.value > 0
    assert one.interval.low == pytest.approx(-other.interval.high, abs=0.01)
    assert one.interval.low > 0


def test_the_order_of_examples_does_not_matter() -> None:
    counts = span_counts(500, 0.8, 0)
    shuffled = rng(3).permutation(counts)
    assert bootstrap_interval(counts, f1, rng=rng()) == bootstrap_interval(shuffled, f1, rng=rng())


def test_a_higher_level_gives_a_wider_interval_and_more_examples_a_narrower_one() -> None:
    counts = span_counts(300, 0.8, 0)
    at_95 = bootstrap_interval(counts, f1, rng=rng())
    at_99 = bootstrap_interval(counts, f1, level=0.99, rng=rng())
    of_four_times = bootstrap_interval(np.tile(counts, (4, 1)), f1, rng=rng())
    assert at_99.low < at_95.low < at_95.high < at_99.high
    assert of_four_times.high - of_four_times.low == pytest.approx((at_95.high - at_95.low) / 2, rel=0.1)


def test_resamples_without_a_score_are_counted_and_left_out() -> None:
    counts = np.zeros((20, 3))
    counts[0] = 1, 1, 1

    def undefined_where_nothing_is_found(totals: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return f1(totals)

    interval = bootstrap_interval(counts, undefined_where_nothing_is_found, resamples=4000, rng=rng())
    assert interval.low == interval.high == 1.0
    assert interval.resamples + interval.undefined == 4000
    assert interval.undefined / 4000 == pytest.approx((19 / 20) ** 20, abs=0.03)


def test_an_undefined_difference_has_no_p() -> None:
    def never_defined(totals: np.ndarray) -> np.ndarray:
        return np.full(totals.shape[:-1], np.nan)

    assert math.isnan(approximate_randomization(ALIKE, ALIKE, never_defined, trials=10, rng=rng()))
    interval = bootstrap_interval(ALIKE, never_defined, resamples=10, rng=rng())
    assert math.isnan(interval.low)
    assert (interval.resamples, interval.undefined) == (0, 10)


def test_row_functions_agree_with_count_functions() -> None:
    a, b = span_counts(150, 0.85, 1), span_counts(150, 0.7, 2)

    def score(rows: list[np.ndarray]) -> float:
        return float(f1(np.sum(rows, axis=0)))

    counted, by_rows = (
        bootstrap_interval(a, f1, rng=rng()),
        bootstrap_interval_by_rows([*a], score, resamples=2000, rng=rng(1)),
    )
    assert by_rows.low == pytest.approx(counted.low, abs=0.008)
    assert by_rows.high == pytest.approx(counted.high, abs=0.008)
    difference = paired_bootstrap_difference(a, b, f1, rng=rng())
    difference_by_rows = paired_bootstrap_difference_by_rows([*a], [*b], score, resamples=2000, rng=rng(1))
    assert difference_by_rows.value == difference.value
    assert difference_by_rows.interval.low == pytest.approx(difference.interval.low, abs=0.01)
    p = approximate_randomization(a[:60], b[:60], f1, rng=rng())
    p_by_rows = approximate_randomization_by_rows([*a[:60]], [*b[:60]], score, trials=2000, rng=rng(1))
    assert p_by_rows == pytest.approx(p, abs=0.03)


def test_holm_follows_its_definition() -> None:
    assert holm_adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm_adjusted([0.9, 0.8]) == (1.0, 1.0)
    assert holm_adjusted([]) == ()


def test_holm_leaves_out_undefined_p_values() -> None:
    adjusted = holm_adjusted([0.02, math.nan, 0.03])
    assert adjusted[0] == pytest.approx(0.04)
    assert math.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval(np.zeros((0, 2)), mean, rng=rng()), "no examples"),
        (lambda: bootstrap_interval(ALIKE, mean, level=95, rng=rng()), "level is 95"),
        (lambda: bootstrap_interval(ALIKE, mean, resamples=0, rng=rng()), "resamples is 0"),
        (lambda: approximate_randomization(ALIKE, ALIKE, mean, trials=0, rng=rng()), "trials is 0"),
        (lambda: paired_bootstrap_difference(ALIKE, ALIKE[:9], mean, rng=rng()), "do not pair up"),
        (lambda: mcnemar_exact(np.ones(3, bool), np.ones(4, bool)), "do not pair up"),
    ],
)
def test_settings_out_of_range_are_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidSettingError, match=message):
        call()
