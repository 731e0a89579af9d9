"""Batches of texts of like length: next to no padding, in an order that is a function of (seed, epoch)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["inference_batches", "training_steps"]

# Texts are sorted by length within pools of this many batches. Larger pools pad less and mix lengths less.
_BATCHES_PER_POOL = 50


def training_steps(
    lengths: Sequence[int],
    label_counts: Sequence[int],
    *,
    batch_size: int,
    max_tokens: int,
    seed: int,
    epoch: int,
    by_length: bool = True,
) -> list[list[list[int]]]:
    """Return one epoch as optimiser steps, each a list of micro-batches of row numbers.

    Rows are shuffled, sorted by length within pools and cut into steps, and the steps are shuffled. Every step holds
    about as many labels as ``batch_size`` average rows: with texts of like length in a step, a fixed number of rows
    would let each word of a short text weigh many times more than one of a long text, since the loss is a mean over the
    step's labels. A step whose padded size exceeds ``max_tokens`` is split into micro-batches, which changes memory and
    nothing else.

    Args:
        lengths: tokens of each row.
        label_counts: labels of each row, 1 or more; all 1 gives steps of exactly ``batch_size`` rows.
        batch_size: rows of one optimiser step, on average; the last step of a pool may have fewer.
        max_tokens: rows × longest row of one micro-batch at most (a single longer row still goes through).
        seed: with ``epoch``, decides the order.
        epoch: counted from 0.
        by_length: False keeps the shuffled order and cuts it into ``batch_size`` rows, as a plain loader would.
    """
    rng = np.random.default_rng([seed, epoch])
    length_of, labels_of = np.asarray(lengths), np.asarray(label_counts)
    order = rng.permutation(len(length_of))
    if not by_length:
        steps = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
        return [_split(step.tolist(), lengths, max_tokens) for step in steps]
    pool_size = batch_size * _BATCHES_PER_POOL
    steps = []
    for start in range(0, len(order), pool_size):
        pool = order[start : start + pool_size]
        pool = pool[np.argsort(length_of[pool], kind="stable")]
        steps.extend(_cut_evenly(pool, labels_of[pool], math.ceil(len(pool) / batch_size)))
    rng.shuffle(steps)
    return [_split(step.tolist(), lengths, max_tokens) for step in steps]


def inference_batches(
    lengths: Sequence[int], *, max_tokens: int, max_rows: int = 256, pass_cost: int | None = None
) -> list[list[int]]:
    """Return batches of row numbers, longest rows first, each of at most ``max_tokens`` padded tokens.

    Args:
        lengths: tokens of each row, 1 or more.
        max_tokens: rows × longest row of a batch at most (a single longer row still goes through).
        max_rows: of a batch.
        pass_cost: how many tokens' time a forward pass takes beyond that of its tokens. The batches are then those that
            cost least together, padding included; None takes as few as there can be, for processors that a batch does not
            keep busy.
    """
    longest_first = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    if pass_cost is None:
        return _split(longest_first, lengths, max_tokens, max_rows)
    sizes = np.asarray([lengths[row] for row in longest_first], dtype=np.int64)
    starts = _cheapest_starts(sizes, max_tokens, max_rows, pass_cost)
    return [longest_first[start:end] for start, end in pairwise([*starts, len(longest_first)])]


def _cheapest_starts(sizes: NDArray[np.int64], max_tokens: int, max_rows: int, pass_cost: int) -> list[int]:
    """Return where the batches of rows of falling ``sizes`` begin: by dynamic programming over where the last one does."""
    rows = len(sizes)
    cheapest = np.zeros(rows + 1, dtype=np.int64)
    start_of_last = np.zeros(rows + 1, dtype=np.int64)
    for end in range(1, rows + 1):
        first = max(0, end - max_rows)
        padded = np.arange(end - first, 0, -1) * sizes[first:end]
        padded_fits = padded <= max_tokens
        padded_fits[-1] = True
        costs = np.where(padded_fits, cheapest[first:end] + pass_cost + padded, np.iinfo(np.int64).max)
        best = int(np.argmin(costs))
        cheapest[end], start_of_last[end] = costs[best], first + best
    starts: list[int] = []
    while rows:
        rows = int(start_of_last[rows])
        starts.append(rows)
    return starts[::-1]


def _cut_evenly(rows: NDArray[np.int64], labels: NDArray[np.int64], parts: int) -> list[NDArray[np.int64]]:
    """Cut ``rows`` into at most ``parts`` stretches of about equally many labels, none of them empty."""
    reached = np.cumsum(labels)
    # A row belongs to the part in which its middle label falls.
    part_of = ((reached - labels / 2) * parts / reached[-1]).astype(np.int64)
    cuts = np.flatnonzero(np.diff(part_of)) + 1
    return list(np.split(rows, cuts))


def _split(rows: list[int], lengths: Sequence[int], max_tokens: int, max_rows: int | None = None) -> list[list[int]]:
    batches: list[list[int]] = []
    longest = 0
    for row in rows:
        longest = max(longest, lengths[row])
        full = not batches or (len(batches[-1]) + 1) * longest > max_tokens or len(batches[-1]) == max_rows
        if full:
            batches.append([])
            longest = lengths[row]
        batches[-1].append(row)
    return batches
