"""Intervals over seeds and test examples cover 95 % of the time, whether seeds vary not at all or three times as much.

Scores are ``μ + seed + example + interaction``. The ratio is the variance of the seed's effect on a score over the variance
that a score has from one test set to the next. The share is that of the interactions in the latter: what each seed gets
wrong on its own. Of 10,000 intervals the share that covers has a standard error of 0.22 percentage points. The bounds
are 94 % to 96 %, or errors of 4 % to 6 %, and two of those to either side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
from scipy.special import stdtrit

from lightft.significance.resampling import resampled_scores
from lightft.significance.seeds import seeds_difference, seeds_interval, two_level_bootstrap

SIMULATIONS = 10_000
NOISE = 2 * math.sqrt(0.05 * 0.95 / SIMULATIONS)
LEVEL = 0.95
RATIOS = (0.0, 0.1, 0.3, 1.0, 3.0)
SHARES = (0.0, 0.3, 0.8)
FEW_CELLS = [(3, 0.0, 0.3), (3, 0.3, 0.0), (3, 1.0, 0.3), (3, 3.0, 0.0), (5, 0.0, 0.3), (5, 3.0, 0.0), (10, 1.0, 0.3)]
ALL_CELLS = [(seeds, ratio, share) for seeds in (3, 5, 10) for ratio in RATIOS for share in (*SHARES, 1.0)]


def resampled_parts(common: float, own: float, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what all seeds have in common, shape (R,), and each seed's own, shape (seeds, R), of exact variances."""
    rows = seeds + 2
    basis = np.linalg.qr(np.column_stack([np.ones(rows), np.random.default_rng(0).normal(size=(rows, rows - 1))]))[0]
    scaled = basis[:, 1:].T * math.sqrt(rows - 1)
    return scaled[0] * math.sqrt(common), scaled[1:] * math.sqrt(own)


def normal_scores(seeds: int, ratio: float, share: float) -> np.ndarray:
    """Return scores of expectation 0, shape (simulations, seeds), that vary by 1 from test set to test set."""
    rng = np.random.default_rng(round(1_000 * seeds + 100 * ratio + 10 * share))
    of_seeds = rng.normal(size=(SIMULATIONS, seeds)) * math.sqrt(ratio + share)
    return of_seeds + rng.normal(size=(SIMULATIONS, 1)) * math.sqrt(1 - share)


def coverage(seeds: int, ratio: float, share: float) -> float:
    common, own = resampled_parts(1 - share, share, seeds)
    values = normal_scores(seeds, ratio, share)
    intervals = [seeds_interval(row, common + own, level=LEVEL).interval for row in values]
    return float(np.mean([interval.low <= 0 <= interval.high for interval in intervals]))


def errors(seeds_a: int, seeds_b: int, ratio: float, share: float, ratio_b: float | None = None) -> float:
    """Return how often two methods of the same expected score are called different; share is that of the difference."""
    rng = np.random.default_rng(round(1_000 * seeds_a + 100 * ratio + 10 * share))
    common, own = resampled_parts(2 * (1 - share), share, seeds_a + seeds_b)
    own[:seeds_a] += common
    examples = rng.normal(size=(SIMULATIONS, 1)) * math.sqrt(2 * (1 - share))
    of_a = rng.normal(size=(SIMULATIONS, seeds_a)) * math.sqrt(ratio + share) + examples
    # A method with one seed is held fixed, so that new seeds of it are no part of the question.
    ratio_b = 0.0 if seeds_b == 1 else ratio if ratio_b is None else ratio_b
    of_b = rng.normal(size=(SIMULATIONS, seeds_b)) * math.sqrt(ratio_b + share)
    p_values = [
        seeds_difference(a, own[:seeds_a], b, own[seeds_a:], level=LEVEL).p_value
        for a, b in zip(of_a, of_b, strict=True)
    ]
    return float(np.mean(np.array(p_values) < 1 - LEVEL))


