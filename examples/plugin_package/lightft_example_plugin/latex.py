"""A comparison as a LaTeX table, for a paper."""

import math

from lightft.wording import printable

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def latex_table(comparison):
    """Return a ``tabular`` in the style of the booktabs package: a row per run, a column per metric, best run first."""
    names = [metric.name for metric in comparison.metrics]
    lines = [
        rf"\begin{{tabular}}{{l{'r' * (len(names) + 1)}}}",
        r"\toprule",
        _line(["run", *names, "trained (s)"]),
        r"\midrule",
        *(_line([row.name, *_scores(row, names), _seconds(row)]) for row in comparison.ranked()),
        r"\bottomrule",
        r"\end{tabular}",
        f"% {comparison.test_set.examples} test examples; in brackets: {comparison.level:.0%} intervals",
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


def _line(cells):
    return " & ".join(_escaped(cell) for cell in cells) + r" \\"


def _escaped(text):
    """Return text that LaTeX shows as it is: names of runs are written by others."""
    return "".join(_SPECIAL.get(character, character) for character in printable(text))
