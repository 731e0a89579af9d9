"""Batches of texts of like length: next to no padding, in an order that is a function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["inference_batches", "training_steps"]

# Texts are sorted by length within pools of this many batches. Larger pools pad less and mix lengths less.
_BATCHES_PER_POOL = 50


def training_steps(
    lengths: Sequence[int], *, batch_size: int, max_tokens: int, seed: int, epoch: int, by_length: bool = True
) -> list[list[list[int]]]:
    """Return one epoch as optimiser steps, each a list of micro-batches of row numbers.

    Rows are shuffled, sorted by length within pools, cut into steps of ``batch_size`` rows, and the steps are shuffled.
    A step whose padded size exceeds ``max_tokens`` is split into micro-batches; since the loss is averaged over the whole
    step, the split changes memory and nothing else.

    Args:
        lengths: tokens of each row.
        batch_size: rows of one optimiser step; the last step may have fewer.
        max_tokens: rows × longest row of one micro-batch at most (a single longer row still goes through).
        seed: with ``epoch``, decides the order.
        epoch: counted from 0.
        by_length: False keeps the shuffled order, as a plain loader would.
    """
    rng = np.random.default_rng([seed, epoch])
    length_of = np.asarray(lengths)
    order = rng.permutation(len(length_of))
    steps: list[np.ndarray] = []
    pool_size = batch_size * _BATCHES_PER_POOL
    for start in range(0, len(order), pool_size):
        pool = order[start : start + pool_size]
        if by_length:
            pool = pool[np.argsort(length_of[pool], kind="stable")]
        steps.extend(pool[first : first + batch_size] for first in range(0, len(pool), batch_size))
    rng.shuffle(steps)  # type: ignore[arg-type]
    return [_split(step.tolist(), lengths, max_tokens) for step in steps]


def inference_batches(lengths: Sequence[int], *, max_tokens: int, max_rows: int = 256) -> list[list[int]]:
    """Return batches of row numbers, longest rows first, each of at most ``max_tokens`` padded tokens."""
    longest_first = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return _split(longest_first, lengths, max_tokens, max_rows)


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
