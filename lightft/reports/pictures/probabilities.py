"""Pictures of class probabilities: ROC and precision-recall curves of two classes, and how reliable confidence is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from lightft.comparison import Comparison
from lightft.metrics.metric import Array
from lightft.reports.pictures.picture import Picture, lines_word, not_drawn
from lightft.reports.pictures.style import RULE, chosen_methods, name_methods, new_canvas, plain_axes, styles_of
from lightft.reports.pictures.svg import drawn, tip
from lightft.wording import score_words

__all__ = ["precision_recall_picture", "roc_picture"]

_MOST_CORNERS = 200

# The corners of a run's curve, shape (n, 2), by its name.
_Curves = Mapping[str, Array]


def roc_picture(comparison: Comparison) -> Picture | None:
    """Return the ROC curves of runs on two classes; None without probabilities."""
    curves = {row.name: np.array(row.roc) for row in comparison.rows if row.roc}
    if not curves:
        return None
    caption = (
        f"ROC curves of the class {_positive_class(comparison)}: what share of it is found (true positive rate), at what "
        "share of false alarms (false positive rate). The diagonal is chance."
    )

    def draw() -> Figure:
        # The diagonal goes before the curves, so that they lie on top of it.
        canvas = _unit_square("false positive rate", "true positive rate", [(0, 0), (1, 1)])
        _draw_curves(canvas, comparison, curves, "default", lambda corners: f"area under the curve {_area(corners)}")
        return canvas

    return _picture("ROC curves", "roc", comparison, curves, caption, draw)


def precision_recall_picture(comparison: Comparison) -> Picture | None:
    """Return the precision-recall curves of runs on two classes; None without probabilities."""
    curves = {row.name: np.array(row.precision_recall) for row in comparison.rows if row.precision_recall}
    if not curves:
        return None
    share = comparison.rows[0].labels[1].support / sum(label.support for label in comparison.rows[0].labels)
    caption = (
        f"Precision-recall curves of the class {_positive_class(comparison)}: how many of those taken for it are it "
        "(precision), by what share of it is found (recall). The level line is chance."
    )

    def draw() -> Figure:
        canvas = _unit_square("recall", "precision", [(0, share), (1, share)])
        # Precision does not change linearly between two thresholds (Davis and Goadrich 2006): the curve has steps.
        _draw_curves(
            canvas, comparison, curves, "steps-pre", lambda corners: f"average precision {_average_precision(corners)}"
        )
        return canvas

    return _picture("Precision-recall curves", "precision-recall", comparison, curves, caption, draw)


def _picture(
    title: str, identity: str, comparison: Comparison, curves: _Curves, caption: str, draw: Callable[[], Figure]
) -> Picture:
    shown = [method for method in chosen_methods(comparison) if any(name in curves for name in method.runs)]
    caption += " A thin line is one seed." if any(method.seeds > 1 for method in shown) else ""
    caption += not_drawn(len(comparison.methods) - len(shown), lines_word(comparison))
    return Picture(title, caption, (drawn(identity, caption, draw),))


def _positive_class(comparison: Comparison) -> str:
    return comparison.rows[0].labels[1].label


def _unit_square(x: str, y: str, chance: Sequence[tuple[float, float]]) -> Figure:
    canvas = new_canvas(3.3)
    axes = canvas.subplots()
    axes.plot(*zip(*chance, strict=True), color=RULE, linewidth=1.4)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    plain_axes(axes, "both")
    return canvas


def _draw_curves(
    canvas: Figure, comparison: Comparison, curves: _Curves, drawstyle: str, words: Callable[[Array], str]
) -> None:
    styles, (axes,) = styles_of(comparison), canvas.axes
    named = []
    for method in reversed(chosen_methods(comparison)):
        style = styles[method.name]
        names = [name for name in method.runs if name in curves]
        named += [style] if names else []
        for name in names:
            x, y = _thinned(curves[name]).T
            axes.plot(
                x,
                y,
                color=style.colour,
                linestyle=style.dash,
                linewidth=1 if method.seeds > 1 else 1.7,
                alpha=0.7 if method.seeds > 1 else 1,
                drawstyle=drawstyle,
                **tip(f"{name}: {words(curves[name])}"),
            )
    name_methods(canvas, reversed(named), as_lines=True)


def _thinned(corners: Array) -> Array:
    """Return at most about ``_MOST_CORNERS`` of the corners, the first and the last among them."""
    if len(corners) <= _MOST_CORNERS:
        return corners
    places = np.linspace(0, len(corners) - 1, _MOST_CORNERS).round().astype(int)
    return np.take(corners, places, axis=0)


def _area(corners: Array) -> str:
    x, y = corners.T
    return score_words(float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum()))


def _average_precision(corners: Array) -> str:
    recall, precision = corners.T
    return score_words(float((np.diff(recall) * precision[1:]).sum()))
