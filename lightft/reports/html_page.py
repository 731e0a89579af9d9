"""The comparison as one HTML file that opens from disk, on a phone or a desk, in light or dark, without network."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from lightft.comparison import Comparison, ComparisonRow, MetricInfo, RunDifference
from lightft.comparison.words import COST_HEADINGS, cost_words, interval_words, seed_group_words
from lightft.reports.method import how_it_was_measured, settings_in_common, settings_that_differ
from lightft.reports.pictures import draw_pictures
from lightft.reports.report import REPORTS
from lightft.wording import MISSING, p_value_cell, percent_words, printable, score_words, signed_words


@REPORTS.register("html")
def html_page(comparison: Comparison) -> str:
    """Return a self-contained page: the finding, tables, pictures, and how it was measured.

    Every text of the comparison is escaped, and the page forbids itself the network and any script but the one that
    sorts its tables.
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
    script, style = _file("page.js"), _file("page.css")
    pictures = [(one.title, one.caption, [_trusted(svg) for svg in one.drawings]) for one in draw_pictures(comparison)]
    headline = comparison.metric(comparison.headline)
    differing, settings = settings_that_differ(comparison)
    return environment.from_string(_file("page.html.jinja")).render(
        title=_title(comparison),
        comparison=comparison,
        examples=f"{comparison.test_set.examples:,}",
        level=percent_words(comparison.level),
        policy=_policy(script),
        script=_trusted(script),
        style=_trusted(style),
        score_heading=[_metric_heading(comparison, metric) for metric in comparison.metrics],
        score_rows=_score_rows(comparison),
        cost_heading=[*COST_HEADINGS.values()],
        cost_rows=_cost_rows(comparison),
        differences=[_difference_cells(one, headline) for one in comparison.differences],
        seeds=[seed_group_words(group, headline) for group in comparison.seed_groups],
        pictures=pictures,
        differing=differing,
        settings=settings,
        common=settings_in_common(comparison),
        method=how_it_was_measured(comparison),
    )


@dataclass(frozen=True)
class _Cell:
    """A cell of a table: what it shows, a smaller line below it, and the number it is sorted by (None sorts last)."""

    text: str
    below: str = ""
    value: float | None = None
    strong: bool = False


@dataclass(frozen=True)
class _Heading:
    text: str
    below: str
    headline: bool


def _title(comparison: Comparison) -> str:
    source = f" on {comparison.test_set.source}" if comparison.test_set.source else ""
    task = re.sub(r" lm$", " LM", comparison.task.replace("-", " "))
    return f"{task[:1].upper()}{task[1:]}{source}"


def _metric_heading(comparison: Comparison, metric: MetricInfo) -> _Heading:
    remarks = [] if metric.unit in ("fraction", "score", metric.name) else [metric.unit]
    remarks += [] if metric.higher_is_better else ["lower is better"]
    return _Heading(metric.name, ", ".join(remarks), metric.name == comparison.headline)


def _score_rows(comparison: Comparison) -> list[tuple[str, list[_Cell]]]:
    best = {metric.name: _best_value(comparison.rows, metric) for metric in comparison.metrics}
    rows = []
    for row in comparison.ranked():
        cells = []
        for metric in comparison.metrics:
            score = row.scores[metric.name]
            interval = interval_words(score.interval, metric.unit)
            cells.append(
                _Cell(
                    score_words(score.value, metric.unit),
                    below="" if interval == MISSING else interval,
                    value=_sortable(score.value),
                    strong=len(comparison.rows) > 1 and score.value == best[metric.name],
                )
            )
        rows.append((row.name, cells))
    return rows


def _best_value(rows: Sequence[ComparisonRow], metric: MetricInfo) -> float | None:
    values = [row.scores[metric.name].value for row in rows if not math.isnan(row.scores[metric.name].value)]
    return (max if metric.higher_is_better else min)(values, default=None)


def _cost_rows(comparison: Comparison) -> list[tuple[str, list[_Cell]]]:
    return [
        (row.name, [_Cell(words, value=_sortable(row.cost.get(key))) for key, words in cost_words(row.cost).items()])
        for row in comparison.ranked()
    ]


def _difference_cells(difference: RunDifference, metric: MetricInfo) -> dict[str, Any]:
    interval = interval_words(difference.interval, metric.unit)
    return {
        "a": difference.a,
        "b": difference.b,
        "difference": _Cell(
            signed_words(difference.difference, metric.unit),
            below="" if interval == MISSING else interval,
            value=_sortable(difference.difference),
        ),
        "p": _Cell(p_value_cell(difference.p_value), value=_sortable(difference.p_value)),
        "adjusted": _Cell(p_value_cell(difference.adjusted_p_value), value=_sortable(difference.adjusted_p_value)),
        "verdict": difference.verdict,
        "mark": "open" if difference.verdict == "cannot tell" else difference.verdict,
    }


def _trusted(markup: str) -> Markup:
    """Mark as safe what lightft wrote itself: its script, its style sheet, and drawings, whose texts are escaped."""
    return Markup(markup)  # noqa: S704


def _on_page(value: Any) -> Any:
    """Return plain text printable, with ``p = 0.01`` on one line; trusted markup and numbers as they are."""
    if type(value) is not str:
        return value
    return re.sub(r"\bp ([=<]) (?=\d)", "p\u00a0\\1\u00a0", printable(value))


def _sortable(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


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
