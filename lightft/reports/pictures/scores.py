"""Pictures of scores: a line for each method's interval and a dot for each of its runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightft.comparison import Comparison, Method, MetricInfo
from lightft.reports.pictures.listing import NAME_WIDTH, Line, draw_interval, height_of, list_canvas, list_lines
from lightft.reports.pictures.picture import (
    MOST_LINES,
    Picture,
    is_drawable,
    lines_word,
    mean_of,
    not_drawn,
    runs_of,
    score_tip,
)
from lightft.reports.pictures.style import chosen_methods, names_of, new_canvas, styles_of
from lightft.reports.pictures.svg import drawn, tip
from lightft.significance import Interval
from lightft.wording import percent_words, score_words

__all__ = ["draw_all_scores", "draw_method", "draw_method_at", "score_picture"]


def score_picture(comparison: Comparison) -> Picture | None:
    """Return the headline score of each method and its runs; None where no run has one."""
    metric = comparison.metric(comparison.headline)
    if not any(math.isfinite(row.scores[metric.name].value) for row in comparison.rows):
        return None
    shown = chosen_methods(comparison, MOST_LINES)
    svg = drawn("score", f"{metric.name} of each method", lambda: _draw_headline(comparison, shown, metric))
    caption = f"{metric.directed_name}, the best first. {_what_is_drawn(comparison)}"
    return Picture("Scores", caption + not_drawn(len(comparison.methods) - len(shown), lines_word(comparison)), (svg,))


def _what_is_drawn(comparison: Comparison) -> str:
    level = percent_words(comparison.level)
    single = f"{level} interval over the examples of the test set"
    several = f"{level} interval over new seeds and new examples"
    seeds = {method.seeds > 1 for method in comparison.methods}
    if seeds == {False}:
        return f"A dot is a run, the line its {single}."
    words = f"A dot is a run of one seed, the upright mark the mean of a method, the line its {several}"
    return f"{words}." if seeds == {True} else f"{words}; of a single run, its {single}."


def draw_method_at(
    axes: Axes, comparison: Comparison, method: Method, metric: MetricInfo, place: float, what: str
) -> None:
    """Draw a method's mean and interval above a place on the horizontal axis; ``what`` says that place in its tip."""
    style = styles_of(comparison)[method.name]
    words = f"{score_tip(method.name, method.mean, method.interval, metric)}, {what}"
    if method.interval is not None and is_drawable(method.interval):
        ends = [method.interval.low, method.interval.high]
        axes.plot([place] * 2, ends, color=style.colour, linewidth=1.6, **tip(words))
    axes.plot(place, method.mean, **style.marker, **tip(words))


def draw_all_scores(comparison: Comparison) -> Figure:
    """Return a canvas with every method's score in every metric, the metrics below each other."""
    methods = comparison.ranked_methods()
    canvas = new_canvas((height_of(len(methods)) + 0.15) * len(comparison.metrics))
    panels = canvas.subplots(len(comparison.metrics), 1, squeeze=False)[:, 0]
    for axes, metric in zip(panels, comparison.metrics, strict=True):
        _draw_methods(axes, comparison, methods, metric)
    return canvas


def _draw_headline(comparison: Comparison, methods: Sequence[Method], metric: MetricInfo) -> Figure:
    canvas = list_canvas(len(methods))
    _draw_methods(canvas.subplots(), comparison, methods, metric)
    return canvas


def _draw_methods(axes: Axes, comparison: Comparison, methods: Sequence[Method], metric: MetricInfo) -> None:
    scores = {method.name: _score(comparison, method, metric) for method in methods}
    means = [mean for mean, _ in scores.values() if not math.isnan(mean)]
    best = (max if metric.higher_is_better else min)(means, default=math.nan)
    names = names_of(comparison, NAME_WIDTH)
    lines = [
        Line(
            names[name],
            score_words(mean, metric.unit),
            strong=len(means) > 1 and mean == best,
            muted=math.isnan(mean),
        )
        for name, (mean, _) in scores.items()
    ]
    for method, height in zip(methods, list_lines(axes, lines), strict=True):
        draw_method(axes, height, comparison, method, metric)
    axes.set_xlabel(metric.directed_name)


def draw_method(axes: Axes, height: float, comparison: Comparison, method: Method, metric: MetricInfo) -> None:
    """Draw a method on a line: its interval, its mean where it has several seeds, and a dot for each run with a score."""
    style = styles_of(comparison)[method.name]
    mean, interval = _score(comparison, method, metric)
    words = score_tip(method.name, mean, interval, metric)
    draw_interval(axes, height, interval, style.colour, words)
    if method.seeds > 1 and math.isfinite(mean):
        words = f"{words}, mean of {method.seeds} seeds"
        axes.plot(
            mean,
            height,
            marker="|",
            markersize=15,
            markeredgewidth=2.4,
            color=style.colour,
            linestyle="none",
            **tip(words),
        )
    for row in runs_of(comparison, method):
        score = row.scores[metric.name]
        if math.isfinite(score.value):
            look = style.marker if method.seeds == 1 else style.dot
            axes.plot(score.value, height, **look, **tip(score_tip(row.name, score.value, score.interval, metric)))


def _score(comparison: Comparison, method: Method, metric: MetricInfo) -> tuple[float, Interval | None]:
    """Return a method's score; the interval of several seeds is known of the headline metric alone."""
    if metric.name == comparison.headline:
        return method.mean, method.interval
    scores = [row.scores[metric.name] for row in runs_of(comparison, method)]
    return mean_of([score.value for score in scores]), scores[0].interval if len(scores) == 1 else None
