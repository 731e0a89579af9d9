"""How far confidence is from accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightft.metrics.metric import METRICS, Array, divide, gold_and_predicted_text
from lightft.records import Prediction

_BINS = 15


@METRICS.register("calibration_error")
@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error: the mean over answers of |accuracy − mean confidence| of their confidence bin.

    Confidence is the probability of the predicted class, in 15 bins of equal width ``((b − 1) / 15, b / 15]``
    (Guo et al. 2017, arXiv:1706.04599). A run without probabilities has no calibration error.
    """

    name: str = "calibration_error"
    unit: str = "fraction"
    higher_is_better: bool = False

    def counts(self, prediction: Prediction) -> tuple[float, ...]:
        """Return 3 × 15 counts: answers, sum of confidences and right answers of each bin."""
        gold, predicted = gold_and_predicted_text(prediction, self.name)
        row = np.zeros((3, _BINS))
        if prediction.probabilities is None or predicted not in prediction.probabilities:
            return (float("nan"),) * row.size
        confidence = prediction.probabilities[predicted]
        row[:, max(int(np.ceil(confidence * _BINS)) - 1, 0)] = 1, confidence, gold == predicted
        return tuple(row.ravel())

    def score(self, totals: Array) -> Array:
        """Sum over bins of |right answers − confidences|, over the number of answers."""
        answers, confidences, right = np.moveaxis(totals.reshape(*totals.shape[:-1], 3, _BINS), -2, 0)
        return divide(np.abs(right - confidences).sum(axis=-1), answers.sum(axis=-1))
