"""Scores of runs under one metric, with their intervals, on test sets that all runs are resampled on together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightft.comparison.records import MetricInfo, Score
from lightft.metrics import Metric, RankMetric
from lightft.metrics.evaluate_bridge import EvaluateMetric
from lightft.metrics.metric import count_rows
from lightft.records import Prediction, Run
from lightft.significance import (
    Interval,
    bca_from_resamples,
    jackknife_scores,
    percentile_from_resamples,
    resampled_scores,
    resampled_scores_by_rows,
)

__all__ = ["IntervalKind", "MeasuredMetric", "Resampling", "measured"]

Array = NDArray[np.float64]
IntervalKind = Literal["bca", "percentile"]


@dataclass(frozen=True)
class Resampling:
    """How the luck of the test set is estimated: confidence and kind of the intervals, number of resamples, seed."""

    level: float
    resamples: int
    seed: int
    intervals: IntervalKind = "bca"

    def rng(self) -> np.random.Generator:
        """Return a new source of draws, so that no number depends on which were computed before it."""
        return np.random.default_rng(self.seed)


@dataclass(frozen=True)
class MeasuredMetric:
    """One metric of all runs.

    Attributes:
        metric: what was measured.
        info: its description.
        scores: by run.
        counts: by run, of every example, shape ``(examples, k)``; empty where the metric is no function of counts.
        resampled: by run, its score on every resampled test set, shape ``(resamples,)``. All runs are scored on the same
            sets, so that differences are paired. Empty where the metric is not resampled.
    """

    metric: Metric | RankMetric
    info: MetricInfo
    scores: Mapping[str, Score]
    counts: Mapping[str, Array]
    resampled: Mapping[str, Array]


def measured(metric: Metric | RankMetric, runs: Sequence[Run], resampling: Resampling) -> MeasuredMetric:
    """Return every run's score in a metric."""
    if isinstance(metric, Metric):
        return _by_counts(metric, runs, resampling)
    if isinstance(metric, EvaluateMetric):
        scores = {run.name: Score(metric.score(run.predictions), None) for run in runs}
        return MeasuredMetric(metric, _info(metric, 0), scores, {}, {})
    return _by_rows(metric, runs, resampling)


def _by_counts(metric: Metric, runs: Sequence[Run], resampling: Resampling) -> MeasuredMetric:
    counts = {run.name: count_rows(run.predictions, metric) for run in runs}
    drawn = resampled_scores(list(counts.values()), metric.score, resamples=resampling.resamples, rng=resampling.rng())
    resampled = dict(zip(counts, drawn, strict=True))
    scores = {}
    for name, rows in counts.items():
        value = float(metric.score(rows.sum(axis=0)))
        if math.isnan(value):
            interval = _undefined(resampling.level)
        elif resampling.intervals == "bca":
            left_out = jackknife_scores(rows, metric.score)
            interval = bca_from_resamples(value, resampled[name], left_out, resampling.level)
        else:
            interval = percentile_from_resamples(resampled[name], resampling.level)
        scores[name] = Score(value, interval)
    return MeasuredMetric(metric, _info(metric, resampling.resamples), scores, counts, resampled)


def _by_rows(metric: RankMetric, runs: Sequence[Run], resampling: Resampling) -> MeasuredMetric:
    resamples = _affordable_resamples(runs[0].predictions, resampling.resamples)
    drawn = resampled_scores_by_rows(
        [run.predictions for run in runs], metric.score, resamples=resamples, rng=resampling.rng()
    )
    resampled = {run.name: row for run, row in zip(runs, drawn, strict=True)}
    scores = {}
    for run in runs:
        value = metric.score(run.predictions)
        interval = percentile_from_resamples(resampled[run.name], resampling.level)
        scores[run.name] = Score(value, _undefined(resampling.level) if math.isnan(value) else interval)
    return MeasuredMetric(metric, _info(metric, resamples), scores, {}, resampled)


def _info(metric: Metric | RankMetric, resamples: int) -> MetricInfo:
    return MetricInfo(metric.name, metric.unit, metric.higher_is_better, resamples)


def _undefined(level: float) -> Interval:
    return Interval(math.nan, math.nan, level, 0)


# Rows × labels × resamples that a rank metric may cost: some seconds.
_RANK_WORK = 50_000_000
_FEWEST_RANK_RESAMPLES, _MOST_RANK_RESAMPLES = 200, 1_000


def _affordable_resamples(predictions: Sequence[Prediction], wanted: int) -> int:
    labels = max(len(predictions[0].probabilities or ()), 1)
    affordable = _RANK_WORK // (len(predictions) * labels)
    return min(wanted, max(_FEWEST_RANK_RESAMPLES, min(_MOST_RANK_RESAMPLES, affordable)))
