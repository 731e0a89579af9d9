"""From what matplotlib draws to an SVG element that a page can hold: its colours, its font, ids of its own, tooltips."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from lightft.reports.pictures.style import PAGE_COLOURS, SETTINGS
from lightft.wording import printable

__all__ = ["drawn", "tip"]

_TIP = "tip:"


def tip(text: str) -> dict[str, Any]:
    """Return the keyword of a matplotlib artist that gives it a tooltip."""
    return {"gid": _TIP + printable(text)}


def drawn(identity: str, description: str, draw: Callable[[], Figure]) -> str:
    """Return what ``draw`` draws as one ``<svg>`` element whose ids begin with ``identity``."""
    file = io.StringIO()
    with _matplotlib_settings(identity):
        draw().savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _cleaned(file.getvalue(), identity, description)


@contextmanager
def _matplotlib_settings(identity: str) -> Iterator[None]:
    # A reader's own matplotlibrc must not change the report. matplotlib types its settings' names one by one.
    defaults: Any = matplotlib.rcParamsDefault
    settings: Any = {**defaults, **SETTINGS, "svg.hashsalt": f"lightft-{identity}"}
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
    referred = {name for element in root.iter() for value in element.attrib.values() for name in _references(value)}
    for element in [*root.iter()]:
        element.tag = _SVG_NAME.sub("", element.tag)
        attributes = dict(element.attrib)
        element.attrib.clear()
        name = attributes.pop("id", "")
        if name.startswith(_TIP):
            element.insert(0, _title(name.removeprefix(_TIP)))
        elif name in referred:
            element.set("id", f"{identity}-{name}")
        if attributes.get("transform", "").startswith("rotate(-0 "):
            del attributes["transform"]
        for key, value in attributes.items():
            element.set(*_cleaned_attribute(key, value, identity))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.set("role", "img")
    root.set("aria-label", printable(description))
    root.set("stroke-linejoin", "round")
    root.set("font-family", "system-ui, sans-serif")
    return ElementTree.tostring(root, encoding="unicode")


def _title(text: str) -> ElementTree.Element:
    title = ElementTree.Element("title")
    title.text = text
    return title


def _references(value: str) -> list[str]:
    """Return the ids that an attribute refers to, as ``#id`` alone or as ``url(#id)``."""
    return re.findall(r"(?:^|url\()#([^)\s]+)", value)


def _cleaned_attribute(name: str, value: str, identity: str) -> tuple[str, str]:
    if name == _LINK_NAME:
        return "href", value.replace("#", f"#{identity}-", 1)
    value = re.sub(r"url\(#", f"url(#{identity}-", value)
    if name in ("d", "x", "y", "transform"):
        value = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", value)
    if name in ("style", "fill", "stroke"):
        value = re.sub(r"#[0-9a-f]{6}", lambda colour: PAGE_COLOURS.get(colour[0], colour[0]), value)
        value = re.sub(r"font: ((?:bold |\d+ )?)([\d.]+px) [^;]*", _font, value)
        value = re.sub(r"font-family: [^;]*;? ?", "", value)
    return name, value


def _font(match: re.Match[str]) -> str:
    weight = match[1].strip()
    return f"font-size: {match[2]}" + (f"; font-weight: {weight}" if weight else "")
