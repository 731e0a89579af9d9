"""What a comparison shows, in a few sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightft.comparison.records import Comparison, MetricInfo, RunDifference, Score
from lightft.comparison.words import interval_words, seed_spread_words
from lightft.wording import MISSING, p_value_words, percent_words, score_words, signed_words

__all__ = ["finding_of"]


def finding_of(comparison: Comparison) -> str:
    """Return which run is best, which it is better than, and where the test set cannot tell."""
    metric = comparison.metric(comparison.headline)
    best = comparison.ranked()[0]
    score = best.scores[metric.name]
    if math.isnan(score.value):
        return f"{metric.name} is undefined for every run, so that nothing can be said."
    scored = _scored(score, metric, comparison.level)
    examples = f"{comparison.test_set.examples:,} test examples"
    if len(comparison.rows) == 1:
        return f"{best.name} has {metric.name} {scored} on {examples}. There is no other run to hold it against."

    extreme = "highest" if metric.higher_is_better else "lowest"
    sentences = [f"{best.name} has the {extreme} {metric.name}: {scored} on {examples}."]
    if comparison.baseline is None:
        sentences += _against_the_best(comparison.differences_of(best.name), metric)
    else:
        sentences += _against_the_baseline(comparison.differences, comparison.baseline, metric)
    if comparison.seed_groups:
        spreads = [seed_spread_words(group, metric) for group in comparison.seed_groups]
        sentences.append(f"On average over seeds: {_listed(spreads)}.")
    if len(comparison.differences) > 1:
        sentences.append(f"Each p is adjusted for {len(comparison.differences)} comparisons.")
    return " ".join(sentences)


def _scored(score: Score, metric: MetricInfo, level: float) -> str:
    """Return ``0.861 (95 % interval 0.850 to 0.872)``."""
    value = score_words(score.value, metric.unit)
    if score.interval is None:
        return value
    low, high = score_words(score.interval.low, metric.unit), score_words(score.interval.high, metric.unit)
    return f"{value} ({percent_words(level)} interval {low} to {high})"


def _against_the_best(differences: Sequence[RunDifference], metric: MetricInfo) -> list[str]:
    beaten = [_gain(one, metric) for one in differences if one.verdict == "better"]
    undecided = [_signed(one.b, one, metric) for one in differences if one.verdict != "better"]
    sentences = []
    if beaten:
        sentences.append(f"It is better than {_listed(beaten)}.")
    if undecided:
        sentences.append(f"Whether it is better than {_listed(undecided, 'or')} this test set cannot tell.")
    return sentences


def _against_the_baseline(differences: Sequence[RunDifference], baseline: str, metric: MetricInfo) -> list[str]:
    sentences = []
    for verdict in ("better", "worse"):
        runs = [_signed(one.a, one, metric) for one in differences if one.verdict == verdict]
        if runs:
            verb = "is" if len(runs) == 1 else "are"
            sentences.append(f"{_listed(runs)} {verb} {verdict} than the baseline {baseline}.")
    undecided = [_signed(one.a, one, metric) for one in differences if one.verdict == "cannot tell"]
    if undecided:
        sentences.append(
            f"Whether {_listed(undecided, 'or')} differs from the baseline {baseline} this test set cannot tell."
        )
    return sentences


def _gain(difference: RunDifference, metric: MetricInfo) -> str:
    """Return ``run-b by 0.024 ([0.007, 0.040], p = 0.011)``, for either direction of the metric."""
    gain = difference if metric.higher_is_better else difference.turned()
    evidence = _evidence(gain, metric)
    return f"{difference.b} by {score_words(gain.difference, metric.unit)}{evidence and f' ({evidence})'}"


def _signed(name: str, difference: RunDifference, metric: MetricInfo) -> str:
    """Return ``run-b (+0.024 [0.007, 0.040], p = 0.011)``."""
    amount, evidence = signed_words(difference.difference, metric.unit), _evidence(difference, metric)
    return f"{name} ({amount} {evidence})" if evidence else f"{name} ({amount})"


def _evidence(difference: RunDifference, metric: MetricInfo) -> str:
    """Return ``[0.007, 0.040], p = 0.011``, or what of it there is."""
    parts = (interval_words(difference.interval, metric.unit), p_value_words(difference.adjusted_p_value))
    return ", ".join(part for part in parts if part != MISSING)


_MOST_NAMED = 4


def _listed(phrases: Sequence[str], word: str = "and") -> str:
    shown = list(phrases)
    if len(shown) > _MOST_NAMED + 1:
        shown = [*shown[:_MOST_NAMED], f"{len(shown) - _MOST_NAMED} more"]
    return f" {word} ".join(part for part in (", ".join(shown[:-1]), shown[-1]) if part)
