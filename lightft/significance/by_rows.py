"""Intervals and tests of scores that need the rows themselves, such as a correlation: one call of the score a resample."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lightft.significance.checks import check, check_paired
from lightft.significance.intervals import Difference, Interval, percentile_from_resamples
from lightft.significance.resampling import rounding

__all__ = [
    "approximate_randomization_by_rows",
    "bootstrap_interval_by_rows",
    "paired_bootstrap_difference_by_rows",
    "resampled_scores_by_rows",
]

Array = NDArray[np.float64]
Row = TypeVar("Row")


def bootstrap_interval_by_rows(
    rows: Sequence[Row],
    score: Callable[[Sequence[Row]], float],
    *,
    level: float = 0.95,
    resamples: int = 1_000,
    rng: np.random.Generator,
) -> Interval:
    """As ``bootstrap_interval``, for a score that needs the rows themselves; one call of ``score`` a resample.

    Raises:
        InvalidSettingError: ``level`` or ``resamples`` is out of range, or there are no rows.
    """
    check(len(rows), level=level, resamples=resamples)
    [scores] = resampled_scores_by_rows([rows], score, resamples=resamples, rng=rng)
    return percentile_from_resamples(scores, level)


def paired_bootstrap_difference_by_rows(
    rows_a: Sequence[Row],
    rows_b: Sequence[Row],
    score: Callable[[Sequence[Row]], float],
    *,
    level: float = 0.95,
    resamples: int = 1_000,
    rng: np.random.Generator,
) -> Difference:
    """As ``paired_bootstrap_difference``, for a score that needs the rows themselves.

    Raises:
        InvalidSettingError: the lengths differ, ``level`` or ``resamples`` is out of range, or there are no rows.
    """
    check(len(rows_a), level=level, resamples=resamples)
    check_paired((len(rows_a),), (len(rows_b),))
    scores_a, scores_b = resampled_scores_by_rows([rows_a, rows_b], score, resamples=resamples, rng=rng)
    return Difference(score(rows_a) - score(rows_b), percentile_from_resamples(scores_a - scores_b, level))


def resampled_scores_by_rows(
    systems: Sequence[Sequence[Row]],
    score: Callable[[Sequence[Row]], float],
    *,
    resamples: int = 1_000,
    rng: np.random.Generator,
) -> Array:
    """As ``resampled_scores``: the scores of several systems on the same resampled test sets.

    Args:
        systems: the rows of each system; row i belongs to the same example in all.
        score: of rows.
        resamples: how many test sets are drawn.
        rng: source of the draws.

    Returns:
        Shape ``(systems, resamples)``.

    Raises:
        InvalidSettingError: the lengths differ, ``resamples`` is out of range, or there are no rows.
    """
    check(len(systems[0]), resamples=resamples)
    for rows in systems:
        check_paired((len(systems[0]),), (len(rows),))
    drawn = _drawn_places(len(systems[0]), resamples, rng)
    return np.array([[score([rows[place] for place in places]) for rows in systems] for places in drawn]).T


def approximate_randomization_by_rows(
    rows_a: Sequence[Row],
    rows_b: Sequence[Row],
    score: Callable[[Sequence[Row]], float],
    *,
    trials: int = 1_000,
    rng: np.random.Generator,
) -> float:
    """As ``approximate_randomization``, for a score that needs the rows themselves.

    Raises:
        InvalidSettingError: the lengths differ, ``trials`` is below 1, or there are no rows.
    """
    check(len(rows_a), trials=trials)
    check_paired((len(rows_a),), (len(rows_b),))
    observed = abs(score(rows_a) - score(rows_b))
    if math.isnan(observed):
        return math.nan
    hits = 0
    for _ in range(trials):
        swap = rng.random(len(rows_a)) < 0.5
        pairs = [(b, a) if swapped else (a, b) for a, b, swapped in zip(rows_a, rows_b, swap, strict=True)]
        difference = abs(score([a for a, _ in pairs]) - score([b for _, b in pairs]))
        hits += bool(difference >= observed - rounding(observed))
    return (hits + 1) / (trials + 1)


def _drawn_places(n: int, resamples: int, rng: np.random.Generator) -> Iterator[list[int]]:
    for _ in range(resamples):
        yield rng.integers(0, n, size=n).tolist()
