"""Pictures of quality against cost: what a better score takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightft.comparison import Comparison, ComparisonRow, MetricInfo
from lightft.reports.pictures.picture import Picture, not_drawn, with_score
from lightft.reports.pictures.style import add_legend, new_canvas, plain_axes, styles_of
from lightft.reports.pictures.svg import drawn
from lightft.wording import percent_words, size_words

__all__ = ["cost_pictures"]


@dataclass(frozen=True)
class _Cost:
    """A cost as a horizontal axis.

    Attributes:
        key: in ``Run.cost``.
        name: of the axis.
        tick_words: a tick in words.
        tick_unit: the unit in which ticks are round numbers, by the end of the axis.
    """

    key: str
    name: str
    tick_words: Callable[[float], str]
    tick_unit: Callable[[float], float]


def cost_pictures(comparison: Comparison) -> list[Picture]:
    """Return the headline score against each cost in which the runs differ."""
    pictures = [_against(comparison, cost) for cost in _COSTS]
    return [picture for picture in pictures if picture is not None]


def _against(comparison: Comparison, cost: _Cost) -> Picture | None:
    metric = comparison.metric(comparison.headline)
    rows = [row for row in with_score(comparison.ranked(), metric) if row.cost.get(cost.key)]
    if len({row.cost[cost.key] for row in rows}) < 2:
        return None
    caption = (
        f"{metric.directed_name} against {cost.name}, with {percent_words(comparison.level)} intervals."
        + not_drawn(len(comparison.rows) - len(rows), "runs")
    )
    svg = drawn(cost.key.replace("_", "-"), caption, lambda: _draw(comparison, rows, metric, cost))
    return Picture(f"Quality and {cost.name}", caption, (svg,))


def _draw(comparison: Comparison, rows: Sequence[ComparisonRow], metric: MetricInfo, cost: _Cost) -> Figure:
    canvas = new_canvas(3.1)
    axes = canvas.subplots()
    styles = styles_of(comparison)
    for row in reversed(rows):
        style, score, x = styles[row.name], row.scores[metric.name], row.cost[cost.key]
        if score.interval is not None and math.isfinite(score.interval.low):
            axes.plot([x, x], [score.interval.low, score.interval.high], color=style.colour, linewidth=1.6)
        axes.plot(x, score.value, linestyle="none", **style.marker, label=style.label)
    axes.margins(x=0.1)
    costs = [row.cost[cost.key] for row in rows]
    if max(costs) > 20 * min(costs):
        _logarithmic_ticks(axes)
        axes.set_xlabel(f"{cost.name} (logarithmic)")
    else:
        _round_ticks(axes, cost.tick_unit)
        axes.set_xlabel(cost.name)
    axes.xaxis.set_major_formatter(lambda value, _: cost.tick_words(value) if value >= 0 else "")
    axes.set_ylabel(metric.name)
    plain_axes(axes, "both")
    add_legend(canvas)
    return canvas


def _logarithmic_ticks(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(numticks=5))
    axes.xaxis.set_minor_locator(ticker.NullLocator())


def _round_ticks(axes: Axes, tick_unit: Callable[[float], float]) -> None:
    low, high = axes.get_xlim()
    unit = tick_unit(high)
    axes.set_xticks([tick * unit for tick in ticker.MaxNLocator(4).tick_values(low / unit, high / unit)])
    axes.set_xlim(low, high)


def _count_words(count: float) -> str:
    for letter, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {letter}"
    return f"{count:.3g}"


def _duration_words(seconds: float) -> str:
    for unit, scale in (("h", 3600), ("min", 60)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds:.3g} s"


def _power_of_ten(longest: float) -> float:
    return float(10 ** math.floor(math.log10(longest)))


def _duration_unit(longest: float) -> float:
    return 3600 if longest > 7200 else 60 if longest > 120 else 1


_COSTS = (
    _Cost("trainable_parameters", "trainable parameters", _count_words, _power_of_ten),
    _Cost("train_seconds", "training time", _duration_words, _duration_unit),
    _Cost("peak_memory_bytes", "peak memory", size_words, _power_of_ten),
)
