"""What the contracts saw of every adapter kind, as a table in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lightft.contracts.adapter_cells import HEADS, PRECISIONS, Cell, Merged, rows_of
from lightft.contracts.watching import Seen

__all__ = ["Reasons", "cell_words", "support_table", "write_between"]


class Reasons:
    """Numbers the reasons for refusals, equal ones alike."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, reason: str) -> int:
        """Return the number of a reason, from 1 on."""
        return self._numbers.setdefault(reason, len(self._numbers) + 1)

    def lines(self) -> list[str]:
        """Return the reasons as a numbered list."""
        return [f"{number}. {reason}" for reason, number in self._numbers.items()]


def support_table(kinds: Sequence[str], words: dict[Cell, str], reasons: Reasons) -> str:
    """Return rows of kinds and heads, columns of precisions, and the reasons below.

    Args:
        kinds: registered names.
        words: what stands in each cell; a dash stands in those that were not tried.
        reasons: what the numbers in them stand for.
    """
    lines = [f"| kind | head | {' | '.join(PRECISIONS)} |", f"|---|---|{'---|' * len(PRECISIONS)}"]
    for row in rows_of(kinds):
        for head in HEADS:
            cells = [words.get(Cell(*row, head, precision), "–") for precision in PRECISIONS]
            lines.append(f"| {row[0]} | {head.replace('-', ' ')} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *reasons.lines(), ""])


def cell_words(cell: Cell, seen: Seen, merged: Merged | None, failed: bool, reasons: Reasons) -> str:
    """Return what stands in a cell: ``"yes"``, ``"refused (1)"``, ``"yes, cannot merge (2)"``, or ``"fails"``."""
    if failed:
        return "**fails**"
    if seen.refusal is not None:
        return f"refused ({reasons.number(plain_reason(seen.refusal))})"
    words = ["yes"]
    if cell.precision == "bfloat16" and seen.base_dtype != "bfloat16":
        words.append(f"held in {seen.base_dtype}")
    if merged is not None and merged.refusal is not None:
        words.append(f"cannot merge ({reasons.number(plain_reason(merged.refusal, seen.folder))})")
    return ", ".join(words)


def plain_reason(message: str, folder: Path | None = None) -> str:
    """Return a message without what is of one model or folder only."""
    if folder is not None:
        message = message.replace(f" in {folder / 'adapter'}", "")
    return re.sub(r"^'\S+' cannot be trained on this \w+: (\w)", lambda found: found[1].upper(), message)


def write_between(page: Path, name: str, text: str) -> None:
    """Put ``text`` between the lines ``<!-- NAME:start -->`` and ``<!-- NAME:end -->`` of a page."""
    between = rf"(?<=<!-- {name}:start -->\n).*(?=<!-- {name}:end -->)"
    old = page.read_text(encoding="utf-8")
    page.write_text(re.sub(between, lambda _: text, old, flags=re.DOTALL), encoding="utf-8")
