"""Confusion matrices of classes and of entity types, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lightft.comparison import Comparison, ComparisonRow
from lightft.reports.pictures.picture import Picture, lines_word, not_drawn, runs_of
from lightft.reports.pictures.style import COLOURS, INK, MUTED, WIDTH, chosen_methods, names_of, new_canvas, short_names
from lightft.reports.pictures.svg import drawn, tip
from lightft.wording import percent_words

__all__ = ["confusion_picture"]

_MOST_LABELS = 8
_MOST_MATRICES = 4


class _Line(NamedTuple):
    """A row or column of a matrix: a label, or what is none (so that a label called ``missed`` is not taken for it)."""

    text: str
    is_label: bool = True


_OTHER, _MISSED, _INVENTED = _Line("other", False), _Line("missed", False), _Line("invented", False)

# How often each row was taken for each column.
_Cells = Counter[tuple[_Line, _Line]]


def confusion_picture(comparison: Comparison) -> Picture | None:
    """Return the confusion matrices of the best methods and the baseline; None without labels."""
    tables: dict[str, _Cells] = {}
    chosen = chosen_methods(comparison, _MOST_MATRICES)
    for method in chosen:
        cells = _Cells()
        for row in runs_of(comparison, method):
            cells.update(_cells_of(row))
        if cells:
            tables[method.name] = cells
    labels = [*dict.fromkeys(line for cells in tables.values() for cell in cells for line in cell if line.is_label)]
    if len(labels) < 2:
        return None
    shown = _most_confused(labels, [*tables.values()])
    drawable = {name: _limited_to(shown, cells) for name, cells in tables.items()}
    tagged = any(row.span_errors is not None for row in comparison.rows)
    caption = (
        f"How often each gold {'entity type' if tagged else 'class'} (row) was taken for each (column); the stronger the "
        "colour, the larger its share of the row."
        + (" Missed: without a prediction; invented: without a gold entity." if tagged else "")
        + (" The runs of several seeds are added up." if any(method.seeds > 1 for method in chosen) else "")
        + (" Of all labels those with the most confusions." if len(shown) < len(labels) else "")
        + not_drawn(len(labels) - len(shown), "labels")
        + not_drawn(len(comparison.methods) - len(tables), lines_word(comparison))
    )
    return Picture("Confusions", caption, (drawn("confusion", caption, lambda: _draw(comparison, drawable, shown)),))


def _cells_of(row: ComparisonRow) -> _Cells:
    """Return the counts of a run; classes that the model made up are other ones, entities without a match missed."""
    matrix = row.confusion if row.span_errors is None else row.span_errors.confusion
    if matrix is None:
        return _Cells()
    lines = [_Line(label) for label in matrix.labels]
    cells = _Cells()
    for gold, counts, unmatched in zip(lines, matrix.counts, matrix.other, strict=True):
        cells.update({(gold, predicted): count for predicted, count in zip(lines, counts, strict=True)})
        cells[gold, _OTHER if row.span_errors is None else _MISSED] += unmatched
    for label, count in row.span_errors.invented.items() if row.span_errors else ():
        cells[_INVENTED, _Line(label)] += count
    return cells


def _most_confused(labels: Sequence[_Line], tables: Sequence[_Cells]) -> list[_Line]:
    """Return the labels, where there are too many those that were most often wrong, in the order given."""
    wrong: Counter[_Line] = Counter()
    for cells in tables:
        for (gold, predicted), count in cells.items():
            if gold != predicted:
                wrong[gold] += count
                wrong[predicted] += count
    chosen = sorted(labels, key=lambda label: -wrong[label])[:_MOST_LABELS]
    return [label for label in labels if label in chosen]


def _limited_to(shown: Sequence[_Line], cells: _Cells) -> _Cells:
    """Return the counts with the columns of all other labels as one, and without their rows."""
    limited = _Cells()
    for (gold, predicted), count in cells.items():
        if gold in shown or not gold.is_label:
            limited[gold, predicted if predicted in shown or not predicted.is_label else _OTHER] += count
    return limited


def _draw(comparison: Comparison, tables: dict[str, _Cells], labels: Sequence[_Line]) -> Figure:
    filled = {cell for cells in tables.values() for cell, count in cells.items() if count}
    rows = [*labels, *([_INVENTED] if any(row == _INVENTED for row, _ in filled) else [])]
    columns = [*labels, *(one for one in (_OTHER, _MISSED) if any(column == one for _, column in filled))]
    beside = 2 if len(columns) <= 3 and len(tables) > 1 else 1
    down = -(-len(tables) // beside)
    canvas = new_canvas(down * (0.95 + (0.36 if beside == 2 else 0.32) * len(rows)), WIDTH)
    panels = canvas.subplots(down, beside, squeeze=False).ravel()
    texts = short_names([line.text for line in labels], 10)
    names = names_of(comparison, 17 if beside == 2 else 34)
    for axes, (name, cells) in zip(panels, tables.items(), strict=False):
        _draw_matrix(axes, name, cells, rows, columns)
        _label_axes(axes, rows, columns, texts)
        axes.set_title(names[name], loc="left", fontweight="bold")
    for axes in panels[len(tables) :]:
        axes.set_visible(False)
    return canvas


def _draw_matrix(axes: Axes, name: str, cells: _Cells, rows: Sequence[_Line], columns: Sequence[_Line]) -> None:
    for y, gold in enumerate(rows):
        total = sum(cells[gold, predicted] for predicted in columns)
        for x, predicted in enumerate(columns):
            if gold != _INVENTED or predicted != _MISSED:
                _draw_cell(axes, (x, y), name, gold, predicted, cells[gold, predicted], total)
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(rows), 0)


def _label_axes(axes: Axes, rows: Sequence[_Line], columns: Sequence[_Line], texts: dict[str, str]) -> None:
    few = len(columns) <= 3
    axes.set_xticks(
        [x + 0.5 for x in range(len(columns))],
        [_text(column, texts) for column in columns],
        rotation=0 if few else 35,
        rotation_mode="default" if few else "anchor",
        ha="center" if few else "right",
    )
    axes.set_yticks([y + 0.5 for y in range(len(rows))], [_text(row, texts) for row in rows])
    for line, tick in zip([*rows, *columns], [*axes.get_yticklabels(), *axes.get_xticklabels()], strict=True):
        tick.set_color(INK if line.is_label else MUTED)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _draw_cell(
    axes: Axes, place: tuple[int, int], name: str, gold: _Line, predicted: _Line, count: int, total: int
) -> None:
    share = count / total if total else 0.0
    words = tip(f"{name}: {count:,} {gold.text} → {predicted.text}, {percent_words(share)} of the row")
    x, y = place
    cell = Rectangle((x + 0.02, y + 0.02), 0.96, 0.96, color=COLOURS[0], alpha=0.04 + 0.5 * share, linewidth=0, **words)
    # Cells and their numbers lie inside the axes: the layout need not measure each.
    cell.set_in_layout(False)
    axes.add_patch(cell)
    number = axes.text(
        x + 0.5,
        y + 0.5,
        _number_words(count),
        ha="center",
        va="center",
        fontsize=9,
        fontweight="bold" if gold == predicted else "normal",
        **words,
    )
    number.set_in_layout(False)


def _text(line: _Line, texts: dict[str, str]) -> str:
    return texts[line.text] if line.is_label else line.text


def _number_words(count: int) -> str:
    return f"{count:,}" if count < 10_000 else f"{count / 1000:.0f}k"