@pytest.mark.parametrize(("seeds", "ratio", "share"), FEW_CELLS)
def test_interval_over_seeds_covers_its_level(seeds: int, ratio: float, share: float) -> None:
    assert 0.94 - NOISE <= coverage(seeds, ratio, share) <= 0.96 + NOISE


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "ratio", "share"), ALL_CELLS)
def test_interval_over_seeds_covers_its_level_on_the_whole_grid(seeds: int, ratio: float, share: float) -> None:
    found = coverage(seeds, ratio, share)
    assert 0.94 - NOISE <= found <= 0.96 + NOISE


@pytest.mark.parametrize(("ratio", "share"), [(0.0, 0.0), (3.0, 0.0), (1.0, 0.8)])
def test_two_seeds_cover_in_nine_cases_of_ten(ratio: float, share: float) -> None:
    assert 0.895 - NOISE <= coverage(2, ratio, share) <= 0.96 + NOISE


def test_satterthwaites_degrees_of_freedom_alone_would_cover_less() -> None:
    ratio, share = 1.0, 0.8
    values = normal_scores(3, ratio, share)
    seeds = values.var(axis=1, ddof=1) / 3
    total = seeds + (1 - share)
    reach = stdtrit(2 * total**2 / seeds**2, (1 + LEVEL) / 2) * np.sqrt(total)
    assert np.mean(np.abs(values.mean(axis=1)) <= reach) < 0.93
    assert coverage(3, ratio, share) > 0.935


@pytest.mark.parametrize(
    ("seeds_a", "seeds_b", "ratio", "share"),
    [(3, 3, 0.0, 0.3), (3, 3, 1.0, 0.0), (3, 3, 3.0, 0.3), (5, 5, 0.3, 0.3), (3, 10, 1.0, 0.3), (3, 1, 1.0, 0.3)],
)
def test_difference_over_seeds_keeps_its_error_rate(seeds_a: int, seeds_b: int, ratio: float, share: float) -> None:
    assert 0.04 - NOISE <= errors(seeds_a, seeds_b, ratio, share) <= 0.06 + NOISE


@pytest.mark.slow
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("share", [*SHARES, 1.0])
@pytest.mark.parametrize("seeds", [(3, 3), (5, 5), (10, 10), (3, 5), (3, 10), (3, 1)])
def test_difference_over_seeds_keeps_its_error_rate_on_the_whole_grid(
    seeds: tuple[int, int], ratio: float, share: float
) -> None:
    found = errors(*seeds, ratio, share)
    assert 0.04 - NOISE <= found <= 0.06 + NOISE


def test_seeds_of_one_method_may_vary_more_than_those_of_the_other() -> None:
    assert 0.04 - NOISE <= errors(3, 3, ratio=3.0, share=0.3, ratio_b=0.3) <= 0.06 + NOISE


# Real counts: answers to examples of unequal ease, seeds of unequal skill, and luck on each example.


def accuracy(totals: np.ndarray) -> np.ndarray:
    return totals[..., 0] / totals[..., 1]


def f1(totals: np.ndarray) -> np.ndarray:
    return 2 * totals[..., 0] / (totals[..., 1] + totals[..., 2])


def classifiers(rng: np.random.Generator, ease: np.ndarray, seeds: int, seed_deviation: float) -> list[np.ndarray]:
    """Return (right, 1) of each seed; on average over seeds and examples 85 % are right."""
    skill = NormalDist().inv_cdf(0.85) * math.sqrt(1 + 2**2 + seed_deviation**2)
    luck = rng.normal(size=(seeds, len(ease))) + rng.normal(size=(seeds, 1)) * seed_deviation
    return [np.column_stack([row, np.ones(len(ease))]).astype(float) for row in luck < skill + 2 * ease]


def taggers(rng: np.random.Generator, ease: np.ndarray, seeds: int, seed_deviation: float) -> list[np.ndarray]:
    """Return (found, predicted, gold) of each seed, with up to four gold spans a sentence, the same for all seeds."""
    gold = np.floor(4.99 * np.abs(np.sin(1e4 * ease))).astype(int)
    skill = 1.5 + rng.normal(size=(seeds, 1)) * seed_deviation + 1.5 * ease
    found = rng.binomial(gold, np.vectorize(NormalDist().cdf)(skill))
    extra = rng.poisson(0.3, size=found.shape)
    return [np.column_stack([hits, hits + more, gold]).astype(float) for hits, more in zip(found, extra, strict=True)]


