"""A run as a row of the comparison: its scores, cost, settings, and how well each label was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightft.comparison.records import ComparisonRow, Score
from lightft.metrics import confusion_matrix, labels_of, per_label_table, roc_curve
from lightft.records import Prediction, Run

__all__ = ["row_of"]


def row_of(run: Run, scores: Mapping[str, Score], labels: Sequence[str]) -> ComparisonRow:
    """Return the row of a run.

    Args:
        run: with gold answers.
        scores: by metric.
        labels: of all runs; a text answer is a class only where there are some, for a table of every answer that a
            language model wrote would be no table.
    """
    tagged = not isinstance(run.predictions[0].gold, str)
    classified = not tagged and bool(labels)
    return ComparisonRow(
        name=run.name,
        scores=scores,
        cost={key: value for key, value in run.cost.items() if value is not None},
        settings={**_flat("model", run.model), **_flat("adapter", run.adapter), **_flat("training", run.training)},
        seed=run.seed,
        labels=tuple(per_label_table(run.predictions, labels)) if tagged or classified else (),
        confusion=confusion_matrix(run.predictions, labels) if classified else None,
        roc=_roc(run.predictions, labels) if classified else (),
        history=tuple(run.history),
        environment=run.environment,
    )


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        # An adapter's parameters read better as adapter.r than as adapter.params.r.
        name = prefix if key == "params" else f"{prefix}.{key}"
        if isinstance(value, Mapping):
            flat.update(_flat(name, value))
        elif value is not None:
            flat[name] = value
    return flat


def _roc(predictions: Sequence[Prediction], labels: Sequence[str]) -> tuple[tuple[float, float], ...]:
    classes = labels_of(predictions, labels)
    if len(classes) != 2:
        return ()
    positive = classes[1]
    if any(one.probabilities is None or positive not in one.probabilities for one in predictions):
        return ()
    return roc_curve(predictions, positive)
