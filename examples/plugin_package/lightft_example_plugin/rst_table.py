"""A comparison as a reStructuredText table, for documentation made with Sphinx."""

import math
import re

from lightft.wording import printable


def rst_table(comparison):
    """Return a ``list-table``: a row per run, a column per metric, best run first."""
    names = [metric.name for metric in comparison.metrics]
    rows = [["run", *names, "trained (s)"]]
    rows += [[row.name, *_scores(row, names), _seconds(row)] for row in comparison.ranked()]
    lines = [
        f".. list-table:: {comparison.test_set.examples} test examples; in brackets {comparison.level:.0%} intervals",
        "   :header-rows: 1",
        "",
        *(line for cells in rows for line in _row(cells)),
    ]
    return "\n".join(lines) + "\n"


def _scores(row, names):
    return [_number(row.scores[name].value, row.scores[name].interval) for name in names]


def _number(value, interval):
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if interval is None else f"{value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _seconds(row):
    return f"{row.cost['train_seconds']:.1f}" if "train_seconds" in row.cost else "–"


def _row(cells):
    first, *others = map(_escaped, cells)
    return [f"   * - {first}", *(f"     - {other}" for other in others)]


def _escaped(text):
    """Return text that reStructuredText shows as it is: names of runs are written by others."""
    return re.sub(r"([^\w\s–])", r"\\\1", printable(text)).replace("_", r"\_")
