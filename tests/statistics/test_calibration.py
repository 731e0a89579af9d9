"""What is called 5 % is 5 % and what is called 95 % is 95 %: tests and intervals on 10,000 simulated test sets.

The standard error of a rate of 5 % among 10,000 is 0.2 percentage points, so that 4.5 % to 5.5 % is 2.3 of them to
either side. Trials of randomization are 1 less than a multiple of 200, so that p = 0.05 occurs.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from statistics import NormalDist

import numpy as np
import pytest

from lightft.significance import (
    approximate_randomization,
    auc_interval,
    bca_from_resamples,
    delong_test,
    holm_adjusted,
    jackknife_scores,
    joint_randomization,
    mcnemar_exact,
    mcnemar_mid_p,
    percentile_from_resamples,
    resampled_scores,
)

SIMULATIONS = 10_000
ALPHA = 0.05
ACCURACY = 0.8
TRUE_F1 = 0.8
Counts = np.ndarray


def accuracy(totals: np.ndarray) -> np.ndarray:
    return totals[..., 0] / totals[..., 1]


def f1(totals: np.ndarray) -> np.ndarray:
    return 2 * totals[..., 0] / (totals[..., 1] + totals[..., 2])


def tied_classifiers(rng: np.random.Generator, examples: int, runs: int = 2) -> list[Counts]:
    """Return (right, 1) of classifiers of accuracy 0.8 that tend to fail on the same examples."""
    ease = rng.beta(4, 1, examples)
    return [np.column_stack([rng.random(examples) < ease, np.ones(examples)]).astype(float) for _ in range(runs)]


def tied_taggers(rng: np.random.Generator, sentences: int, runs: int = 2) -> list[Counts]:
    """Return (found, predicted, gold) of taggers of F1 0.8 that tend to fail on the same sentences.

    Of 1.5 gold spans a sentence holds on average, 1.2 are found, and 0.3 predicted ones are wrong: 2 · 1.2 / (1.5 + 1.5).
    """
    gold, ease = rng.poisson(1.5, sentences), rng.beta(4, 1, sentences)
    found = [rng.binomial(gold, ease) for _ in range(runs)]
    return [np.column_stack([hits, hits + rng.poisson(0.3, sentences), gold]).astype(float) for hits in found]


def share_of(happens: Callable[[np.random.Generator], bool], seed: int, simulations: int = SIMULATIONS) -> float:
    """Return in which share of the simulations it happens."""
    sources = (np.random.default_rng([seed, number]) for number in range(simulations))
    return sum(happens(rng) for rng in sources) / simulations


@pytest.mark.parametrize("sentences", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_randomization_calls_one_tie_of_taggers_in_twenty_a_difference(sentences: int) -> None:
    def rejects(rng: np.random.Generator) -> bool:
        return approximate_randomization(*tied_taggers(rng, sentences), f1, trials=199, rng=rng) <= ALPHA

    assert 0.045 <= share_of(rejects, 1) <= 0.055


def test_randomization_of_right_and_wrong_errs_in_at_most_one_tie_in_twenty() -> None:
    # Few p-values are possible where few examples tell the classifiers apart, so that it is as strict as McNemar's test.
    def rejects(rng: np.random.Generator) -> bool:
        return approximate_randomization(*tied_classifiers(rng, 500), accuracy, trials=199, rng=rng) <= ALPHA

    assert share_of(rejects, 2) <= 0.055


@pytest.mark.parametrize("examples", [200, 500, pytest.param(2000, marks=pytest.mark.slow)])
def test_mid_p_mcnemar_calls_one_tie_in_twenty_a_difference_and_the_exact_test_fewer(examples: int) -> None:
    def p_values(rng: np.random.Generator) -> tuple[float, float]:
        right_a, right_b = (counts[:, 0] == 1 for counts in tied_classifiers(rng, examples))
        return mcnemar_mid_p(right_a, right_b), mcnemar_exact(right_a, right_b)

    sources = (np.random.default_rng([3, number]) for number in range(SIMULATIONS))
    mid, exact = np.mean(np.array([p_values(rng) for rng in sources]) <= ALPHA, axis=0)
    assert 0.045 <= mid <= 0.055
    assert exact <= mid


def coverage(
    draw: Callable[[np.random.Generator], Counts],
    score: Callable[[np.ndarray], np.ndarray],
    truth: float,
    *,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """Return in which share of the simulations the percentile and the BCa interval hold the true score."""
    hits = np.zeros(2)
    for number in range(SIMULATIONS):
        rng = np.random.default_rng([seed, number])
        counts = draw(rng)
        scores = resampled_scores([counts], score, resamples=resamples, rng=rng)[0]
        percentile = percentile_from_resamples(scores, 0.95)
        bca = bca_from_resamples(float(score(counts.sum(axis=0))), scores, jackknife_scores(counts, score), 0.95)
        hits += [percentile.low <= truth <= percentile.high, bca.low <= truth <= bca.high]
    percentile_share, bca_share = hits / SIMULATIONS
    return percentile_share, bca_share


@pytest.mark.parametrize("examples", [500, pytest.param(2000, marks=pytest.mark.slow)])
def test_nineteen_in_twenty_intervals_hold_the_true_accuracy(examples: int) -> None:
    percentile, bca = coverage(
        lambda rng: tied_classifiers(rng, examples, 1)[0], accuracy, ACCURACY, resamples=999, seed=4
    )
    assert 0.94 <= percentile <= 0.96
    assert 0.94 <= bca <= 0.96


@pytest.mark.parametrize("sentences", [300, pytest.param(1000, marks=pytest.mark.slow)])
def test_nineteen_in_twenty_intervals_hold_the_true_f1(sentences: int) -> None:
    percentile, bca = coverage(lambda rng: tied_taggers(rng, sentences, 1)[0], f1, TRUE_F1, resamples=999, seed=5)
    assert 0.94 <= percentile <= 0.96
    assert 0.94 <= bca <= 0.96


@pytest.mark.slow
@pytest.mark.parametrize("sentences", [300, 1000])
def test_nineteen_in_twenty_paired_intervals_hold_the_true_difference(sentences: int) -> None:
    hits = np.zeros(2)
    for number in range(SIMULATIONS):
        rng = np.random.default_rng([6, number])
        runs = tied_taggers(rng, sentences)
        scores_a, scores_b = resampled_scores(runs, f1, resamples=999, rng=rng)
        observed_a, observed_b = (float(f1(counts.sum(axis=0))) for counts in runs)
        jackknife_a, jackknife_b = (jackknife_scores(counts, f1) for counts in runs)
        percentile = percentile_from_resamples(scores_a - scores_b, 0.95)
        bca = bca_from_resamples(observed_a - observed_b, scores_a - scores_b, jackknife_a - jackknife_b, 0.95)
        hits += [percentile.low <= 0 <= percentile.high, bca.low <= 0 <= bca.high]
    percentile_share, bca_share = hits / SIMULATIONS
    assert 0.94 <= percentile_share <= 0.96
    assert 0.94 <= bca_share <= 0.96


def test_holm_keeps_the_chance_of_any_false_difference_among_six_at_one_in_twenty() -> None:
    pairs = list(combinations(range(4), 2))

    def any_rejected(rng: np.random.Generator) -> bool:
        # 0.05 / 6 of 600 is 5, so that each step of Holm's test can be reached exactly.
        p_values = joint_randomization(tied_taggers(rng, 200, 4), f1, pairs, trials=599, rng=rng)
        return min(holm_adjusted(p_values.tolist())) <= ALPHA

    assert share_of(any_rejected, 7) <= 0.055


def tied_rankings(rng: np.random.Generator, examples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return gold and two correlated rankings whose areas under the ROC curve are both Φ(1.2 / √2) = 0.80."""
    gold = np.arange(examples) % 2 == 0
    shared = rng.normal(size=examples)
    scores = [1.2 * gold + np.sqrt(0.5) * (shared + rng.normal(size=examples)) for _ in range(2)]
    return gold, scores[0], scores[1]


@pytest.mark.parametrize("examples", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_delong_calls_one_tie_in_twenty_a_difference(examples: int) -> None:
    def rejects(rng: np.random.Generator) -> bool:
        return delong_test(*tied_rankings(rng, examples))[2] <= ALPHA

    assert 0.045 <= share_of(rejects, 8, simulations=30_000) <= 0.055


@pytest.mark.parametrize("examples", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_nineteen_in_twenty_intervals_hold_the_true_area(examples: int) -> None:
    truth = NormalDist().cdf(1.2 / np.sqrt(2))

    def holds(rng: np.random.Generator) -> bool:
        gold, scores, _ = tied_rankings(rng, examples)
        interval = auc_interval(gold, scores)
        return interval.low <= truth <= interval.high

    assert 0.94 <= share_of(holds, 9) <= 0.96
