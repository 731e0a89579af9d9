"""Pictures of scores: a dot for each run and a line for its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightft.comparison import Comparison, ComparisonRow, MetricInfo
from lightft.reports.pictures.picture import MOST_LINES, Picture, not_drawn, with_score
from lightft.reports.pictures.style import MUTED, new_canvas, plain_axes, short, styles_of
from lightft.reports.pictures.svg import drawn
from lightft.wording import MISSING, percent_words, score_words

__all__ = ["draw_all_scores", "score_picture"]


def score_picture(comparison: Comparison) -> Picture | None:
    """Return the headline score of each run; None where no run has one."""
    metric = comparison.metric(comparison.headline)
    rows = with_score(comparison.ranked(), metric)
    if not rows:
        return None
    shown = rows[:MOST_LINES]
    caption = (
        f"{metric.directed_name}, with {percent_words(comparison.level)} intervals over the examples of the test set."
    )
    svg = drawn("score", f"{metric.name} of each run", lambda: _draw_headline(comparison, shown, metric))
    return Picture("Scores", caption + not_drawn(len(rows) - len(shown), "runs"), (svg,))


def draw_all_scores(comparison: Comparison) -> Figure:
    """Return a canvas with every run's score in every metric, the metrics below each other."""
    rows = comparison.ranked()
    canvas = new_canvas((0.9 + 0.3 * len(rows)) * len(comparison.metrics))
    panels = canvas.subplots(len(comparison.metrics), 1, squeeze=False)[:, 0]
    for axes, metric in zip(panels, comparison.metrics, strict=True):
        _dots_and_whiskers(axes, comparison, rows, metric)
    return canvas


def _draw_headline(comparison: Comparison, rows: Sequence[ComparisonRow], metric: MetricInfo) -> Figure:
    canvas = new_canvas(0.75 + 0.34 * len(rows))
    _dots_and_whiskers(canvas.subplots(), comparison, rows, metric)
    return canvas


def _dots_and_whiskers(axes: Axes, comparison: Comparison, rows: Sequence[ComparisonRow], metric: MetricInfo) -> None:
    styles = styles_of(comparison)
    values = [row.scores[metric.name].value for row in with_score(rows, metric)]
    best = (max if metric.higher_is_better else min)(values, default=math.nan)
    beside_the_axes = axes.get_yaxis_transform()
    for place, row in enumerate(rows):
        score, style, height = row.scores[metric.name], styles[row.name], len(rows) - place
        if not math.isfinite(score.value):
            axes.text(0.01, height, MISSING, color=MUTED, va="center", transform=beside_the_axes)
            continue
        if score.interval is not None and math.isfinite(score.interval.low) and math.isfinite(score.interval.high):
            axes.plot([score.interval.low, score.interval.high], [height] * 2, color=style.colour, linewidth=2)
        axes.plot(score.value, height, **style.marker)
        axes.annotate(
            score_words(score.value, metric.unit),
            (1.01, height),
            xycoords=beside_the_axes,
            va="center",
            fontweight="bold" if score.value == best else "normal",
        )
    axes.set_yticks(range(len(rows), 0, -1), [short(row.name) for row in rows])
    axes.set_ylim(0.4, len(rows) + 0.6)
    axes.set_xlabel(metric.directed_name)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
    plain_axes(axes, "x")
