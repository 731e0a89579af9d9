"""The comparison as comma-separated values: one line per run, for spreadsheets and pandas."""

from __future__ import annotations

import csv
import io

from lightft.comparison import Comparison
from lightft.reports.columns import run_columns
from lightft.reports.report import REPORTS
from lightft.wording import MISSING

# A spreadsheet takes a cell that begins with one of these, or their full-width forms, for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@REPORTS.register("csv")
def csv_table(comparison: Comparison) -> str:
    """Return one line per run, best first: scores with both ends of their intervals, seed, and cost in plain units.

    Numbers are unrounded, sizes in bytes, durations in seconds; what is missing is ``–``. A text cell that a
    spreadsheet would run as a formula gets an apostrophe in front.
    """
    columns = run_columns(comparison)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([_cell(name) for name, _ in columns])
    writer.writerows(zip(*([_cell(value) for value in values] for _, values in columns), strict=True))
    return file.getvalue()


def _cell(value: str | float | None) -> str | float:
    if value is None:
        return MISSING
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA_STARTS) else value
    return value
