"""From a model's scores of a text's classes to its answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightft.reading.decoding import Array
from lightft.records import Example, Prediction

__all__ = ["classified_prediction", "log_softmax"]


def classified_prediction(example: Example, logits: Array, labels: Sequence[str]) -> Prediction:
    """Return the most probable class of an example, with the probabilities of all.

    Args:
        example: what was read.
        logits: of shape (classes,).
        labels: the classes in the order of the model's outputs.
    """
    probabilities = np.exp(log_softmax(logits))
    return Prediction(
        example.id,
        example.target,
        labels[int(probabilities.argmax())],
        probabilities=dict(zip(labels, probabilities.tolist(), strict=True)),
    )


def log_softmax(logits: Array) -> Array:
    """Return the log-probabilities of logits, over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    normalised: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normalised
