"""What a picture is, and what all of them share: which runs are drawn, and what is said of those that are not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightft.comparison import ComparisonRow, MetricInfo

__all__ = ["MOST_LINES", "Picture", "not_drawn", "with_score"]

MOST_LINES = 24
"""How many runs, differences or labels a picture lists below each other."""


@dataclass(frozen=True)
class Picture:
    """One picture, or a few small ones that belong together.

    Attributes:
        title: a heading.
        caption: what is drawn, and what was left out.
        drawings: ``<svg>`` elements; text and lines take the colour of the text around them.
    """

    title: str
    caption: str
    drawings: tuple[str, ...]


def with_score(rows: Sequence[ComparisonRow], metric: MetricInfo) -> list[ComparisonRow]:
    """Return the runs whose score in the metric is a finite number."""
    return [row for row in rows if math.isfinite(row.scores[metric.name].value)]


def not_drawn(number: int, what: str) -> str:
    """Return `` Not drawn: 3 runs.``, or nothing where nothing was left out."""
    return f" Not drawn: {number} {what.removesuffix('s') if number == 1 else what}." if number else ""
