"""What every registered metric must keep, ours or another package's."""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

import lightft.metrics
from lightft.errors import DataError
from lightft.metrics import METRICS, Metric, RankMetric, build_metric
from lightft.metrics.metric import count_rows
from lightft.metrics.scoring import score
from lightft.records import Prediction
from tests.made_up_runs import classification_run, generation_run, tagging_run

RUNS = {
    "tagging": tagging_run("tagging", skill=0.6, examples=80),
    "classification": classification_run("classification", skill=0.2, examples=80, labels=("a", "b", "c")),
    "generation": generation_run("generation", skill=0.5, examples=80),
}
# These files hold what metrics share; each other file of the folder is a metric.
SHARED_FILES = {"metric", "scoring", "tables", "evaluate_bridge"}


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


COUNTED = [name for name in sorted(METRICS) if isinstance(suited(name)[0], Metric)]
"""Those that are scores of counts; one that needs the rows together has no halves and no totals."""


def perfect(prediction: Prediction) -> Prediction:
    """Return the best answer there is to the example."""
    certain = None
    if prediction.probabilities is not None:
        certain = {label: float(label == prediction.gold) for label in prediction.probabilities}
    return replace(
        prediction,
        predicted=prediction.gold,
        tags=None,
        probabilities=certain,
        log_likelihood=None if prediction.log_likelihood is None else 0.0,
    )


@pytest.mark.parametrize("name", sorted(METRICS))
def test_perfect_predictions_have_the_best_score(name: str) -> None:
    metric, predictions = suited(name)
    best = score(metric, [perfect(prediction) for prediction in predictions])
    direction = 1 if metric.higher_is_better else -1
    assert direction * best > direction * score(metric, predictions)
    if metric.unit == "fraction":
        assert best == (1.0 if metric.higher_is_better else 0.0)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_order_of_examples_is_irrelevant(name: str) -> None:
    metric, predictions = suited(name)
    shuffled = [predictions[place] for place in np.random.default_rng(0).permutation(len(predictions))]
    assert score(metric, shuffled) == pytest.approx(score(metric, predictions), rel=1e-12)


@pytest.mark.parametrize("name", COUNTED)
def test_merging_two_halves_gives_the_whole(name: str) -> None:
    metric, predictions = suited(name)
    assert isinstance(metric, Metric)
    half = len(predictions) // 3
    merged = count_rows(predictions[:half], metric).sum(axis=0) + count_rows(predictions[half:], metric).sum(axis=0)
    assert float(metric.score(merged)) == pytest.approx(score(metric, predictions), rel=1e-12)


@pytest.mark.parametrize("name", COUNTED)
def test_many_totals_are_scored_at_once(name: str) -> None:
    metric, predictions = suited(name)
    assert isinstance(metric, Metric)
    rows = count_rows(predictions, metric)
    totals = np.array([[rows[:20].sum(axis=0), rows[20:].sum(axis=0)], [rows.sum(axis=0), np.zeros(rows.shape[1])]])
    together = metric.score(totals)
    assert together.shape == (2, 2)
    for place in np.ndindex(2, 2):
        assert float(together[place]) == pytest.approx(float(metric.score(totals[place])), nan_ok=True)
    assert math.isnan(together[1, 1])


@pytest.mark.parametrize("name", sorted(METRICS))
def test_name_is_the_registered_one(name: str) -> None:
    assert build_metric(name, ("a", "b")).name == name


@pytest.mark.parametrize("name", sorted(METRICS))
def test_metric_is_explained(name: str) -> None:
    explanation = type(build_metric(name, ("a", "b"))).__doc__ or ""
    assert len(explanation) > 40
    assert not explanation.startswith(f"{type(build_metric(name, ('a', 'b'))).__name__}(")


def test_every_file_of_the_folder_is_a_metric() -> None:
    files = {module.name for module in pkgutil.iter_modules(lightft.metrics.__path__)} - SHARED_FILES
    registered = {METRICS[name].__module__.rpartition(".")[2] for name in METRICS}
    assert files == registered
    for file in files:
        assert import_module(f"lightft.metrics.{file}").__doc__
