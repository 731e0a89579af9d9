"""Tables of what became of the entities: by run, by type, and by length, place and novelty."""

from __future__ import annotations

import math
from collections.abc import Iterable

from lightft.comparison.records import Comparison, ComparisonRow
from lightft.comparison.tables import Cell, Heading, Table, sortable
from lightft.metrics import LabelScore
from lightft.wording import MISSING, score_words

__all__ = ["entity_kind_table", "entity_slice_table", "entity_type_table"]

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
    return Cell(score_words(score.f1), below=f"of {score.support:,}", value=sortable(score.f1))


def _best_run_of_each_method(comparison: Comparison) -> list[ComparisonRow]:
    method_of = {name: method.name for method in comparison.methods for name in method.runs}
    best: dict[str, ComparisonRow] = {}
    for row in comparison.ranked():
        best.setdefault(method_of.get(row.name, row.name), row)
    return list(best.values())


def _count_cell(count: int, below: str = "") -> Cell:
    return Cell(f"{count:,}", below=below, value=count)


def _fraction_cell(value: float) -> Cell:
    return Cell(score_words(value), value=sortable(value))
