"""The comparison as Markdown: tables for a README, a merge request or an issue."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lightft.comparison import Comparison, MetricInfo, Score
from lightft.comparison.words import COST_HEADINGS, cost_words, interval_words, seed_group_words
from lightft.reports.method import how_it_was_measured
from lightft.reports.report import REPORTS
from lightft.wording import p_value_cell, printable, score_words, signed_words


@REPORTS.register("md")
def markdown(comparison: Comparison) -> str:
    """Return the finding, tables of scores, cost and differences, warnings, notes, and how it was measured."""
    headline = comparison.metric(comparison.headline)
    blocks = [f"# {_escaped(comparison.task)}: {len(comparison.rows)} runs compared", _escaped(comparison.finding)]
    blocks += [f"> **Warning:** {_escaped(warning)}" for warning in comparison.warnings]
    blocks += ["## Scores", _table(_score_lines(comparison)), "## Cost", _table(_cost_lines(comparison))]
    if comparison.differences:
        blocks += [f"## Differences in {_escaped(headline.name)}", _table(_difference_lines(comparison))]
    if comparison.seed_groups:
        blocks += ["## Seeds", _bullets(seed_group_words(group, headline) for group in comparison.seed_groups)]
    blocks += [
        "## How it was measured",
        _bullets(f"{term}: {words}" for term, words in how_it_was_measured(comparison)),
    ]
    if comparison.notes:
        blocks += ["## Notes", _bullets(comparison.notes)]
    return "\n\n".join(blocks) + "\n"


def _score_lines(comparison: Comparison) -> list[list[str]]:
    lines = [["run", *(metric.directed_name for metric in comparison.metrics)]]
    for row in comparison.ranked():
        lines.append([row.name, *(_score_cell(row.scores[metric.name], metric) for metric in comparison.metrics)])
    return lines


def _score_cell(score: Score, metric: MetricInfo) -> str:
    return f"{score_words(score.value, metric.unit)} {interval_words(score.interval, metric.unit)}"


def _cost_lines(comparison: Comparison) -> list[list[str]]:
    heading = ["run", *COST_HEADINGS.values()]
    return [heading, *([row.name, *cost_words(row.cost).values()] for row in comparison.ranked())]


def _difference_lines(comparison: Comparison) -> list[list[str]]:
    unit = comparison.metric(comparison.headline).unit
    lines = [["run", "against", "difference", "interval", "p", "p adjusted", "verdict"]]
    for difference in comparison.differences:
        lines.append(
            [
                difference.a,
                difference.b,
                signed_words(difference.difference, unit),
                interval_words(difference.interval, unit),
                p_value_cell(difference.p_value),
                p_value_cell(difference.adjusted_p_value),
                difference.verdict,
            ]
        )
    return lines


def _table(lines: Sequence[Sequence[str]]) -> str:
    alignment = ["---", *["---:"] * (len(lines[0]) - 1)]
    rows = [[_escaped(cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (rows[0], alignment, *rows[1:]))


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {_escaped(sentence)}" for sentence in sentences)


# Underscores between letters or digits mean nothing in Markdown, and metric names read better without backslashes.
_SPECIAL = re.compile(r"[\\`*|<>\[\]#~&!$]|(?<![^\W_])_|_(?![^\W_])")


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is, on one line; links and addresses stay dead."""
    shown = _SPECIAL.sub(lambda match: f"\\{match[0]}", printable(text))
    return re.sub(r"(?i)\b(https?|ftp|www)(?=[:.])", lambda match: f"{match[0]}\u200b", shown)
