"""Scores per class or entity type, confusion matrices, curves and reliability, for tables and pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lightft.errors import DataError, InvalidSettingError, suggest
from lightft.metrics.calibration_error import bin_of_confidence, confidence_of
from lightft.metrics.metric import Array, gold_and_predicted_spans, gold_and_predicted_text
from lightft.records import Prediction
from lightft.spans import split_tag

__all__ = [
    "ConfusionMatrix",
    "LabelScore",
    "ReliabilityBin",
    "confusion_matrix",
    "labels_of",
    "per_label_table",
    "precision_recall_curve",
    "reliability_bins",
    "roc_curve",
    "score_of_counts",
]


@dataclass(frozen=True)
class LabelScore:
    """How well one class or entity type was found.

    Attributes:
        label: the class or type.
        precision: right / predicted; ``nan`` where it was never predicted.
        recall: right / support; ``nan`` where it is never gold.
        f1: 2 right / (predicted + support); ``nan`` where it is neither.
        support: how often it is gold.
        predicted: how often it was predicted.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


@dataclass(frozen=True)
class ConfusionMatrix:
    """How often each class was taken for each.

    Attributes:
        labels: the classes.
        counts: ``counts[gold][predicted]``, by position among the labels.
        other: for each gold class, how many answers were none of the labels.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    other: tuple[int, ...]


@dataclass(frozen=True)
class ReliabilityBin:
    """Answers of about the same confidence, and how many of them are right.

    Attributes:
        low: lower end of the bin.
        high: upper end.
        examples: how many answers have a confidence in it; none are right in an empty one.
        confidence: their mean probability; ``nan`` where there are none.
        accuracy: share that is right; ``nan`` where there are none.
    """

    low: float
    high: float
    examples: int
    confidence: float
    accuracy: float


def labels_of(predictions: Iterable[Prediction], labels: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the classes or entity types: those given, in their order, then what else occurs, sorted.

    Args:
        predictions: what to look through. Of classes only gold ones are added, for a language model may answer
            anything; of entity types predicted ones too.
        labels: classes, entity types, or BIO tags (recognised by ``"O"`` among them).
    """
    known = [split_tag(label)[1] for label in labels if label != "O"] if "O" in labels else list(labels)
    seen: set[str] = set()
    for prediction in predictions:
        if isinstance(prediction.gold, str):
            seen.add(prediction.gold)
            continue
        predicted = () if isinstance(prediction.predicted, str) else prediction.predicted
        seen.update(span.label for span in (*(prediction.gold or ()), *predicted))
    return tuple(dict.fromkeys([*known, *sorted(seen)]))


def per_label_table(predictions: Sequence[Prediction], labels: Sequence[str] = ()) -> list[LabelScore]:
    """Return precision, recall and F1 of every class or entity type (strict spans).

    Labels that are not given but occur follow the given ones, so that the table holds every gold answer.

    Raises:
        DataError: a prediction has no gold answer.
    """
    right: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    support: Counter[str] = Counter()
    for prediction in predictions:
        if isinstance(prediction.gold, str):
            gold_class, predicted_class = gold_and_predicted_text(prediction, "per-label scores")
            right[gold_class] += gold_class == predicted_class
            predicted[predicted_class] += 1
            support[gold_class] += 1
        else:
            gold_spans, predicted_spans = gold_and_predicted_spans(prediction, "per-label scores")
            right.update(span.label for span in gold_spans & predicted_spans)
            predicted.update(span.label for span in predicted_spans)
            support.update(span.label for span in gold_spans)
    return [
        score_of_counts(label, right[label], predicted[label], support[label])
        for label in labels_of(predictions, labels)
    ]


def score_of_counts(label: str, right: int, predicted: int, support: int) -> LabelScore:
    """Return precision, recall and F1 of how often a label was found, predicted and gold."""
    return LabelScore(
        label=label,
        precision=_ratio(right, predicted),
        recall=_ratio(right, support),
        f1=_ratio(2 * right, predicted + support),
        support=support,
        predicted=predicted,
    )


