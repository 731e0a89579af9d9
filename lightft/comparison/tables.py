"""The tables of a comparison, the same in every report: methods, runs, differences, cost, and what became of entities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lightft.comparison.records import Comparison, ComparisonRow, MethodDifference, MetricInfo
from lightft.comparison.words import (
    COST_HEADINGS,
    TERMS,
    cost_words,
    interval_words,
    rows_needed_words,
    seed_range_words,
)
from lightft.metrics import LabelScore
from lightft.wording import MISSING, p_value_cell, percent_words, score_words, signed_words

__all__ = [
    "Cell",
    "Heading",
    "Table",
    "cost_table",
    "difference_table",
    "entity_kind_table",
    "entity_slice_table",
    "entity_type_table",
    "method_table",
    "score_table",
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
                    value=_sortable(method.mean),
                ),
                Cell(
                    f"± {score_words(method.deviation, metric.unit)}" if several else MISSING,
                    below=seed_range_words(method, metric) if several else "",
                    value=_sortable(method.deviation),
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
    """Return every run's score in every metric, best first."""
    best = {metric.name: _best_value(comparison.rows, metric) for metric in comparison.metrics}
    rows = []
    for row in comparison.ranked():
        cells = [_name_cell(row.name, comparison.baseline)]
        for metric in comparison.metrics:
            score = row.scores[metric.name]
            cells.append(
                Cell(
                    score_words(score.value, metric.unit),
                    below=_unless_missing(interval_words(score.interval, metric.unit)),
                    value=_sortable(score.value),
                    strong=len(comparison.rows) > 1 and score.value == best[metric.name],
                )
            )
        rows.append(tuple(cells))
    headings = [
        Heading(metric.name, _unit_words(metric), headline=metric.name == comparison.headline)
        for metric in comparison.metrics
    ]
    caption = f"With each score its {percent_words(comparison.level)} interval over the examples of the test set."
    if len(comparison.rows) > 1:
        caption += " The best of each column is bold."
    return Table((Heading("run", numeric=False), *headings), tuple(rows), caption)


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
            *(Cell(words, value=_sortable(row.cost.get(key))) for key, words in cost_words(row.cost).items()),
        )
        for row in comparison.ranked()
    ]
    return Table((Heading("run", numeric=False), *map(Heading, COST_HEADINGS.values())), tuple(rows), "")


_ENTITY_KINDS = {
    "found": "Start, end and type are those of a gold entity.",
    "wrong bounds": "The type is right, start or end is not.",
    "wrong type": "Start and end are right, the type is not.",
    "wrong bounds and type": "It touches a gold entity, and nothing else of it is right.",
    "missed": "Gold entities that no prediction was matched with.",
    "invented": "Predictions that were matched with no gold entity.",
}


def entity_kind_table(comparison: Comparison) -> Table | None:
    """Return what became of the entities, one line per run; None where answers are no spans."""
    rows = [
        (
            Cell(row.name),
            *(
                Cell(f"{row.span_errors.kinds.get(kind, 0):,}", value=row.span_errors.kinds.get(kind, 0))
                for kind in _ENTITY_KINDS
            ),
        )
        for row in comparison.ranked()
        if row.span_errors is not None
    ]
    if not rows:
        return None
    headings = (
        Heading("run", numeric=False),
        *(Heading(kind, explanation=meaning) for kind, meaning in _ENTITY_KINDS.items()),
    )
    return Table(headings, tuple(rows), "")


_MOST_TYPE_ROWS = 200


def entity_type_table(comparison: Comparison) -> Table | None:
    """Return what became of the entities of each type, for the best run of each method; None where there are no spans."""
    shown = _best_run_of_each_method(comparison)
    by_run = [list(_type_cells(row)) for row in shown]
    # The runs of one type below each other, to be compared.
    types = dict.fromkeys(cells[0].text for rows in by_run for cells in rows)
    rows = [cells for type in types for rows in by_run for cells in rows if cells[0].text == type]
    if not rows:
        return None
    headings = (
        Heading("type", numeric=False),
        Heading("run", numeric=False),
        Heading("gold", explanation="How many gold entities of the type there are."),
        Heading("same type", explanation="Gold entities that were given their type, bounds aside."),
        Heading("other type", explanation="Gold entities that were given another type, and which the most often."),
        Heading("missed", explanation=_ENTITY_KINDS["missed"]),
        Heading("invented", explanation=_ENTITY_KINDS["invented"]),
        Heading(
            "precision", explanation="Share of the predicted entities of the type that are right, bounds included."
        ),
        Heading("recall", explanation="Share of the gold entities of the type that were found, bounds included."),
        Heading("F1", explanation="Harmonic mean of precision and recall.", headline=True),
    )
    caption = "The best run of each method."
    if len(rows) > _MOST_TYPE_ROWS:
        caption += f" Not listed: {len(rows) - _MOST_TYPE_ROWS:,} more lines, which the .json file holds."
    return Table(headings, tuple(rows[:_MOST_TYPE_ROWS]), caption)


