"""P-values of several comparisons at once, adjusted for their number."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["benjamini_hochberg_adjusted", "holm_adjusted"]


def holm_adjusted(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values: below α for each comparison that holds with a chance of any error of at most α.

    The i-th smallest of m becomes the largest ``(m − j + 1) p_j`` of j ≤ i, at most 1 (Holm 1979, "A simple
    sequentially rejective multiple test procedure"). ``nan`` stays ``nan`` and does not count in m.
    """
    adjusted = [math.nan] * len(p_values)
    order = _ascending(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = largest
    return tuple(adjusted)


def benjamini_hochberg_adjusted(p_values: Sequence[float]) -> tuple[float, ...]:
    """Benjamini and Hochberg's adjusted p-values: of the comparisons below α, a share of at most α is expected wrong.

    The i-th smallest of m becomes the smallest ``m p_j / j`` of j ≥ i, at most 1 (Benjamini and Hochberg 1995,
    "Controlling the false discovery rate"). The promise holds for independent tests and for tests that tend to err
    together. It is weaker than that of ``holm_adjusted``, and finds more. ``nan`` stays ``nan`` and does not count in m.
    """
    adjusted = [math.nan] * len(p_values)
    order = _ascending(p_values)
    smallest = 1.0
    for rank, place in reversed(list(enumerate(order, start=1))):
        smallest = min(smallest, len(order) * p_values[place] / rank)
        adjusted[place] = smallest
    return tuple(adjusted)


def _ascending(p_values: Sequence[float]) -> list[int]:
    """Return the places of the defined p-values, the smallest first."""
    defined = [place for place, p in enumerate(p_values) if not math.isnan(p)]
    return sorted(defined, key=p_values.__getitem__)
