"""Tests of classifiers that need no resampling: McNemar's for accuracy, DeLong's for the area under the ROC curve."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from lightft.errors import InvalidSettingError
from lightft.significance.checks import check_level, check_paired
from lightft.significance.intervals import Interval
from lightft.significance.resampling import Array

__all__ = ["auc_interval", "delong_test", "mcnemar_exact", "mcnemar_mid_p"]


def mcnemar_exact(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_]) -> float:
    """Exact two-sided p-value for two classifiers of the same accuracy.

    Of the m examples that exactly one of the two got right, the number for a is binomial (m, 1/2):
    ``p = min(1, 2 P(X ≤ min(only a, only b)))`` (McNemar 1947, in its exact form). It is what approximate
    randomization tends to with endless trials. It never rejects a tie too often, and mostly too seldom: see
    ``mcnemar_mid_p``.

    Args:
        right_a: shape ``(n,)``, whether a's answer is right.
        right_b: shape ``(n,)``, the same for b.

    Raises:
        InvalidSettingError: the lengths differ.
    """
    discordant, fewer = _discordant(right_a, right_b)
    return min(1.0, 2 * math.fsum(_binomial_probability(k, discordant) for k in range(fewer + 1)))


def mcnemar_mid_p(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_]) -> float:
    """Two-sided mid-p-value for two classifiers of the same accuracy.

    As ``mcnemar_exact``, with what was observed counting half: ``p = 2 P(X < x) + P(X = x)``, x being the smaller of
    (only a, only b). Its error rate lies nearer to its name, at times slightly above (Fagerland, Lydersen and Laake
    2013, "The McNemar test for binary matched-pairs data: mid-p and asymptotic are better than exact conditional").

    Args:
        right_a: shape ``(n,)``, whether a's answer is right.
        right_b: shape ``(n,)``, the same for b.

    Raises:
        InvalidSettingError: the lengths differ.
    """
    discordant, fewer = _discordant(right_a, right_b)
    below = math.fsum(_binomial_probability(k, discordant) for k in range(fewer))
    return min(1.0, 2 * below + _binomial_probability(fewer, discordant))


def auc_interval(gold: NDArray[np.bool_], scores: Array, *, level: float = 0.95) -> Interval:
    """Interval of the area under the ROC curve, by DeLong's variance on the logit scale.

    The ends are ``expit(logit(AUC) ± z · SE / (AUC (1 − AUC)))``, so that they lie between 0 and 1 and an area near 1
    has a longer way down than up (Pepe 2003, "The Statistical Evaluation of Medical Tests for Classification and
    Prediction", ch. 5). For the variance see ``delong_test``.

    Args:
        gold: shape ``(n,)``, whether the example is positive.
        scores: shape ``(n,)``, higher for examples that are more likely positive.
        level: confidence, between 0 and 1.

    Returns:
        The interval; ``nan`` where there are fewer than two examples of a class, and where the area is 0 or 1, since
        a perfect ranking shows no variance.

    Raises:
        InvalidSettingError: the lengths differ, or ``level`` is out of range.
    """
    check_level(level)
    check_paired(gold.shape, scores.shape)
    [area], covariance = _areas(gold, [scores])
    error = math.sqrt(covariance[0, 0])
    if not 0 < area < 1 or math.isnan(error):
        return Interval(math.nan, math.nan, level, 0)
    logit = math.log(area / (1 - area))
    reach = _NORMAL.inv_cdf((1 + level) / 2) * error / (area * (1 - area))
    return Interval(_expit(logit - reach), _expit(logit + reach), level, 0)


def delong_test(
    gold: NDArray[np.bool_], scores_a: Array, scores_b: Array, *, level: float = 0.95
) -> tuple[float, Interval, float]:
    """Difference between two areas under the ROC curve on the same examples, its interval, and a two-sided p-value.

    Each positive has a placement, the share of the negatives ranked below it, ties counting half, and each negative
    likewise. The area is the mean placement. Its variance is that of the placements of the positives over their
    number plus that of the negatives over theirs, and so are covariances (DeLong, DeLong and Clarke-Pearson 1988,
    "Comparing the areas under two or more correlated receiver operating characteristic curves"). Placements come from
    sorting, in n log n steps (Sun and Xu 2014, "Fast implementation of DeLong's algorithm").

    Args:
        gold: shape ``(n,)``, whether the example is positive.
        scores_a: shape ``(n,)``, higher for examples that are more likely positive.
        scores_b: shape ``(n,)``, the same of b.
        level: confidence, between 0 and 1.

    Returns:
        Area of a minus area of b; the interval, ± z standard errors; and p. Where the two rank alike, the difference
        is 0, and so are the ends of its interval, and p is 1. Where there are fewer than two examples of a class, or
        the areas differ and nothing varies, interval and p are ``nan``.

    Raises:
        InvalidSettingError: the lengths differ, or ``level`` is out of range.
    """
    check_level(level)
    check_paired(gold.shape, scores_a.shape)
    check_paired(scores_a.shape, scores_b.shape)
    (area_a, area_b), covariance = _areas(gold, [scores_a, scores_b])
    difference = area_a - area_b
    # Rounding may leave a tiny variance, of either sign, where there is none.
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    error = 0.0 if variance < 1e-18 else math.sqrt(variance)
    if math.isnan(error) or (error == 0 and abs(difference) > 1e-12):
        return difference, Interval(math.nan, math.nan, level, 0), math.nan
    reach = _NORMAL.inv_cdf((1 + level) / 2) * error
    p = math.erfc(abs(difference) / error / math.sqrt(2)) if error > 0 else 1.0
    return difference, Interval(difference - reach, difference + reach, level, 0), p


_NORMAL = NormalDist()


def _discordant(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_]) -> tuple[int, int]:
    """Return how many examples exactly one of the two got right, and the number of the one that got fewer of them."""
    check_paired(right_a.shape, right_b.shape)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return only_a + only_b, min(only_a, only_b)


def _binomial_probability(k: int, n: int) -> float:
    """Return the chance of k heads among n throws; by logarithms, for n may be tens of thousands."""
    return math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2))


def _areas(gold: NDArray[np.bool_], scores: list[Array]) -> tuple[list[float], Array]:
    """Return the areas and their covariance, shape ``(len(scores), len(scores))``; ``nan`` where undefined."""
    if gold.dtype != np.bool_:
        raise InvalidSettingError(
            f"gold holds values of type {gold.dtype}; it says of each example whether it is positive. "
            "Pass gold == the positive class."
        )
    positives, negatives = int(gold.sum()), int((~gold).sum())
    if not positives or not negatives:
        return [math.nan] * len(scores), np.full((len(scores), len(scores)), np.nan)
    of_positives = np.array([_share_below(row[gold], row[~gold]) for row in scores])
    of_negatives = np.array([1 - _share_below(row[~gold], row[gold]) for row in scores])
    areas = [float(area) for area in of_positives.mean(axis=1)]
    if positives < 2 or negatives < 2:
        return areas, np.full((len(scores), len(scores)), np.nan)
    covariance = np.atleast_2d(np.cov(of_positives)) / positives + np.atleast_2d(np.cov(of_negatives)) / negatives
    return areas, covariance


def _share_below(values: Array, others: Array) -> Array:
    """Return of each value the share of the others that lie below it, those equal to it counting half."""
    ascending = np.sort(others)
    below = np.searchsorted(ascending, values, side="left") + np.searchsorted(ascending, values, side="right")
    return below / (2 * len(others))


def _expit(value: float) -> float:
    return 1 / (1 + math.exp(-value))
