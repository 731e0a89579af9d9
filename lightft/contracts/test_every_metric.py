"""What every metric must keep, of whatever task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lightft.contracts.made_up_runs import classification_run, generation_run, tagging_run
from lightft.errors import DataError
from lightft.metrics import Metric, RankMetric, build_metric
from lightft.metrics.metric import count_rows
from lightft.metrics.scoring import score
from lightft.records import Prediction

RUNS = {
    "tagging": tagging_run("tagging", skill=0.6, examples=80),
    "classification": classification_run("classification", skill=0.2, examples=80, labels=("a", "b", "c")),
    "generation": generation_run("generation", skill=0.5, examples=80),
}


def suited(name: str) -> tuple[Metric | RankMetric, Sequence[Prediction]]:
    """Return the metric and predictions of the first task that it scores."""
    for run in RUNS.values():
        metric = build_metric(name, run.labels)
        try:
            value = score(metric, run.predictions)
        except DataError:
            continue
        if not math.isnan(value):
            return metric, run.predictions
    return pytest.fail(f"{name} scores none of the tasks {', '.join(RUNS)}")


def perfect(prediction: Prediction) -> Prediction:
    """Return the best answer there is to the example."""
    certain = None
    if prediction.probabilities is not None:
        certain = {label: float(label == prediction.gold) for label in prediction.probabilities}
    return replace(
        prediction,
        predicted=prediction.predicted if prediction.gold is None else prediction.gold,
        tags=None,
        probabilities=certain,
        log_likelihood=None if prediction.log_likelihood is None else 0.0,
    )


def test_perfect_predictions_have_the_best_score(metric_name: str) -> None:
    metric, predictions = suited(metric_name)
    best = score(metric, [perfect(prediction) for prediction in predictions])
    direction = 1 if metric.higher_is_better else -1
    assert direction * best > direction * score(metric, predictions)
    if metric.unit == "fraction":
        assert best == (1.0 if metric.higher_is_better else 0.0)


def test_order_of_examples_is_irrelevant(metric_name: str) -> None:
    metric, predictions = suited(metric_name)
    shuffled = [predictions[place] for place in np.random.default_rng(0).permutation(len(predictions))]
    assert score(metric, shuffled) == pytest.approx(score(metric, predictions), rel=1e-12)


def test_merging_two_halves_gives_the_whole(counting_metric_name: str) -> None:
    metric, predictions = suited(counting_metric_name)
    assert isinstance(metric, Metric)
    half = len(predictions) // 3
    merged = count_rows(predictions[:half], metric).sum(axis=0) + count_rows(predictions[half:], metric).sum(axis=0)
    assert float(metric.score(merged)) == pytest.approx(score(metric, predictions), rel=1e-12)


def test_many_totals_are_scored_at_once(counting_metric_name: str) -> None:
    metric, predictions = suited(counting_metric_name)
    assert isinstance(metric, Metric)
    rows = count_rows(predictions, metric)
    totals = np.array([[rows[:20].sum(axis=0), rows[20:].sum(axis=0)], [rows.sum(axis=0), np.zeros(rows.shape[1])]])
    together = metric.score(totals)
    assert together.shape == (2, 2)
    for place in np.ndindex(2, 2):
        assert float(together[place]) == pytest.approx(float(metric.score(totals[place])), nan_ok=True)
    assert math.isnan(together[1, 1])


def test_name_is_the_registered_one(metric_name: str) -> None:
    assert build_metric(metric_name, ("a", "b")).name == metric_name


def test_metric_is_explained(metric_name: str) -> None:
    metric = type(build_metric(metric_name, ("a", "b")))
    explanation = metric.__doc__ or ""
    assert len(explanation) > 40
    assert not explanation.startswith(f"{metric.__name__}("), "That is the docstring a dataclass makes of its fields."
