"""How pictures look: colours, shapes and dashes of the methods, axes, legend, and the size of the drawing."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lightft.comparison import Comparison, Method
from lightft.wording import printable

__all__ = [
    "COLOURS",
    "HALO",
    "INK",
    "MUTED",
    "PAGE",
    "PAGE_COLOURS",
    "RULE",
    "SETTINGS",
    "WIDTH",
    "Style",
    "add_legend",
    "chosen_methods",
    "name_methods",
    "names_of",
    "new_canvas",
    "plain_axes",
    "short",
    "short_names",
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
    "font.size": 10.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "axes.edgecolor": RULE,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 10,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 10,
}


WIDTH = 4.4
"""Of a picture in inches: narrow, so that its text is still large enough on a phone that shows it 300 pixels wide."""


@dataclass(frozen=True)
class Style:
    """How a method is drawn. ``label`` is its entry in a legend; None beyond the palette."""

    colour: str
    shape: str
    dash: Any
    label: str | None

    @property
    def marker(self) -> dict[str, Any]:
        """The mark of the method, as keywords of ``Axes.plot``."""
        size = 7 if self.label is not None else 5
        return {
            "color": self.colour,
            "marker": self.shape,
            "markersize": size,
            "markeredgewidth": 0,
            "linestyle": "none",
        }

    @property
    def dot(self) -> dict[str, Any]:
        """The small dot of one run among several seeds, as keywords of ``Axes.plot``."""
        # The rim tells dots on a line of their own colour apart.
        return {
            "color": self.colour,
            "marker": "o",
            "markersize": 5.5,
            "markeredgecolor": PAGE,
            "markeredgewidth": 0.9,
            "linestyle": "none",
        }


def chosen_methods(comparison: Comparison, most: int = len(COLOURS)) -> list[Method]:
    """Return at most so many methods, two or more, the best first; the baseline is always among them."""
    ranked = comparison.ranked_methods()
    baseline = [method for method in ranked[most:] if method.name == comparison.baseline]
    return [*ranked[: most - len(baseline)], *baseline]


def styles_of(comparison: Comparison) -> dict[str, Style]:
    """Return how each method is drawn, by its name, the same in every picture.

    Methods beyond the palette are small grey dots without an entry in the legend.
    """
    names = names_of(comparison, 30)
    styles = {name: Style(MUTED, "o", "-", label=None) for name in names}
    looks = zip(COLOURS, _SHAPES, _DASHES, strict=True)
    for method, (colour, shape, dash) in zip(chosen_methods(comparison), looks, strict=False):
        styles[method.name] = Style(colour, shape, dash, label=names[method.name])
    return styles


def names_of(comparison: Comparison, most: int) -> dict[str, str]:
    """Return the name of each method in at most about ``most`` letters, the same in every picture."""
    return short_names([method.name for method in comparison.methods], most)


def short_names(names: Sequence[str], most: int) -> dict[str, str]:
    """Return each name in at most about ``most`` letters that tell it from the others.

    Where one is too long, what all begin or end with is left out; names that still look the same are numbered.
    """
    shown = {name: printable(name) for name in names}
    if len(shown) > 1 and any(_width(text) > most for text in shown.values()):
        start = _shared_words([*shown.values()])
        rest = [text[start:] for text in shown.values()]
        end = _shared_words([text[::-1] for text in rest])
        shown = {
            name: f"{'…' if start else ''}{text[: len(text) - end]}{'…' if end else ''}"
            for name, text in zip(shown, rest, strict=True)
        }
    return _numbered(_told_apart(shown, most))


def _told_apart(names: Mapping[str, str], most: int) -> dict[str, str]:
    """Return each text in at most ``most`` letters; of those that would look the same, the part where they differ."""
    short_texts = {name: short(text, most) for name, text in names.items()}
    for text in dict.fromkeys(short_texts.values()):
        alike = {name: names[name] for name, other in short_texts.items() if other == text}
        if len(alike) > 1:
            start = _shared_words([*alike.values()])
            end = _shared_words([full[start:][::-1] for full in alike.values()])
            for name, full in alike.items():
                middle = short(full[start : len(full) - end], most // 2)
                head = full[: most - len(middle) - 2] + "…" if start + len(middle) >= most else full[:start]
                short_texts[name] = short(f"{head}{middle}", most - 1) + ("…" if end else "")
    return short_texts


def _numbered(names: Mapping[str, str]) -> dict[str, str]:
    texts = [*names.values()]
    return {
        name: f"{text} ({texts[: place + 1].count(text)})" if texts.count(text) > 1 else text
        for place, (name, text) in enumerate(names.items())
    }


def _shared_words(texts: Sequence[str]) -> int:
    """Return how many letters all texts begin with, up to the last mark between words."""
    columns = takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    shared = [letters[0] for letters in columns]
    return max((place for place, letter in enumerate(shared, start=1) if letter in "-_ ./=(,+"), default=0)


def short(text: str, most: int = 24) -> str:
    """Return text no wider than ``most`` letters, the middle left out of longer ones: names differ at their ends."""
    text = printable(text)
    if _width(text) <= most:
        return text
    start, end = text[: most // 2], text[-(most - 1 - most // 2) :]
    # Letters of some scripts are twice as wide.
    while _width(start) + _width(end) >= most:
        start, end = start[:-1], end[1:]
    return f"{start.rstrip()}…{end.lstrip()}"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def new_canvas(height: float, width: float = WIDTH) -> Figure:
    """Return an empty canvas; sizes in inches, of which each is 72 units of the SVG."""
    return Figure(figsize=(width, height), layout="constrained")


def plain_axes(axes: Axes, grid: Literal["x", "y", "both"]) -> None:
    """Leave of the axes a grid and the lines where it begins."""
    for side in ("top", "right", *(("left",) if grid == "x" else ())):
        axes.spines[side].set_visible(False)
    axes.grid(axis=grid)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)


def name_methods(canvas: Figure, styles: Iterable[Style], *, as_lines: bool = False) -> None:
    """Name methods above the picture, by their marks or by their lines; those beyond the palette have no name."""
    handles = {}
    for style in styles:
        if style.label is not None:
            look = {"color": style.colour, "linestyle": style.dash, "linewidth": 1.8} if as_lines else style.marker
            handles[style.label] = Line2D([], [], **look)
    add_legend(canvas, handles)


def add_legend(canvas: Figure, handles: Mapping[str, Artist]) -> None:
    """Say above the picture what is drawn how, in the order given."""
    if handles:
        widths = [_width(label) for label in handles]
        half = math.ceil(len(widths) / 2)
        columns = 2 if max(widths[:half]) + max(widths[half:], default=0) <= 36 else 1
        # The legend shall not take from the height of the axes.
        canvas.set_figheight(canvas.get_figheight() + 0.2 * math.ceil(len(handles) / columns))
        canvas.legend(
            [*handles.values()],
            [*handles],
            loc="outside upper left",
            ncols=columns,
            borderpad=0,
            handlelength=1.8,
            columnspacing=1.5,
        )
