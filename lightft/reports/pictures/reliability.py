"""The reliability diagram: whether answers of 80 % confidence are right 80 % of the time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lightft.comparison import Comparison, Method
from lightft.metrics import ReliabilityBin
from lightft.reports.pictures.picture import Picture, lines_word, not_drawn, runs_of
from lightft.reports.pictures.style import (
    RULE,
    Style,
    chosen_methods,
    name_methods,
    names_of,
    new_canvas,
    plain_axes,
    styles_of,
)
from lightft.reports.pictures.svg import drawn, tip
from lightft.wording import percent_words, score_words

__all__ = ["reliability_picture"]

_MOST_METHODS = 4

_Bins = Sequence[ReliabilityBin]


def reliability_picture(comparison: Comparison) -> Picture | None:
    """Return accuracy by confidence, and how often each confidence occurs; None without probabilities of classes."""
    methods = {method.name: method for method in chosen_methods(comparison, _MOST_METHODS)}
    bins = {name: _pooled(comparison, method) for name, method in methods.items()}
    bins = {name: pooled for name, pooled in bins.items() if pooled}
    if not bins:
        return None
    names = names_of(comparison, 40)
    errors = ", ".join(f"{names[name]} {score_words(_calibration_error(pooled))}" for name, pooled in bins.items())
    caption = (
        "Above: what share of the answers of each confidence is right; on the diagonal confidence is what it says. Below: "
        f"what share of all answers has each confidence. Expected calibration error, in {len(next(iter(bins.values())))} "
        f"bins of equal width (0 is best): {errors}."
        + (" The runs of several seeds are taken together." if any(methods[name].seeds > 1 for name in bins) else "")
        + not_drawn(len(comparison.methods) - len(bins), lines_word(comparison))
    )
    svg = drawn("reliability", caption, lambda: _draw(bins, styles_of(comparison)))
    return Picture("Reliability", caption, (svg,))


def _pooled(comparison: Comparison, method: Method) -> list[ReliabilityBin]:
    """Return the bins of all runs of a method taken together."""
    tables = [row.reliability for row in runs_of(comparison, method) if row.reliability]
    return [_sum(column) for column in zip(*tables, strict=True)]


def _sum(bins: _Bins) -> ReliabilityBin:
    filled = [one for one in bins if one.examples]
    total = sum(one.examples for one in filled)
    return ReliabilityBin(
        low=bins[0].low,
        high=bins[0].high,
        examples=total,
        confidence=sum(one.confidence * one.examples for one in filled) / total if total else math.nan,
        accuracy=sum(one.accuracy * one.examples for one in filled) / total if total else math.nan,
    )


def _calibration_error(bins: _Bins) -> float:
    """Return the mean over answers of |accuracy − confidence| of their bin (Guo et al. 2017, arXiv:1706.04599)."""
    filled = [one for one in bins if one.examples]
    total = sum(one.examples for one in filled)
    return sum(one.examples * abs(one.accuracy - one.confidence) for one in filled) / total


def _draw(bins: Mapping[str, _Bins], styles: Mapping[str, Style]) -> Figure:
    canvas = new_canvas(4.0)
    upper, lower = canvas.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color=RULE, linewidth=1.4)
    for place, (name, pooled) in reversed([*enumerate(bins.items())]):
        _draw_accuracy(upper, name, pooled, styles[name])
        _draw_shares(lower, name, pooled, styles[name], place, len(bins))
    upper.set_xlim(-0.01, 1.01)
    upper.set_ylim(-0.02, 1.02)
    upper.set_ylabel("accuracy")
    lower.set_xlabel("confidence")
    lower.set_ylabel("share")
    lower.autoscale_view(scalex=False)
    lower.yaxis.set_major_locator(ticker.MaxNLocator(2))
    lower.yaxis.set_major_formatter(lambda share, _: percent_words(share))
    plain_axes(upper, "both")
    plain_axes(lower, "y")
    name_methods(canvas, [styles[name] for name in bins])
    return canvas


def _draw_accuracy(axes: Axes, name: str, bins: _Bins, style: Style) -> None:
    filled = [one for one in bins if one.examples]
    x, y = [one.confidence for one in filled], [one.accuracy for one in filled]
    axes.plot(x, y, color=style.colour, linestyle=style.dash, linewidth=1.4)
    for one in filled:
        axes.plot(one.confidence, one.accuracy, **style.marker, **tip(_words(name, one)))


def _draw_shares(axes: Axes, name: str, bins: _Bins, style: Style, place: int, methods: int) -> None:
    total = sum(one.examples for one in bins)
    for one in bins:
        if one.examples:
            width = 0.9 * (one.high - one.low) / methods
            left = one.low + 0.05 * (one.high - one.low) + place * width
            axes.add_patch(
                Rectangle(
                    (left, 0), width, one.examples / total, color=style.colour, linewidth=0, **tip(_words(name, one))
                )
            )


def _words(name: str, one: ReliabilityBin) -> str:
    return (
        f"{name}: of {one.examples:,} answers with confidence {score_words(one.low)} to {score_words(one.high)} (mean "
        f"{score_words(one.confidence)}), {percent_words(one.accuracy)} are right"
    )
