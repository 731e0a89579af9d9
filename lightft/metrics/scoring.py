"""From predictions to numbers: metrics by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lightft.metrics.evaluate_bridge import PREFIX, EvaluateMetric
from lightft.metrics.metric import METRICS, Metric, RankMetric, count_rows, make_metric
from lightft.metrics.tables import labels_of
from lightft.records import Prediction

__all__ = ["build_metric", "metrics_for", "score", "score_predictions"]


def build_metric(name: str, labels: Sequence[str] = ()) -> Metric | RankMetric:
    """Return the metric called ``name``.

    Args:
        name: a registered name, or ``"evaluate:NAME"`` for one of Hugging Face *evaluate*.
        labels: the classes or entity types of the data, for metrics that need them.

    Raises:
        UnknownNameError: nothing has that name; the message lists what has.
    """
    if name.startswith(PREFIX):
        return EvaluateMetric(name.removeprefix(PREFIX), tuple(labels))
    return make_metric(METRICS[name], labels)


def metrics_for(
    names: Sequence[str], predictions: Iterable[Prediction], labels: Sequence[str] = ()
) -> list[Metric | RankMetric]:
    """Return the metrics called ``names``, made for the labels given and those that occur in the predictions.

    Raises:
        UnknownNameError: there is no such metric.
    """
    occurring = labels_of(predictions, labels)
    # What evaluate's metrics take depends on whether there are classes at all; texts must not become classes.
    return [build_metric(name, labels if name.startswith(PREFIX) else occurring) for name in names]


def score(metric: Metric | RankMetric, predictions: Sequence[Prediction]) -> float:
    """Return the score of all predictions together, ``nan`` where it is undefined or there are none."""
    if not predictions:
        return float("nan")
    if isinstance(metric, Metric):
        return float(metric.score(count_rows(predictions, metric).sum(axis=0)))
    return metric.score(predictions)


def score_predictions(
    predictions: Sequence[Prediction], metrics: Sequence[str], labels: Sequence[str] = ()
) -> dict[str, float]:
    """Return the score under each metric, by name; ``nan`` where one is undefined.

    Args:
        predictions: with gold answers.
        metrics: registered names, or ``"evaluate:NAME"``.
        labels: classes, entity types or BIO tags of the data; what else is gold is added.

    Raises:
        UnknownNameError: there is no such metric.
        DataError: a prediction has no gold answer, or a metric is one of another task.
    """
    return {metric.name: score(metric, predictions) for metric in metrics_for(metrics, predictions, labels)}
