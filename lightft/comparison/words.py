"""Parts of a comparison in words, the same in every report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightft.comparison.records import Method, MetricInfo
from lightft.significance import Interval
from lightft.wording import MISSING, count_words, duration_words, score_words, size_words

__all__ = [
    "COST_HEADINGS",
    "TERMS",
    "cost_words",
    "interval_words",
    "rows_needed_words",
    "seed_range_words",
    "seed_spread_words",
]

COST_HEADINGS = {
    "trainable_parameters": "trainable parameters",
    "train_seconds": "training time",
    "peak_memory_bytes": "peak memory",
    "adapter_bytes": "adapter size",
    "predictions_per_second": "predictions per second",
}
"""What the columns of a table of costs are called, by key of ``Run.cost``."""

TERMS = {
    "method": "Runs that differ in nothing but the seed, taken together.",
    "against": "The method that is subtracted.",
    "interval": "Where the number would plausibly lie on another test set of this size and kind.",
    "difference": "Score of the method minus score of the one it is held against, on the same examples.",
    "p": "How often a difference at least this large would come about if it made no difference which of the two answered.",
    "p adjusted": "p after the correction for how many differences are looked at; the verdict goes by this one.",
    "effect size": "The difference in units of what it varies by from one example to the next (Cohen's d).",
    "smallest detectable": "The smallest true difference that this test set and these seeds would show in 4 of 5 trials.",
    "rows needed": "How many test examples it would take to tell these two apart in 4 of 5 trials.",
    "verdict": "Better or worse takes both an adjusted p below the threshold and an interval without 0.",
    "spread over seeds": "Standard deviation of the scores over seeds, and the worst and the best run.",
    "seeds": "How many trainings, each from another seed. One training says nothing about how the next would end.",
}
"""What the headings of the tables mean, each in a sentence."""


def cost_words(cost: Mapping[str, Any]) -> dict[str, str]:
    """Return a run's cost under each of ``COST_HEADINGS``, with its unit, ``–`` where it was not measured."""
    return {
        "trainable_parameters": _trainable_words(cost.get("trainable_parameters"), cost.get("total_parameters")),
        "train_seconds": duration_words(cost.get("train_seconds")),
        "peak_memory_bytes": size_words(cost.get("peak_memory_bytes")),
        "adapter_bytes": size_words(cost.get("adapter_bytes")),
        "predictions_per_second": _speed_words(cost.get("predictions_per_second")),
    }


def _trainable_words(trainable: float | None, total: float | None) -> str:
    if trainable is None or total is None:
        return count_words(trainable)
    return f"{count_words(trainable)} of {count_words(total)}"


def _speed_words(speed: float | None) -> str:
    if speed is None:
        return MISSING
    return f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}"


def interval_words(interval: Interval | None, unit: str) -> str:
    """Return ``[0.850, 0.872]``, or ``–``."""
    if interval is None or math.isnan(interval.low):
        return MISSING
    return f"[{score_words(interval.low, unit)}, {score_words(interval.high, unit)}]"


def rows_needed_words(rows: float) -> str:
    """Return ``about 4,300``, ``none would do`` for infinity, or ``–``."""
    if math.isnan(rows):
        return MISSING
    if math.isinf(rows):
        return "none would do"
    # The number rests on an estimated variance: two digits are all it can bear.
    digits = len(str(math.ceil(rows)))
    return f"about {round(math.ceil(rows), min(0, 2 - digits)):,}"


def seed_range_words(method: Method, metric: MetricInfo) -> str:
    """Return ``0.857 to 0.865``: the scores of the worst and the best run."""
    return f"{score_words(method.lowest, metric.unit)} to {score_words(method.highest, metric.unit)}"


def seed_spread_words(method: Method, metric: MetricInfo) -> str:
    """Return ``lora 0.861 ± 0.004 (3 seeds)``, or ``lora 0.861 (1 seed)``."""
    mean = score_words(method.mean, metric.unit)
    if method.seeds == 1:
        return f"{method.name} {mean} (1 seed)"
    return f"{method.name} {mean} ± {score_words(method.deviation, metric.unit)} ({method.seeds} seeds)"
