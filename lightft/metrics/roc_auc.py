"""Area under the ROC curve of the class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightft.metrics.metric import METRICS, Array, divide, gold_and_predicted_text
from lightft.records import Prediction


@METRICS.register("roc_auc")
@dataclass(frozen=True)
class RocAuc:
    """Area under the ROC curve: the chance that a positive example has a higher probability than a negative one.

    Two labels: the second is the positive one. More labels: the mean over one-against-the-rest areas of the classes
    that have gold examples. Equals ``sklearn.metrics.roc_auc_score(..., multi_class="ovr", average="macro")`` where
    that is defined. Computed from average ranks (Hanley and McNeil 1982, "The meaning and use of the area under a
    receiver operating characteristic curve").
    """

    labels: tuple[str, ...]
    name: str = "roc_auc"
    unit: str = "fraction"
    higher_is_better: bool = True

    def score(self, predictions: Sequence[Prediction]) -> float:
        """Return the area; ``nan`` without probabilities or with fewer than two gold classes."""
        table = [prediction.probabilities for prediction in predictions]
        if not table or any(row is None for row in table):
            return float("nan")
        gold = np.array([gold_and_predicted_text(prediction, self.name)[0] for prediction in predictions])
        scored = self.labels[1:] if len(self.labels) == 2 else self.labels
        probabilities = np.array([[row.get(label, 0.0) for label in scored] for row in table if row is not None])
        areas = areas_under_curve(probabilities, gold[:, None] == np.array(scored)[None, :])
        defined = areas[~np.isnan(areas)]
        return float(defined.mean()) if defined.size else float("nan")

    def positives_and_scores(self, predictions: Sequence[Prediction]) -> tuple[NDArray[np.bool_], Array]:
        """Return of two labels whether each example is positive, and its probability of being so; shapes ``(n,)``."""
        positive = self.labels[1]
        gold = np.array([gold_and_predicted_text(prediction, self.name)[0] == positive for prediction in predictions])
        return gold, np.array([(prediction.probabilities or {}).get(positive, 0.0) for prediction in predictions])


def areas_under_curve(scores: Array, positive: np.ndarray) -> Array:
    """Return the area of each column: ``(sum of the positives' ranks − p (p + 1) / 2) / (p n)``.

    Args:
        scores: shape ``(rows, columns)``; higher means more likely positive.
        positive: booleans of the same shape.

    Returns:
        Shape ``(columns,)``, ``nan`` where a column has no positive or no negative row.
    """
    positives = positive.sum(axis=0).astype(np.float64)
    negatives = len(scores) - positives
    rank_sums = np.array(
        [_average_ranks(column)[chosen].sum() for column, chosen in zip(scores.T, positive.T, strict=True)]
    )
    return divide(rank_sums - positives * (positives + 1) / 2, positives * negatives)


def _average_ranks(values: Array) -> Array:
    """Return ranks from 1, equal values sharing their mean rank."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    return (last - (sizes - 1) / 2)[group]
