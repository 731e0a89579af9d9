"""How often each example occurs in a resampled test set, drawn many times as fast as one example after another."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["TimesDrawn", "random_bytes"]


class TimesDrawn:
    """How often each of n examples occurs among n draws with replacement.

    To draw one after another is slow, for each draw touches memory at random. Instead every example gets a Poisson
    number of draws, of mean a little below 1. Given how many draws these are together, they are as if drawn one after
    another, and what is missing to n is drawn in that way. A test set that got more than n, one in forty, begins
    again. So the distribution is exactly that of n draws.

    The Poisson numbers are read from random bytes. Of the 256 values about 253 stand for a number, as many for each
    number as its probability allows. The others ask for a second draw, which makes up for what was cut off.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        mean = max(0.0, 1 - 2 / math.sqrt(n))
        # Numbers above 30 have a probability below 1e-33.
        probability = np.array([math.exp(-mean) * mean**k / math.factorial(k) for k in range(31)])
        bytes_of_number = np.floor(probability * 256).astype(np.int64)
        self._number_of_byte = bytes(np.repeat(np.arange(31), bytes_of_number).tolist()).ljust(256, _SECOND_DRAW)
        cut_off = np.cumsum(probability * 256 - bytes_of_number)
        self._share_of_second_draws = cut_off / cut_off[-1] if cut_off[-1] > 0 else cut_off

    def __call__(self, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return how often each example is drawn, shape ``(size, n)``; every row adds up to n."""
        times = self._poisson(size, rng)
        drawn = times.sum(axis=1, dtype=np.int64)
        while (beyond := np.flatnonzero(drawn > self._n)).size:
            times[beyond] = self._poisson(len(beyond), rng)
            drawn[beyond] = times[beyond].sum(axis=1, dtype=np.int64)
        missing = np.repeat(np.arange(size) * self._n, self._n - drawn)
        np.add.at(times.reshape(-1), missing + rng.integers(0, self._n, size=len(missing)), np.uint8(1))
        return times

    def _poisson(self, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        raw = bytearray(random_bytes(size * self._n, rng)).translate(self._number_of_byte)
        numbers = np.frombuffer(raw, dtype=np.uint8)
        unsettled = np.flatnonzero(numbers == _SECOND_DRAW[0])
        numbers[unsettled] = np.searchsorted(self._share_of_second_draws, rng.random(len(unsettled)), side="right")
        return numbers.reshape(size, self._n)


_SECOND_DRAW = b"\xff"


def random_bytes(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return random bytes, shape ``(size,)``; by whole words, which is faster than ``rng.bytes``."""
    words = rng.integers(0, 2**64, size=(size + 7) // 8, dtype=np.uint64)
    # Little-endian on every machine, so that a seed gives the same numbers on all.
    return words.astype("<u8", copy=False).view(np.uint8)[:size]
