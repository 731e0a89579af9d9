"""Stacked bars below each other, each with its name above it: what became of entities, and what fills the memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lightft.comparison import Comparison, Method
from lightft.metrics.span_errors import OUTCOMES
from lightft.reports.pictures.listing import NAME_WIDTH, Line, list_canvas, list_lines
from lightft.reports.pictures.picture import MOST_LINES, Picture, lines_word, mean_cost, mean_of, not_drawn, runs_of
from lightft.reports.pictures.style import COLOURS, INK, MUTED, PAGE, add_legend, chosen_methods, names_of
from lightft.reports.pictures.svg import drawn, tip
from lightft.wording import size_words

__all__ = ["memory_picture", "outcome_picture"]

_COLOUR_OF_OUTCOME = dict(
    zip(OUTCOMES, (COLOURS[2], COLOURS[5], COLOURS[3], COLOURS[4], COLOURS[1], MUTED), strict=True)
)
_MEMORY = {
    "weight_bytes": ("weights", COLOURS[0]),
    "gradient_bytes": ("gradients", COLOURS[1]),
    "optimizer_bytes": ("optimiser", COLOURS[2]),
    "activation_bytes": ("activations", COLOURS[4]),
}


@dataclass(frozen=True)
class _Bar:
    """A stacked bar.

    Attributes:
        name: of the method.
        parts: what it is made of, by the words for it, from left to right.
        mark: where a tick stands; ``nan`` for none.
        end: what is written at its end.
    """

    name: str
    parts: Mapping[str, float]
    mark: float
    end: str


@dataclass(frozen=True)
class _Words:
    """How the numbers of a picture are written: the axis, a part, the value at the end of a bar, and its mark."""

    axis: str
    value: Callable[[float], str]
    mark: str


def outcome_picture(comparison: Comparison) -> Picture | None:
    """Return what became of the entities; None where answers are no spans."""
    bars = []
    for method in chosen_methods(comparison, MOST_LINES):
        errors = [row.span_errors for row in runs_of(comparison, method) if row.span_errors is not None]
        if errors:
            parts = {outcome: mean_of([one.kinds[outcome] for one in errors]) for outcome in OUTCOMES}
            gold = sum(parts.values()) - parts["invented"]
            bars.append(_Bar(method.name, parts, mark=gold, end=_number_words(parts["found"])))
    if not any(sum(bar.parts.values()) for bar in bars):
        return None
    several = any(method.seeds > 1 for method in comparison.methods)
    caption = (
        "What became of the entities of the test set"
        + (", the mean of several seeds" if several else "")
        + ". Up to the tick are the gold entities, behind it predictions that no gold entity matches; at the end how many "
        "were found." + not_drawn(len(comparison.methods) - len(bars), lines_word(comparison))
    )
    words = _Words("entities", _number_words, "gold entities")
    svg = drawn("outcomes", caption, lambda: _draw(comparison, bars, _COLOUR_OF_OUTCOME, words))
    return Picture("Span errors", caption, (svg,))


def memory_picture(comparison: Comparison) -> Picture | None:
    """Return what fills the memory while training; None where no run measured it."""
    bars = [_memory_of(comparison, method) for method in chosen_methods(comparison, MOST_LINES)]
    shown = [bar for bar in bars if bar.parts]
    if not shown:
        return None
    measured = [not math.isnan(bar.mark) for bar in shown]
    missing = [words for words, _ in _MEMORY.values() if any(words not in bar.parts for bar in shown)]
    caption = (
        "What fills the memory while training."
        + (" The tick, and the number at the end, is the measured peak." if any(measured) else "")
        + ("" if all(measured) else f" Of {measured.count(False)} the peak was not measured.")
        + (f" Not measured of each: {', '.join(missing)}." if missing else "")
        + not_drawn(len(comparison.methods) - len(shown), lines_word(comparison))
    )
    colours = {words: colour for words, colour in _MEMORY.values() if any(words in bar.parts for bar in shown)}
    words = _Words("memory", size_words, "measured peak")
    svg = drawn("memory", caption, lambda: _draw(comparison, shown, colours, words))
    return Picture("Memory", caption, (svg,))


def _memory_of(comparison: Comparison, method: Method) -> _Bar:
    parts = {words: mean_cost(comparison, method, key) for key, (words, _) in _MEMORY.items()}
    measured = {words: size for words, size in parts.items() if math.isfinite(size)}
    peak = mean_cost(comparison, method, "peak_memory_bytes")
    return _Bar(method.name, measured, mark=peak, end=size_words(peak))


def _draw(comparison: Comparison, bars: Sequence[_Bar], colours: Mapping[str, str], words: _Words) -> Figure:
    canvas = list_canvas(len(bars))
    axes = canvas.subplots()
    names = names_of(comparison, NAME_WIDTH)
    lines = [Line(names[bar.name], bar.end) for bar in bars]
    for bar, height in zip(bars, list_lines(axes, lines), strict=True):
        _draw_bar(axes, bar, height, colours, words)
    axes.set_xlim(0, 1.02 * max(max(sum(bar.parts.values()), 0 if math.isnan(bar.mark) else bar.mark) for bar in bars))
    axes.set_xlabel(words.axis)
    axes.xaxis.set_major_formatter(lambda value, _: words.value(value))
    add_legend(canvas, {name: Rectangle((0, 0), 1, 1, color=colour, linewidth=0) for name, colour in colours.items()})
    return canvas


def _draw_bar(axes: Axes, bar: _Bar, height: float, colours: Mapping[str, str], words: _Words) -> None:
    left = 0.0
    for name, size in bar.parts.items():
        if size:
            part = Rectangle(
                (left, height - 0.18),
                size,
                0.34,
                facecolor=colours[name],
                edgecolor=PAGE,
                linewidth=0.6,
                **tip(f"{bar.name}: {name} {words.value(size)}"),
            )
            axes.add_patch(part)
            left += size
    if math.isfinite(bar.mark):
        axes.plot(
            [bar.mark] * 2,
            [height - 0.26, height + 0.24],
            color=INK,
            linewidth=2,
            **tip(f"{bar.name}: {words.mark} {words.value(bar.mark)}"),
        )


def _number_words(count: float) -> str:
    return f"{count:,.0f}" if count == round(count) else f"{count:,.1f}"
