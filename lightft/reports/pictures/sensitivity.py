"""Pictures of what one setting does: the headline score against it, of methods that are alike in all others."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightft.comparison import Comparison, Method, MetricInfo
from lightft.comparison.rows import chosen_settings
from lightft.reports.pictures.listing import NAME_WIDTH, Line, list_canvas, list_lines
from lightft.reports.pictures.picture import MOST_LINES, Picture, lines_word, not_drawn, runs_of
from lightft.reports.pictures.scores import draw_method, draw_method_at
from lightft.reports.pictures.style import MUTED, name_methods, names_of, new_canvas, plain_axes, short, styles_of
from lightft.reports.pictures.svg import drawn
from lightft.wording import percent_words, score_words

__all__ = ["sensitivity_pictures"]

_NUMERIC = ("adapter.r", "adapter.dropout", "training.learning_rate")
_CATEGORICAL = ("adapter.targets", "adapter.bias", "model.quantization")


@dataclass(frozen=True)
class _Setting:
    """A method and the value that its setting has."""

    method: Method
    value: Any


# Methods that differ in one setting alone, in the order of its values.
_Group = list[_Setting]


def sensitivity_pictures(comparison: Comparison) -> list[Picture]:
    """Return the headline score against each setting in which methods differ that are otherwise alike."""
    pictures = [_numeric_picture(comparison, name) for name in _NUMERIC]
    pictures += [_categorical_picture(comparison, name) for name in _CATEGORICAL]
    return [picture for picture in pictures if picture is not None]


def _numeric_picture(comparison: Comparison, name: str) -> Picture | None:
    groups = _groups(comparison, name)
    if not groups:
        return None
    metric = comparison.metric(comparison.headline)
    caption = (
        f"{metric.directed_name} by {name}, with {percent_words(comparison.level)} intervals. A line joins methods that "
        f"differ in {name} alone{_but_alpha(name)}." + _others(comparison, groups)
    )
    svg = drawn(_identity(name), caption, lambda: _draw_numeric(comparison, groups, metric, name))
    return Picture(f"Sensitivity to {name}", caption, (svg,))


def _categorical_picture(comparison: Comparison, name: str) -> Picture | None:
    groups = _groups(comparison, name)
    if not groups:
        return None
    shown: list[_Group] = []
    for group in groups:
        if sum(map(len, shown)) + len(group) <= MOST_LINES:
            shown.append(group)
    metric = comparison.metric(comparison.headline)
    caption = (
        f"{metric.directed_name} by {name}, with {percent_words(comparison.level)} intervals. Methods below each other "
        f"without a rule between them differ in {name} alone." + _others(comparison, shown)
    )
    svg = drawn(_identity(name), caption, lambda: _draw_categorical(comparison, shown, metric, name))
    return Picture(f"Sensitivity to {name}", caption, (svg,))


def _identity(name: str) -> str:
    return f"by-{name.replace('.', '-').replace('_', '-')}"


def _but_alpha(name: str) -> str:
    return ", or in adapter.alpha in proportion" if name == "adapter.r" else ""


def _others(comparison: Comparison, groups: Sequence[_Group]) -> str:
    shown = {one.method.name for group in groups for one in group}
    return not_drawn(len(comparison.methods) - len(shown), lines_word(comparison))


def _groups(comparison: Comparison, name: str) -> list[_Group]:
    """Return the methods with a score in groups of two or more that differ in nothing but the setting ``name``."""
    alike: dict[str, _Group] = {}
    for method in comparison.methods:
        chosen = chosen_settings(runs_of(comparison, method)[0].settings)
        if not math.isfinite(method.mean) or (name in _NUMERIC and name not in chosen) or not chosen:
            continue
        for rest in _all_but(name, chosen):
            alike.setdefault(rest, []).append(_Setting(method, chosen.get(name, "none")))
    # Equal values of one setting, and all else alike: the methods differ in what is no setting, such as their data.
    told_apart = [group for group in alike.values() if len({str(one.value) for one in group}) == len(group) > 1]
    return [sorted(group, key=_order) for group in told_apart]


def _all_but(name: str, settings: dict[str, Any]) -> list[str]:
    """Return what methods share that differ in ``name`` alone; of a rank, also with alpha in proportion to it."""
    rest = {key: value for key, value in settings.items() if key != name}
    shared = [json.dumps(rest, sort_keys=True, default=str)]
    if name == "adapter.r" and "adapter.alpha" in rest:
        in_proportion = {**rest, "adapter.alpha": f"{rest['adapter.alpha'] / settings[name]} per rank"}
        shared.append(json.dumps(in_proportion, sort_keys=True, default=str))
    return shared


def _order(one: _Setting) -> tuple[float, str]:
    is_number = isinstance(one.value, int | float)
    return (float(one.value) if is_number else 0.0, str(one.value))


def _draw_numeric(comparison: Comparison, groups: Sequence[_Group], metric: MetricInfo, name: str) -> Figure:
    canvas = new_canvas(2.6)
    axes = canvas.subplots()
    styles = styles_of(comparison)
    settings = {one.method.name: one for group in groups for one in group}
    for group in groups:
        axes.plot(
            [one.value for one in group], [one.method.mean for one in group], color=MUTED, linewidth=1.2, zorder=1
        )
    for one in settings.values():
        draw_method_at(axes, comparison, one.method, metric, float(one.value), f"{name} {one.value:g}")
    _set_numeric_axis(axes, sorted({float(one.value) for one in settings.values()}))
    axes.set_xlabel(name)
    axes.set_ylabel(metric.directed_name)
    plain_axes(axes, "both")
    name_methods(canvas, [styles[method.name] for method in comparison.ranked_methods() if method.name in settings])
    return canvas


def _set_numeric_axis(axes: Axes, values: Sequence[float]) -> None:
    axes.margins(x=0.12)
    if min(values) > 0 and max(values) >= 4 * min(values):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(ticker.NullLocator())
    if len(values) <= 6:
        axes.set_xticks(values)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _draw_categorical(comparison: Comparison, groups: Sequence[_Group], metric: MetricInfo, name: str) -> Figure:
    settings = [one for group in groups for one in group]
    canvas = list_canvas(len(settings))
    axes = canvas.subplots()
    names = names_of(comparison, NAME_WIDTH // 2)
    lines = [
        Line(
            f"{short(_value_words(one.value), NAME_WIDTH // 2)}: {names[one.method.name]}",
            score_words(one.method.mean, metric.unit),
        )
        for one in settings
    ]
    heights = list_lines(axes, lines)
    for one, height in zip(settings, heights, strict=True):
        draw_method(axes, height, comparison, one.method, metric)
    bottom = len(settings) + 0.64
    for group in groups[:-1]:
        bottom -= len(group)
        axes.axhline(bottom, color=MUTED, linewidth=0.8)
    axes.set_xlabel(metric.directed_name)
    return canvas


def _value_words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
