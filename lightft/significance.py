"""Intervals and tests: how far a score, or the difference between two, could be luck of the test set.

Every function resamples the examples of the test set. None speaks of the luck of training: that needs several seeds.
Scores are functions of summed counts (``Metric.score``), so that a resampled test set is a weighted sum of rows; the
``..._by_rows`` functions serve scores that are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lightft.errors import InvalidSettingError

__all__ = [
    "Difference",
    "Interval",
    "approximate_randomization",
    "approximate_randomization_by_rows",
    "bootstrap_interval",
    "bootstrap_interval_by_rows",
    "holm_adjusted",
    "mcnemar_exact",
    "paired_bootstrap_difference",
    "paired_bootstrap_difference_by_rows",
]

Array = NDArray[np.float64]
Score = Callable[[Array], Array]
Row = TypeVar("Row")


@dataclass(frozen=True)
class Interval:
    """Where a value lies with confidence ``level``: ``[low, high]``, ``nan`` where it is undefined.

    Attributes:
        low: lower end.
        high: upper end.
        level: confidence, e.g. 0.95.
        resamples: how many resampled test sets it rests on.
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
    _check(len(counts), level=level, resamples=resamples)
    scores = np.concatenate([score(totals) for totals in _resampled_totals(counts, resamples, rng)])
    return _percentile_interval(scores, level)


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
    _check(len(counts_a), level=level, resamples=resamples)
    _check_paired(counts_a.shape, counts_b.shape)
    width = counts_a.shape[1]
    differences = np.concatenate(
        [
            score(totals[:, :width]) - score(totals[:, width:])
            for totals in _resampled_totals(np.hstack([counts_a, counts_b]), resamples, rng)
        ]
    )
    observed = float(score(counts_a.sum(axis=0)) - score(counts_b.sum(axis=0)))
    return Difference(observed, _percentile_interval(differences, level))


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
    _check(len(counts_a), trials=trials)
    _check_paired(counts_a.shape, counts_b.shape)
    total_a, total_b = counts_a.sum(axis=0), counts_b.sum(axis=0)
    observed = abs(float(score(total_a) - score(total_b)))
    if math.isnan(observed):
        return math.nan
    hits = 0
    for moved in _swapped_sums(counts_b - counts_a, trials, rng):
        differences = np.abs(score(total_a + moved) - score(total_b - moved))
        hits += int(np.count_nonzero(differences >= observed - _rounding(observed)))
    return (hits + 1) / (trials + 1)


def mcnemar_exact(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_]) -> float:
    """Exact two-sided p-value for two classifiers of the same accuracy.

    Of the m examples that exactly one of the two got right, the number for a is binomial (m, 1/2):
    ``p = min(1, 2 P(X ≤ min(only a, only b)))`` (McNemar 1947, in its exact form). It is what approximate
    randomization tends to with endless trials.

    Args:
        right_a: shape ``(n,)``, whether a's answer is right.
        right_b: shape ``(n,)``, the same for b.

    Raises:
        InvalidSettingError: the lengths differ.
    """
    _check_paired(right_a.shape, right_b.shape)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    discordant, fewer = only_a + only_b, min(only_a, only_b)
    log_terms = [
        math.lgamma(discordant + 1) - math.lgamma(k + 1) - math.lgamma(discordant - k + 1) - discordant * math.log(2)
        for k in range(fewer + 1)
    ]
    return min(1.0, 2 * math.fsum(math.exp(term) for term in log_terms))


