"""The difference between two runs on the same examples: its interval, and whether it could be luck."""

from __future__ import annotations

import numpy as np

from lightft.significance.checks import check, check_paired
from lightft.significance.intervals import Difference, percentile_from_resamples
from lightft.significance.resampling import Array, Score, joint_randomization, resampled_scores

__all__ = ["approximate_randomization", "paired_bootstrap_difference"]


def paired_bootstrap_difference(
    counts_a: Array,
    counts_b: Array,
    score: Score,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    rng: np.random.Generator,
) -> Difference:
    """Difference score(a) − score(b) with its percentile interval, both scored on the same resampled examples.

    Pairing removes the share of the variation that both have in common (Koehn 2004, "Statistical significance tests
    for machine translation evaluation").

    Args:
        counts_a: shape ``(n, k)``; row i belongs to the same example in both.
        counts_b: shape ``(n, k)``.
        score: from sums of shape ``(..., k)`` to scores of shape ``(...)``.
        level: confidence, between 0 and 1.
        resamples: how many test sets are drawn.
        rng: source of the draws.

    Raises:
        InvalidSettingError: the shapes differ, ``level`` or ``resamples`` is out of range, or there are no examples.
    """
    check(len(counts_a), level=level, resamples=resamples)
    check_paired(counts_a.shape, counts_b.shape)
    scores_a, scores_b = resampled_scores([counts_a, counts_b], score, resamples=resamples, rng=rng)
    observed = float(score(counts_a.sum(axis=0)) - score(counts_b.sum(axis=0)))
    return Difference(observed, percentile_from_resamples(scores_a - scores_b, level))


def approximate_randomization(
    counts_a: Array, counts_b: Array, score: Score, *, trials: int = 10_000, rng: np.random.Generator
) -> float:
    """Two-sided p-value of the hypothesis that it makes no difference which of the two gave which answer.

    Swaps the two answers to each example with probability 1/2, ``trials`` times:
    ``p = (1 + trials with |difference| ≥ |observed|) / (1 + trials)`` (Noreen 1989, "Computer-Intensive Methods for
    Testing Hypotheses"; Yeh 2000, arXiv:cs/0008005, for F1).

    Args:
        counts_a: shape ``(n, k)``; row i belongs to the same example in both.
        counts_b: shape ``(n, k)``.
        score: from sums of shape ``(..., k)`` to scores of shape ``(...)``.
        trials: how many random swaps.
        rng: source of the swaps.

    Returns:
        p, or ``nan`` where the observed difference is undefined.

    Raises:
        InvalidSettingError: the shapes differ, ``trials`` is below 1, or there are no examples.
    """
    return float(joint_randomization([counts_a, counts_b], score, [(0, 1)], trials=trials, rng=rng)[0])
