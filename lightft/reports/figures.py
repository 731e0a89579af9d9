"""Pictures of a comparison as SVG: scores, differences, labels, learning curves, quality against cost."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lightft.comparison import Comparison, ComparisonRow, MetricInfo
from lightft.metrics import ConfusionMatrix
from lightft.reports.report import REPORTS
from lightft.wording import (
    MISSING,
    percent_words,
    printable,
    score_words,
    signed_words,
    size_words,
)

__all__ = ["Picture", "draw_pictures", "scores_svg"]


@dataclass(frozen=True)
class Picture:
    """One picture, or a few small ones that belong together.

    Attributes:
        title: a heading.
        caption: what is drawn, and what was left out.
        drawings: ``<svg>`` elements; text and lines take the colour of the text around them.
    """

    title: str
    caption: str
    drawings: tuple[str, ...]


@REPORTS.register("svg")
def scores_svg(comparison: Comparison) -> str:
    """Return one picture of every run's score in every metric, as a file of its own."""
    return _drawn("scores", f"Scores of {len(comparison.rows)} runs", lambda: _score_panels(comparison)) + "\n"


def draw_pictures(comparison: Comparison) -> list[Picture]:
    """Return the pictures that the comparison has data for."""
    candidates = [
        _scores(comparison),
        _differences(comparison),
        _labels(comparison),
        _confusions(comparison),
        _roc(comparison),
        _curves(comparison, "train_loss", "Training loss", "Loss of the training batches by step."),
        _validation(comparison),
        *(_against_cost(comparison, *cost) for cost in _COSTS),
    ]
    return [picture for picture in candidates if picture is not None]


# ---- what is drawn ----

_MOST_ROWS = 24
_MOST_LABELS = 24
_MOST_CELLS = 12
_MOST_MATRICES = 4


def _scores(comparison: Comparison) -> Picture | None:
    metric = comparison.metric(comparison.headline)
    rows = _defined(comparison.ranked(), metric)
    if not rows:
        return None
    shown = rows[:_MOST_ROWS]
    caption = (
        f"{_directed(metric)}, with {percent_words(comparison.level)} intervals over the examples of the test set."
    )
    svg = _drawn("score", f"{metric.name} of each run", lambda: _score_canvas(comparison, shown, metric))
    return Picture("Scores", caption + _left_out(len(rows) - len(shown), "runs"), (svg,))


def _score_canvas(comparison: Comparison, rows: Sequence[ComparisonRow], metric: MetricInfo) -> Figure:
    canvas = _canvas(0.75 + 0.34 * len(rows))
    _dots_and_whiskers(canvas.subplots(), comparison, rows, metric)
    return canvas


def _score_panels(comparison: Comparison) -> Figure:
    rows = comparison.ranked()
    canvas = _canvas((0.9 + 0.3 * len(rows)) * len(comparison.metrics))
    panels = canvas.subplots(len(comparison.metrics), 1, squeeze=False)[:, 0]
    for axes, metric in zip(panels, comparison.metrics, strict=True):
        _dots_and_whiskers(axes, comparison, rows, metric)
    return canvas


def _dots_and_whiskers(axes: Axes, comparison: Comparison, rows: Sequence[ComparisonRow], metric: MetricInfo) -> None:
    styles = _styles(comparison)
    values = [row.scores[metric.name].value for row in _defined(rows, metric)]
    best = (max if metric.higher_is_better else min)(values, default=math.nan)
    for place, row in enumerate(rows):
        score, height = row.scores[metric.name], len(rows) - place
        style = styles[row.name]
        if not math.isfinite(score.value):
            axes.text(0.01, height, MISSING, color=_MUTED, va="center", transform=axes.get_yaxis_transform())
            continue
        if score.interval is not None and math.isfinite(score.interval.low) and math.isfinite(score.interval.high):
            axes.plot([score.interval.low, score.interval.high], [height] * 2, color=style.colour, linewidth=2)
        axes.plot(score.value, height, **style.marker)
        axes.annotate(
            score_words(score.value, metric.unit),
            (1.01, height),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            fontweight="bold" if score.value == best else "normal",
        )
    axes.set_yticks(range(len(rows), 0, -1), [_short(row.name) for row in rows])
    axes.set_ylim(0.4, len(rows) + 0.6)
    axes.set_xlabel(_directed(metric))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
    _plain_axes(axes, "x")


