"""Where a score lies: percentile and BCa bootstrap intervals over the examples of the test set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from lightft.significance.checks import check
from lightft.significance.resampling import Array, Score, resampled_scores

__all__ = [
    "Difference",
    "Interval",
    "bca_from_resamples",
    "bca_interval",
    "bootstrap_interval",
    "jackknife_scores",
    "percentile_from_resamples",
]


@dataclass(frozen=True)
class Interval:
    """Where a value lies with confidence ``level``: ``[low, high]``, ``nan`` where it is undefined.

    Attributes:
        low: lower end.
        high: upper end.
        level: confidence, e.g. 0.95.
        resamples: how many resampled test sets it rests on; 0 where a formula gives it.
        undefined: on how many more the score was undefined (``nan``); they are left out.
    """

    low: float
    high: float
    level: float
    resamples: int
    undefined: int = 0


@dataclass(frozen=True)
class Difference:
    """Score of a minus score of b on the same examples, with its interval."""

    value: float
    interval: Interval


def bootstrap_interval(
    counts: Array, score: Score, *, level: float = 0.95, resamples: int = 10_000, rng: np.random.Generator
) -> Interval:
    """Percentile bootstrap interval of a score.

    Draws n examples with replacement, ``resamples`` times, and takes the (1 − level)/2 and (1 + level)/2 quantiles
    of the scores (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", ch. 13).

    Args:
        counts: shape ``(n, k)``, the counts of each example.
        score: from sums of shape ``(..., k)`` to scores of shape ``(...)``.
        level: confidence, between 0 and 1.
        resamples: how many test sets are drawn.
        rng: source of the draws.

    Raises:
        InvalidSettingError: ``level`` or ``resamples`` is out of range, or there are no examples.
    """
    check(len(counts), level=level, resamples=resamples)
    return percentile_from_resamples(resampled_scores([counts], score, resamples=resamples, rng=rng)[0], level)


def bca_interval(
    counts: Array, score: Score, *, level: float = 0.95, resamples: int = 10_000, rng: np.random.Generator
) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of a score; see ``bca_from_resamples``.

    Args:
        counts: shape ``(n, k)``, the counts of each example.
        score: from sums of shape ``(..., k)`` to scores of shape ``(...)``.
        level: confidence, between 0 and 1.
        resamples: how many test sets are drawn.
        rng: source of the draws.

    Raises:
        InvalidSettingError: ``level`` or ``resamples`` is out of range, or there are no examples.
    """
    check(len(counts), level=level, resamples=resamples)
    scores = resampled_scores([counts], score, resamples=resamples, rng=rng)[0]
    observed = float(score(counts.sum(axis=0)))
    return bca_from_resamples(observed, scores, jackknife_scores(counts, score), level)


def percentile_from_resamples(scores: Array, level: float) -> Interval:
    """Percentile interval of scores that are already computed.

    Args:
        scores: shape ``(resamples,)``, the scores of resampled test sets; ``nan`` where undefined.
        level: confidence, between 0 and 1.
    """
    return _between_quantiles(scores, (1 - level) / 2, (1 + level) / 2, level)


def bca_from_resamples(observed: float, scores: Array, jackknife_scores: Array, level: float) -> Interval:
    """BCa interval of scores that are already computed (Efron 1987, "Better bootstrap confidence intervals").

    In place of the α-quantile of the scores it takes the quantile at ``Φ(z₀ + (z₀ + z_α) / (1 − a (z₀ + z_α)))``. The
    bias z₀ is Φ⁻¹ of the share of scores below the observed one, those equal to it counting half. The acceleration is
    ``a = Σ d³ / (6 (Σ d²)^1.5)``, where d is the mean of the jackknife scores minus each.

    Where a part is undefined, that correction is left out: a is 0 where all jackknife scores are equal or undefined.
    Where all scores lie on one side of the observed one, or the formula's denominator is not positive, the interval
    is the percentile interval.

    Args:
        observed: the score of the test set itself.
        scores: shape ``(resamples,)``, the scores of resampled test sets; ``nan`` where undefined, and left out.
        jackknife_scores: shape ``(n,)``, the score without each example; see ``jackknife_scores``. For a difference,
            the difference of those of both.
        level: confidence, between 0 and 1.
    """
    defined = scores[~np.isnan(scores)]
    if math.isnan(observed):
        return Interval(math.nan, math.nan, level, 0, len(scores))
    if not len(defined):
        return percentile_from_resamples(scores, level)
    below = (np.count_nonzero(defined < observed) + np.count_nonzero(defined <= observed)) / (2 * len(defined))
    if not 0 < below < 1:
        return percentile_from_resamples(scores, level)
    bias, acceleration = _NORMAL.inv_cdf(below), _acceleration(jackknife_scores)
    ends = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        shifted = bias + _NORMAL.inv_cdf(share)
        if acceleration * shifted >= 1:
            return percentile_from_resamples(scores, level)
        ends.append(_NORMAL.cdf(bias + shifted / (1 - acceleration * shifted)))
    return _between_quantiles(scores, ends[0], ends[1], level)


def jackknife_scores(counts: Array, score: Score) -> Array:
    """Return the score of the test set without each example in turn.

    Args:
        counts: shape ``(n, k)``, the counts of each example.
        score: from sums of shape ``(..., k)`` to scores of shape ``(...)``.

    Returns:
        Shape ``(n,)``, in the order of the examples; ``nan`` where undefined.
    """
    return score(counts.sum(axis=0) - counts)


_NORMAL = NormalDist()


def _acceleration(jackknife_scores: Array) -> float:
    # Sorted, so that the order of the examples does not change the last digit.
    defined = np.sort(jackknife_scores[~np.isnan(jackknife_scores)])
    if not len(defined):
        return 0.0
    deviations = defined.mean() - defined
    # Without the scale, the cube of a deviation of 1e-6 loses digits, and one of 1e-120 is lost.
    scale = float(np.abs(deviations).max())
    if scale <= 1e-14 * float(np.abs(defined).max()):
        return 0.0
    deviations /= scale
    return float((deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5))


def _between_quantiles(scores: Array, low_share: float, high_share: float, level: float) -> Interval:
    defined = scores[~np.isnan(scores)]
    undefined = len(scores) - len(defined)
    if not len(defined):
        return Interval(math.nan, math.nan, level, 0, undefined)
    low, high = np.quantile(defined, [low_share, high_share])
    return Interval(float(low), float(high), level, len(defined), undefined)
