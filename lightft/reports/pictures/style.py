"""How pictures look: colours, shapes and dashes of the runs, axes, legend, and the size of the drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightft.comparison import Comparison, ComparisonRow
from lightft.wording import printable

__all__ = [
    "COLOURS",
    "HALO",
    "MUTED",
    "PAGE",
    "PAGE_COLOURS",
    "RULE",
    "SETTINGS",
    "Style",
    "add_legend",
    "coloured_runs",
    "new_canvas",
    "one_run_per_kind",
    "plain_axes",
    "short",
    "styles_of",
]

# Stand-ins that the SVG's own colours replace, so that a page can be light or dark.
INK, MUTED, RULE, PAGE = "#010203", "#040506", "#070809", "#0a0b0c"

# Okabe and Ito's palette, told apart with any colour vision; shapes and dashes say the same again.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
_SHAPES = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1.5, 1)), (0, (3, 1)), (0, (1, 0.6)), (0, (6, 2, 1, 2, 1, 2)))

PAGE_COLOURS = {
    INK: "currentColor",
    MUTED: "var(--muted, #666)",
    RULE: "var(--rule, #ddd)",
    PAGE: "var(--page, #fff)",
    **{colour: f"var(--series-{place}, {colour})" for place, colour in enumerate(COLOURS, start=1)},
}

# Behind text that a line would cross.
HALO = {"facecolor": PAGE, "edgecolor": "none", "pad": 1.0}

SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "font.size": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.edgecolor": RULE,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9.5,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True)
class Style:
    """How a run is drawn. ``label`` is its entry in the legend: None where a better run like it has the entry."""

    colour: str
    shape: str
    dash: Any
    label: str | None

    @property
    def marker(self) -> dict[str, Any]:
        """The dot of the run, as keywords of ``Axes.plot``."""
        return {"color": self.colour, "marker": self.shape, "markersize": 7, "markeredgewidth": 0}


def styles_of(comparison: Comparison) -> dict[str, Style]:
    """Return how each run is drawn, the same in every picture.

    Runs that differ in the seed alone look the same and share an entry in the legend. Runs beyond the palette are
    small grey dots without one.
    """
    group_of = {name: group.name for group in comparison.seed_groups for name in group.runs}
    ranked = comparison.ranked()
    kinds = [group_of.get(row.name, row.name) for row in ranked]
    palette = zip(COLOURS, _SHAPES, _DASHES, strict=True)
    looks: dict[str, tuple[str, str, Any]] = dict(zip(dict.fromkeys(kinds), palette, strict=False))
    styles = {}
    for place, (row, kind) in enumerate(zip(ranked, kinds, strict=True)):
        if kind in looks:
            styles[row.name] = Style(*looks[kind], label=None if kind in kinds[:place] else short(kind))
        else:
            styles[row.name] = Style(MUTED, ".", "-", label=None)
    return styles


def coloured_runs(comparison: Comparison) -> list[ComparisonRow]:
    """Return the runs that have a colour of the palette, the best first."""
    styles = styles_of(comparison)
    return [row for row in comparison.ranked() if styles[row.name].colour != MUTED]


def one_run_per_kind(comparison: Comparison, most: int) -> list[ComparisonRow]:
    """Return at most so many runs, the best first, one of those that differ in the seed alone."""
    styles = styles_of(comparison)
    return [row for row in comparison.ranked() if styles[row.name].label is not None][:most]


def short(text: str, most: int = 24) -> str:
    """Return text of at most ``most`` characters, the middle left out of longer ones: names differ at their ends."""
    text = printable(text)
    if len(text) <= most:
        return text
    return f"{text[: most // 2].rstrip()}…{text[-(most - 1 - most // 2) :].lstrip()}"


def new_canvas(height: float, width: float = 5.4) -> Figure:
    """Return an empty canvas; sizes in inches, of which each is 72 units of the SVG."""
    return Figure(figsize=(width, height), layout="constrained")


def plain_axes(axes: Axes, grid: Literal["x", "y", "both"]) -> None:
    """Leave of the axes a grid and the lines where it begins."""
    for side in ("top", "right", *(("left",) if grid == "x" else ())):
        axes.spines[side].set_visible(False)
    axes.grid(axis=grid)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)


def add_legend(canvas: Figure) -> None:
    """Name the runs above the picture."""
    # Runs are drawn from the worst to the best, so that the best lies on top; the legend reads from the best down.
    canvas.legend(loc="outside upper left", ncols=2, reverse=True, borderpad=0, handlelength=1.8, columnspacing=1.5)
