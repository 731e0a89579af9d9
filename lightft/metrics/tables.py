"""Scores per class or entity type, confusion matrices and ROC curves, for tables and pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lightft.errors import DataError, suggest
from lightft.metrics.metric import gold_and_predicted_spans, gold_and_predicted_text
from lightft.records import Prediction
from lightft.spans import split_tag

__all__ = ["ConfusionMatrix", "LabelScore", "confusion_matrix", "labels_of", "per_label_table", "roc_curve"]


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
        LabelScore(
            label=label,
            precision=_ratio(right[label], predicted[label]),
            recall=_ratio(right[label], support[label]),
            f1=_ratio(2 * right[label], predicted[label] + support[label]),
            support=support[label],
            predicted=predicted[label],
        )
        for label in labels_of(predictions, labels)
    ]


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
    scores = []
    for prediction in predictions:
        if prediction.probabilities is None:
            return ()
        if positive not in prediction.probabilities:
            raise DataError(
                f"There are no probabilities of {positive!r}. {suggest(positive, prediction.probabilities)}"
            )
        scores.append(prediction.probabilities[positive])
    is_positive = np.array([prediction.gold == positive for prediction in predictions])
    if not is_positive.any() or is_positive.all():
        return ()
    order = np.argsort(scores)[::-1]
    ends = np.append(np.diff(np.array(scores)[order]) != 0, True)
    hits = np.cumsum(is_positive[order])[ends] / is_positive.sum()
    alarms = np.cumsum(~is_positive[order])[ends] / (~is_positive).sum()
    return ((0.0, 0.0), *zip(alarms.tolist(), hits.tolist(), strict=True))


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else float("nan")
