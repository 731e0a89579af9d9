"""Pictures of what the runs do label by label: F1 of each, confusions, ROC curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lightft.comparison import Comparison, ComparisonRow
from lightft.metrics import ConfusionMatrix
from lightft.reports.pictures.picture import MOST_LINES, Picture, not_drawn
from lightft.reports.pictures.style import (
    COLOURS,
    RULE,
    add_legend,
    new_canvas,
    one_run_per_kind,
    plain_axes,
    short,
    styles_of,
)
from lightft.reports.pictures.svg import drawn

__all__ = ["confusion_picture", "label_picture", "roc_picture"]


def label_picture(comparison: Comparison) -> Picture | None:
    """Return the F1 of each label in each run; None where there are no labels."""
    supports = {score.label: score.support for score in comparison.rows[0].labels}
    if not supports:
        return None
    rows = one_run_per_kind(comparison, 4 if len(supports) > 8 else len(COLOURS))
    frequent = sorted(supports, key=lambda label: -supports[label])
    shown = {label: supports[label] for label in frequent[:MOST_LINES]}
    caption = (
        "F1 of each label, the most frequent first; in brackets how many gold answers have it."
        + not_drawn(len(supports) - len(shown), "labels")
        + not_drawn(len(comparison.rows) - len(rows), "runs")
    )
    svg = drawn("labels", caption, lambda: _draw_labels(comparison, rows, shown))
    return Picture("Labels", caption, (svg,))


def _draw_labels(comparison: Comparison, rows: Sequence[ComparisonRow], supports: Mapping[str, int]) -> Figure:
    canvas = new_canvas(1.0 + (0.15 + 0.045 * len(rows)) * len(supports))
    axes = canvas.subplots()
    styles = styles_of(comparison)
    heights = {label: len(supports) - place for place, label in enumerate(supports)}
    step = 0.7 / max(len(rows), 4)
    for place, row in reversed([*enumerate(rows)]):
        known = [score for score in row.labels if score.label in heights and math.isfinite(score.f1)]
        lower = (place - (len(rows) - 1) / 2) * step
        axes.plot(
            [score.f1 for score in known],
            [heights[score.label] - lower for score in known],
            linestyle="none",
            **styles[row.name].marker,
            clip_on=False,
            label=styles[row.name].label,
        )
    axes.set_yticks(list(heights.values()), [f"{short(label)} ({count:,})" for label, count in supports.items()])
    axes.set_ylim(0.4, len(supports) + 0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("F1")
    plain_axes(axes, "both")
    add_legend(canvas)
    return canvas


_MOST_CLASSES = 12
_MOST_MATRICES = 4


def confusion_picture(comparison: Comparison) -> Picture | None:
    """Return the confusion matrices of the best runs; None without classes or with too many."""
    rows = one_run_per_kind(comparison, _MOST_MATRICES)
    matrices = [(row.name, row.confusion) for row in rows if row.confusion is not None]
    matrices = [(name, matrix) for name, matrix in matrices if 1 < len(matrix.labels) <= _MOST_CLASSES]
    if not matrices:
        return None
    caption = (
        "How often each gold class (row) was taken for each class (column); the stronger the colour, the larger its "
        "share of the row."
    )
    drawings = tuple(
        drawn(f"confusion-{place}", f"Confusion matrix of {name}", partial(_draw_confusion, name, matrix))
        for place, (name, matrix) in enumerate(matrices)
    )
    return Picture("Confusions", caption + not_drawn(len(comparison.rows) - len(matrices), "runs"), drawings)


def _draw_confusion(name: str, matrix: ConfusionMatrix) -> Figure:
    labels = [short(label, 14) for label in matrix.labels]
    columns, table = labels, [[*line] for line in matrix.counts]
    if any(matrix.other):
        columns = [*labels, "other"]
        table = [[*line, other] for line, other in zip(matrix.counts, matrix.other, strict=True)]
    small = len(columns) <= 4
    height = 1.3 + (0.55 if small else 0.4) * len(labels)
    canvas = new_canvas(height, width=2.8) if small else new_canvas(height)
    axes = canvas.subplots()
    for y, line in enumerate(table):
        total = sum(line)
        for x, count in enumerate(line):
            share = count / total if total else 0.0
            axes.add_patch(
                Rectangle((x + 0.02, y + 0.02), 0.96, 0.96, color=COLOURS[0], alpha=0.04 + 0.5 * share, linewidth=0)
            )
            axes.text(
                x + 0.5, y + 0.5, f"{count:,}", ha="center", va="center", fontweight="bold" if x == y else "normal"
            )
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(labels), 0)
    axes.set_xticks(
        [x + 0.5 for x in range(len(columns))], columns, rotation=0 if small else 45, ha="center" if small else "right"
    )
    axes.set_yticks([y + 0.5 for y in range(len(labels))], labels)
    axes.set_title(short(name), loc="left", fontweight="bold")
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    return canvas


_MOST_CORNERS = 400


def roc_picture(comparison: Comparison) -> Picture | None:
    """Return the ROC curves of runs on two classes; None without probabilities."""
    rows = [row for row in one_run_per_kind(comparison, len(COLOURS)) if row.roc]
    if not rows:
        return None
    positive = rows[0].labels[1].label
    caption = (
        f"ROC curves of the class {positive}: what share of it is found, at what share of false alarms."
        + not_drawn(len(comparison.rows) - len(rows), "runs")
    )
    return Picture("ROC curves", caption, (drawn("roc", caption, lambda: _draw_roc(comparison, rows)),))


def _draw_roc(comparison: Comparison, rows: Sequence[ComparisonRow]) -> Figure:
    canvas = new_canvas(4.0)
    axes = canvas.subplots()
    styles = styles_of(comparison)
    axes.plot([0, 1], [0, 1], color=RULE, linewidth=1)
    for row in reversed(rows):
        style = styles[row.name]
        corners = np.array(row.roc)[:: max(1, len(row.roc) // _MOST_CORNERS)]
        x, y = np.vstack([corners, [[1, 1]]]).T
        axes.plot(x, y, color=style.colour, linestyle=style.dash, linewidth=1.6, label=style.label)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    plain_axes(axes, "both")
    add_legend(canvas)
    return canvas
