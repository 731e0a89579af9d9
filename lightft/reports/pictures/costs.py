"""Pictures of quality against cost: what a better score takes, and which methods nothing beats in both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightft.comparison import Comparison, Method, MetricInfo
from lightft.reports.pictures.picture import Picture, lines_word, mean_cost, not_drawn
from lightft.reports.pictures.scores import draw_method_at
from lightft.reports.pictures.style import INK, name_methods, names_of, new_canvas, plain_axes, styles_of
from lightft.reports.pictures.svg import drawn
from lightft.wording import percent_words, size_words

__all__ = ["cost_pictures"]


@dataclass(frozen=True)
class _Cost:
    """A cost as a horizontal axis.

    Attributes:
        key: in ``Run.cost``.
        name: of the axis.
        words: a value in words.
        tick_unit: the unit in which ticks are round numbers, by the end of the axis.
        log_ticks: what a logarithmic axis may show; powers of ten where it is empty.
        less_is_better: the direction.
    """

    key: str
    name: str
    words: Callable[[float], str]
    tick_unit: Callable[[float], float]
    log_ticks: tuple[float, ...] = ()
    less_is_better: bool = True


@dataclass(frozen=True)
class _Point:
    """A method at its cost."""

    method: Method
    cost: float


def cost_pictures(comparison: Comparison) -> list[Picture]:
    """Return the headline score against each cost in which the methods differ."""
    pictures = [_against(comparison, cost) for cost in _COSTS]
    return [picture for picture in pictures if picture is not None]


def _against(comparison: Comparison, cost: _Cost) -> Picture | None:
    metric = comparison.metric(comparison.headline)
    points = [
        _Point(method, mean_cost(comparison, method, cost.key))
        for method in comparison.ranked_methods()
        if math.isfinite(method.mean)
    ]
    points = [point for point in points if math.isfinite(point.cost)]
    if len({point.cost for point in points}) < 2:
        return None
    front = _front(points, metric, cost)
    names = names_of(comparison, 30)
    caption = (
        f"{metric.directed_name} against {cost.name}, with {percent_words(comparison.level)} intervals of the score. "
        "The stepped line joins those that no other beats in both, intervals left aside: "
        f"{', '.join(names[point.method.name] for point in front)}."
        + _process_remark(comparison, cost)
        + not_drawn(len(comparison.methods) - len(points), lines_word(comparison))
    )
    svg = drawn(cost.key.replace("_", "-"), caption, lambda: _draw(comparison, points, front, metric, cost))
    return Picture(f"Quality and {cost.name}", caption, (svg,))


def _process_remark(comparison: Comparison, cost: _Cost) -> str:
    if cost.key != "peak_memory_bytes" or not any(row.cost.get("peak_memory_is_of_process") for row in comparison.rows):
        return ""
    return " Without a GPU the peak is that of the whole process, whatever else it held."


def _front(points: Sequence[_Point], metric: MetricInfo, cost: _Cost) -> list[_Point]:
    """Return the points that no other beats in one of score and cost without losing in the other, the dearest last."""
    direction = 1 if metric.higher_is_better else -1
    cheap_first = sorted(
        points,
        key=lambda point: (point.cost if cost.less_is_better else -point.cost, -direction * point.method.mean),
    )
    front: list[_Point] = []
    for point in cheap_first:
        if not front or direction * point.method.mean > direction * front[-1].method.mean:
            front.append(point)
    return front


def _draw(
    comparison: Comparison, points: Sequence[_Point], front: Sequence[_Point], metric: MetricInfo, cost: _Cost
) -> Figure:
    canvas = new_canvas(2.6)
    axes = canvas.subplots()
    # The line is behind all marks; with equal costs on both ends it would be a dot, so that it runs to the last point.
    steps = [(point.cost, point.method.mean) for point in front]
    dearest = (max if cost.less_is_better else min)(point.cost for point in points)
    steps.append((dearest, front[-1].method.mean))
    x, y = zip(*steps, strict=True)
    axes.plot(x, y, drawstyle="steps-post", color=INK, linewidth=1, alpha=0.5, zorder=1)
    for point in reversed(points):
        words = f"{cost.name} {cost.words(point.cost)}"
        draw_method_at(axes, comparison, point.method, metric, point.cost, words)
    axes.margins(x=0.1)
    _set_cost_axis(axes, [point.cost for point in points], cost)
    axes.set_ylabel(metric.directed_name)
    plain_axes(axes, "both")
    styles = styles_of(comparison)
    name_methods(canvas, [styles[point.method.name] for point in points])
    return canvas


def _set_cost_axis(axes: Axes, costs: Sequence[float], cost: _Cost) -> None:
    logarithmic = min(costs) > 0 and max(costs) > 20 * min(costs)
    if logarithmic:
        axes.set_xscale("log")
        if cost.log_ticks:
            axes.set_xticks(_few_between(*axes.get_xlim(), cost.log_ticks))
        else:
            axes.xaxis.set_major_locator(ticker.LogLocator(numticks=5))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
    else:
        low, high = axes.get_xlim()
        unit = cost.tick_unit(high)
        axes.set_xticks([tick * unit for tick in ticker.MaxNLocator(4).tick_values(low / unit, high / unit)])
        axes.set_xlim(low, high)
    axes.set_xlabel(f"{cost.name} (logarithmic)" if logarithmic else cost.name)
    axes.xaxis.set_major_formatter(lambda value, _: cost.words(value) if value >= 0 else "")


def _few_between(low: float, high: float, ticks: Sequence[float]) -> list[float]:
    """Return at most five of the ticks from ``low`` to ``high``, evenly chosen."""
    within = [tick for tick in ticks if low <= tick <= high]
    return within[:: -(-len(within) // 5) or 1]


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


_ROUND_DURATIONS = (0.1, 0.3, 1, 3, 10, 30, 60, 180, 600, 1800, 3600, 3 * 3600, 10 * 3600, 30 * 3600, 100 * 3600)

_COSTS = (
    _Cost("trainable_parameters", "trainable parameters", _count_words, _power_of_ten),
    _Cost("train_seconds", "training time", _duration_words, _duration_unit, _ROUND_DURATIONS),
    _Cost("peak_memory_bytes", "peak memory", size_words, _power_of_ten),
    _Cost("predictions_per_second", "predictions per second", _count_words, _power_of_ten, less_is_better=False),
)