def _differences(comparison: Comparison) -> Picture | None:
    if comparison.baseline:
        chosen = [*comparison.differences]
        against = f"Each run minus the baseline {comparison.baseline}"
    else:
        best = comparison.ranked()[0].name
        chosen = comparison.differences_of(best)
        against = f"{best}, the best run, minus each other run"
    drawable = [one for one in chosen if one.interval is not None and math.isfinite(one.interval.low)]
    if not drawable:
        return None
    metric = comparison.metric(comparison.headline)
    shown = drawable[:_MOST_ROWS]
    caption = (
        f"{against}, in {metric.name}, with paired {percent_words(comparison.level)} intervals. Filled: better or "
        "worse; hollow: the test set cannot tell."
    )

    def canvas() -> Figure:
        drawn = _canvas(0.75 + 0.5 * len(shown))
        axes = drawn.subplots()
        axes.axvline(0, color=_MUTED, linewidth=1)
        for place, one in enumerate(shown):
            height = len(shown) - place
            colour = {"better": _COLOURS[0], "worse": _COLOURS[1], "cannot tell": _MUTED}[one.verdict]
            face = "none" if one.verdict == "cannot tell" else colour
            if one.interval is not None:
                axes.plot([one.interval.low, one.interval.high], [height] * 2, color=colour, linewidth=2, zorder=1)
            if face == "none":
                axes.plot(one.difference, height, "o", markersize=7, color=_PAGE, zorder=2)
            axes.plot(
                one.difference,
                height,
                "o",
                markersize=7,
                markerfacecolor=face,
                markeredgecolor=colour,
                markeredgewidth=1.6,
                zorder=3,
            )
            axes.text(
                0,
                height + 0.3,
                f"{_short(one.a, 26)} − {_short(one.b, 26)}",
                transform=axes.get_yaxis_transform(),
                bbox=_HALO,
            )
            axes.annotate(
                signed_words(one.difference, metric.unit),
                (1.01, height),
                xycoords=axes.get_yaxis_transform(),
                va="center",
            )
        axes.set_yticks([])
        axes.set_ylim(0.5, len(shown) + 0.75)
        axes.set_xlabel(f"difference in {metric.name}")
        axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
        _plain_axes(axes, "x")
        return drawn

    svg = _drawn("difference", caption, canvas)
    return Picture("Differences", caption + _left_out(len(drawable) - len(shown), "differences"), (svg,))


def _labels(comparison: Comparison) -> Picture | None:
    supports = {score.label: score.support for score in comparison.rows[0].labels}
    if not supports:
        return None
    rows = _one_of_a_kind(comparison, 4 if len(supports) > 8 else len(_COLOURS))
    frequent = sorted(supports, key=lambda label: -supports[label])
    shown = frequent[:_MOST_LABELS]
    caption = "F1 of each label, the most frequent first; in brackets how many gold answers have it."
    caption += _left_out(len(frequent) - len(shown), "labels") + _left_out(len(comparison.rows) - len(rows), "runs")

    def canvas() -> Figure:
        drawn = _canvas(1.0 + (0.15 + 0.045 * len(rows)) * len(shown))
        axes = drawn.subplots()
        styles = _styles(comparison)
        heights = {label: len(shown) - place for place, label in enumerate(shown)}
        step = 0.7 / max(len(rows), 4)
        for place, row in reversed([*enumerate(rows)]):
            known = [score for score in row.labels if score.label in heights and math.isfinite(score.f1)]
            lower = (place - (len(rows) - 1) / 2) * step
            axes.plot(
                [score.f1 for score in known],
                [heights[score.label] - lower for score in known],
                linestyle="none",
                **styles[row.name].marker,
                clip_on=False,
                label=styles[row.name].label,
            )
        axes.set_yticks(list(heights.values()), [f"{_short(label)} ({supports[label]:,})" for label in shown])
        axes.set_ylim(0.4, len(shown) + 0.6)
        axes.set_xlim(0, 1)
        axes.set_xlabel("F1")
        _plain_axes(axes, "both")
        _legend(drawn)
        return drawn

    return Picture("Labels", caption, (_drawn("labels", caption, canvas),))


