"""What several rows of tokens begin with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

__all__ = ["common_prefix"]


def common_prefix(rows: Sequence[Sequence[int]]) -> list[int]:
    """Return the tokens, or bytes, that all rows begin with; none where there are no rows."""
    columns = zip(*rows, strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
