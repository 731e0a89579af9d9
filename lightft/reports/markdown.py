"""The comparison as Markdown: tables for a README, a merge request or an issue."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lightft.comparison import ComparedExample, Comparison
from lightft.comparison.entity_tables import entity_kind_table, entity_type_table
from lightft.comparison.tables import (
    Cell,
    Heading,
    Table,
    cost_table,
    difference_table,
    method_table,
    other_counts_table,
    score_table,
)
from lightft.records import Target
from lightft.reports.method import how_it_was_measured, versions_of
from lightft.reports.report import REPORTS
from lightft.wording import printable


@REPORTS.register("md")
def markdown(comparison: Comparison) -> str:
    """Return the finding, tables of methods, differences, runs and cost, warnings, notes, and how it was measured."""
    blocks = [f"# {escaped(comparison.task)}: {len(comparison.rows)} runs compared", _line(comparison.finding)]
    blocks += [f"> **Warning:** {_line(warning)}" for warning in comparison.warnings]
    blocks += _section("Methods", method_table(comparison))
    blocks += _section(f"Differences in {comparison.headline}", difference_table(comparison))
    if comparison.notes:
        blocks += ["## What the numbers do not say", _bullets(comparison.notes)]
    blocks += _section("Runs", score_table(comparison))
    blocks += _section("What became of the entities", entity_kind_table(comparison))
    blocks += _section("Entities by type", entity_type_table(comparison))
    blocks += _section("F1 as others count it", other_counts_table(comparison))
    blocks += _section("Cost", cost_table(comparison))
    if comparison.examples:
        blocks += ["## Examples", *map(_example, comparison.examples)]
    facts = [*how_it_was_measured(comparison), *versions_of(comparison)]
    blocks += ["## How it was measured", _bullets(f"{term}: {words}" for term, words in facts)]
    return "\n\n".join(blocks) + "\n"


def _section(title: str, table: Table | None) -> list[str]:
    if table is None:
        return []
    alignment = ["---:" if heading.numeric else "---" for heading in table.headings]
    lines = [[_cell(cell) for cell in cells] for cells in table.lines]
    drawn = "\n".join(f"| {' | '.join(cells)} |" for cells in (lines[0], alignment, *lines[1:]))
    return [f"## {escaped(title)}", drawn, *([_line(table.caption)] if table.caption else [])]


def _cell(cell: Cell | Heading) -> str:
    text = escaped(cell.on_one_line)
    return f"**{text}**" if isinstance(cell, Cell) and cell.strong else text


def _example(example: ComparedExample) -> str:
    lines = [("text", example.text), ("gold", _answer(example.text, example.gold))]
    lines += [(name, _answer(example.text, answer)) for name, answer in example.predicted.items()]
    return f"### {escaped(example.id)}\n\n{_bullets(f'{who}: {words}' for who, words in lines)}"


def _answer(text: str, answer: Target) -> str:
    if isinstance(answer, str):
        return answer
    return "; ".join(f"{text[span.start : span.end]} ({span.label})" for span in answer) or "no entity"


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {_line(sentence)}" for sentence in sentences)


def _line(text: str) -> str:
    """Return text that begins a line: no list, heading or rule begins with it either."""
    return re.sub(r"^(\d{1,9})(?=[.)])|^(?=[-+=])", r"\1\\", escaped(text))


# Underscores between letters or digits mean nothing in Markdown, and metric names read better without backslashes.
_SPECIAL = re.compile(r"[\\`*|<>\[\]#~&!$]|(?<![^\W_])_|_(?![^\W_])")
# What forges turn into links and calls on people without any mark-up: addresses, mail addresses, @names.
_LINKED = re.compile(r"(?i)(?<=https)(?=:)|(?<=http)(?=:)|(?<=ftp)(?=:)|(?<=www)(?=\.)|(?<=@)(?=\w)")


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is, on one line; links and addresses stay dead."""
    return _SPECIAL.sub(lambda match: f"\\{match[0]}", _LINKED.sub("\u200b", printable(text)))
