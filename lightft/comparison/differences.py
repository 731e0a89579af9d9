"""Which methods are held against which, and what can be said of each pair."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from lightft.comparison.measuring import Array, MeasuredMetric, Resampling
from lightft.comparison.records import Method, MethodDifference, Verdict
from lightft.errors import InvalidSettingError, suggest
from lightft.metrics import Metric
from lightft.metrics.metric import ShareRight
from lightft.metrics.roc_auc import RocAuc
from lightft.records import Prediction, Run
from lightft.significance import (
    Interval,
    approximate_randomization_by_rows,
    benjamini_hochberg_adjusted,
    delong_test,
    effect_size,
    holm_adjusted,
    joint_randomization,
    mcnemar_exact,
    percentile_from_resamples,
    rows_needed,
    seeds_difference,
    smallest_detectable_difference,
)

__all__ = ["CORRECTIONS", "differences_between", "pairs_to_compare"]

CORRECTIONS = {"holm": holm_adjusted, "benjamini-hochberg": benjamini_hochberg_adjusted}
"""How p-values are adjusted for their number: against any false claim (Holm), or against many (Benjamini–Hochberg)."""


def pairs_to_compare(
    methods: Sequence[Method], baseline: Method | None, higher_is_better: bool
) -> list[tuple[Method, Method]]:
    """Return each method with the baseline, or all pairs, the better one first."""
    if baseline is not None:
        return [(method, baseline) for method in methods if method is not baseline]
    direction = -1 if higher_is_better else 1
    ranked = sorted(methods, key=lambda method: (math.isnan(method.mean), direction * method.mean))
    return list(combinations(ranked, 2))


def differences_between(
    pairs: Sequence[tuple[Method, Method]],
    runs: Sequence[Run],
    headline: MeasuredMetric,
    resampling: Resampling,
    correction: str,
) -> tuple[MethodDifference, ...]:
    """Return the difference of each pair in the headline metric, the p-values adjusted for their number.

    Args:
        pairs: methods.
        runs: all runs, on the same examples in the same order.
        headline: the metric.
        resampling: how often and with which seed.
        correction: one of ``CORRECTIONS``.

    Raises:
        InvalidSettingError: there is no such correction.
    """
    if correction not in CORRECTIONS:
        raise InvalidSettingError(f"There is no correction {correction!r}. {suggest(correction, CORRECTIONS)}")
    p_of_runs = _p_values_of_runs(pairs, runs, headline, resampling)
    differences = [_difference(a, b, runs, headline, resampling, p_of_runs) for a, b in pairs]
    adjusted = CORRECTIONS[correction]([one.p_value for one in differences])
    return tuple(
        replace(
            one,
            adjusted_p_value=p,
            verdict=_verdict(one, p, 1 - resampling.level, headline.info.higher_is_better),
        )
        for one, p in zip(differences, adjusted, strict=True)
    )


@dataclass(frozen=True)
class _Evidence:
    """What a difference rests on: standard errors of the seeds (which more examples do not shrink) and of the examples."""

    interval: Interval
    p_value: float
    test: str
    seed_error: float
    item_error: float

    @property
    def standard_error(self) -> float:
        return math.hypot(self.seed_error, self.item_error)


def _difference(
    a: Method,
    b: Method,
    runs: Sequence[Run],
    headline: MeasuredMetric,
    resampling: Resampling,
    p_of_runs: Mapping[tuple[str, str], tuple[float, str]],
) -> MethodDifference:
    value = a.mean - b.mean
    known = MethodDifference(a.name, b.name, value, None, math.nan, math.nan, "", "cannot tell")
    known = replace(known, several_seeds=min(a.seeds, b.seeds) > 1)
    if math.isnan(value) or not headline.resampled:
        return known
    level, examples = resampling.level, len(runs[0].predictions)
    if max(a.seeds, b.seeds) > 1:
        evidence = _over_seeds(a, b, headline, level)
    else:
        evidence = _of_two_runs(a, b, headline, level, *p_of_runs[a.runs[0], b.runs[0]])
    return replace(
        known,
        interval=evidence.interval,
        p_value=evidence.p_value,
        test=evidence.test,
        effect_size=effect_size(value, evidence.item_error, examples),
        smallest_detectable=smallest_detectable_difference(evidence.standard_error, level=level),
        rows_needed=rows_needed(value, evidence.item_error, examples, level=level, seed_error=evidence.seed_error),
    )


def _over_seeds(a: Method, b: Method, headline: MeasuredMetric, level: float) -> _Evidence:
    found = seeds_difference(*_of_method(a, headline), *_of_method(b, headline), level=level)
    return _Evidence(
        found.interval, found.p_value, "t test over seeds and examples", found.seed_error, found.item_error
    )


def _of_method(method: Method, headline: MeasuredMetric) -> tuple[Array, Array]:
    values = np.array([headline.scores[run].value for run in method.runs])
    return values, np.array([headline.resampled[run] for run in method.runs])


def _of_two_runs(a: Method, b: Method, headline: MeasuredMetric, level: float, p: float, test: str) -> _Evidence:
    drawn = headline.resampled[a.runs[0]] - headline.resampled[b.runs[0]]
    defined = drawn[~np.isnan(drawn)]
    error = float(defined.std(ddof=1)) if len(defined) > 1 else math.nan
    return _Evidence(percentile_from_resamples(drawn, level), p, test, 0.0, error)


def _p_values_of_runs(
    pairs: Sequence[tuple[Method, Method]], runs: Sequence[Run], headline: MeasuredMetric, resampling: Resampling
) -> dict[tuple[str, str], tuple[float, str]]:
    """Return p and the test of each pair of methods with one seed each, by the names of the two runs."""
    single = [
        (a.runs[0], b.runs[0])
        for a, b in pairs
        if max(a.seeds, b.seeds) == 1 and headline.resampled and not math.isnan(a.mean - b.mean)
    ]
    if not single:
        return {}
    metric, answers = headline.metric, {run.name: run.predictions for run in runs}
    if isinstance(metric, ShareRight):
        right = {name: counts[:, 0] == 1 for name, counts in headline.counts.items()}
        return {pair: (mcnemar_exact(right[pair[0]], right[pair[1]]), "McNemar's exact test") for pair in single}
    if isinstance(metric, Metric):
        place = {name: number for number, name in enumerate(headline.counts)}
        found = joint_randomization(
            list(headline.counts.values()),
            metric.score,
            [(place[a], place[b]) for a, b in single],
            trials=headline.info.resamples,
            rng=resampling.rng(),
        )
        return {pair: (float(p), "approximate randomization") for pair, p in zip(single, found, strict=True)}
    if isinstance(metric, RocAuc) and len(metric.labels) == 2:
        return {(a, b): (_delong_p(answers[a], answers[b], metric), "DeLong's test") for a, b in single}
    trials = headline.info.resamples
    return {
        (a, b): (
            approximate_randomization_by_rows(
                answers[a], answers[b], metric.score, trials=trials, rng=resampling.rng()
            ),
            "approximate randomization",
        )
        for a, b in single
    }


def _delong_p(a: Sequence[Prediction], b: Sequence[Prediction], metric: RocAuc) -> float:
    gold, scores_a = metric.positives_and_scores(a)
    _, scores_b = metric.positives_and_scores(b)
    return delong_test(gold, scores_a, scores_b)[2]


def _verdict(difference: MethodDifference, adjusted_p: float, alpha: float, higher_is_better: bool) -> Verdict:
    interval = difference.interval
    # Written so that an undefined number (nan) cannot tell.
    if interval is None or not (interval.low > 0 or interval.high < 0) or not adjusted_p < alpha:
        return "cannot tell"
    return "better" if (difference.difference > 0) == higher_is_better else "worse"
