"""From saved runs to a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from lightft.comparison.checks import check_baseline, on_the_same_examples
from lightft.comparison.differences import differences_between, pairs_to_compare
from lightft.comparison.measuring import Resampling, measured
from lightft.comparison.records import Comparison, TestSet
from lightft.comparison.remarks import notes_on, warnings_on
from lightft.comparison.rows import row_of
from lightft.comparison.seeds import seed_groups_of
from lightft.errors import InvalidSettingError
from lightft.metrics.scoring import metrics_for
from lightft.records import Run

__all__ = ["compare_runs"]


def compare_runs(
    runs: Sequence[Run],
    *,
    baseline: str | None = None,
    metric: str | None = None,
    on: Literal["all", "common"] = "all",
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare runs that were scored on the same examples.

    Scores get percentile bootstrap intervals over the examples. Differences in the headline metric get a paired
    bootstrap interval and a p-value: McNemar's exact test where an answer is right or wrong, else approximate
    randomization; p-values are adjusted by Holm's method. See ``significance.py`` for formulas and papers.

    Args:
        runs: at least one, with predictions.
        baseline: name of the run that the others are held against; without one all pairs are compared but those
            that differ in the seed alone.
        metric: the headline; by default the first metric of the first run.
        on: ``"all"`` refuses runs with different test sets; ``"common"`` scores the examples that all runs have.
        level: confidence of the intervals.
        resamples: resampled test sets, and random swaps. Metrics that are not sums of counts, such as the area under
            the ROC curve, take at most 1,000.
        seed: of the resampling; equal seeds give equal numbers.

    Raises:
        IncomparableRunsError: the runs differ in task, test set, ids or gold answers, or one has no predictions.
        InvalidSettingError: there are no runs, none of them is the baseline, or an argument is out of range.
        UnknownNameError: there is no such metric.
        DataError: a run's predictions do not fit a metric.
    """
    if not runs:
        raise InvalidSettingError("There are no runs to compare. Give at least one folder that a trainer wrote.")
    if on not in ("all", "common"):
        raise InvalidSettingError(f"on is {on!r}; it is 'all' (same test set) or 'common' (shared examples only).")
    named = _with_unique_names(runs)
    check_baseline(baseline, named)
    scored = on_the_same_examples(named, on)

    labels = tuple(dict.fromkeys(label for run in scored for label in run.labels))
    predictions = [prediction for run in scored for prediction in run.predictions]
    metrics = metrics_for(_metric_names(scored, metric), predictions, labels)
    resampling = Resampling(level, resamples, seed)
    measures = [measured(metric, scored, resampling) for metric in metrics]
    rows = tuple(row_of(run, {info.name: scores[run.name] for info, scores in measures}, labels) for run in scored)

    headline = measures[0][0]
    groups = seed_groups_of(scored, rows, headline)
    pairs = pairs_to_compare(rows, headline, groups, baseline)
    return Comparison(
        task=runs[0].task,
        headline=headline.name,
        metrics=tuple(info for info, _ in measures),
        rows=rows,
        differences=differences_between(pairs, scored, metrics[0], headline, resampling),
        baseline=baseline,
        seed_groups=groups,
        test_set=_test_set(named, len(scored[0].predictions)),
        level=level,
        seed=seed,
        warnings=warnings_on(named),
        notes=notes_on(runs, named, rows, groups, headline, on),
    )


def _with_unique_names(runs: Sequence[Run]) -> list[Run]:
    given = [run.name for run in runs]
    unique: list[str] = []
    for name in given:
        candidate, number = name, 1
        while candidate in unique or (number > 1 and candidate in given):
            number += 1
            candidate = f"{name} ({number})"
        unique.append(candidate)
    return [replace(run, name=name) for run, name in zip(runs, unique, strict=True)]


def _metric_names(runs: Sequence[Run], headline: str | None) -> list[str]:
    names = [name for run in runs for name in run.metrics]
    if headline is not None:
        names.insert(0, headline)
    if not names:
        raise InvalidSettingError("The runs name no metric. Say which with metric=, for example metric='accuracy'.")
    return list(dict.fromkeys(names))


def _test_set(runs: Sequence[Run], scored: int) -> TestSet:
    sources = dict.fromkeys(str(run.data["source"]) for run in runs if run.data.get("source"))
    fingerprints = {run.data.get("test_fingerprint") for run in runs}
    left_out = {run.name: len(run.predictions) - scored for run in runs}
    return TestSet(
        source=", ".join(sources),
        fingerprint=str(fingerprints.pop() or "") if len(fingerprints) == 1 else "",
        examples=scored,
        left_out={name: number for name, number in left_out.items() if number},
    )