def _confusions(comparison: Comparison) -> Picture | None:
    rows = _one_of_a_kind(comparison, _MOST_MATRICES)
    matrices = [(row.name, row.confusion) for row in rows if row.confusion is not None]
    matrices = [(name, matrix) for name, matrix in matrices if 1 < len(matrix.labels) <= _MOST_CELLS]
    if not matrices:
        return None
    caption = (
        "How often each gold class (row) was taken for each class (column); the stronger the colour, the larger its "
        "share of the row."
    )
    drawings = tuple(
        _drawn(f"confusion-{place}", f"Confusion matrix of {name}", partial(_confusion_canvas, name, matrix))
        for place, (name, matrix) in enumerate(matrices)
    )
    return Picture("Confusions", caption + _left_out(len(comparison.rows) - len(matrices), "runs"), drawings)


def _confusion_canvas(name: str, matrix: ConfusionMatrix) -> Figure:
    counts, labels = matrix.counts, [_short(label, 14) for label in matrix.labels]
    others = matrix.other if any(matrix.other) else ()
    table = [[*line, *others[place : place + 1]] for place, line in enumerate(counts)]
    columns = [*labels, "other"] if others else labels
    small = len(columns) <= 4
    cell = 0.55 if small else 0.4
    canvas = _canvas(1.3 + cell * len(labels), width=2.8 if small else _WIDTH)
    axes = canvas.subplots()
    for y, line in enumerate(table):
        total = sum(line)
        for x, count in enumerate(line):
            share = count / total if total else 0.0
            axes.add_patch(
                Rectangle((x + 0.02, y + 0.02), 0.96, 0.96, color=_COLOURS[0], alpha=0.04 + 0.5 * share, linewidth=0)
            )
            axes.text(
                x + 0.5, y + 0.5, f"{count:,}", ha="center", va="center", fontweight="bold" if x == y else "normal"
            )
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(labels), 0)
    axes.set_xticks(
        [x + 0.5 for x in range(len(columns))], columns, rotation=0 if small else 45, ha="center" if small else "right"
    )
    axes.set_yticks([y + 0.5 for y in range(len(labels))], labels)
    axes.set_title(_short(name), loc="left", fontweight="bold")
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    return canvas


