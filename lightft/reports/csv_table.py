"""The comparison as comma-separated values: one line per run, for spreadsheets and pandas."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from lightft.comparison import Comparison
from lightft.reports.report import REPORTS
from lightft.wording import MISSING, printable

_COSTS = (
    "trainable_parameters",
    "total_parameters",
    "train_seconds",
    "peak_memory_bytes",
    "adapter_bytes",
    "predictions_per_second",
)

# A spreadsheet takes a cell that begins with one of these for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@REPORTS.register("csv")
def csv_table(comparison: Comparison) -> str:
    """Return one line per run, best first: scores with both ends of their intervals, seed, and cost in plain units.

    Numbers are unrounded, sizes in bytes, durations in seconds; what is missing is ``–``. A text cell that a
    spreadsheet would run as a formula gets an apostrophe in front.
    """
    heading = ["run"]
    for metric in comparison.metrics:
        heading += [metric.name, f"{metric.name}_low", f"{metric.name}_high"]
    lines: list[list[Any]] = [[*map(_text_cell, heading), "seed", *_COSTS]]
    for row in comparison.ranked():
        cells: list[Any] = [_text_cell(row.name)]
        for metric in comparison.metrics:
            score = row.scores[metric.name]
            ends = (None, None) if score.interval is None else (score.interval.low, score.interval.high)
            cells += map(_number_cell, (score.value, *ends))
        lines.append([*cells, row.seed, *(_number_cell(row.cost.get(cost)) for cost in _COSTS)])
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(lines)
    return file.getvalue()


def _text_cell(text: str) -> str:
    shown = printable(text)
    return f"'{shown}" if shown.startswith(_FORMULA_STARTS) else shown


def _number_cell(number: float | None) -> float | str:
    return MISSING if number is None or not math.isfinite(number) else number
