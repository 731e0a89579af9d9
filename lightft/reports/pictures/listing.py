"""Lines below each other, each with its name above it and its value at its end, so that long names fit a phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightft.reports.pictures.picture import is_drawable
from lightft.reports.pictures.style import HALO, INK, MUTED, new_canvas, plain_axes
from lightft.reports.pictures.svg import tip
from lightft.significance import Interval

__all__ = ["NAME_WIDTH", "Line", "draw_interval", "height_of", "list_canvas", "list_lines"]

NAME_WIDTH = 40
"""How many letters of a name fit above a line."""


@dataclass(frozen=True)
class Line:
    """What is written at a line.

    Attributes:
        name: above it, as it is to be shown.
        value: at its end.
        strong: whether the value is bold.
        muted: whether both are in the background, as of what has no value.
    """

    name: str
    value: str = ""
    strong: bool = False
    muted: bool = False


def list_canvas(lines: int) -> Figure:
    """Return an empty canvas for one list of so many lines."""
    return new_canvas(height_of(lines))


def height_of(lines: int) -> float:
    """Return the height in inches that a list of so many lines takes, with its axis."""
    return 0.65 + 0.42 * lines


def list_lines(axes: Axes, lines: Sequence[Line]) -> list[int]:
    """Write names and values, and return the height of each line in units of the y axis."""
    heights = [*range(len(lines), 0, -1)]
    beside_the_axes = axes.get_yaxis_transform()
    for line, height in zip(lines, heights, strict=True):
        colour = MUTED if line.muted else INK
        axes.text(
            0, height + 0.36, line.name, transform=beside_the_axes, va="center", bbox=HALO, zorder=1.5, color=colour
        )
        axes.annotate(
            line.value,
            (1.02, height),
            xycoords=beside_the_axes,
            va="center",
            fontweight="bold" if line.strong else "normal",
            color=colour,
        )
    axes.set_yticks([])
    axes.set_ylim(0.6, len(lines) + 0.7)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
    plain_axes(axes, "x")
    return heights


def draw_interval(axes: Axes, height: float, interval: Interval | None, colour: str, words: str) -> None:
    """Draw the line of an interval that has ends, with a tooltip."""
    if interval is not None and is_drawable(interval):
        axes.plot(
            [interval.low, interval.high],
            [height] * 2,
            color=colour,
            linewidth=2.2,
            solid_capstyle="butt",
            **tip(words),
        )
