"""What a comparison shows, in a few sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightft.comparison.records import Comparison, Method, MethodDifference, MetricInfo
from lightft.comparison.words import interval_words
from lightft.wording import MISSING, p_value_words, percent_words, score_words, signed_words

__all__ = ["finding_of"]


def finding_of(comparison: Comparison) -> str:
    """Return which method is best, which it is better than, how sure that is, and where the test set cannot tell."""
    metric = comparison.metric(comparison.headline)
    best = comparison.ranked_methods()[0]
    if math.isnan(best.mean):
        return f"{metric.name} is undefined for every run, so that nothing can be said."
    scored = _scored(best, metric, comparison.level)
    examples = f"{comparison.test_set.examples:,} test examples"
    if len(comparison.methods) == 1:
        return f"{best.name} has {metric.name} {scored} on {examples}. There is no other run to hold it against."

    extreme = "highest" if metric.higher_is_better else "lowest"
    sentences = [f"{best.name} has the {extreme} {metric.name}: {scored} on {examples}."]
    if comparison.baseline is None:
        sentences += _against_the_best(comparison.differences_of(best.name), metric)
    else:
        sentences += _against_the_baseline(comparison.differences, comparison.baseline, metric)
    if len(comparison.differences) > 1:
        sentences.append(f"Each p is adjusted for {len(comparison.differences)} comparisons.")
    return " ".join([*sentences, *_what_it_is_about(comparison)])


def _what_it_is_about(comparison: Comparison) -> list[str]:
    """Say where the finding is about runs alone, for their methods have one seed."""
    alone = [method.name for method in comparison.methods if method.seeds == 1]
    if not alone:
        return []
    if len(alone) == len(comparison.methods):
        return ["This is about these runs: with one seed nothing can be said about the methods."]
    if len(alone) == 1:
        return [f"{alone[0]} has one seed: what is said of it is about this run."]
    return [f"{_listed(alone)} have one seed: what is said of them is about these runs."]


def _scored(method: Method, metric: MetricInfo, level: float) -> str:
    """Return ``0.861 (95 % interval 0.850 to 0.872, 3 seeds)``."""
    remarks = []
    if method.interval is not None and not math.isnan(method.interval.low):
        low, high = score_words(method.interval.low, metric.unit), score_words(method.interval.high, metric.unit)
        remarks.append(f"{percent_words(level)} interval {low} to {high}")
    if method.seeds > 1:
        remarks.append(f"{method.seeds} seeds")
    value = score_words(method.mean, metric.unit)
    return f"{value} ({', '.join(remarks)})" if remarks else value


def _against_the_best(differences: Sequence[MethodDifference], metric: MetricInfo) -> list[str]:
    beaten = [_gain(one, metric) for one in differences if one.verdict == "better"]
    undecided = [_signed(one.b, one, metric) for one in differences if one.verdict != "better"]
    sentences = []
    if beaten:
        sentences.append(f"It is better than {_listed(beaten)}.")
    if undecided:
        sentences.append(f"Whether it is better than {_listed(undecided, 'or')} this test set cannot tell.")
        sentences += _what_it_would_take([one for one in differences if one.verdict != "better"])
    return sentences


def _what_it_would_take(undecided: Sequence[MethodDifference]) -> list[str]:
    """Say how many examples would settle the open question that is nearest to an answer."""
    open_question = min(undecided, key=lambda one: one.rows_needed if one.rows_needed > 0 else math.inf)
    if math.isnan(open_question.rows_needed):
        return []
    if math.isinf(open_question.rows_needed):
        return ["No number of test examples would tell: it takes more seeds."] if open_question.several_seeds else []
    return [f"About {_rounded(open_question.rows_needed):,} test examples would tell it from {open_question.b}."]


def _rounded(count: float) -> int:
    """Return a count to two digits, for it is an estimate."""
    return int(float(f"{count:.1e}"))


def _against_the_baseline(differences: Sequence[MethodDifference], baseline: str, metric: MetricInfo) -> list[str]:
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


def _gain(difference: MethodDifference, metric: MetricInfo) -> str:
    """Return ``run-b by 0.024 ([0.007, 0.040], p = 0.011)``, for either direction of the metric."""
    gain = difference if metric.higher_is_better else difference.turned()
    evidence = _evidence(gain, metric)
    return f"{difference.b} by {score_words(gain.difference, metric.unit)}{evidence and f' ({evidence})'}"


def _signed(name: str, difference: MethodDifference, metric: MetricInfo) -> str:
    """Return ``run-b (+0.024 [0.007, 0.040], p = 0.011)``."""
    amount, evidence = signed_words(difference.difference, metric.unit), _evidence(difference, metric)
    return f"{name} ({amount} {evidence})" if evidence else f"{name} ({amount})"


def _evidence(difference: MethodDifference, metric: MetricInfo) -> str:
    """Return ``[0.007, 0.040], p = 0.011``, or what of it there is."""
    parts = (interval_words(difference.interval, metric.unit), p_value_words(difference.adjusted_p_value))
    return ", ".join(part for part in parts if part != MISSING)


_MOST_NAMED = 4


def _listed(phrases: Sequence[str], word: str = "and") -> str:
    shown = list(phrases)
    if len(shown) > _MOST_NAMED + 1:
        shown = [*shown[:_MOST_NAMED], f"{len(shown) - _MOST_NAMED} more"]
    return f" {word} ".join(part for part in (", ".join(shown[:-1]), shown[-1]) if part)
