"""What a picture is, and what all of them share: the runs of a method, their means, and what is said of those not drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightft.comparison import Comparison, ComparisonRow, Method, MetricInfo
from lightft.comparison.words import interval_words
from lightft.significance import Interval
from lightft.wording import MISSING, score_words

__all__ = [
    "MOST_LINES",
    "Picture",
    "is_drawable",
    "lines_word",
    "mean_cost",
    "mean_of",
    "not_drawn",
    "runs_of",
    "score_tip",
    "seeds_remark",
]

MOST_LINES = 24
"""How many methods, differences or labels a picture lists below each other."""


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


def not_drawn(number: int, what: str) -> str:
    """Return `` Not drawn: 3 runs.``, or nothing where nothing was left out."""
    return f" Not drawn: {number} {what.removesuffix('s') if number == 1 else what}." if number else ""


def lines_word(comparison: Comparison) -> str:
    """Return what methods are called: ``runs`` where each is a single one."""
    return "runs" if all(method.seeds == 1 for method in comparison.methods) else "methods"


def runs_of(comparison: Comparison, method: Method) -> list[ComparisonRow]:
    """Return the runs of a method."""
    return [row for row in comparison.rows if row.name in method.runs]


def mean_of(values: Sequence[float]) -> float:
    """Return the mean of the finite values; ``nan`` where there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def mean_cost(comparison: Comparison, method: Method, key: str) -> float:
    """Return a cost, the mean over the runs of the method that measured it; ``nan`` where none did."""
    return mean_of([float(row.cost[key]) for row in runs_of(comparison, method) if key in row.cost])


def is_drawable(interval: Interval | None) -> bool:
    """Return whether an interval has two finite ends."""
    return interval is not None and math.isfinite(interval.low) and math.isfinite(interval.high)


def score_tip(name: str, value: float, interval: Interval | None, metric: MetricInfo) -> str:
    """Return ``lora: span_f1 0.861 [0.850, 0.872]`` for a tooltip."""
    words = interval_words(interval, metric.unit)
    return f"{name}: {metric.name} {score_words(value, metric.unit)}" + ("" if words == MISSING else f" {words}")


def seeds_remark(methods: Sequence[Method]) -> str:
    """Return what the small dots are; nothing where each method is a single run."""
    several = any(method.seeds > 1 for method in methods)
    return " Of several seeds the mean, and a small dot for each seed." if several else ""
