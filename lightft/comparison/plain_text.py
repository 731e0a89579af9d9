"""A comparison as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from lightft.comparison.records import Comparison
from lightft.comparison.words import COST_HEADINGS, cost_words, interval_words, seed_group_words
from lightft.wording import p_value_words, percent_words, printable, score_words, signed_words

__all__ = ["plain_text_of"]


def plain_text_of(comparison: Comparison) -> str:
    """Return the finding, a table of runs, one of differences, seeds, warnings and notes."""
    headline = comparison.metric(comparison.headline)
    blocks = [comparison.finding, _aligned(_score_table(comparison))]
    if comparison.differences:
        blocks.append(_aligned(_difference_table(comparison)))
    blocks += [seed_group_words(group, headline) for group in comparison.seed_groups]
    blocks += [f"Warning: {warning}" for warning in comparison.warnings]
    blocks += [f"Note: {note}" for note in comparison.notes]
    blocks.append(f"[low, high] are {percent_words(comparison.level)} intervals over the examples of the test set.")
    return "\n\n".join(blocks)


def _score_table(comparison: Comparison) -> list[list[str]]:
    table = [["run", *(metric.name for metric in comparison.metrics), *COST_HEADINGS.values()]]
    for row in comparison.ranked():
        cells = [printable(row.name)]
        for metric in comparison.metrics:
            cell = score_words(row.scores[metric.name].value, metric.unit)
            if metric.name == comparison.headline:
                cell += f" {interval_words(row.scores[metric.name].interval, metric.unit)}"
            cells.append(cell)
        table.append([*cells, *cost_words(row.cost).values()])
    return table


def _difference_table(comparison: Comparison) -> list[list[str]]:
    unit = comparison.metric(comparison.headline).unit
    table = [["difference", comparison.headline, "interval", "p (adjusted)", "verdict"]]
    for difference in comparison.differences:
        table.append(
            [
                printable(f"{difference.a} against {difference.b}"),
                signed_words(difference.difference, unit),
                interval_words(difference.interval, unit),
                p_value_words(difference.adjusted_p_value),
                difference.verdict,
            ]
        )
    return table


def _aligned(table: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]
    return "\n".join([lines[0], "-" * sum(widths, 2 * (len(widths) - 1)), *lines[1:]])
