r"""The comparison as LaTeX tables for a paper: ``\input`` the file; it needs the package booktabs alone."""

from __future__ import annotations

import re
import unicodedata

from lightft.comparison import Comparison
from lightft.comparison.tables import (
    Cell,
    Heading,
    Table,
    difference_table,
    method_table,
    other_counts_table,
    score_table,
)
from lightft.reports.report import REPORTS
from lightft.wording import printable


@REPORTS.register("tex")
def latex(comparison: Comparison) -> str:
    """Return tables of the methods, their differences, and the runs, with the finding above and notes below.

    Every letter of a name is written so that LaTeX prints it whatever the engine: accents as commands, and a letter that
    the standard fonts lack by its number, such as ``[U+4E2D]``.
    """
    blocks = [
        "% Tables by lightft. In the preamble: \\usepackage{booktabs}",
        _escaped(comparison.finding),
        *(_escaped(f"Warning: {warning}") for warning in comparison.warnings),
        *_table("Methods.", method_table(comparison), "methods"),
        *_table(f"Differences in {comparison.headline}.", difference_table(comparison), "differences"),
        *_table("Runs.", score_table(comparison), "runs"),
        *_table("F1 as others count it.", other_counts_table(comparison), "other-counts"),
        *(_escaped(f"Note: {note}") for note in comparison.notes),
    ]
    return "\n\n".join(blocks) + "\n"


def _table(title: str, table: Table | None, label: str) -> list[str]:
    if table is None:
        return []
    alignment = "".join("r" if heading.numeric else "l" for heading in table.headings)
    heading, *rows = (f"{' & '.join(_cell(cell) for cell in cells)} \\\\" for cells in table.lines)
    return [
        "\n".join(
            [
                r"\begin{table}[htbp]",
                r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
                f"\\caption{{{_escaped(f'{title} {table.caption}')}}}\\label{{tab:lightft-{label}}}",
                f"\\begin{{tabular}}{{@{{}}{alignment}@{{}}}}",
                r"\toprule",
                heading,
                r"\midrule",
                *rows,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
            ]
        )
    ]


def _cell(cell: Cell | Heading) -> str:
    text = _escaped(cell.on_one_line)
    if isinstance(cell, Cell) and cell.strong:
        return f"\\textbf{{{text}}}"
    # After \\, which ends the line before, these would be its arguments.
    return f"{{{text}}}" if text.startswith(("[", "*")) else text


_LETTERS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "|": r"\ensuremath{|}",
    '"': "{''}",
    "−": r"\ensuremath{-}",
    "±": r"\ensuremath{\pm}",
    "×": r"\ensuremath{\times}",
    "–": "–",
    "…": r"\ldots{}",
    "’": "'",
    "α": r"\ensuremath{\alpha}",
    "ß": r"\ss{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "å": r"\aa{}",
    "Å": r"\AA{}",
    "\u0131": r"\i{}",
}
# Stands for {} while letters are looked at one by one; no printable text has it.
_NOTHING = "\x00"
_LETTERS[_NOTHING] = "{}"

_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}


def _escaped(text: str) -> str:
    shown = unicodedata.normalize("NFC", printable(text))
    # Two of these in a row would be one letter: a dash, a quotation mark, or Spanish punctuation.
    apart = re.sub(r"(?<=[-',`?!])(?=[-',`])", _NOTHING, shown)
    return "".join(_escaped_letter(letter) for letter in apart)


def _escaped_letter(letter: str) -> str:
    if letter in _LETTERS:
        return _LETTERS[letter]
    if letter.isascii():
        return letter
    base, *accents = list(unicodedata.normalize("NFD", letter))
    if len(accents) == 1 and accents[0] in _ACCENTS and base.isascii() and base.isalpha():
        return f"\\{_ACCENTS[accents[0]]}{{{base}}}"
    return f"[U+{ord(letter):04X}]"