def _roc(comparison: Comparison) -> Picture | None:
    rows = [row for row in _one_of_a_kind(comparison, len(_COLOURS)) if row.roc]
    if not rows:
        return None
    positive = rows[0].labels[1].label
    caption = f"ROC curves of the class {positive}: what share of it is found, at what share of false alarms."
    caption += _left_out(len(comparison.rows) - len(rows), "runs")

    def canvas() -> Figure:
        drawn = _canvas(4.0)
        axes = drawn.subplots()
        axes.plot([0, 1], [0, 1], color=_RULE, linewidth=1)
        for row in rows[::-1]:
            points = np.array(row.roc)
            points = points[:: max(1, len(points) // 400)] if len(points) > 400 else points
            style = _styles(comparison)[row.name]
            axes.plot(
                *np.vstack([points, [[1, 1]]]).T,
                color=style.colour,
                linestyle=style.dash,
                linewidth=1.6,
                label=style.label,
            )
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
        axes.set_xlabel("false positive rate")
        axes.set_ylabel("true positive rate")
        _plain_axes(axes, "both")
        _legend(drawn)
        return drawn

    return Picture("ROC curves", caption, (_drawn("roc", caption, canvas),))


def _validation(comparison: Comparison) -> Picture | None:
    keys = [key for row in comparison.rows for step in row.history for key in step if key.startswith("validation_")]
    if not keys:
        return None
    headline = f"validation_{comparison.headline}"
    key = headline if headline in keys else keys[0]
    metric = key.removeprefix("validation_")
    return _curves(comparison, key, f"Validation {metric}", f"{metric} on the validation split by step.")


def _curves(comparison: Comparison, key: str, title: str, caption: str) -> Picture | None:
    curves = {row.name: _steps(row.history, key) for row in _coloured(comparison)}
    curves = {name: steps for name, steps in curves.items() if len(steps)}
    if not curves:
        return None
    few = max(map(len, curves.values())) <= 30
    averaged = any(len(steps) > _MOST_POINTS for steps in curves.values())

    def canvas() -> Figure:
        drawn = _canvas(2.9)
        axes = drawn.subplots()
        styles = _styles(comparison)
        for name, steps in reversed(curves.items()):
            style = styles[name]
            x, y = _thinned(steps).T
            dots = style.marker if few else {"color": style.colour}
            axes.plot(x, y, **dots, linestyle=style.dash, linewidth=1.6, label=style.label)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
        _plain_axes(axes, "y")
        _legend(drawn)
        return drawn

    caption += " Long curves are averaged over neighbouring steps." if averaged else ""
    caption += _left_out(len(comparison.rows) - len(curves), "runs")
    return Picture(title, caption, (_drawn(key.replace("_", "-"), caption, canvas),))


def _against_cost(
    comparison: Comparison,
    key: str,
    title: str,
    words: Callable[[float], str],
    scale_of: Callable[[float], float],
) -> Picture | None:
    metric = comparison.metric(comparison.headline)
    rows = [row for row in _defined(comparison.ranked(), metric) if row.cost.get(key)]
    if len({row.cost[key] for row in rows}) < 2:
        return None
    caption = f"{_directed(metric)} against {title.lower()}, with {percent_words(comparison.level)} intervals."
    caption += _left_out(len(comparison.rows) - len(rows), "runs")
    logarithmic = max(row.cost[key] for row in rows) > 20 * min(row.cost[key] for row in rows)

    def canvas() -> Figure:
        drawn = _canvas(3.1)
        axes = drawn.subplots()
        styles = _styles(comparison)
        for row in rows[::-1]:
            style, score = styles[row.name], row.scores[metric.name]
            if score.interval is not None and math.isfinite(score.interval.low):
                axes.plot(
                    [row.cost[key]] * 2, [score.interval.low, score.interval.high], color=style.colour, linewidth=1.6
                )
            axes.plot(row.cost[key], score.value, linestyle="none", **style.marker, label=style.label)
        axes.margins(x=0.1)
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(ticker.LogLocator(numticks=5))
            axes.xaxis.set_minor_locator(ticker.NullLocator())
        else:
            low, high = axes.get_xlim()
            scale = scale_of(high)
            axes.set_xticks([tick * scale for tick in ticker.MaxNLocator(4).tick_values(low / scale, high / scale)])
            axes.set_xlim(low, high)
        axes.xaxis.set_major_formatter(lambda value, _: words(value) if value >= 0 else "")
        axes.set_xlabel(title.lower() + (" (logarithmic)" if logarithmic else ""))
        axes.set_ylabel(metric.name)
        _plain_axes(axes, "both")
        _legend(drawn)
        return drawn

    return Picture(f"Quality and {title.lower()}", caption, (_drawn(key.replace("_", "-"), caption, canvas),))


def _tick_duration(seconds: float) -> str:
    for unit, scale in (("h", 3600), ("min", 60)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds:.3g} s"


def _duration_scale(longest: float) -> float:
    return 3600 if longest > 7200 else 60 if longest > 120 else 1


def _tick_count(count: float) -> str:
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.3g}"


def _power_of_ten(largest: float) -> float:
    return float(10 ** math.floor(math.log10(largest)))


# Key in Run.cost, title, words of a tick, and the unit in which ticks are round numbers on an axis up to some value.
_COSTS: tuple[tuple[str, str, Callable[[float], str], Callable[[float], float]], ...] = (
    ("trainable_parameters", "Trainable parameters", _tick_count, _power_of_ten),
    ("train_seconds", "Training time", _tick_duration, _duration_scale),
    ("peak_memory_bytes", "Peak memory", size_words, _power_of_ten),
)


# ---- data for it ----

_MOST_POINTS = 200


def _defined(rows: Sequence[ComparisonRow], metric: MetricInfo) -> list[ComparisonRow]:
    return [row for row in rows if math.isfinite(row.scores[metric.name].value)]


def _coloured(comparison: Comparison) -> list[ComparisonRow]:
    """Return the runs that have a colour of the palette, the best first."""
    styles = _styles(comparison)
    return [row for row in comparison.ranked() if styles[row.name].colour != _MUTED]


def _one_of_a_kind(comparison: Comparison, most: int) -> list[ComparisonRow]:
    """Return at most so many runs, the best first, one of those that differ in the seed alone."""
    styles = _styles(comparison)
    return [row for row in comparison.ranked() if styles[row.name].label is not None][:most]


def _steps(history: Sequence[Mapping[str, Any]], key: str) -> np.ndarray[Any, Any]:
    points = [
        (row["step"], row[key])
        for row in history
        if row.get(key) is not None and row.get("step") is not None and math.isfinite(row[key])
    ]
    return np.array(sorted(points), dtype=np.float64)


def _thinned(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if len(points) <= _MOST_POINTS:
        return points
    return np.array([bin_.mean(axis=0) for bin_ in np.array_split(points, _MOST_POINTS)])


def _directed(metric: MetricInfo) -> str:
    return metric.name if metric.higher_is_better else f"{metric.name} (lower is better)"


def _left_out(number: int, what: str) -> str:
    return f" Not drawn: {number} {what.removesuffix('s') if number == 1 else what}." if number else ""


def _short(text: str, most: int = 24) -> str:
    """Return text of at most ``most`` characters, the middle left out of longer ones: names differ at their ends."""
    text = printable(text)
    if len(text) <= most:
        return text
    return f"{text[: most // 2].rstrip()}…{text[-(most - 1 - most // 2) :].lstrip()}"


# ---- how it looks ----

_WIDTH = 5.4  # inches; 1 inch is 72 units of the SVG

# Stand-ins that the SVG's own colours replace, so that a page can be light or dark.
_INK, _MUTED, _RULE, _PAGE = "#010203", "#040506", "#070809", "#0a0b0c"

# Okabe and Ito's palette, told apart with any colour vision; shapes and dashes say the same again.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
_SHAPES = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1.5, 1)), (0, (3, 1)), (0, (1, 0.6)), (0, (6, 2, 1, 2, 1, 2)))

