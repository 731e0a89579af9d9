"""Share of examples with the right class."""

from __future__ import annotations

from dataclasses import dataclass

from lightft.metrics.metric import METRICS, ShareRight


@METRICS.register("accuracy")
@dataclass(frozen=True)
class Accuracy(ShareRight):
    """Accuracy: correct / examples. Equals ``sklearn.metrics.accuracy_score``."""

    name: str = "accuracy"

    def is_right(self, gold: str, predicted: str) -> bool:
        """Say whether the classes are equal."""
        return gold == predicted
