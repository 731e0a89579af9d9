"""The engine of a comparison: thousands of resampled test sets, scored for all runs at once.

Scores are functions of summed counts (``Metric.score``). A resampled test set, or one whose answers were swapped, is
therefore a row of weights, and all of them are scored by one matrix product with the counts of all runs side by side.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightft.errors import InvalidSettingError
from lightft.significance.checks import check, check_paired
from lightft.significance.drawing import TimesDrawn, random_bytes

__all__ = ["Array", "Score", "joint_randomization", "resampled_scores", "rounding"]

Array = NDArray[np.float64]
Score = Callable[[Array], Array]


def resampled_scores(
    counts: Sequence[Array], score: Score, *, resamples: int = 10_000, rng: np.random.Generator
) -> Array:
    """Score all runs on the same resampled test sets, so that differences between them are paired.

    Each test set is n examples drawn with replacement, once for all runs (Efron and Tibshirani 1993, "An Introduction
    to the Bootstrap"; Koehn 2004 for pairs). The draws depend neither on the order of the examples nor on the number
    of processors. Whole counts are summed without rounding; sums of others are rounded in their last digits.

    Args:
        counts: of each run an array of shape ``(n, k)``; row i belongs to the same example in all.
        score: from sums of shape ``(..., k)`` to scores of shape ``(...)``.
        resamples: how many test sets are drawn.
        rng: source of the draws.

    Returns:
        Shape ``(runs, resamples)``; ``nan`` where a score is undefined.

    Raises:
        InvalidSettingError: the shapes differ, ``resamples`` is below 1, or there are no examples.
    """
    _check_alike(counts)
    check(len(counts[0]), resamples=resamples)
    runs, width = len(counts), counts[0].shape[1]
    columns, place_of_column = _distinct_columns(np.hstack(counts))
    distinct, multiplicity = _distinct_rows(columns)
    scores = [
        score(sums[:, place_of_column].reshape(-1, runs, width))
        for sums in _resampled_sums(distinct, multiplicity, resamples, rng, runs * width)
    ]
    return np.concatenate(scores).T


def joint_randomization(
    counts: Sequence[Array],
    score: Score,
    pairs: Sequence[tuple[int, int]],
    *,
    trials: int = 10_000,
    rng: np.random.Generator,
) -> Array:
    """Two-sided p-values of many pairs of runs, by approximate randomization with the same swaps for all pairs.

    One coin for each trial and example says whether the two answers to it are swapped, in every pair alike. Each
    p-value is that of ``approximate_randomization`` of its pair. Those of several pairs depend on each other, as they
    would through the shared examples anyhow.

    With M the counts of a run summed over the swapped examples, a pair (a, b) has after the swaps the sums
    ``total_a + (M_b − M_a)`` and ``total_b − (M_b − M_a)``. So one matrix product gives M for all runs.

    Args:
        counts: of each run an array of shape ``(n, k)``; row i belongs to the same example in all.
        score: from sums of shape ``(..., k)`` to scores of shape ``(...)``.
        pairs: the places of two runs in ``counts``, each.
        trials: how many random swaps.
        rng: source of the swaps.

    Returns:
        Shape ``(pairs,)``; ``nan`` where the observed difference is undefined.

    Raises:
        InvalidSettingError: the shapes differ, ``trials`` is below 1, or there are no examples.
    """
    _check_alike(counts)
    check(len(counts[0]), trials=trials)
    runs, width = len(counts), counts[0].shape[1]
    totals = np.array([rows.sum(axis=0) for rows in counts])
    first, second = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    observed = np.abs(score(totals[first]) - score(totals[second]))
    # Only differences between runs matter, so that each is held as its difference from the first: it is 0 where they
    # agree, and examples on which all do drop out.
    columns, place_of_column = _distinct_columns(np.hstack([rows - counts[0] for rows in counts]))
    hits = np.zeros(len(first), dtype=np.int64)
    for sums in _swapped_sums(columns, trials, rng, 2 * len(first) * width):
        moved = sums[:, place_of_column].reshape(-1, runs, width)
        moved = moved[:, second] - moved[:, first]
        differences = np.abs(score(totals[first] + moved) - score(totals[second] - moved))
        hits += np.count_nonzero(differences >= observed - rounding(observed), axis=0)
    return np.where(np.isnan(observed), np.nan, (hits + 1) / (trials + 1))


def rounding(observed: Array | float) -> Array | float:
    """Return what sums in another order may differ by: a tie with the observed difference counts as reaching it."""
    return 1e-12 + 1e-9 * observed


# Cells of the largest temporary array: 4 M floats are 16 MB, doubles 32 MB.
_CHUNK_CELLS = 4_000_000

# What a draw for all equal rows together costs, in draws for one example.
_MULTINOMIAL_COST, _BINOMIAL_COST = 30, 70

# More would only make the temporary arrays of all threads together large.
_MOST_THREADS = 4

Weigh = Callable[[int, np.random.Generator], NDArray[Any]]


def _resampled_sums(
    distinct: Array, multiplicity: NDArray[np.int64], resamples: int, rng: np.random.Generator, cells: int
) -> Iterator[Array]:
    """Yield the sums of the counts of resampled examples, a chunk of shape ``(m, k)`` at a time; see ``_weighted_sums``.

    How often each distinct row occurs among n draws is multinomial. Where there are many distinct rows it is faster to
    draw how often each example occurs, which gives the same distribution.
    """
    n = int(multiplicity.sum())
    if len(distinct) * _MULTINOMIAL_COST < n:
        shares = multiplicity / n
        return _weighted_sums(
            distinct, lambda size, source: source.multinomial(n, shares, size), n, resamples, rng, cells
        )
    return _weighted_sums(np.repeat(distinct, multiplicity, axis=0), TimesDrawn(n), n, resamples, rng, cells)


def _swapped_sums(change: Array, trials: int, rng: np.random.Generator, cells: int) -> Iterator[Array]:
    """Yield the sums of ``change`` over examples chosen with probability 1/2 each, in chunks; see ``_weighted_sums``."""
    changing = change[np.any(change != 0, axis=1)]
    if not len(changing):
        return (np.zeros((size, change.shape[1])) for size in _chunk_sizes(trials, cells))
    distinct, multiplicity = _distinct_rows(changing)
    if len(distinct) * _BINOMIAL_COST < len(changing):

        def how_many_swapped(size: int, source: np.random.Generator) -> NDArray[np.int64]:
            return source.binomial(multiplicity, 0.5, size=(size, len(multiplicity)))

        return _weighted_sums(distinct, how_many_swapped, len(changing), trials, rng, cells)

    def coins(size: int, source: np.random.Generator) -> NDArray[np.uint8]:
        return np.unpackbits(random_bytes(size * ((n + 7) // 8), source).reshape(size, -1), axis=1, count=n)

    n = len(changing)
    return _weighted_sums(np.repeat(distinct, multiplicity, axis=0), coins, n, trials, rng, cells)


def _weighted_sums(
    rows: Array, weigh: Weigh, n: int, times: int, rng: np.random.Generator, cells: int
) -> Iterator[Array]:
    """Yield ``weights @ rows`` in chunks, weights being drawn by ``weigh``; each chunk has a seed of its own.

    Args:
        rows: shape ``(r, k)``.
        weigh: from the size of a chunk and a source to weights of shape ``(size, r)``, which are whole, at least 0,
            and at most n together.
        n: the largest sum of weights.
        times: the sum of all sizes.
        rng: source of the seeds.
        cells: how many numbers the caller makes of each row of sums; it keeps chunks small.
    """
    kind = _smallest_exact_type(rows, n)
    factors = rows.astype(kind)

    def sums(size: int, seed: np.random.SeedSequence) -> Array:
        product: Array = (weigh(size, np.random.default_rng(seed)).astype(kind) @ factors).astype(np.float64)
        return product

    sizes = _chunk_sizes(times, max(*rows.shape, cells))
    seeds = np.random.SeedSequence(rng.integers(0, 2**32, size=4).tolist()).spawn(len(sizes))
    return _in_threads(sums, list(zip(sizes, seeds, strict=True)))


def _smallest_exact_type(rows: Array, n: int) -> np.dtype[Any]:
    """Return single precision where every sum of n rows is a whole number that it holds: it is twice as fast."""
    whole = bool(np.all(rows == np.rint(rows)))
    return np.dtype(np.float32 if whole and n * np.abs(rows).max(initial=0) < 2**24 else np.float64)


def _chunk_sizes(total: int, cells_each: int) -> list[int]:
    """Return sizes that add up to ``total``; they depend on the shapes alone, and so do the draws."""
    largest = max(1, _CHUNK_CELLS // max(1, cells_each))
    return [largest] * (total // largest) + [total % largest] * (total % largest > 0)


def _in_threads(
    work: Callable[[int, np.random.SeedSequence], Array], jobs: Sequence[tuple[int, np.random.SeedSequence]]
) -> Iterator[Array]:
    """Yield the results in order, computed in a few threads: drawing and multiplying leave the interpreter free."""
    if len(jobs) == 1:
        yield work(*jobs[0])
        return
    threads = min(len(jobs), os.cpu_count() or 1, _MOST_THREADS)
    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[Array]] = deque()
        for job in jobs:
            running.append(pool.submit(work, *job))
            if len(running) > 2 * threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _distinct_rows(table: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return the distinct rows in an order of their own, and how often each occurs."""
    # As plain bytes, rows are sorted many times as fast as by ``np.unique(axis=0)``; adding 0 turns −0 into 0.
    plain = np.ascontiguousarray(table) + 0.0
    as_bytes = plain.view(np.dtype((np.void, plain.itemsize * plain.shape[1]))).ravel()
    _, first, multiplicity = np.unique(as_bytes, return_index=True, return_counts=True)
    return table[first], multiplicity


def _distinct_columns(table: Array) -> tuple[Array, NDArray[np.intp]]:
    """Return the distinct columns, and which of them each column is: what is gold is the same in all runs."""
    places: dict[bytes, int] = {}
    place_of_column = [
        places.setdefault(hashlib.blake2b(column.tobytes(), digest_size=16).digest(), len(places)) for column in table.T
    ]
    _, first = np.unique(place_of_column, return_index=True)
    return table[:, first], np.array(place_of_column, dtype=np.intp)


def _check_alike(counts: Sequence[Array]) -> None:
    if not counts:
        raise InvalidSettingError("There are no runs to score. Give the counts of at least one.")
    for other in counts[1:]:
        check_paired(counts[0].shape, other.shape)
