"""Learning curves: training loss and validation score by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from lightft.comparison import Comparison
from lightft.metrics.metric import Array
from lightft.reports.pictures.picture import Picture, not_drawn
from lightft.reports.pictures.style import add_legend, coloured_runs, new_canvas, plain_axes, styles_of
from lightft.reports.pictures.svg import drawn

__all__ = ["loss_picture", "validation_picture"]

_MOST_POINTS = 200
_MOST_DOTS = 30


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
    curves = {row.name: _points(row.history, key) for row in coloured_runs(comparison)}
    curves = {name: points for name, points in curves.items() if len(points)}
    if not curves:
        return None
    if any(len(points) > _MOST_POINTS for points in curves.values()):
        caption += " Long curves are averaged over neighbouring steps."
    caption += not_drawn(len(comparison.rows) - len(curves), "runs")
    svg = drawn(key.replace("_", "-"), caption, lambda: _draw(comparison, curves))
    return Picture(title, caption, (svg,))


def _points(history: Sequence[Mapping[str, Any]], key: str) -> Array:
    """Return (step, value) rows, shape ``(n, 2)``, by step."""
    points = [
        (row["step"], row[key])
        for row in history
        if row.get(key) is not None and row.get("step") is not None and math.isfinite(row[key])
    ]
    return np.array(sorted(points), dtype=np.float64)


def _draw(comparison: Comparison, curves: dict[str, Array]) -> Figure:
    canvas = new_canvas(2.9)
    axes = canvas.subplots()
    styles = styles_of(comparison)
    few = max(map(len, curves.values())) <= _MOST_DOTS
    for name, points in reversed(curves.items()):
        style = styles[name]
        x, y = _thinned(points).T
        dots = style.marker if few else {"color": style.colour}
        axes.plot(x, y, **dots, linestyle=style.dash, linewidth=1.6, label=style.label)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    plain_axes(axes, "y")
    add_legend(canvas)
    return canvas


def _thinned(points: Array) -> Array:
    if len(points) <= _MOST_POINTS:
        return points
    return np.array([neighbours.mean(axis=0) for neighbours in np.array_split(points, _MOST_POINTS)])
