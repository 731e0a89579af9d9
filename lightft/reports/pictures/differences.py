"""The picture of differences: which intervals leave zero out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightft.comparison import Comparison, MetricInfo, RunDifference
from lightft.reports.pictures.picture import MOST_LINES, Picture, not_drawn
from lightft.reports.pictures.style import COLOURS, HALO, MUTED, PAGE, new_canvas, plain_axes, short
from lightft.reports.pictures.svg import drawn
from lightft.wording import percent_words, signed_words

__all__ = ["difference_picture"]

_COLOUR_OF = {"better": COLOURS[0], "worse": COLOURS[1], "cannot tell": MUTED}


def difference_picture(comparison: Comparison) -> Picture | None:
    """Return each run against the baseline, or the best run against each other; None without intervals."""
    if comparison.baseline:
        differences: Sequence[RunDifference] = comparison.differences
        against = f"Each run minus the baseline {comparison.baseline}"
    else:
        best = comparison.ranked()[0].name
        differences = comparison.differences_of(best)
        against = f"{best}, the best run, minus each other run"
    drawable = [one for one in differences if one.interval is not None and math.isfinite(one.interval.low)]
    if not drawable:
        return None
    metric = comparison.metric(comparison.headline)
    shown = drawable[:MOST_LINES]
    caption = (
        f"{against}, in {metric.name}, with paired {percent_words(comparison.level)} intervals. Filled: better or "
        "worse; hollow: the test set cannot tell."
    )
    svg = drawn("difference", caption, lambda: _draw(shown, metric))
    return Picture("Differences", caption + not_drawn(len(drawable) - len(shown), "differences"), (svg,))


def _draw(differences: Sequence[RunDifference], metric: MetricInfo) -> Figure:
    canvas = new_canvas(0.75 + 0.5 * len(differences))
    axes = canvas.subplots()
    axes.axvline(0, color=MUTED, linewidth=1)
    for place, difference in enumerate(differences):
        _draw_one(axes, difference, metric, len(differences) - place)
    axes.set_yticks([])
    axes.set_ylim(0.5, len(differences) + 0.75)
    axes.set_xlabel(f"difference in {metric.name}")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
    plain_axes(axes, "x")
    return canvas


def _draw_one(axes: Axes, one: RunDifference, metric: MetricInfo, height: int) -> None:
    colour, undecided = _COLOUR_OF[one.verdict], one.verdict == "cannot tell"
    if one.interval is not None:
        axes.plot([one.interval.low, one.interval.high], [height] * 2, color=colour, linewidth=2, zorder=1)
    if undecided:
        # A hollow dot hides the line behind it.
        axes.plot(one.difference, height, "o", markersize=7, color=PAGE, zorder=2)
    axes.plot(
        one.difference,
        height,
        "o",
        markersize=7,
        markerfacecolor="none" if undecided else colour,
        markeredgecolor=colour,
        markeredgewidth=1.6,
        zorder=3,
    )
    beside_the_axes = axes.get_yaxis_transform()
    axes.text(0, height + 0.3, f"{short(one.a, 26)} − {short(one.b, 26)}", transform=beside_the_axes, bbox=HALO)
    axes.annotate(signed_words(one.difference, metric.unit), (1.01, height), xycoords=beside_the_axes, va="center")
