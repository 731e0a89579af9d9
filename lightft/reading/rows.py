"""The rows a model reads: an example, or one window of a long one."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["IGNORED", "Encoding"]

IGNORED = -100
"""The label of a position that carries no loss."""


@dataclass(frozen=True)
class Encoding:
    """One row for the model: an example, or one window of a long one.

    Attributes:
        example: position of the example in the sequence that was encoded.
        input_ids: token ids, special tokens included.
        labels: one per token (IGNORED where there is no loss), or a single class for the whole text.
        words: ``(word, token)`` pairs that this row answers, by number (token classification).
    """

    example: int
    input_ids: list[int]
    labels: list[int]
    words: tuple[tuple[int, int], ...] = ()

    @property
    def label_count(self) -> int:
        """How many positions carry loss: what the summed loss of a step is divided by."""
        return sum(label != IGNORED for label in self.labels)