Runs = Callable[[np.random.Generator, np.ndarray, int, float], list[np.ndarray]]


def error_of_real_difference(
    runs: Runs, score: Callable[[np.ndarray], np.ndarray], examples: int, seed_deviation: float, simulations: int
) -> float:
    """Return how often three seeds of a method are called different from three more of the same method."""
    rng = np.random.default_rng(examples)
    rejected = 0
    for _ in range(simulations):
        counts = runs(rng, rng.normal(size=examples), 6, seed_deviation)
        values = np.array([score(rows.sum(axis=0)) for rows in counts])
        drawn = resampled_scores(counts, score, resamples=200, rng=rng)
        rejected += seeds_difference(values[:3], drawn[:3], values[3:], drawn[3:], level=LEVEL).p_value < 1 - LEVEL
    return rejected / simulations


@pytest.mark.parametrize(("runs", "score"), [(classifiers, accuracy), (taggers, f1)])
def test_three_seeds_against_three_more_of_the_same_method_differ_seldom(
    runs: Runs, score: Callable[[np.ndarray], np.ndarray]
) -> None:
    simulations = 1_000
    found = error_of_real_difference(runs, score, examples=200, seed_deviation=0.1, simulations=simulations)
    noise = 2 * math.sqrt(0.05 * 0.95 / simulations)
    assert 0.04 - noise <= found <= 0.06 + noise


def coverage_of_accuracy(examples: int, seeds: int, seed_deviation: float, simulations: int) -> float:
    rng = np.random.default_rng(examples + seeds)
    covered = 0
    for _ in range(simulations):
        counts = classifiers(rng, rng.normal(size=examples), seeds, seed_deviation)
        values = [float(accuracy(rows.sum(axis=0))) for rows in counts]
        drawn = resampled_scores(counts, accuracy, resamples=200, rng=rng)
        interval = seeds_interval(values, drawn, level=LEVEL).interval
        covered += interval.low <= 0.85 <= interval.high
    return covered / simulations


@pytest.mark.slow
@pytest.mark.parametrize("examples", [200, 1_000, 5_000])
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("seed_deviation", [0.0, 0.1])
def test_interval_of_accuracy_covers_its_level(examples: int, seeds: int, seed_deviation: float) -> None:
    simulations = 2_000
    found = coverage_of_accuracy(examples, seeds, seed_deviation, simulations)
    noise = 2 * math.sqrt(0.05 * 0.95 / simulations)
    assert 0.94 - noise <= found <= 0.96 + noise


def test_two_level_bootstrap_covers_far_less_with_three_seeds() -> None:
    """The same 600 times three seeds, which vary ten times as much as test sets of 50 examples do."""
    rng = np.random.default_rng(1)
    covered = {"seeds_interval": 0, "two_level_bootstrap": 0}
    for _ in range(600):
        effects = (
            rng.normal(size=50) + rng.normal(size=(3, 50)) * 0.65 + rng.normal(size=(3, 1)) * math.sqrt(10 * 1.42 / 50)
        )
        counts = [np.column_stack([row, np.ones(50)]) for row in effects]
        drawn = resampled_scores(counts, accuracy, resamples=300, rng=rng)
        ours = seeds_interval(effects.mean(axis=1), drawn, level=LEVEL).interval
        theirs = two_level_bootstrap(counts, accuracy, level=LEVEL, resamples=300, rng=rng)
        covered["seeds_interval"] += ours.low <= 0 <= ours.high
        covered["two_level_bootstrap"] += theirs.low <= 0 <= theirs.high
    assert covered["two_level_bootstrap"] < 0.88 * 600
    assert covered["seeds_interval"] > 0.92 * 600
