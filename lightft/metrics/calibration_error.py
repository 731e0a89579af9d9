"""How far confidence is from accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightft.metrics.metric import METRICS, Array, divide, gold_and_predicted_text
from lightft.records import Prediction

__all__ = ["CalibrationError", "bin_of_confidence", "confidence_of"]

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
        confidence = confidence_of(prediction)
        if confidence is None:
            return (float("nan"),) * row.size
        row[:, bin_of_confidence(confidence, _BINS)] = 1, confidence, gold == predicted
        return tuple(row.ravel())

    def score(self, totals: Array) -> Array:
        """Sum over bins of |right answers − confidences|, over the number of answers."""
        answers, confidences, right = np.moveaxis(totals.reshape(*totals.shape[:-1], 3, _BINS), -2, 0)
        return divide(np.abs(right - confidences).sum(axis=-1), answers.sum(axis=-1))


def confidence_of(prediction: Prediction) -> float | None:
    """Return the probability of the predicted class; None where the prediction has none."""
    if prediction.probabilities is None or not isinstance(prediction.predicted, str):
        return None
    return prediction.probabilities.get(prediction.predicted)


def bin_of_confidence(confidence: float, bins: int) -> int:
    """Return the number, from 0, of the bin ``(b / bins, (b + 1) / bins]`` that a confidence is in; 0 is in the first."""
    return max(int(np.ceil(confidence * bins)) - 1, 0)
