"""The tables of a comparison, the same in every report: methods, runs, differences and cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightft.comparison.other_counts import COMPARABLE_WITH
from lightft.comparison.records import Comparison, ComparisonRow, MethodDifference, MetricInfo
from lightft.comparison.words import (
    COST_HEADINGS,
    TERMS,
    cost_words,
    interval_words,
    rows_needed_words,
    seed_range_words,
)
from lightft.wording import MISSING, p_value_cell, percent_words, score_words, signed_words

__all__ = [
    "Cell",
    "Heading",
    "Table",
    "cost_table",
    "difference_table",
    "method_table",
    "other_counts_table",
    "score_table",
    "sortable",
]


@dataclass(frozen=True)
class Heading:
    """The heading of a column.

    Attributes:
        text: what it is called.
        below: a remark, such as a unit.
        explanation: what the column holds, in a sentence.
        numeric: whether the column holds numbers.
        headline: whether it is the column that matters most.
    """

    text: str
    below: str = ""
    explanation: str = ""
    numeric: bool = True
    headline: bool = False

    @property
    def on_one_line(self) -> str:
        """The text with its remark."""
        return _with_remark(self.text, self.below)


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: what it shows.
        below: a remark, such as the interval of a number.
        value: the number it is sorted by; None sorts last.
        strong: whether it is the best of its column.
        mark: ``"better"``, ``"worse"`` or ``"open"`` for a verdict; else ``""``.
    """

    text: str
    below: str = ""
    value: float | None = None
    strong: bool = False
    mark: str = ""

    @property
    def on_one_line(self) -> str:
        """The text with its remark."""
        return _with_remark(self.text, self.below)


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its name. ``caption`` says how to read it."""

    headings: tuple[Heading, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str

    @property
    def lines(self) -> list[tuple[Heading, ...] | tuple[Cell, ...]]:
        """The headings, and the rows below."""
        return [self.headings, *self.rows]


def method_table(comparison: Comparison) -> Table | None:
    """Return the methods with mean and spread over seeds, best first; None where every method is a single run."""
    if all(method.seeds == 1 for method in comparison.methods):
        return None
    metric = comparison.metric(comparison.headline)
    rows = []
    for method in comparison.ranked_methods():
        several = method.seeds > 1
        rows.append(
            (
                _name_cell(method.name, comparison.baseline),
                Cell(
                    score_words(method.mean, metric.unit),
                    below=_unless_missing(interval_words(method.interval, metric.unit)),
                    value=sortable(method.mean),
                ),
                Cell(
                    f"± {score_words(method.deviation, metric.unit)}" if several else MISSING,
                    below=seed_range_words(method, metric) if several else "",
                    value=sortable(method.deviation),
                ),
                Cell(str(method.seeds), below="" if several else "nothing is claimed", value=method.seeds),
            )
        )
    level = percent_words(comparison.level)
    caption = f"With each mean its {level} interval, which covers new seeds and new test examples alike."
    if any(method.seeds == 1 for method in comparison.methods):
        caption += " Where there is one seed it covers new test examples alone: another training may end elsewhere."
    headings = (
        _heading("method", numeric=False),
        Heading(f"mean {metric.name}", _unit_words(metric), "Mean score of the method's runs.", headline=True),
        _heading("spread over seeds"),
        _heading("seeds"),
    )
    return Table(headings, tuple(rows), caption)


def score_table(comparison: Comparison) -> Table:
    """Return every run's score in every metric that the runs ask for, best first."""
    metrics = [metric for metric in comparison.metrics if metric.name not in comparison.other_counts]
    caption = f"With each score its {percent_words(comparison.level)} interval over the examples of the test set."
    if len(comparison.rows) > 1:
        caption += " The best of each column is bold."
    headings = [
        Heading(metric.name, _unit_words(metric), headline=metric.name == comparison.headline) for metric in metrics
    ]
    return Table((Heading("run", numeric=False), *headings), _score_rows(comparison, metrics), caption)


def other_counts_table(comparison: Comparison) -> Table | None:
    """Return every run's F1 as others count it, to be held against published numbers; None where it was not counted."""
    metrics = [metric for metric in comparison.metrics if metric.name in comparison.other_counts]
    if not metrics:
        return None
    held_against = [f"{metric.name}: {COMPARABLE_WITH[metric.name]}" for metric in metrics]
    caption = (
        "The same answers, counted otherwise. Hold each against its own kind of number only. "
        f"{'; '.join(held_against)}."
    )
    headings = [Heading(metric.name, explanation=f"Compare with {COMPARABLE_WITH[metric.name]}.") for metric in metrics]
    return Table((Heading("run", numeric=False), *headings), _score_rows(comparison, metrics), caption)


