"""The picture of differences: which intervals leave zero out."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightft.comparison import Comparison, MethodDifference, MetricInfo
from lightft.comparison.words import interval_words
from lightft.reports.pictures.listing import NAME_WIDTH, Line, draw_interval, list_canvas, list_lines
from lightft.reports.pictures.picture import MOST_LINES, Picture, is_drawable, lines_word, not_drawn
from lightft.reports.pictures.style import COLOURS, MUTED, PAGE, names_of
from lightft.reports.pictures.svg import drawn, tip
from lightft.wording import MISSING, p_value_words, percent_words, signed_words

__all__ = ["difference_picture"]

_COLOUR_OF = {"better": COLOURS[0], "worse": COLOURS[1], "cannot tell": MUTED}


def difference_picture(comparison: Comparison) -> Picture | None:
    """Return each method against the baseline, or the best against each other; None without intervals."""
    word = lines_word(comparison)
    if comparison.baseline is not None:
        differences = _against_the_baseline(comparison, comparison.baseline)
        against = f"Each of the other {word} minus the baseline {comparison.baseline}"
    else:
        best = comparison.ranked_methods()[0].name
        differences = comparison.differences_of(best)
        against = f"{best}, the best of the {word}, minus each other"
    shown = [one for one in differences if is_drawable(one.interval)][:MOST_LINES]
    if not shown:
        return None
    metric = comparison.metric(comparison.headline)
    caption = (
        f"{against}, in {metric.directed_name}, with paired {percent_words(comparison.level)} intervals. Filled: better or "
        f"worse; hollow: the test set cannot tell. {_shapes(shown)}"
        + not_drawn(len(differences) - len(shown), "differences")
    )
    return Picture("Differences", caption, (drawn("difference", caption, lambda: _draw(comparison, shown, metric)),))


def _against_the_baseline(comparison: Comparison, baseline: str) -> list[MethodDifference]:
    """Return the differences of the other methods from the baseline, the best method first."""
    places = {method.name: place for place, method in enumerate(comparison.ranked_methods())}
    differences = [difference.turned() for difference in comparison.differences_of(baseline)]
    return sorted(differences, key=lambda difference: places[difference.a])


def _shapes(differences: Sequence[MethodDifference]) -> str:
    square = "several seeds of both, so that the verdict is about the methods"
    dot = "single runs, of one side or both, so that the verdict is about these runs and not about how they were made"
    kinds = {one.several_seeds for one in differences}
    if len(kinds) > 1:
        return f"Square: {square}. Dot: {dot}."
    return f"Of {square if True in kinds else dot}."


def _draw(comparison: Comparison, differences: Sequence[MethodDifference], metric: MetricInfo) -> Figure:
    canvas = list_canvas(len(differences))
    axes = canvas.subplots()
    axes.axvline(0, color=MUTED, linewidth=1, zorder=1)
    names = names_of(comparison, NAME_WIDTH - 2)
    lines = [
        Line(
            f"− {names[one.b]}" if comparison.baseline is None else names[one.a],
            signed_words(one.difference, metric.unit),
        )
        for one in differences
    ]
    for one, height in zip(differences, list_lines(axes, lines), strict=True):
        _draw_one(axes, one, metric, height)
    axes.set_xlabel(f"difference in {metric.directed_name}")
    return canvas


def _draw_one(axes: Axes, one: MethodDifference, metric: MetricInfo, height: int) -> None:
    colour, words = _COLOUR_OF[one.verdict], _words(one, metric)
    draw_interval(axes, height, one.interval, colour, words)
    axes.plot(
        one.difference,
        height,
        linestyle="none",
        marker="s" if one.several_seeds else "o",
        markersize=7,
        # A hollow mark hides the line behind it.
        markerfacecolor=PAGE if one.verdict == "cannot tell" else colour,
        markeredgecolor=colour,
        markeredgewidth=1.6,
        **tip(words),
    )


def _words(one: MethodDifference, metric: MetricInfo) -> str:
    p = p_value_words(one.adjusted_p_value)
    parts = [
        f"{one.a} minus {one.b}: {signed_words(one.difference, metric.unit)} {interval_words(one.interval, metric.unit)}",
        *([] if p == MISSING else [f"adjusted {p}"]),
        one.verdict,
        "about the methods" if one.several_seeds else "about these runs",
    ]
    return ", ".join(parts)