def holm_adjusted(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values: below α for each comparison that holds with a chance of any error of at most α.

    The i-th smallest of m becomes the largest ``(m − j + 1) p_j`` of j ≤ i, at most 1 (Holm 1979, "A simple
    sequentially rejective multiple test procedure"). ``nan`` stays ``nan`` and does not count in m.
    """
    adjusted = [math.nan] * len(p_values)
    order = sorted((place for place, p in enumerate(p_values) if not math.isnan(p)), key=p_values.__getitem__)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = largest
    return tuple(adjusted)


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
    _check(len(rows), level=level, resamples=resamples)
    scores = [score([rows[place] for place in drawn]) for drawn in _drawn_places(len(rows), resamples, rng)]
    return _percentile_interval(np.array(scores), level)


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
    _check(len(rows_a), level=level, resamples=resamples)
    _check_paired((len(rows_a),), (len(rows_b),))
    differences = [
        score([rows_a[place] for place in drawn]) - score([rows_b[place] for place in drawn])
        for drawn in _drawn_places(len(rows_a), resamples, rng)
    ]
    return Difference(score(rows_a) - score(rows_b), _percentile_interval(np.array(differences), level))


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
    _check(len(rows_a), trials=trials)
    _check_paired((len(rows_a),), (len(rows_b),))
    observed = abs(score(rows_a) - score(rows_b))
    if math.isnan(observed):
        return math.nan
    hits = 0
    for _ in range(trials):
        swap = rng.random(len(rows_a)) < 0.5
        pairs = [(b, a) if swapped else (a, b) for a, b, swapped in zip(rows_a, rows_b, swap, strict=True)]
        difference = abs(score([a for a, _ in pairs]) - score([b for _, b in pairs]))
        hits += difference >= observed - _rounding(observed)
    return (hits + 1) / (trials + 1)


# Cells of the largest temporary array: 4 M doubles are 32 MB.
_CHUNK_CELLS = 4_000_000

# A multinomial draw costs about 20 times as much a category as drawing the place of one example.
_CATEGORY_COST = 20


def _resampled_totals(counts: Array, resamples: int, rng: np.random.Generator) -> Iterator[Array]:
    """Yield the summed counts of resampled examples, a chunk of shape ``(m, k)`` at a time, m adding up to resamples.

    Equal rows are drawn together: how often each distinct row occurs among n draws is multinomial. Of many distinct
    rows the places are drawn instead, which gives the same distribution.
    """
    n = len(counts)
    distinct, multiplicity = _distinct_rows(counts)
    # Which distinct row stands at which place: in sorted order, so that the order of the examples makes no difference.
    kinds = np.repeat(np.arange(len(distinct)), multiplicity)
    for size in _chunk_sizes(resamples, max(len(distinct), counts.shape[1])):
        if len(distinct) * _CATEGORY_COST < n:
            times_drawn = rng.multinomial(n, multiplicity / n, size=size)
        else:
            places = (rng.integers(0, n, size=n) for _ in range(size))
            drawn_kinds = places if len(distinct) == n else (kinds[drawn] for drawn in places)
            times_drawn = np.array([np.bincount(drawn, minlength=len(distinct)) for drawn in drawn_kinds])
        yield times_drawn.astype(np.float64) @ distinct


def _swapped_sums(change: Array, trials: int, rng: np.random.Generator) -> Iterator[Array]:
    """Yield the sums of ``change`` over randomly chosen examples, each chosen with probability 1/2, in chunks."""
    changing = change[np.any(change != 0, axis=1)]
    if not len(changing):
        yield np.zeros((trials, change.shape[1]))
        return
    distinct, multiplicity = _distinct_rows(changing)
    if len(distinct) * _CATEGORY_COST < len(changing):
        for size in _chunk_sizes(trials, max(len(distinct), change.shape[1])):
            yield rng.binomial(multiplicity, 0.5, size=(size, len(distinct))) @ distinct
        return
    for size in _chunk_sizes(trials, len(changing)):
        coins = np.frombuffer(rng.bytes(size * ((len(changing) + 7) // 8)), dtype=np.uint8).reshape(size, -1)
        yield np.unpackbits(coins, axis=1, count=len(changing)).astype(np.float64) @ changing


def _distinct_rows(counts: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return the distinct rows, sorted, and how often each occurs."""
    distinct, multiplicity = np.unique(counts, axis=0, return_counts=True)
    return distinct, multiplicity


def _chunk_sizes(total: int, cells_each: int) -> Iterator[int]:
    largest = max(1, _CHUNK_CELLS // max(1, cells_each))
    while total > 0:
        yield min(total, largest)
        total -= largest


def _drawn_places(n: int, resamples: int, rng: np.random.Generator) -> Iterator[list[int]]:
    for _ in range(resamples):
        yield rng.integers(0, n, size=n).tolist()


def _percentile_interval(scores: Array, level: float) -> Interval:
    defined = scores[~np.isnan(scores)]
    undefined = len(scores) - len(defined)
    if not len(defined):
        return Interval(math.nan, math.nan, level, 0, undefined)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, len(defined), undefined)


def _rounding(observed: float) -> float:
    """Return what sums in another order may differ by: a tie with the observed difference counts as reaching it."""
    return 1e-12 + 1e-9 * observed


def _check(n: int, *, level: float = 0.95, resamples: int = 1, trials: int = 1) -> None:
    if n == 0:
        raise InvalidSettingError("There are no examples to resample. Score a test set with at least one.")
    if not 0 < level < 1:
        raise InvalidSettingError(f"level is {level!r}; it is a confidence between 0 and 1, such as 0.95.")
    for name, value in (("resamples", resamples), ("trials", trials)):
        if value < 1:
            raise InvalidSettingError(f"{name} is {value!r}; it is at least 1, and 10,000 give steady numbers.")


def _check_paired(shape_a: tuple[int, ...], shape_b: tuple[int, ...]) -> None:
    if shape_a != shape_b:
        raise InvalidSettingError(
            f"The two do not pair up: shapes {shape_a} and {shape_b}. Give the same examples in the same order."
        )
