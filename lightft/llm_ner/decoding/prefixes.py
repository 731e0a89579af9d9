"""What several rows of tokens begin with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

__all__ = ["common_prefix", "shared_beginning"]


def common_prefix(rows: Sequence[Sequence[int]]) -> list[int]:
    """Return the tokens, or bytes, that all rows begin with; none where there are no rows."""
    columns = zip(*rows, strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


def shared_beginning(prompts: Sequence[Sequence[int]], max_length: int) -> list[int]:
    """Return what the prompts begin with that a model of so many tokens can read, without the last token of any."""
    readable = [prompt[:-1] for prompt in prompts if len(prompt) < max_length]
    # What a single prompt begins with would have nobody to share it.
    return common_prefix(readable) if len(readable) > 1 else []
