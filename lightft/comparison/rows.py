"""A run as a row of the comparison: its scores, cost, settings, and how well each label was found."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lightft.comparison.records import ComparisonRow, Score
from lightft.metrics import (
    confusion_matrix,
    labels_of,
    per_label_table,
    precision_recall_curve,
    reliability_bins,
    roc_curve,
)
from lightft.metrics.span_errors import span_errors
from lightft.records import Prediction, Run

__all__ = ["chosen_settings", "flat_settings", "row_of"]

# As many as the metric calibration_error has, so that a diagram's error is the metric's.
_CONFIDENCE_BINS = 15


def row_of(
    run: Run, scores: Mapping[str, Score], labels: Sequence[str], *, seen: Collection[str] | None = None
) -> ComparisonRow:
    """Return the row of a run.

    Args:
        run: with gold answers.
        scores: by metric.
        labels: of all runs; a text answer is a class only where there are some, for a table of every answer that a
            language model wrote would be no table.
        seen: strings of the entities in the training data, case folded; None where they are not known.
    """
    tagged = not isinstance(run.predictions[0].gold, str)
    classified = not tagged and bool(labels)
    positive = _positive_class(run.predictions, labels) if classified else None
    return ComparisonRow(
        name=run.name,
        scores=scores,
        cost={key: value for key, value in run.cost.items() if value is not None},
        settings=flat_settings(run),
        seed=run.seed,
        labels=tuple(per_label_table(run.predictions, labels)) if tagged or classified else (),
        confusion=confusion_matrix(run.predictions, labels) if classified else None,
        roc=roc_curve(run.predictions, positive) if positive is not None else (),
        history=tuple(run.history),
        environment=run.environment,
        precision_recall=precision_recall_curve(run.predictions, positive) if positive is not None else (),
        reliability=reliability_bins(run.predictions, _CONFIDENCE_BINS) if classified else (),
        span_errors=span_errors(run.predictions, labels, seen) if tagged else None,
    )


def flat_settings(run: Run) -> dict[str, Any]:
    """Return model, adapter and training settings by dotted name, such as ``adapter.r``; those that are None are absent."""
    return {**_flat("model", run.model), **_flat("adapter", run.adapter), **_flat("training", run.training)}


def chosen_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that make a method what it is: not its seed, where it was written, and what came of its training.

    A learning rate that was chosen by trials is left out too: each method has its own, so that none is handicapped.
    """
    by_trials = any(name.startswith(_TRIALS) for name in settings)
    return {
        name: value
        for name, value in settings.items()
        if name not in _NOT_CHOSEN
        and not name.startswith(_TRIALS)
        and not (by_trials and name == "training.learning_rate")
    }


_NOT_CHOSEN = frozenset({"model.seed", "training.seed", "training.output_dir", "training.best_epoch", "training.steps"})

_TRIALS = "training.rate_chosen_from"


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


def _positive_class(predictions: Sequence[Prediction], labels: Sequence[str]) -> str | None:
    """Return the second of two classes; None where there are more, or where one has no probability."""
    classes = labels_of(predictions, labels)
    if len(classes) != 2:
        return None
    positive = classes[1]
    if any(one.probabilities is None or positive not in one.probabilities for one in predictions):
        return None
    return positive