_SVG_COLOURS = {
    _INK: "currentColor",
    _MUTED: "var(--muted, #666)",
    _RULE: "var(--rule, #ddd)",
    _PAGE: "var(--page, #fff)",
    **{colour: f"var(--series-{place}, {colour})" for place, colour in enumerate(_COLOURS, start=1)},
}

# Behind text that a line would cross.
_HALO = {"facecolor": _PAGE, "edgecolor": "none", "pad": 1.0}

_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "font.size": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.edgecolor": _RULE,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9.5,
    "grid.color": _RULE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True)
class _Style:
    """How a run is drawn. ``label`` is its entry in the legend: None where a better run like it has the entry."""

    colour: str
    shape: str
    dash: Any
    label: str | None

    @property
    def marker(self) -> dict[str, Any]:
        return {"color": self.colour, "marker": self.shape, "markersize": 7, "markeredgewidth": 0}


def _styles(comparison: Comparison) -> dict[str, _Style]:
    """Return how each run is drawn, the same in every picture.

    Runs that differ in the seed alone look the same and share an entry in the legend. Runs beyond the palette are
    small grey dots without one.
    """
    group_of = {name: group.name for group in comparison.seed_groups for name in group.runs}
    palette = zip(_COLOURS, _SHAPES, _DASHES, strict=True)
    looks: dict[str, tuple[str, str, Any]] = dict(zip(_kinds(comparison), palette, strict=False))
    styles: dict[str, _Style] = {}
    with_entry: set[str] = set()
    for row in comparison.ranked():
        kind = group_of.get(row.name, row.name)
        if kind in looks:
            styles[row.name] = _Style(*looks[kind], label=None if kind in with_entry else _short(kind))
            with_entry.add(kind)
        else:
            styles[row.name] = _Style(_MUTED, ".", "-", label=None)
    return styles