def entity_slice_table(comparison: Comparison) -> Table | None:
    """Return F1 by length, place and novelty of the entity, one line per run; None where there is nothing of it."""
    ranked = comparison.ranked()
    slices = list(dict.fromkeys(name for row in ranked for name in _slices(row)))
    if not slices:
        return None
    rows = []
    for row in ranked:
        scores = _slices(row)
        if scores:
            rows.append(
                (Cell(row.name), *(_slice_cell(scores[name]) if name in scores else Cell(MISSING) for name in slices))
            )
    headings = (Heading("run", numeric=False), *(Heading(name, explanation="F1 of these entities.") for name in slices))
    return Table(headings, tuple(rows), "F1, and of how many gold entities.")


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
            value=_sortable(difference.difference),
        ),
        Cell(
            difference.verdict,
            below="about the methods" if difference.several_seeds else "about these runs",
            mark="open" if difference.verdict == "cannot tell" else difference.verdict,
        ),
        Cell(p_value_cell(difference.p_value), value=_sortable(difference.p_value)),
        Cell(p_value_cell(difference.adjusted_p_value), value=_sortable(difference.adjusted_p_value)),
        Cell(_effect_words(difference.effect_size), value=_sortable(difference.effect_size)),
        Cell(score_words(difference.smallest_detectable, metric.unit), value=_sortable(difference.smallest_detectable)),
        Cell(rows_needed_words(difference.rows_needed), value=_sortable(difference.rows_needed)),
    )


def _effect_words(effect_size: float) -> str:
    if math.isnan(effect_size):
        return MISSING
    return f"{effect_size:+.2f}".replace("-", "\N{MINUS SIGN}")


def _type_cells(row: ComparisonRow) -> Iterable[tuple[Cell, ...]]:
    if row.span_errors is None:
        return
    scores = {score.label: score for score in row.labels}
    confusion = row.span_errors.confusion
    for place, label in enumerate(confusion.labels):
        counts = confusion.counts[place]
        others = [(count, other) for other, count in enumerate(counts) if other != place]
        most, which = max(others, default=(0, 0), key=lambda pair: (pair[0], -pair[1]))
        score = scores.get(label)
        yield (
            Cell(label),
            Cell(row.name),
            _count_cell(sum(counts) + confusion.other[place]),
            _count_cell(counts[place]),
            _count_cell(sum(count for count, _ in others), below=f"{confusion.labels[which]} {most:,}" if most else ""),
            _count_cell(confusion.other[place]),
            _count_cell(row.span_errors.invented.get(label, 0)),
            *(_fraction_cell(value) for value in _three_scores(score)),
        )


def _three_scores(score: LabelScore | None) -> tuple[float, float, float]:
    return (math.nan, math.nan, math.nan) if score is None else (score.precision, score.recall, score.f1)


def _slices(row: ComparisonRow) -> dict[str, LabelScore]:
    errors = row.span_errors
    parts = () if errors is None else (*errors.by_length, *errors.by_position, *errors.by_novelty)
    return {score.label: score for score in parts}


def _slice_cell(score: LabelScore) -> Cell:
    return Cell(score_words(score.f1), below=f"of {score.support:,}", value=_sortable(score.f1))


def _best_run_of_each_method(comparison: Comparison) -> list[ComparisonRow]:
    method_of = {name: method.name for method in comparison.methods for name in method.runs}
    best: dict[str, ComparisonRow] = {}
    for row in comparison.ranked():
        best.setdefault(method_of.get(row.name, row.name), row)
    return list(best.values())


def _best_value(rows: Sequence[ComparisonRow], metric: MetricInfo) -> float | None:
    values = [row.scores[metric.name].value for row in rows if not math.isnan(row.scores[metric.name].value)]
    return (max if metric.higher_is_better else min)(values, default=None)


def _name_cell(name: str, baseline: str | None) -> Cell:
    return Cell(name, below="baseline" if name == baseline else "")


def _count_cell(count: int, below: str = "") -> Cell:
    return Cell(f"{count:,}", below=below, value=count)


def _fraction_cell(value: float) -> Cell:
    return Cell(score_words(value), value=_sortable(value))


def _heading(term: str, *, numeric: bool = True) -> Heading:
    return Heading(term, explanation=TERMS[term], numeric=numeric)


def _unit_words(metric: MetricInfo) -> str:
    remarks = [] if metric.unit in ("fraction", "score", metric.name) else [metric.unit]
    return ", ".join([*remarks, *([] if metric.higher_is_better else ["lower is better"])])


def _unless_missing(words: str) -> str:
    return "" if words == MISSING else words


def _sortable(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
