"""The runs of a comparison as plain columns, for programs rather than readers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightft.comparison import Comparison
from lightft.wording import printable

__all__ = ["run_columns"]

_COSTS = (
    "trainable_parameters",
    "total_parameters",
    "train_seconds",
    "peak_memory_bytes",
    "adapter_bytes",
    "predictions_per_second",
)


def run_columns(comparison: Comparison) -> list[tuple[str, Sequence[str | float | None]]]:
    """Return (name, one value per run), runs best first, None for what is missing.

    The columns are run and method, each metric with both ends of its interval, seed, and cost: sizes in bytes, durations
    in seconds.
    """
    ranked = comparison.ranked()
    method_of = {name: method.name for method in comparison.methods for name in method.runs}
    columns: list[tuple[str, Sequence[str | float | None]]] = [
        ("run", [printable(row.name) for row in ranked]),
        ("method", [printable(method_of[row.name]) for row in ranked]),
    ]
    for metric in comparison.metrics:
        scores = [row.scores[metric.name] for row in ranked]
        name = printable(metric.name)
        columns += [
            (name, [_number(score.value) for score in scores]),
            (f"{name}_low", [_number(score.interval.low if score.interval else None) for score in scores]),
            (f"{name}_high", [_number(score.interval.high if score.interval else None) for score in scores]),
        ]
    columns.append(("seed", [row.seed for row in ranked]))
    columns += [(cost, [_number(row.cost.get(cost)) for row in ranked]) for cost in _COSTS]
    return columns


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
