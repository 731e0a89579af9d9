"""Share of generated answers that are the gold answer."""

from __future__ import annotations

from dataclasses import dataclass

from lightft.metrics.metric import METRICS, ShareRight


@METRICS.register("exact_match")
@dataclass(frozen=True)
class ExactMatch(ShareRight):
    """Share of answers equal to the gold answer once runs of white space are one space and the ends are stripped."""

    name: str = "exact_match"

    def is_right(self, gold: str, predicted: str) -> bool:
        """Say whether the words are the same, in the same order."""
        return gold.split() == predicted.split()
