"""Numbers as people read them: ``9 min 12 s``, ``0.31 M``, ``p < 0.001``, and ``–`` for what is missing."""

from __future__ import annotations

import math

__all__ = [
    "MISSING",
    "count_words",
    "duration_words",
    "p_value_cell",
    "p_value_words",
    "percent_words",
    "printable",
    "printable_letters",
    "score_words",
    "signed_words",
    "size_words",
]

MISSING = "–"
"""Stands where there is no value."""

_MINUS = "\N{MINUS SIGN}"


def score_words(value: float | None, unit: str = "fraction") -> str:
    """Return a score: three decimals for a fraction, four significant digits for anything else."""
    if value is None or math.isnan(value):
        return MISSING
    text = f"{value:.3f}" if unit == "fraction" or 0.1 <= abs(value) < 10 else f"{value:,.4g}"
    return text.replace("-", _MINUS) if float(text.replace(",", "")) else text.removeprefix("-")


def signed_words(value: float | None, unit: str = "fraction") -> str:
    """Return a difference, always with its sign: ``+0.013``, ``−0.002``."""
    text = score_words(value, unit)
    return text if text == MISSING or text.startswith(_MINUS) else f"+{text}"


def p_value_words(p: float) -> str:
    """Return ``p = 0.031`` or ``p < 0.001``."""
    words = p_value_cell(p)
    if words == MISSING:
        return MISSING
    return f"p {words}" if words.startswith("<") else f"p = {words}"


def p_value_cell(p: float) -> str:
    """Return ``0.031`` or ``< 0.001``, for a column that is headed p."""
    if math.isnan(p):
        return MISSING
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def percent_words(share: float) -> str:
    """Return a share of one as a percentage with as many digits as tell something: ``1.4 %``, ``95 %``."""
    return f"{100 * share:.3g} %"


def count_words(count: float | None) -> str:
    """Return a count: ``872``, ``3,453``, ``0.31 M``, ``22.7 M``, ``6.74 B``."""
    if count is None or math.isnan(count):
        return MISSING
    if count < 100_000:
        return f"{count:,.0f}"
    scale, letter = (1e9, "B") if count >= 999.5e6 else (1e6, "M")
    scaled = count / scale
    decimals = 2 if scaled < 10 else 1 if scaled < 100 else 0
    return f"{scaled:.{decimals}f} {letter}"


def duration_words(seconds: float | None) -> str:
    """Return a duration: ``0.4 s``, ``38 s``, ``9 min 12 s``, ``2 h 5 min``."""
    if seconds is None or math.isnan(seconds):
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def size_words(size: float | None) -> str:
    """Return a number of bytes in decimal units: ``920 B``, ``1.3 MB``, ``1.2 GB``."""
    if size is None or math.isnan(size):
        return MISSING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= 0.9995 * scale:
            scaled = size / scale
            return f"{scaled:.1f} {unit}" if scaled < 99.95 else f"{scaled:,.0f} {unit}"
    return f"{size:.0f} B"


def printable(text: str) -> str:
    """Return ``text`` on one line, with U+FFFD for what no page should show: see ``printable_letters``."""
    return printable_letters(" ".join(text.split()))


def printable_letters(text: str) -> str:
    """Return ``text`` letter by letter, its white space kept, with U+FFFD for what no page should show.

    That is control characters, lone surrogates, and the bidirectional embeddings, overrides and isolates, with which a
    name could turn around the text that follows it.
    """
    return "".join(letter if _is_shown(letter) else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _is_shown(letter: str) -> bool:
    code = ord(letter)
    if letter in "\n\r\t":
        return True
    if code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or code & 0xFFFE == 0xFFFE:
        return False
    return not (0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069)
