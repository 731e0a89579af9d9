"""Pictures of how well each class or entity type is found, and entities of each length, position and novelty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightft.comparison import Comparison, Method
from lightft.metrics import LabelScore
from lightft.reports.pictures.picture import MOST_LINES, Picture, lines_word, mean_of, not_drawn, seeds_remark
from lightft.reports.pictures.style import (
    COLOURS,
    Style,
    chosen_methods,
    name_methods,
    new_canvas,
    plain_axes,
    short_names,
    styles_of,
)
from lightft.reports.pictures.svg import drawn, tip
from lightft.wording import score_words

__all__ = ["label_picture", "slice_picture"]

# The scores of each run, by its name.
_Table = Mapping[str, Sequence[LabelScore]]


def label_picture(comparison: Comparison) -> Picture | None:
    """Return the F1 of each label in each method; None where there are no labels."""
    table = {row.name: row.labels for row in comparison.rows}
    supports = _supports(table)
    if not supports:
        return None
    methods = chosen_methods(comparison, 4 if len(supports) > 8 else len(COLOURS))
    frequent = sorted(supports, key=lambda label: -supports[label])[:MOST_LINES]
    shown = {name: [score for score in scores if score.label in frequent] for name, scores in table.items()}
    labels = {score.label for scores in table.values() for score in scores}
    caption = (
        "F1 of each label, the most frequent first; in brackets how many gold answers have it."
        + seeds_remark(methods)
        + not_drawn(len(labels) - len(frequent), "labels")
        + not_drawn(len(comparison.methods) - len(methods), lines_word(comparison))
    )
    svg = drawn("labels", caption, lambda: _draw(comparison, methods, [(frequent, shown)]))
    return Picture("Labels", caption, (svg,))


def slice_picture(comparison: Comparison) -> Picture | None:
    """Return the F1 of entities by their length, position and novelty; None where no run has spans."""
    found = {row.name: row.span_errors for row in comparison.rows if row.span_errors is not None}
    tables: list[_Table] = [
        {name: errors.by_length for name, errors in found.items()},
        {name: errors.by_position for name, errors in found.items()},
        {name: errors.by_novelty for name, errors in found.items()},
    ]
    groups = [([*_supports(table)], table) for table in tables if _supports(table)]
    if not groups:
        return None
    methods = chosen_methods(comparison, 4)
    caption = (
        "F1 of entities by their length, by where in the text they stand, and by whether their string is an entity of the "
        "training data, each where it is known; in brackets how many gold entities there are."
        + seeds_remark(methods)
        + not_drawn(len(comparison.methods) - len(methods), lines_word(comparison))
    )
    svg = drawn("slices", caption, lambda: _draw(comparison, methods, groups))
    return Picture("Entities by length, position and novelty", caption, (svg,))


def _supports(table: _Table) -> dict[str, int]:
    """Return how often each label that occurs is gold."""
    occurring = [score for scores in table.values() for score in scores if score.support or score.predicted]
    return {score.label: score.support for score in occurring}


def _draw(comparison: Comparison, methods: Sequence[Method], groups: Sequence[tuple[Sequence[str], _Table]]) -> Figure:
    lines = sum(len(labels) for labels, _ in groups) + 0.6 * (len(groups) - 1)
    canvas = new_canvas(0.6 + (0.14 + 0.08 * len(methods)) * lines)
    axes = canvas.subplots()
    styles = styles_of(comparison)
    ticks: dict[float, str] = {}
    bottom = 0.0
    for labels, table in reversed(groups):
        supports, names = _supports(table), short_names(labels, 20)
        heights = {label: bottom + len(labels) - place for place, label in enumerate(labels)}
        ticks.update({height: f"{names[label]} ({supports[label]:,})" for label, height in heights.items()})
        for place, method in reversed([*enumerate(methods)]):
            lowered = (place - (len(methods) - 1) / 2) * 0.76 / max(len(methods), 3)
            scores = {name: table[name] for name in method.runs if name in table}
            _draw_method(axes, method, styles[method.name], scores, {name: y - lowered for name, y in heights.items()})
        bottom += len(labels) + 0.6
    axes.set_yticks([*ticks], [*ticks.values()])
    axes.set_ylim(0.4, bottom)
    axes.set_xlim(0, 1)
    axes.set_xlabel("F1")
    plain_axes(axes, "both")
    name_methods(canvas, [styles[method.name] for method in methods])
    return canvas


def _draw_method(axes: Axes, method: Method, style: Style, table: _Table, heights: Mapping[str, float]) -> None:
    for label, height in heights.items():
        found = {name: score for name, scores in table.items() for score in scores if score.label == label}
        known = {name: score for name, score in found.items() if math.isfinite(score.f1)}
        if not known:
            continue
        if method.seeds > 1:
            values = [score.f1 for score in known.values()]
            axes.plot([min(values), max(values)], [height] * 2, color=style.colour, linewidth=1, alpha=0.55)
            for name, score in known.items():
                axes.plot(score.f1, height, **{**style.dot, "markersize": 4}, clip_on=False, **tip(_words(name, score)))
        mean = mean_of([score.f1 for score in known.values()])
        words = [_words(name, score) for name, score in known.items()]
        mean_words = f"{method.name}, {label}: F1 {score_words(mean)}, mean of {len(known)} seeds"
        axes.plot(mean, height, **style.marker, clip_on=False, **tip(mean_words if method.seeds > 1 else words[0]))


def _words(name: str, score: LabelScore) -> str:
    return (
        f"{name}, {score.label}: F1 {score_words(score.f1)}, precision {score_words(score.precision)}, recall "
        f"{score_words(score.recall)}, {score.support:,} gold"
    )
