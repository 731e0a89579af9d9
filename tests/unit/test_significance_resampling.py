"""All runs are resampled at once: the draws are those of the definition, and shared by the runs."""

from __future__ import annotations

import math
import os
from itertools import combinations, product

import numpy as np
import pytest
import scipy.stats

from lightft.errors import InvalidSettingError
from lightft.significance import (
    approximate_randomization,
    joint_randomization,
    paired_bootstrap_difference,
    percentile_from_resamples,
    resampled_scores,
    resampled_scores_by_rows,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def f1(totals: np.ndarray) -> np.ndarray:
    return 2 * totals[..., 0] / (totals[..., 1] + totals[..., 2])


def first(totals: np.ndarray) -> np.ndarray:
    return totals[..., 0]


def taggers(sentences: int, runs: int, seed: int = 0) -> list[np.ndarray]:
    source = rng(seed)
    gold, ease = source.poisson(1.5, sentences), source.beta(4, 1, sentences)
    found = [source.binomial(gold, ease) for _ in range(runs)]
    return [np.column_stack([hits, hits + source.poisson(0.3, sentences), gold]).astype(float) for hits in found]


def times_drawn(n: int, resamples: int, seed: int = 0) -> np.ndarray:
    """Return how often each example was drawn, shape ``(resamples, n)``: the sums of one column for each example."""
    seen = []

    def noting(totals: np.ndarray) -> np.ndarray:
        seen.append(totals[:, 0])
        return first(totals)

    resampled_scores([np.eye(n)], noting, resamples=resamples, rng=rng(seed))
    return np.concatenate(seen)


@pytest.mark.parametrize("n", [1, 2, 4, 5, 12, 100, 1001])
def test_every_resample_has_as_many_examples_as_the_test_set(n: int) -> None:
    assert (times_drawn(n, 500).sum(axis=1) == n).all()


@pytest.mark.parametrize("n", [3, 12, 100])
def test_an_example_is_drawn_as_often_as_by_n_draws_with_replacement(n: int) -> None:
    times = times_drawn(n, 200_000 // n, seed=1)
    binomial = scipy.stats.binom(n, 1 / n)
    most = int(binomial.ppf(0.9999))
    for place in (0, n - 1):
        observed = np.bincount(np.minimum(times[:, place].astype(int), most), minlength=most + 1)
        expected = np.append(binomial.pmf(range(most)), binomial.sf(most - 1)) * len(times)
        assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3


def test_examples_are_drawn_together_as_often_as_by_n_draws_with_replacement() -> None:
    n, resamples = 60, 20_000
    times = times_drawn(n, resamples, seed=2)
    covariance = np.cov(times.T)
    assert np.diag(covariance).mean() == pytest.approx(1 - 1 / n, abs=0.005)
    assert covariance[np.triu_indices(n, 1)].mean() == pytest.approx(-1 / n, abs=0.0005)
    left_out = (times == 0).sum(axis=1)
    source = rng(3)
    by_drawing = np.array([n - len(np.unique(source.integers(0, n, n))) for _ in range(resamples)])
    assert scipy.stats.ttest_ind(left_out, by_drawing).pvalue > 1e-3
    assert left_out.std() == pytest.approx(by_drawing.std(), rel=0.03)


@pytest.mark.parametrize("largest", [3, 2**17, 2**40])
def test_whole_counts_are_summed_without_rounding(largest: int) -> None:
    n, seen = 200, []
    counts = np.hstack([rng(1).integers(0, largest, (n, 2)), np.eye(n)]).astype(float)

    def noting(totals: np.ndarray) -> np.ndarray:
        seen.append(totals[:, 0])
        return first(totals)

    resampled_scores([counts], noting, resamples=300, rng=rng())
    for totals in np.concatenate(seen):
        exact = [
            sum(int(times) * int(count) for times, count in zip(totals[2:], column, strict=True))
            for column in counts[:, :2].T
        ]
        assert totals[:2].tolist() == exact


def test_runs_are_scored_on_the_same_resamples() -> None:
    a, b = taggers(400, 2)
    scores = resampled_scores([a, b, a], f1, resamples=2000, rng=rng())
    assert scores.shape == (3, 2000)
    assert (scores[0] == scores[2]).all()
    # What both find hard makes them rise and fall together.
    assert np.corrcoef(scores[0], scores[1])[0, 1] > 0.3


def test_a_pair_among_many_runs_has_the_interval_and_p_of_the_pair_alone() -> None:
    counts = taggers(300, 4, seed=5)
    pairs = list(combinations(range(4), 2))
    scores = resampled_scores(counts, f1, resamples=20_000, rng=rng())
    p_values = joint_randomization(counts, f1, pairs, trials=20_000, rng=rng())
    for (a, b), p in zip(pairs, p_values, strict=True):
        alone = paired_bootstrap_difference(counts[a], counts[b], f1, resamples=20_000, rng=rng(1)).interval
        joint = percentile_from_resamples(scores[a] - scores[b], 0.95)
        assert joint.low == pytest.approx(alone.low, abs=0.04 * (alone.high - alone.low))
        assert joint.high == pytest.approx(alone.high, abs=0.04 * (alone.high - alone.low))
        assert p == pytest.approx(
            approximate_randomization(counts[a], counts[b], f1, trials=20_000, rng=rng(1)), abs=0.02
        )


def test_p_is_the_share_of_all_swaps_that_give_as_large_a_difference() -> None:
    counts = taggers(9, 3, seed=8)
    pairs = [(0, 1), (2, 1), (0, 2)]
    p_values = joint_randomization(counts, f1, pairs, trials=50_000, rng=rng())
    for (a, b), p in zip(pairs, p_values, strict=True):
        observed = abs(f1(counts[a].sum(axis=0)) - f1(counts[b].sum(axis=0)))
        reached = 0
        for swaps in product([False, True], repeat=9):
            swapped = np.array(swaps)[:, None]
            one = np.where(swapped, counts[b], counts[a]).sum(axis=0)
            other = np.where(swapped, counts[a], counts[b]).sum(axis=0)
            reached += abs(f1(one) - f1(other)) >= observed - 1e-12
        assert p == pytest.approx(reached / 2**9, abs=0.01)


def test_the_number_of_processors_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = taggers(3000, 3)
    # Every sentence differs, so that it takes several chunks of draws.
    counts = [rows + np.arange(3000)[:, None] for rows in counts]
    results = []
    for processors in (1, 3):
        monkeypatch.setattr(os, "cpu_count", lambda processors=processors: processors)
        scores = resampled_scores(counts, f1, resamples=3000, rng=rng())
        p_values = joint_randomization(counts, f1, [(0, 1), (1, 2)], trials=3000, rng=rng())
        results.append((scores.tolist(), p_values.tolist()))
    assert results[0] == results[1]


@pytest.mark.parametrize("sentences", [50, 3000])
def test_the_order_of_examples_does_not_matter(sentences: int) -> None:
    counts = taggers(sentences, 3)
    order = rng(4).permutation(sentences)
    shuffled = [rows[order] for rows in counts]
    assert (
        resampled_scores(counts, f1, resamples=200, rng=rng())
        == resampled_scores(shuffled, f1, resamples=200, rng=rng())
    ).all()
    pairs = [(0, 1), (1, 2)]
    assert (
        joint_randomization(counts, f1, pairs, trials=200, rng=rng())
        == joint_randomization(shuffled, f1, pairs, trials=200, rng=rng())
    ).all()


def test_one_source_gives_new_draws_each_time_and_the_same_ones_from_the_same_seed() -> None:
    counts, source = taggers(100, 1), rng()
    one, other = (resampled_scores(counts, f1, resamples=50, rng=source) for _ in range(2))
    assert (one != other).any()
    assert (one == resampled_scores(counts, f1, resamples=50, rng=rng())).all()


def test_runs_with_equal_answers_have_p_one() -> None:
    a, b = taggers(200, 2)
    p_values = joint_randomization([a, a, b], f1, [(0, 1), (0, 2)], trials=500, rng=rng())
    assert p_values[0] == 1.0
    assert p_values[1] < 1.0


def test_an_undefined_difference_among_others_has_no_p() -> None:
    a, b = taggers(200, 2)
    nothing_counted = np.full_like(a, np.nan)
    p_values = joint_randomization([a, b, nothing_counted], f1, [(0, 1), (0, 2)], trials=500, rng=rng())
    assert math.isnan(p_values[1])
    assert p_values[0] == pytest.approx(joint_randomization([a, b], f1, [(0, 1)], trials=500, rng=rng())[0], abs=0.1)


def test_runs_scored_by_rows_are_scored_on_the_same_resamples() -> None:
    a, b = taggers(80, 2)

    def score(rows: list[np.ndarray]) -> float:
        return float(f1(np.sum(rows, axis=0)))

    by_rows = resampled_scores_by_rows([[*a], [*b], [*a]], score, resamples=400, rng=rng())
    assert by_rows.shape == (3, 400)
    assert (by_rows[0] == by_rows[2]).all()
    by_counts = resampled_scores([a, b], f1, resamples=4000, rng=rng(1))
    assert (by_rows[0] - by_rows[1]).std() == pytest.approx((by_counts[0] - by_counts[1]).std(), rel=0.15)


def test_no_pairs_have_no_p_values() -> None:
    assert joint_randomization(taggers(20, 2), f1, [], trials=10, rng=rng()).shape == (0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resampled_scores([], first, rng=rng()), "no runs"),
        (lambda: resampled_scores([np.zeros((0, 2))], first, rng=rng()), "no examples"),
        (lambda: resampled_scores([np.ones((5, 2)), np.ones((4, 2))], first, rng=rng()), "do not pair up"),
        (lambda: resampled_scores([np.ones((5, 2))], first, resamples=0, rng=rng()), "resamples is 0"),
        (lambda: joint_randomization([np.ones((5, 2))] * 2, first, [(0, 1)], trials=0, rng=rng()), "trials is 0"),
    ],
)
def test_settings_out_of_range_are_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidSettingError, match=message):
        call()
