"""Learning curves: training loss and validation score by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightft.comparison import Comparison, Method
from lightft.metrics.metric import Array
from lightft.reports.pictures.picture import Picture, lines_word, not_drawn
from lightft.reports.pictures.style import Style, chosen_methods, name_methods, new_canvas, plain_axes, styles_of
from lightft.reports.pictures.svg import drawn, tip
from lightft.wording import score_words

__all__ = ["loss_picture", "validation_picture"]

_MOST_POINTS = 200
_MOST_DOTS = 240

# (step, value) rows of shape (n, 2) by the name of the run.
_Curves = Mapping[str, Array]


def loss_picture(comparison: Comparison) -> Picture | None:
    """Return the training loss; None where no run logged it."""
    return _curves(comparison, "train_loss", "Training loss", "Loss of the training batches by step.")


def validation_picture(comparison: Comparison) -> Picture | None:
    """Return the headline score on the validation split, or the first that was logged; None where none was."""
    keys = [key for row in comparison.rows for step in row.history for key in step if key.startswith("validation_")]
    if not keys:
        return None
    headline = f"validation_{comparison.headline}"
    key = headline if headline in keys else keys[0]
    metric = key.removeprefix("validation_")
    return _curves(comparison, key, f"Validation {metric}", f"{metric} on the validation split by step.")


def _curves(comparison: Comparison, key: str, title: str, caption: str) -> Picture | None:
    points = {row.name: _points(row.history, key) for row in comparison.rows}
    curves = {name: curve for name, curve in points.items() if len(curve)}
    methods = [method for method in chosen_methods(comparison) if any(name in curves for name in method.runs)]
    if not methods:
        return None
    drawn_curves = [curves[name] for method in methods for name in method.runs if name in curves]
    if any(method.seeds > 1 for method in methods):
        caption += " A thin line is one seed; the strong one is their mean, as far as all have logged the same steps."
    if any(len(curve) > _MOST_POINTS for curve in drawn_curves):
        caption += " Long curves are averaged over neighbouring steps."
    caption += not_drawn(len(comparison.methods) - len(methods), lines_word(comparison))
    with_dots = sum(map(len, drawn_curves)) <= _MOST_DOTS
    svg = drawn(key.replace("_", "-"), caption, lambda: _draw(comparison, methods, curves, with_dots))
    return Picture(title, caption, (svg,))


def _points(history: Sequence[Mapping[str, Any]], key: str) -> Array:
    """Return (step, value) rows, shape ``(n, 2)``, by step."""
    points = [
        (row["step"], row[key])
        for row in history
        if row.get(key) is not None and row.get("step") is not None and math.isfinite(row[key])
    ]
    return np.array(sorted(points), dtype=np.float64)


def _draw(comparison: Comparison, methods: Sequence[Method], curves: _Curves, with_dots: bool) -> Figure:
    canvas = new_canvas(2.4)
    axes = canvas.subplots()
    styles = styles_of(comparison)
    for method in reversed(methods):
        seeds = {name: curves[name] for name in method.runs if name in curves}
        _draw_method(axes, method, seeds, styles[method.name], with_dots)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    plain_axes(axes, "y")
    name_methods(canvas, [styles[method.name] for method in methods], as_lines=not with_dots)
    return canvas


def _draw_method(axes: Axes, method: Method, curves: _Curves, style: Style, with_dots: bool) -> None:
    several = len(curves) > 1
    look = {"color": style.colour, "linestyle": style.dash}
    for name, points in curves.items():
        x, y = _thinned(points).T
        words = tip(f"{name}: last {score_words(points[-1, 1])}, at step {points[-1, 0]:,.0f}")
        axes.plot(x, y, **look, linewidth=0.8 if several else 1.6, alpha=0.55 if several else 1, **words)
        if with_dots:
            _draw_dots(axes, name, points, style.dot if several else style.marker)
    if several:
        mean = _mean_curve([*curves.values()])
        x, y = _thinned(mean).T
        axes.plot(x, y, **look, linewidth=1.8, **tip(f"{method.name}: mean of {len(curves)} seeds"))
        if with_dots:
            _draw_dots(axes, f"{method.name}, mean of {len(curves)} seeds", mean, style.marker)


def _draw_dots(axes: Axes, name: str, points: Array, look: Mapping[str, Any]) -> None:
    for step, value in points:
        axes.plot(step, value, **look, **tip(f"{name}, step {step:,.0f}: {score_words(value)}"))


def _mean_curve(curves: Sequence[Array]) -> Array:
    """Return (step, mean) of the steps that all curves have."""
    tables = [dict(curve.tolist()) for curve in curves]
    shared = sorted(set(tables[0]).intersection(*tables[1:]))
    return np.array([(step, np.mean([table[step] for table in tables])) for step in shared]).reshape(-1, 2)


def _thinned(points: Array) -> Array:
    if len(points) <= _MOST_POINTS:
        return points
    return np.array([neighbours.mean(axis=0) for neighbours in np.array_split(points, _MOST_POINTS)])
