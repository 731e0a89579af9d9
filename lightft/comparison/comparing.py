"""From saved runs to a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from lightft.comparison.checks import check_names, check_selection, on_the_same_examples
from lightft.comparison.differences import differences_between, pairs_to_compare
from lightft.comparison.examples import compared_examples
from lightft.comparison.measuring import IntervalKind, Resampling, measured
from lightft.comparison.methods import method_named, methods_of
from lightft.comparison.other_counts import other_counts_of
from lightft.comparison.records import Comparison, TestSet
from lightft.comparison.remarks import notes_on, warnings_on
from lightft.comparison.rows import row_of
from lightft.comparison.texts import entity_strings, with_texts
from lightft.errors import InvalidSettingError
from lightft.metrics import labels_of
from lightft.metrics.scoring import metrics_for
from lightft.records import Example, Run

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
    intervals: IntervalKind = "bca",
    correction: str = "holm",
    selected_on_test: Literal["refuse", "warn"] = "refuse",
    examples: Sequence[Example] = (),
    train: Sequence[Example] = (),
) -> Comparison:
    """Compare runs that were scored on the same examples.

    Runs that differ in the seed alone are one method. A single run's score gets a bootstrap interval over the examples; a
    method of several seeds one that covers new seeds and new examples alike. Differences between methods get an interval
    and a p-value: with several seeds by a t test over seeds and examples; between single runs by McNemar's exact test where
    an answer is right or wrong, DeLong's where it is an area under the ROC curve, else by approximate randomization.
    ``lightft.significance`` has the formulas and papers.

    Args:
        runs: at least one, with predictions and unique names.
        baseline: name of the method or run that the others are held against; without one all pairs are compared.
        metric: the headline; by default the first metric of the first run.
        on: ``"all"`` refuses runs with different test sets; ``"common"`` scores the examples that all runs have.
        level: confidence of the intervals.
        resamples: resampled test sets, and random swaps. Metrics that are not sums of counts, such as the area under
            the ROC curve, take at most 1,000.
        seed: of the resampling; equal seeds give equal numbers.
        intervals: of single runs: ``"bca"`` or ``"percentile"``.
        correction: of p-values for their number: ``"holm"`` or ``"benjamini-hochberg"``.
        selected_on_test: ``"refuse"`` runs that are scored on the examples that chose their best epoch, or ``"warn"``.
        examples: the examples of the test split, for what needs their texts: metrics that compare strings, errors by
            what was seen in training, and an examples browser in reports written with ``include_text=True``.
        train: the training examples, to tell entities that were seen in training from new ones.

    Raises:
        IncomparableRunsError: the runs differ in test set, labels, ids or gold answers, one has no predictions, or one was
            selected on what it is scored on.
        InvalidSettingError: there are no runs, two have one name, none is the baseline, or an argument is out of range.
        UnknownNameError: there is no such metric.
        DataError: a run's predictions do not fit a metric, or ``examples`` are not those of the runs.
    """
    if not runs:
        raise InvalidSettingError("There are no runs to compare. Give at least one folder that a trainer wrote.")
    if on not in ("all", "common"):
        raise InvalidSettingError(f"on is {on!r}; it is 'all' (same test set) or 'common' (shared examples only).")
    if intervals not in ("bca", "percentile"):
        raise InvalidSettingError(f"intervals is {intervals!r}; it is 'bca' or 'percentile'.")
    check_names(runs)
    if selected_on_test == "refuse":
        check_selection(runs)
    scored = with_texts(on_the_same_examples(runs, on), examples)

    labels = tuple(dict.fromkeys(label for run in scored for label in labels_of((), run.labels)))
    resampling = Resampling(level, resamples, seed, intervals)
    predictions = [prediction for run in scored for prediction in run.predictions]
    names = _metric_names(scored, metric)
    other_counts = [name for name in other_counts_of(scored) if name not in names] if examples else []
    measures = [measured(one, scored, resampling) for one in metrics_for([*names, *other_counts], predictions, labels)]
    headline = measures[0]
    methods = methods_of(scored, headline, level)
    held_against = method_named(baseline, methods) if baseline is not None else None
    pairs = pairs_to_compare(methods, held_against, headline.info.higher_is_better)
    seen = entity_strings(train) if train else None
    rows = tuple(
        row_of(run, {one.info.name: one.scores[run.name] for one in measures}, labels, seen=seen) for run in scored
    )
    return Comparison(
        task=runs[0].task,
        headline=headline.info.name,
        metrics=tuple(one.info for one in measures),
        rows=rows,
        methods=methods,
        differences=differences_between(pairs, scored, headline, resampling, correction),
        baseline=held_against.name if held_against is not None else None,
        test_set=_test_set(runs, len(scored[0].predictions)),
        level=level,
        seed=seed,
        warnings=warnings_on(runs),
        notes=notes_on(scored, rows, methods, headline.info, on),
        correction=correction,
        intervals=intervals,
        other_counts=tuple(other_counts),
        examples=compared_examples(scored, examples) if examples else (),
    )


def _metric_names(runs: Sequence[Run], headline: str | None) -> list[str]:
    """Return the metrics that the runs name; of runs of different tasks only those that all name."""
    names = list(dict.fromkeys(name for run in runs for name in run.metrics))
    if len({run.task for run in runs}) > 1:
        names = [name for name in names if all(name in run.metrics for run in runs)]
    if headline is not None:
        names.insert(0, headline)
    if not names:
        raise InvalidSettingError(
            "The runs name no metric in common. Say which with metric=, for example metric='accuracy'."
        )
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