def difference_table(comparison: Comparison) -> Table | None:
    """Return the differences between methods with all it takes to judge them; None where there are none."""
    if not comparison.differences:
        return None
    metric = comparison.metric(comparison.headline)
    headings = (
        _heading("method", numeric=False),
        _heading("against", numeric=False),
        _heading("difference"),
        _heading("verdict", numeric=False),
        _heading("p"),
        _heading("p adjusted"),
        _heading("effect size"),
        _heading("smallest detectable"),
        _heading("rows needed"),
    )
    caption = (
        f"Smallest detectable: {TERMS['smallest detectable'][:1].lower()}{TERMS['smallest detectable'][1:]} Rows needed: "
        f"{TERMS['rows needed'][:1].lower()}{TERMS['rows needed'][1:]} This test set has "
        f"{comparison.test_set.examples:,}. Cannot tell is not the same as equal."
    )
    if any(not difference.several_seeds for difference in comparison.differences):
        caption += " Where a method has one seed the verdict is about these runs, not about the methods."
    rows = tuple(_difference_cells(difference, metric) for difference in comparison.differences)
    return Table(headings, rows, caption)


def cost_table(comparison: Comparison) -> Table:
    """Return what each run cost, the best score first."""
    rows = [
        (
            Cell(row.name),
            *(Cell(words, value=sortable(row.cost.get(key))) for key, words in cost_words(row.cost).items()),
        )
        for row in comparison.ranked()
    ]
    return Table((Heading("run", numeric=False), *map(Heading, COST_HEADINGS.values())), tuple(rows), "")


def sortable(value: float | None) -> float | None:
    """Return a number to sort by: None where there is none."""
    return None if value is None or math.isnan(value) else value


def _with_remark(text: str, remark: str) -> str:
    """Return ``0.861 [0.850, 0.872]`` or ``cannot tell (about these runs)``."""
    if not remark:
        return text
    return f"{text} {remark}" if remark.startswith("[") else f"{text} ({remark})"


def _difference_cells(difference: MethodDifference, metric: MetricInfo) -> tuple[Cell, ...]:
    return (
        Cell(difference.a),
        Cell(difference.b),
        Cell(
            signed_words(difference.difference, metric.unit),
            below=_unless_missing(interval_words(difference.interval, metric.unit)),
            value=sortable(difference.difference),
        ),
        Cell(
            difference.verdict,
            below="about the methods" if difference.several_seeds else "about these runs",
            mark="open" if difference.verdict == "cannot tell" else difference.verdict,
        ),
        Cell(p_value_cell(difference.p_value), value=sortable(difference.p_value)),
        Cell(p_value_cell(difference.adjusted_p_value), value=sortable(difference.adjusted_p_value)),
        Cell(_effect_words(difference.effect_size), value=sortable(difference.effect_size)),
        Cell(score_words(difference.smallest_detectable, metric.unit), value=sortable(difference.smallest_detectable)),
        Cell(rows_needed_words(difference.rows_needed), value=sortable(difference.rows_needed)),
    )


def _effect_words(effect_size: float) -> str:
    if math.isnan(effect_size):
        return MISSING
    return f"{effect_size:+.2f}".replace("-", "\N{MINUS SIGN}")


def _score_rows(comparison: Comparison, metrics: Sequence[MetricInfo]) -> tuple[tuple[Cell, ...], ...]:
    best = {metric.name: _best_value(comparison.rows, metric) for metric in metrics}
    return tuple(
        (
            _name_cell(row.name, comparison.baseline),
            *(
                Cell(
                    score_words(row.scores[metric.name].value, metric.unit),
                    below=_unless_missing(interval_words(row.scores[metric.name].interval, metric.unit)),
                    value=sortable(row.scores[metric.name].value),
                    strong=len(comparison.rows) > 1 and row.scores[metric.name].value == best[metric.name],
                )
                for metric in metrics
            ),
        )
        for row in comparison.ranked()
    )


def _best_value(rows: Sequence[ComparisonRow], metric: MetricInfo) -> float | None:
    values = [row.scores[metric.name].value for row in rows if not math.isnan(row.scores[metric.name].value)]
    return (max if metric.higher_is_better else min)(values, default=None)


def _name_cell(name: str, baseline: str | None) -> Cell:
    return Cell(name, below="baseline" if name == baseline else "")


def _heading(term: str, *, numeric: bool = True) -> Heading:
    return Heading(term, explanation=TERMS[term], numeric=numeric)


def _unit_words(metric: MetricInfo) -> str:
    remarks = [] if metric.unit in ("fraction", "score", metric.name) else [metric.unit]
    return ", ".join([*remarks, *([] if metric.higher_is_better else ["lower is better"])])


def _unless_missing(words: str) -> str:
    return "" if words == MISSING else words
