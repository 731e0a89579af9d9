"""Scores of runs under one metric, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightft.comparison.records import MetricInfo, Score
from lightft.metrics import Metric, RankMetric
from lightft.metrics.evaluate_bridge import EvaluateMetric
from lightft.metrics.metric import ShareRight, count_rows
from lightft.records import Prediction, Run
from lightft.significance import Interval, bootstrap_interval, bootstrap_interval_by_rows

__all__ = ["Resampling", "measured"]


@dataclass(frozen=True)
class Resampling:
    """How the luck of the test set is estimated: confidence of the intervals, number of resamples, and seed."""

    level: float
    resamples: int
    seed: int

    def rng(self) -> np.random.Generator:
        """Return a new source of draws, so that no number depends on which were computed before it."""
        return np.random.default_rng(self.seed)


def measured(
    metric: Metric | RankMetric, runs: Sequence[Run], resampling: Resampling
) -> tuple[MetricInfo, dict[str, Score]]:
    """Return the metric's description and every run's score, by name."""
    if isinstance(metric, Metric):
        test = "McNemar's exact test" if isinstance(metric, ShareRight) else "approximate randomization"
        info = _info(metric, resampling.resamples, test)
        return info, {run.name: _score_of_counts(metric, run.predictions, resampling) for run in runs}
    if isinstance(metric, EvaluateMetric):
        return _info(metric, 0, ""), {run.name: Score(metric.score(run.predictions), None) for run in runs}
    info = _info(metric, _affordable_resamples(runs[0].predictions, resampling.resamples), "approximate randomization")
    return info, {run.name: _score_of_rows(metric, run.predictions, resampling, info.resamples) for run in runs}


def _info(metric: Metric | RankMetric, resamples: int, test: str) -> MetricInfo:
    return MetricInfo(metric.name, metric.unit, metric.higher_is_better, resamples, test)


def _score_of_counts(metric: Metric, predictions: Sequence[Prediction], resampling: Resampling) -> Score:
    counts = count_rows(predictions, metric)
    value = float(metric.score(counts.sum(axis=0)))
    if math.isnan(value):
        return _undefined_score(resampling.level)
    interval = bootstrap_interval(
        counts, metric.score, level=resampling.level, resamples=resampling.resamples, rng=resampling.rng()
    )
    return Score(value, interval)


def _score_of_rows(
    metric: RankMetric, predictions: Sequence[Prediction], resampling: Resampling, resamples: int
) -> Score:
    value = metric.score(predictions)
    if math.isnan(value):
        return _undefined_score(resampling.level)
    interval = bootstrap_interval_by_rows(
        predictions, metric.score, level=resampling.level, resamples=resamples, rng=resampling.rng()
    )
    return Score(value, interval)


def _undefined_score(level: float) -> Score:
    return Score(math.nan, Interval(math.nan, math.nan, level, 0))


# Rows × labels × resamples that a rank metric may cost: some seconds.
_RANK_WORK = 50_000_000
_FEWEST_RANK_RESAMPLES, _MOST_RANK_RESAMPLES = 200, 1_000


def _affordable_resamples(predictions: Sequence[Prediction], wanted: int) -> int:
    labels = max(len(predictions[0].probabilities or ()), 1)
    affordable = _RANK_WORK // (len(predictions) * labels)
    return min(wanted, max(_FEWEST_RANK_RESAMPLES, min(_MOST_RANK_RESAMPLES, affordable)))