def _kinds(comparison: Comparison) -> list[str]:
    """Return the names that the legend may show, the best first: of seed groups, and of runs that are in none."""
    group_of = {name: group.name for group in comparison.seed_groups for name in group.runs}
    return list(dict.fromkeys(group_of.get(row.name, row.name) for row in comparison.ranked()))


def _plain_axes(axes: Axes, grid: str) -> None:
    for side in ("top", "right", *(("left",) if grid == "x" else ())):
        axes.spines[side].set_visible(False)
    axes.grid(axis=grid)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)


def _legend(canvas: Figure) -> None:
    # Runs are drawn from the worst to the best, so that the best lies on top; the legend reads from the best down.
    canvas.legend(loc="outside upper left", ncols=2, reverse=True, borderpad=0, handlelength=1.8, columnspacing=1.5)


def _canvas(height: float, width: float = _WIDTH) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


# ---- SVG ----


def _drawn(identity: str, description: str, draw: Callable[[], Figure]) -> str:
    """Return what ``draw`` draws as one ``<svg>`` element whose ids begin with ``identity``."""
    file = io.StringIO()
    with _matplotlib_settings(identity):
        draw().savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _cleaned(file.getvalue(), identity, description)


@contextmanager
def _matplotlib_settings(identity: str) -> Iterator[None]:
    # A reader's own matplotlibrc must not change the report. matplotlib types its settings' names one by one.
    defaults: Any = matplotlib.rcParamsDefault
    settings: Any = {**defaults, **_SETTINGS, "svg.hashsalt": f"lightft-{identity}"}
    del settings["backend"]
    with warnings.catch_warnings(), matplotlib.rc_context(settings):
        # Text stays text, so that the reader's fonts draw what matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


_SVG_NAME = re.compile(r"\{http://www\.w3\.org/2000/svg\}")
_LINK_NAME = "{http://www.w3.org/1999/xlink}href"


def _cleaned(svg: str, identity: str, description: str) -> str:
    """Return matplotlib's SVG with page colours, unique ids, the page's font, and no metadata or style sheet."""
    # Only attributes that matplotlib wrote are rewritten; names of runs and labels are text and stay as they are.
    root = ElementTree.fromstring(svg)  # noqa: S314 (matplotlib wrote it, names escaped)
    for parent in root.iter():
        for child in [*parent]:
            if _SVG_NAME.sub("", child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _SVG_NAME.sub("", element.tag)
        attributes = dict(element.attrib)
        element.attrib.clear()
        for name, value in attributes.items():
            element.set(*_cleaned_attribute(name, value, identity))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.set("role", "img")
    root.set("aria-label", printable(description))
    root.set("stroke-linejoin", "round")
    root.set("font-family", "system-ui, sans-serif")
    return ElementTree.tostring(root, encoding="unicode")


def _cleaned_attribute(name: str, value: str, identity: str) -> tuple[str, str]:
    if name == _LINK_NAME:
        return "href", value.replace("#", f"#{identity}-", 1)
    if name == "id":
        return name, f"{identity}-{value}"
    value = re.sub(r"url\(#", f"url(#{identity}-", value)
    if name in ("style", "fill", "stroke"):
        value = re.sub(r"#[0-9a-f]{6}", lambda colour: _SVG_COLOURS.get(colour[0], colour[0]), value)
        value = re.sub(r"font: ((?:bold |\d+ )?)([\d.]+px) [^;]*", _font, value)
        value = re.sub(r"font-family: [^;]*;? ?", "", value)
    return name, value


def _font(match: re.Match[str]) -> str:
    weight = match[1].strip()
    return f"font-size: {match[2]}" + (f"; font-weight: {weight}" if weight else "")
