"""A comparison as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from lightft.comparison.records import Comparison
from lightft.comparison.tables import Table, difference_table, method_table, other_counts_table
from lightft.comparison.words import COST_HEADINGS, cost_words, interval_words
from lightft.wording import percent_words, printable, score_words

__all__ = ["plain_text_of"]


def plain_text_of(comparison: Comparison) -> str:
    """Return the finding, tables of methods, runs and differences, warnings and notes."""
    methods, differences = method_table(comparison), difference_table(comparison)
    blocks = [printable(comparison.finding)]
    if methods:
        blocks.append(_captioned(methods))
    blocks.append(_aligned(_run_lines(comparison)))
    if differences:
        blocks.append(_captioned(differences))
    counted = other_counts_table(comparison)
    if counted:
        blocks.append(_captioned(counted))
    blocks += [printable(f"Warning: {warning}") for warning in comparison.warnings]
    blocks += [printable(f"Note: {note}") for note in comparison.notes]
    blocks.append(f"[low, high] are {percent_words(comparison.level)} intervals.")
    return "\n\n".join(blocks)


def _run_lines(comparison: Comparison) -> list[list[str]]:
    metrics = [metric for metric in comparison.metrics if metric.name not in comparison.other_counts]
    lines = [["run", *(printable(metric.name) for metric in metrics), *COST_HEADINGS.values()]]
    for row in comparison.ranked():
        cells = [printable(row.name)]
        for metric in metrics:
            cell = score_words(row.scores[metric.name].value, metric.unit)
            if metric.name == comparison.headline:
                cell += f" {interval_words(row.scores[metric.name].interval, metric.unit)}"
            cells.append(cell)
        lines.append([*cells, *cost_words(row.cost).values()])
    return lines


def _captioned(table: Table) -> str:
    lines = [[printable(cell.on_one_line) for cell in cells] for cells in table.lines]
    return f"{_aligned(lines)}\n{printable(table.caption)}"


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
