"""The comparison as one HTML file that opens from disk, on a phone or a desk, in light or dark, without network."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from lightft.comparison import Comparison
from lightft.comparison.entity_tables import entity_kind_table, entity_slice_table, entity_type_table
from lightft.comparison.tables import (
    cost_table,
    difference_table,
    method_table,
    other_counts_table,
    score_table,
)
from lightft.comparison.words import TERMS
from lightft.reports.answers import shown_examples
from lightft.reports.method import how_it_was_measured, settings_in_common, settings_that_differ, versions_of
from lightft.reports.pictures import draw_pictures
from lightft.reports.report import REPORTS
from lightft.wording import printable, printable_letters


@REPORTS.register("html")
def html_page(comparison: Comparison) -> str:
    """Return a self-contained page: the finding, tables, pictures, examples, and how it was measured.

    Every text of the comparison is escaped, and the page forbids itself the network and any script but the one that
    sorts its tables and filters its examples.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # It sees every value before it is escaped: the one place that no text gets past.
        finalize=_on_page,
    )
    environment.filters["sortable"] = _sortable
    environment.filters["running"] = _running_text
    script, style = _file("page.js"), _file("page.css")
    differing, settings = settings_that_differ(comparison)
    examples, types = shown_examples(comparison)
    return environment.from_string(_file("page.html.jinja")).render(
        title=_title(comparison),
        comparison=comparison,
        test_examples=f"{comparison.test_set.examples:,}",
        policy=_policy(script),
        script=_trusted(script),
        style=_trusted(style),
        methods=method_table(comparison),
        differences=difference_table(comparison),
        terms=TERMS,
        scores=score_table(comparison),
        pictures=[
            (one.title, one.caption, [_trusted(svg) for svg in one.drawings]) for one in draw_pictures(comparison)
        ],
        entities=_entity_tables(comparison),
        other_counts=other_counts_table(comparison),
        examples=examples,
        types=types,
        costs=cost_table(comparison),
        differing=differing,
        settings=settings,
        common=settings_in_common(comparison),
        measured=how_it_was_measured(comparison),
        versions=versions_of(comparison),
    )


def _title(comparison: Comparison) -> str:
    source = f" on {comparison.test_set.source}" if comparison.test_set.source else ""
    task = re.sub(r" lm$", " LM", comparison.task.replace("-", " "))
    return f"{task[:1].upper()}{task[1:]}{source}"


def _entity_tables(comparison: Comparison) -> list[tuple[str, Any]]:
    tables = [
        ("All entities", entity_kind_table(comparison)),
        ("By type", entity_type_table(comparison)),
        ("By length, place and novelty", entity_slice_table(comparison)),
    ]
    return [(title, table) for title, table in tables if table is not None]


def _trusted(markup: str) -> Markup:
    """Mark as safe what lightft wrote itself: its script, its style sheet, and drawings, whose texts are escaped."""
    return Markup(markup)  # noqa: S704


def _on_page(value: Any) -> Any:
    """Return plain text printable, with ``p = 0.01`` on one line; trusted markup and numbers as they are."""
    if type(value) is not str:
        return value
    return re.sub(r"\bp ([=<]) (?=\d)", "p\u00a0\\1\u00a0", printable(value))


def _running_text(text: str) -> Markup:
    """Return a text of the data, escaped, with its line breaks."""
    return escape(printable_letters(text))


def _sortable(value: float) -> str:
    """Return a number as the page's script reads it."""
    return "Infinity" if math.isinf(value) else repr(value)


def _policy(script: str) -> str:
    """Return the page's content security policy.

    Styles are inline because the drawings colour every line by a style attribute; with no source to load from, a
    style can do no more than look wrong.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _file(name: str) -> str:
    return files("lightft.reports").joinpath(name).read_text(encoding="utf-8")