def confusion_matrix(predictions: Sequence[Prediction], labels: Sequence[str] = ()) -> ConfusionMatrix:
    """Count how often each class was taken for each. Equals ``sklearn.metrics.confusion_matrix`` on the labels.

    Raises:
        DataError: the predictions are no classes.
    """
    labels = labels_of(predictions, labels)
    position = {label: number for number, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels) + 1), dtype=int)
    for prediction in predictions:
        gold, predicted = gold_and_predicted_text(prediction, "confusion matrix")
        counts[position[gold], position.get(predicted, len(labels))] += 1
    return ConfusionMatrix(
        labels=labels,
        counts=tuple(tuple(row) for row in counts[:, :-1].tolist()),
        other=tuple(counts[:, -1].tolist()),
    )


def roc_curve(predictions: Sequence[Prediction], positive: str) -> tuple[tuple[float, float], ...]:
    """Return the corners of one class's ROC curve: (false positive rate, true positive rate), (0, 0) to (1, 1).

    Empty where a prediction has no probabilities, or where the class or its opposite is never gold.

    Raises:
        DataError: ``positive`` is none of the classes with a probability.
    """
    hits, alarms = _hits_and_alarms(predictions, positive)
    if not hits.size or not hits[-1] or not alarms[-1]:
        return ()
    rates = zip((alarms / alarms[-1]).tolist(), (hits / hits[-1]).tolist(), strict=True)
    return ((0.0, 0.0), *rates)


def precision_recall_curve(predictions: Sequence[Prediction], positive: str) -> tuple[tuple[float, float], ...]:
    """Return the corners of one class's precision-recall curve: (recall, precision), from (0, 1) to recall 1.

    One corner for each distinct probability, as the threshold falls; the first, (0, 1), stands for a threshold that
    nothing reaches. Equals ``sklearn.metrics.precision_recall_curve``, which lists the corners from the other end. Empty
    where a prediction has no probabilities, or where the class is never gold.

    Raises:
        DataError: ``positive`` is none of the classes with a probability.
    """
    hits, alarms = _hits_and_alarms(predictions, positive)
    if not hits.size or not hits[-1]:
        return ()
    corners = zip((hits / hits[-1]).tolist(), (hits / (hits + alarms)).tolist(), strict=True)
    return ((0.0, 1.0), *corners)


def reliability_bins(predictions: Sequence[Prediction], bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """Return how often answers of each confidence are right: bins of equal width from 0 to 1, empty ones too.

    Confidence is the probability of the predicted class, in bins ``(low, high]`` as in the metric ``calibration_error``,
    which is the mean of |accuracy − confidence| weighted by examples, over 15 bins. Empty where a prediction has no
    probability of its answer.

    Raises:
        InvalidSettingError: there is to be less than one bin.
        DataError: a prediction has no gold answer, or its answers are spans.
    """
    if bins < 1:
        raise InvalidSettingError(f"bins is {bins}; confidence takes at least 1 bin. Use 10 or 15.")
    totals = np.zeros((bins, 3))
    for prediction in predictions:
        gold, predicted = gold_and_predicted_text(prediction, "reliability")
        confidence = confidence_of(prediction)
        if confidence is None:
            return ()
        totals[bin_of_confidence(confidence, bins)] += 1, confidence, gold == predicted
    return tuple(
        ReliabilityBin(
            number / bins, (number + 1) / bins, int(answers), _ratio(confidences, answers), _ratio(right, answers)
        )
        for number, (answers, confidences, right) in enumerate(totals.tolist())
    )


def _hits_and_alarms(predictions: Sequence[Prediction], positive: str) -> tuple[Array, Array]:
    """Return how many examples reach each distinct probability of a class, from the highest down: of it, and of others.

    Both are empty where a prediction has no probabilities.
    """
    scores = []
    for prediction in predictions:
        if prediction.probabilities is None:
            return np.empty(0), np.empty(0)
        if positive not in prediction.probabilities:
            raise DataError(
                f"There are no probabilities of {positive!r}. {suggest(positive, prediction.probabilities)}"
            )
        scores.append(prediction.probabilities[positive])
    is_positive = np.array([prediction.gold == positive for prediction in predictions], dtype=bool)
    order = np.argsort(scores)[::-1]
    ends = np.diff(np.array(scores)[order], append=np.nan) != 0
    return np.cumsum(is_positive[order], dtype=float)[ends], np.cumsum(~is_positive[order], dtype=float)[ends]


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")
