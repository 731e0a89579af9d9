"""Which runs are held against which, and what can be said of each pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from lightft.comparison.measuring import Resampling
from lightft.comparison.records import ComparisonRow, MetricInfo, RunDifference, SeedGroup, Verdict, best_first
from lightft.metrics import Metric, RankMetric
from lightft.metrics.evaluate_bridge import EvaluateMetric
from lightft.metrics.metric import ShareRight, count_rows
from lightft.records import Prediction, Run
from lightft.significance import (
    Interval,
    approximate_randomization,
    approximate_randomization_by_rows,
    holm_adjusted,
    mcnemar_exact,
    paired_bootstrap_difference,
    paired_bootstrap_difference_by_rows,
)

__all__ = ["differences_between", "pairs_to_compare"]


def pairs_to_compare(
    rows: Sequence[ComparisonRow], headline: MetricInfo, groups: Sequence[SeedGroup], baseline: str | None
) -> list[tuple[ComparisonRow, ComparisonRow]]:
    """Return each run with the baseline, or all pairs, the better run first, but those of one seed group."""
    if baseline is not None:
        [held_against] = [row for row in rows if row.name == baseline]
        return [(row, held_against) for row in rows if row is not held_against]
    return [
        (a, b)
        for a, b in combinations(best_first(rows, headline), 2)
        if not any(a.name in group.runs and b.name in group.runs for group in groups)
    ]


def differences_between(
    pairs: Sequence[tuple[ComparisonRow, ComparisonRow]],
    runs: Sequence[Run],
    metric: Metric | RankMetric,
    info: MetricInfo,
    resampling: Resampling,
) -> tuple[RunDifference, ...]:
    """Return the difference of each pair in one metric, the p-values adjusted for their number.

    Args:
        pairs: rows with a score in the metric.
        runs: what the rows were made from, on the same examples in the same order.
        metric: the metric.
        info: its description.
        resampling: how often and with which seed.
    """
    answers = {run.name: run.predictions for run in runs}
    values = [a.scores[info.name].value - b.scores[info.name].value for a, b in pairs]
    evidence = [
        (None, math.nan)
        if math.isnan(value) or isinstance(metric, EvaluateMetric)
        else _interval_and_p(metric, answers[a.name], answers[b.name], info.resamples, resampling)
        for (a, b), value in zip(pairs, values, strict=True)
    ]
    adjusted = holm_adjusted([p for _, p in evidence])
    return tuple(
        RunDifference(
            a=a.name,
            b=b.name,
            difference=value,
            interval=interval,
            p_value=p,
            adjusted_p_value=adjusted_p,
            verdict=_verdict(value, interval, adjusted_p, 1 - resampling.level, info.higher_is_better),
        )
        for (a, b), value, (interval, p), adjusted_p in zip(pairs, values, evidence, adjusted, strict=True)
    )


def _interval_and_p(
    metric: Metric | RankMetric,
    answers_a: Sequence[Prediction],
    answers_b: Sequence[Prediction],
    resamples: int,
    resampling: Resampling,
) -> tuple[Interval, float]:
    level, rng = resampling.level, resampling.rng()
    if not isinstance(metric, Metric):
        difference = paired_bootstrap_difference_by_rows(
            answers_a, answers_b, metric.score, level=level, resamples=resamples, rng=rng
        )
        p = approximate_randomization_by_rows(answers_a, answers_b, metric.score, trials=resamples, rng=rng)
        return difference.interval, p
    counts_a, counts_b = count_rows(answers_a, metric), count_rows(answers_b, metric)
    difference = paired_bootstrap_difference(
        counts_a, counts_b, metric.score, level=level, resamples=resamples, rng=rng
    )
    if isinstance(metric, ShareRight):
        p = mcnemar_exact(counts_a[:, 0] == 1, counts_b[:, 0] == 1)
    else:
        p = approximate_randomization(counts_a, counts_b, metric.score, trials=resamples, rng=rng)
    return difference.interval, p


def _verdict(
    difference: float, interval: Interval | None, adjusted_p: float, alpha: float, higher_is_better: bool
) -> Verdict:
    # Written so that an undefined number (nan) cannot tell.
    if interval is None or not (interval.low > 0 or interval.high < 0) or not adjusted_p < alpha:
        return "cannot tell"
    return "better" if (difference > 0) == higher_is_better else "worse"
