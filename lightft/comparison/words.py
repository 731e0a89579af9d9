"""Parts of a comparison in words, the same in every report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightft.comparison.records import MetricInfo, SeedGroup
from lightft.significance import Interval
from lightft.wording import MISSING, count_words, duration_words, score_words, size_words

__all__ = ["COST_HEADINGS", "cost_words", "interval_words", "seed_group_words", "seed_spread_words"]

COST_HEADINGS = {
    "trainable_parameters": "trainable parameters",
    "train_seconds": "training time",
    "peak_memory_bytes": "peak memory",
    "adapter_bytes": "adapter size",
    "predictions_per_second": "predictions per second",
}
"""What the columns of a table of costs are called, by key of ``Run.cost``."""


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


def seed_group_words(group: SeedGroup, metric: MetricInfo) -> str:
    """Return a sentence on runs that differ in the seed alone."""
    lowest, highest = score_words(group.lowest, metric.unit), score_words(group.highest, metric.unit)
    return (
        f"{', '.join(group.runs)} differ in the seed alone: {seed_spread_words(group, metric)}, {lowest} to {highest}."
    )


def seed_spread_words(group: SeedGroup, metric: MetricInfo) -> str:
    """Return ``lora 0.861 ± 0.004 (3 seeds)``."""
    mean, deviation = score_words(group.mean, metric.unit), score_words(group.deviation, metric.unit)
    return f"{group.name} {mean} ± {deviation} ({len(group.runs)} seeds)"
