"""Where words end, for every script: an entity never begins or ends inside one."""

from __future__ import annotations

import unicodedata

__all__ = ["are_in_one_word"]


def are_in_one_word(before: str, after: str) -> bool:
    """Say whether two neighbouring characters are of one word, as letters and digits are.

    In scripts without capitals, many of which write no spaces, every letter is a word.
    """
    return before.isalnum() and after.isalnum() and "Lo" not in (unicodedata.category(c) for c in (before, after))
