"""Saved runs side by side: scores with intervals, differences with a verdict, and what each run cost."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations, takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lightft.errors import DataError, IncomparableRunsError, InvalidSettingError, suggest
from lightft.metrics import (
    ConfusionMatrix,
    LabelScore,
    Metric,
    RankMetric,
    confusion_matrix,
    labels_of,
    per_label_table,
    roc_curve,
)
from lightft.metrics.evaluate_bridge import EvaluateMetric
from lightft.metrics.metric import Array, ShareRight, count_rows
from lightft.metrics.scoring import metrics_for, score
from lightft.records import Prediction, Run
from lightft.significance import (
    Difference,
    Interval,
    approximate_randomization,
    approximate_randomization_by_rows,
    bootstrap_interval,
    bootstrap_interval_by_rows,
    holm_adjusted,
    mcnemar_exact,
    paired_bootstrap_difference,
    paired_bootstrap_difference_by_rows,
)
from lightft.wording import (
    MISSING,
    count_words,
    duration_words,
    p_value_words,
    percent_words,
    printable,
    score_words,
    signed_words,
    size_words,
)

__all__ = [
    "Comparison",
    "ComparisonRow",
    "MetricInfo",
    "RunDifference",
    "Score",
    "SeedGroup",
    "TestSet",
    "compare_runs",
]

Verdict = Literal["better", "worse", "cannot tell"]


@dataclass(frozen=True)
class MetricInfo:
    """A metric of the comparison.

    Attributes:
        name: the registered name.
        unit: ``"fraction"`` or the unit's name.
        higher_is_better: the direction.
        resamples: how many resampled test sets its intervals rest on; 0 where it has none.
        test: the test behind its p-values; ``""`` where it has none.
    """

    name: str
    unit: str
    higher_is_better: bool
    resamples: int
    test: str


@dataclass(frozen=True)
class Score:
    """A run's score (``nan`` where undefined) and its interval (None where the metric is not resampled)."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class ComparisonRow:
    """One run of a comparison.

    Attributes:
        name: the run's, unique in the comparison.
        scores: by metric.
        cost: as in ``Run.cost``; a key is absent where it was not measured.
        settings: model, adapter and training settings by dotted name, such as ``adapter.r``.
        seed: of the training.
        labels: scores per class or entity type; empty for generated text.
        confusion: of classes; None otherwise.
        roc: corners of the ROC curve where there are two classes with probabilities; else empty.
        history: the logged steps of the training.
        environment: package versions and device.
    """

    name: str
    scores: Mapping[str, Score]
    cost: Mapping[str, Any]
    settings: Mapping[str, Any]
    seed: int
    labels: tuple[LabelScore, ...]
    confusion: ConfusionMatrix | None
    roc: tuple[tuple[float, float], ...]
    history: tuple[Mapping[str, Any], ...]
    environment: Mapping[str, Any]


@dataclass(frozen=True)
class RunDifference:
    """Run a against run b in the headline metric.

    Attributes:
        a: name of a run.
        b: name of another.
        difference: score of a minus score of b.
        interval: of the difference; None where the metric is not resampled.
        p_value: two-sided; ``nan`` where there is none.
        adjusted_p_value: after Holm's correction for the number of differences in the comparison.
        verdict: whether a is better or worse than b. It takes both an adjusted p below 1 − level and an interval
            without 0; otherwise the test set cannot tell.
    """

    a: str
    b: str
    difference: float
    interval: Interval | None
    p_value: float
    adjusted_p_value: float
    verdict: Verdict

    def turned(self) -> RunDifference:
        """Return the same difference seen from the other run."""
        interval = self.interval
        opposite: dict[Verdict, Verdict] = {"better": "worse", "worse": "better", "cannot tell": "cannot tell"}
        return replace(
            self,
            a=self.b,
            b=self.a,
            difference=-self.difference,
            interval=interval and replace(interval, low=-interval.high, high=-interval.low),
            verdict=opposite[self.verdict],
        )


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ in nothing but the seed, with mean, standard deviation (n − 1) and range of the headline score.

    The name is what the runs' names begin with.
    """

    name: str
    runs: tuple[str, ...]
    mean: float
    deviation: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class TestSet:
    """What the runs were scored on.

    Attributes:
        source: where the data are from; ``""`` where the runs do not say.
        fingerprint: hash of the test split; ``""`` where the runs do not say or do not agree.
        examples: how many were scored.
        left_out: how many examples of each run were not, by run, because other runs lack them.
    """

    __test__ = False  # not a class of tests, whatever pytest thinks of its name

    source: str
    fingerprint: str
    examples: int
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Runs side by side, on the same examples. ``print`` it, or ``save`` it as ``.html``, ``.md``, ``.csv``, ``.json``.

    Attributes:
        task: registered name of the task head.
        headline: name of the metric that differences are tested in.
        metrics: the headline first.
        rows: one per run, in the order given.
        differences: each run against the baseline, or all pairs but those that differ in the seed alone.
        baseline: name of the run the others are held against, if any.
        seed_groups: runs that differ in the seed alone.
        test_set: what the runs were scored on.
        level: confidence of the intervals; 1 − level is what adjusted p-values are held against.
        seed: of the resampling.
        warnings: what may make the numbers wrong, such as test examples that occur in the training data.
        notes: what the numbers do not say.
    """

    task: str
    headline: str
    metrics: tuple[MetricInfo, ...]
    rows: tuple[ComparisonRow, ...]
    differences: tuple[RunDifference, ...]
    baseline: str | None
    seed_groups: tuple[SeedGroup, ...]
    test_set: TestSet
    level: float
    seed: int
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """Return the comparison as plain text: the finding, a table of runs and one of differences."""
        return _plain_text(self)

    def metric(self, name: str) -> MetricInfo:
        """Return the metric called ``name``."""
        return next(metric for metric in self.metrics if metric.name == name)

    def row(self, name: str) -> ComparisonRow:
        """Return the run called ``name``."""
        return next(row for row in self.rows if row.name == name)

    def ranked(self) -> list[ComparisonRow]:
        """Return the runs, the best headline score first; runs without one last."""
        return _ranked(self.rows, self.metric(self.headline))

    def differences_of(self, name: str) -> list[RunDifference]:
        """Return the differences that a run is part of, turned so that it comes first, the nearest run first."""
        turned = [
            difference if difference.a == name else difference.turned()
            for difference in self.differences
            if name in (difference.a, difference.b)
        ]
        return sorted(turned, key=lambda difference: abs(difference.difference))

    @property
    def finding(self) -> str:
        """What the comparison shows, in a few sentences."""
        return _finding(self)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; what is undefined or infinite is null."""
        plain = asdict(self)
        plain["finding"] = self.finding
        return {key: _json_value(value) for key, value in plain.items()}

    def save(self, path: str | Path) -> Path:
        """Write the comparison into a file whose suffix says how: a registered report, or ``.json`` for the data.

        Raises:
            InvalidSettingError: no report has the name of the suffix.
        """
        # Reports are made from comparisons, so that they import this module and not the other way round.
        from lightft.reports import REPORTS

        path = Path(path)
        kind = path.suffix.removeprefix(".").lower()
        if kind == "json":
            text = json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"
        elif kind in REPORTS:
            text = REPORTS[kind](self)
        else:
            raise InvalidSettingError(
                f"{path.name!r} does not say which report to write. End it in one of: "
                f"{', '.join(f'.{name}' for name in sorted([*REPORTS, 'json']))}."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        return path


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
        InvalidSettingError: there are no runs, or an argument is out of range.
        UnknownNameError: a metric or the baseline is not known.
        DataError: a run's predictions do not fit a metric.
    """
    if not runs:
        raise InvalidSettingError("There are no runs to compare. Give at least one folder that a trainer wrote.")
    if on not in ("all", "common"):
        raise InvalidSettingError(f"on is {on!r}; it is 'all' (same test set) or 'common' (shared examples only).")
    names = _unique_names([run.name for run in runs])
    if baseline is not None and baseline not in names:
        raise InvalidSettingError(f"No run named {baseline!r} to be the baseline. {suggest(baseline, names)}")
    _check_same_task_and_data(runs, names, on)
    predictions = _aligned_predictions(runs, names, on)
    labels = tuple(dict.fromkeys(label for run in runs for label in run.labels))
    metrics = metrics_for(_metric_names(runs, metric), [one for answers in predictions for one in answers], labels)
    measures = [_measured(metric, predictions, level=level, resamples=resamples, seed=seed) for metric in metrics]
    rows = tuple(
        _row(run, name, answers, labels, {info.name: scores[place] for info, scores in measures})
        for place, (run, name, answers) in enumerate(zip(runs, names, predictions, strict=True))
    )
    groups = _seed_groups(runs, rows, metrics[0].name)
    differences = tuple(
        _differences(_pairs(rows, metrics[0], groups, baseline), names, predictions, metrics[0], level, resamples, seed)
    )
    return Comparison(
        task=runs[0].task,
        headline=metrics[0].name,
        metrics=tuple(info for info, _ in measures),
        rows=rows,
        differences=differences,
        baseline=baseline,
        seed_groups=groups,
        test_set=_test_set(runs, names, len(predictions[0])),
        level=level,
        seed=seed,
        warnings=_warnings(runs, names),
        notes=_notes(runs, names, rows, groups, metrics[0].name, on),
    )


# ---- the same examples ----


def _unique_names(names: Sequence[str]) -> list[str]:
    unique: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate in unique or (number > 1 and candidate in names):
            number += 1
            candidate = f"{name} ({number})"
        unique.append(candidate)
    return unique


def _check_same_task_and_data(runs: Sequence[Run], names: Sequence[str], on: str) -> None:
    if on == "common":
        return
    first = runs[0]
    for run, name in zip(runs[1:], names[1:], strict=True):
        if run.task != first.task:
            raise IncomparableRunsError(
                f"{names[0]!r} and {name!r} are of different tasks: {first.task!r} and {run.task!r}. Compare runs of "
                "one task; where both answer the same examples, compare with on='common'."
            )
        here, there = run.data.get("test_fingerprint"), first.data.get("test_fingerprint")
        if here and there and here != there:
            raise IncomparableRunsError(
                f"{names[0]!r} and {name!r} were scored on different test sets (fingerprints {there} and {here}). "
                f"Re-run {name!r} on the same split, or compare on the common ids with on='common'."
            )


def _aligned_predictions(runs: Sequence[Run], names: Sequence[str], on: str) -> list[list[Prediction]]:
    """Return each run's predictions of the same examples, in the order of the first run."""
    by_id = []
    for run, name in zip(runs, names, strict=True):
        if not run.predictions:
            raise IncomparableRunsError(f"{name!r} holds no predictions. Predict a test split with it first.")
        answers = {prediction.id: prediction for prediction in run.predictions}
        if len(answers) < len(run.predictions):
            raise IncomparableRunsError(
                f"{name!r} answers {len(run.predictions) - len(answers)} examples more than once: their ids repeat. "
                "Give the examples of the test split unique ids and predict again."
            )
        by_id.append(answers)
    common = [id for id in runs[0].ids if all(id in answers for answers in by_id)]
    if on == "all":
        for answers, name in zip(by_id[1:], names[1:], strict=True):
            _check_same_ids(by_id[0], names[0], answers, name)
    if not common:
        raise IncomparableRunsError(
            f"{', '.join(map(repr, names))} have no example in common. Run them on the same test split."
        )
    for answers, name in zip(by_id[1:], names[1:], strict=True):
        _check_same_gold(by_id[0], names[0], answers, name, common)
    return [[answers[id] for id in common] for answers in by_id]


def _check_same_ids(a: Mapping[str, Prediction], name_a: str, b: Mapping[str, Prediction], name_b: str) -> None:
    for have, name_have, lack, name_lack in ((a, name_a, b, name_b), (b, name_b, a, name_a)):
        missing = [id for id in have if id not in lack]
        if missing:
            raise IncomparableRunsError(
                f"{name_a!r} and {name_b!r} were scored on different examples: {len(missing)} ids of {name_have!r} are "
                f"absent from {name_lack!r} (first: {missing[0]!r}). Re-run {name_lack!r} on the same split, or "
                "compare on the common ids with on='common'."
            )


def _check_same_gold(
    a: Mapping[str, Prediction], name_a: str, b: Mapping[str, Prediction], name_b: str, ids: Sequence[str]
) -> None:
    # Two lists of the same spans are the same answer in whatever order they come.
    differing = [id for id in ids if _unordered(a[id]) != _unordered(b[id])]
    if differing:
        raise IncomparableRunsError(
            f"{name_a!r} and {name_b!r} were scored against different gold answers: {len(differing)} of {len(ids)} "
            f"examples differ (first: {differing[0]!r}). Re-run {name_b!r} on the same data."
        )


def _unordered(prediction: Prediction) -> Any:
    return frozenset(prediction.gold) if isinstance(prediction.gold, tuple) else prediction.gold


# ---- the numbers ----

_MOST_RANK_RESAMPLES = 1_000
_FEWEST_RANK_RESAMPLES = 200
# Rows × labels × resamples that a rank metric may cost: some seconds.
_RANK_WORK = 50_000_000


def _metric_names(runs: Sequence[Run], headline: str | None) -> list[str]:
    names = [name for run in runs for name in run.metrics]
    if headline is not None:
        names.insert(0, headline)
    if not names:
        raise InvalidSettingError("The runs name no metric. Say which with metric=, for example metric='accuracy'.")
    return list(dict.fromkeys(names))


def _measured(
    metric: Metric | RankMetric,
    predictions: Sequence[Sequence[Prediction]],
    *,
    level: float,
    resamples: int,
    seed: int,
) -> tuple[MetricInfo, list[Score]]:
    """Return the metric's description and every run's score."""
    scores, times, test = [], 0, ""
    if isinstance(metric, Metric):
        times, test = resamples, _COUNT_TEST if not isinstance(metric, ShareRight) else _EXACT_TEST
        for answers in predictions:
            counts = count_rows(answers, metric)
            value = float(metric.score(counts.sum(axis=0)))
            rng = np.random.default_rng(seed)
            interval = (
                Interval(math.nan, math.nan, level, 0)
                if math.isnan(value)
                else bootstrap_interval(counts, metric.score, level=level, resamples=resamples, rng=rng)
            )
            scores.append(Score(value, interval))
    elif isinstance(metric, EvaluateMetric):
        scores = [Score(metric.score(answers), None) for answers in predictions]
    else:
        times, test = _rank_resamples(predictions[0], resamples), _COUNT_TEST
        for answers in predictions:
            value = metric.score(answers)
            rng = np.random.default_rng(seed)
            interval = (
                Interval(math.nan, math.nan, level, 0)
                if math.isnan(value)
                else bootstrap_interval_by_rows(answers, metric.score, level=level, resamples=times, rng=rng)
            )
            scores.append(Score(value, interval))
    return MetricInfo(metric.name, metric.unit, metric.higher_is_better, times, test), scores


_EXACT_TEST = "McNemar's exact test"
_COUNT_TEST = "approximate randomization"


def _rank_resamples(predictions: Sequence[Prediction], resamples: int) -> int:
    width = max(len(predictions[0].probabilities or ()), 1)
    affordable = _RANK_WORK // (len(predictions) * width)
    return min(resamples, max(_FEWEST_RANK_RESAMPLES, min(_MOST_RANK_RESAMPLES, affordable)))


def _pairs(
    rows: Sequence[ComparisonRow], metric: Metric | RankMetric, groups: Sequence[SeedGroup], baseline: str | None
) -> list[tuple[str, str]]:
    """Return the pairs of names to compare, the run with the better score first where there is no baseline."""
    if baseline is not None:
        return [(row.name, baseline) for row in rows if row.name != baseline]
    group_of = {name: number for number, group in enumerate(groups) for name in group.runs}
    return [
        (a.name, b.name)
        for a, b in combinations(_ranked(rows, metric), 2)
        if a.name not in group_of or group_of[a.name] != group_of.get(b.name)
    ]


def _ranked(rows: Sequence[ComparisonRow], metric: MetricInfo | Metric | RankMetric) -> list[ComparisonRow]:
    direction = -1 if metric.higher_is_better else 1

    def place(row: ComparisonRow) -> tuple[bool, float]:
        value = row.scores[metric.name].value
        return math.isnan(value), direction * value

    return sorted(rows, key=place)


def _differences(
    pairs: Sequence[tuple[str, str]],
    names: Sequence[str],
    predictions: Sequence[Sequence[Prediction]],
    metric: Metric | RankMetric,
    level: float,
    resamples: int,
    seed: int,
) -> list[RunDifference]:
    answers = dict(zip(names, predictions, strict=True))
    found = [
        _difference_and_p(metric, answers[a], answers[b], level=level, resamples=resamples, seed=seed) for a, b in pairs
    ]
    adjusted = holm_adjusted([p for _, _, p in found])
    return [
        RunDifference(
            a=a,
            b=b,
            difference=value,
            interval=interval,
            p_value=p,
            adjusted_p_value=adjusted_p,
            verdict=_verdict(value, interval, adjusted_p, level, metric.higher_is_better),
        )
        for (a, b), (value, interval, p), adjusted_p in zip(pairs, found, adjusted, strict=True)
    ]


def _difference_and_p(
    metric: Metric | RankMetric,
    answers_a: Sequence[Prediction],
    answers_b: Sequence[Prediction],
    *,
    level: float,
    resamples: int,
    seed: int,
) -> tuple[float, Interval | None, float]:
    value = score(metric, answers_a) - score(metric, answers_b)
    if math.isnan(value) or isinstance(metric, EvaluateMetric):
        return value, None, math.nan
    rng = np.random.default_rng(seed)
    if isinstance(metric, Metric):
        counts_a, counts_b = count_rows(answers_a, metric), count_rows(answers_b, metric)
        difference = paired_bootstrap_difference(
            counts_a, counts_b, metric.score, level=level, resamples=resamples, rng=rng
        )
        return difference.value, difference.interval, _p_value(metric, counts_a, counts_b, resamples, rng)
    times = _rank_resamples(answers_a, resamples)
    by_rows: Difference = paired_bootstrap_difference_by_rows(
        answers_a, answers_b, metric.score, level=level, resamples=times, rng=rng
    )
    p = approximate_randomization_by_rows(answers_a, answers_b, metric.score, trials=times, rng=rng)
    return by_rows.value, by_rows.interval, p


def _p_value(metric: Metric, counts_a: Array, counts_b: Array, trials: int, rng: np.random.Generator) -> float:
    if isinstance(metric, ShareRight):
        return mcnemar_exact(counts_a[:, 0] == 1, counts_b[:, 0] == 1)
    return approximate_randomization(counts_a, counts_b, metric.score, trials=trials, rng=rng)


def _verdict(
    difference: float, interval: Interval | None, adjusted_p: float, level: float, higher_is_better: bool
) -> Verdict:
    # Written so that an undefined number (nan) cannot tell.
    if interval is None or not (interval.low > 0 or interval.high < 0) or not adjusted_p < 1 - level:
        return "cannot tell"
    return "better" if (difference > 0) == higher_is_better else "worse"


# ---- one run's row ----


def _row(
    run: Run, name: str, answers: Sequence[Prediction], labels: Sequence[str], scores: Mapping[str, Score]
) -> ComparisonRow:
    # Without labels a text answer is no class: a table of every answer would be no table.
    tagged = not isinstance(answers[0].gold, str)
    classified = not tagged and bool(labels)
    return ComparisonRow(
        name=name,
        scores=scores,
        cost={key: value for key, value in run.cost.items() if value is not None},
        settings={**_flat("model", run.model), **_flat("adapter", run.adapter), **_flat("training", run.training)},
        seed=run.seed,
        labels=tuple(per_label_table(answers, labels)) if tagged or classified else (),
        confusion=confusion_matrix(answers, labels) if classified else None,
        roc=_roc(answers, labels) if classified else (),
        history=tuple(run.history),
        environment=run.environment,
    )


def _roc(answers: Sequence[Prediction], labels: Sequence[str]) -> tuple[tuple[float, float], ...]:
    known = labels_of(answers, labels)
    if len(known) != 2 or any(one.probabilities is None or known[1] not in one.probabilities for one in answers):
        return ()
    return roc_curve(answers, known[1])


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        # An adapter's parameters read better as adapter.r than as adapter.params.r.
        name = prefix if key == "params" else f"{prefix}.{key}"
        if isinstance(value, Mapping):
            flat.update(_flat(name, value))
        elif value is not None:
            flat[name] = value
    return flat


# ---- what to know about them ----


def _seed_groups(runs: Sequence[Run], rows: Sequence[ComparisonRow], headline: str) -> tuple[SeedGroup, ...]:
    groups: dict[str, list[int]] = {}
    for place, (run, row) in enumerate(zip(runs, rows, strict=True)):
        settings = {key: value for key, value in row.settings.items() if key not in _PER_RUN_SETTINGS}
        # A run that says nothing about how it came to be is like no other.
        key = json.dumps([run.task, settings], sort_keys=True, default=str) if settings else f"run {place}"
        groups.setdefault(key, []).append(place)
    several = [places for places in groups.values() if len({runs[place].seed for place in places}) > 1]
    return tuple(_seed_group([rows[place] for place in places], headline) for places in several)


_PER_RUN_SETTINGS = frozenset({"model.seed", "training.seed", "training.output_dir"})


def _seed_group(rows: Sequence[ComparisonRow], headline: str) -> SeedGroup:
    values = np.array([row.scores[headline].value for row in rows])
    letters = zip(*(row.name for row in rows), strict=False)
    shared = "".join(column[0] for column in takewhile(lambda column: len(set(column)) == 1, letters)).rstrip("-_ .(=")
    return SeedGroup(
        name=shared.removesuffix("seed").rstrip("-_ .(=") or rows[0].name,
        runs=tuple(row.name for row in rows),
        mean=float(values.mean()),
        deviation=float(values.std(ddof=1)),
        lowest=float(values.min()),
        highest=float(values.max()),
    )


def _test_set(runs: Sequence[Run], names: Sequence[str], examples: int) -> TestSet:
    sources = dict.fromkeys(str(run.data["source"]) for run in runs if run.data.get("source"))
    fingerprints = {run.data.get("test_fingerprint") for run in runs}
    left_out = {name: len(run.predictions) - examples for run, name in zip(runs, names, strict=True)}
    return TestSet(
        source=", ".join(sources),
        fingerprint=str(fingerprints.pop() or "") if len(fingerprints) == 1 else "",
        examples=examples,
        left_out={name: number for name, number in left_out.items() if number},
    )


def _warnings(runs: Sequence[Run], names: Sequence[str]) -> tuple[str, ...]:
    by_message: dict[str, list[str]] = {}
    for run, name in zip(runs, names, strict=True):
        split = run.data.get("tested_on", "test")
        if split == "validation":
            by_message.setdefault(_SCORED_ON_VALIDATION, []).append(name)
        found = (run.data.get("duplicates") or {}).get(split) or {}
        if max(found.get("exact", 0), found.get("normalised", 0)):
            by_message.setdefault(_leak(found, len(run.predictions)), []).append(name)
    return tuple(
        message if len(touched) == len(names) else f"{', '.join(touched)}: {message}"
        for message, touched in by_message.items()
    )


_SCORED_ON_VALIDATION = (
    "Scored on the validation split, for want of a test split. Where the best epoch was chosen by it, every score may "
    "be too high."
)


def _leak(found: Mapping[str, int], examples: int) -> str:
    """Say how many examples also stand in the training data, as ``lightft.data.count_duplicates`` found."""
    exact, normalised = found.get("exact", 0), found.get("normalised", 0)
    apart = f" ({normalised:,} apart from case, spaces and punctuation)" if normalised > exact else ""
    return (
        f"{exact:,} of {examples:,} test examples also stand in the training data{apart}. They can be answered from "
        "memory, so that every score may be too high."
    )


def _notes(
    runs: Sequence[Run],
    names: Sequence[str],
    rows: Sequence[ComparisonRow],
    groups: Sequence[SeedGroup],
    headline: str,
    on: str,
) -> tuple[str, ...]:
    notes = []
    grouped = {name for group in groups for name in group.runs}
    if len(grouped) < len(rows):
        notes.append(
            "1 seed: these runs, on this test set. Another seed would give other runs, so that nothing is claimed "
            "about the methods behind them."
        )
    if groups:
        notes.append(
            "Intervals and tests hold each run's seed fixed; the spread over seeds is given apart, and is not part of "
            "them."
        )
    renamed = [name for run, name in zip(runs, names, strict=True) if run.name != name]
    if renamed:
        notes.append(f"Several runs have the same name; they are told apart as {', '.join(renamed)}.")
    others = dict.fromkeys(run.metrics[0] for run in runs if run.metrics and run.metrics[0] != headline)
    if others:
        notes.append(f"Some runs name another headline metric: {', '.join(others)}. All are scored in all metrics.")
    unstated = [name for run, name in zip(runs, names, strict=True) if not run.data.get("test_fingerprint")]
    if 0 < len(unstated) < len(runs):
        notes.append(
            f"Without a fingerprint of the test set: {', '.join(unstated)}. Ids and gold answers are the same as the "
            "others'."
        )
    for remark in ("test_from", "validation_from"):
        notes += dict.fromkeys(str(run.data[remark]) for run in runs if run.data.get(remark))
    if on == "common":
        notes.append("Only examples that all runs have were scored; the choice is not a random part of the test set.")
    undefined = [
        f"{name} of {row.name}" for row in rows for name, score in row.scores.items() if math.isnan(score.value)
    ]
    if undefined:
        notes.append(f"Undefined, and shown as {MISSING}: {', '.join(undefined)}.")
    return tuple(notes)


# ---- in words ----


def _finding(comparison: Comparison) -> str:
    metric = comparison.metric(comparison.headline)
    best = comparison.ranked()[0]
    value = best.scores[metric.name]
    if math.isnan(value.value):
        return f"{metric.name} is undefined for every run, so that nothing can be said."
    extreme = "highest" if metric.higher_is_better else "lowest"
    examples = f"{comparison.test_set.examples:,} test examples"
    scored = score_words(value.value, metric.unit)
    if value.interval is not None:
        low, high = score_words(value.interval.low, metric.unit), score_words(value.interval.high, metric.unit)
        scored += f" ({percent_words(comparison.level)} interval {low} to {high})"
    if len(comparison.rows) == 1:
        return f"{best.name} has {metric.name} {scored} on {examples}. There is no other run to hold it against."
    sentences = [f"{best.name} has the {extreme} {metric.name}: {scored} on {examples}."]
    reference = comparison.baseline or best.name
    if comparison.baseline:
        sentences += _sentences_on_baseline(comparison, reference, metric)
    else:
        sentences += _sentences_on_best(comparison, reference, metric)
    if comparison.seed_groups:
        means = [_seed_group_phrase(group, metric) for group in comparison.seed_groups]
        sentences.append(f"On average over seeds: {_listed(means)}.")
    if len(comparison.differences) > 1:
        sentences.append(f"Each p is adjusted for {len(comparison.differences)} comparisons.")
    return " ".join(sentences)


_MOST_NAMED = 4


def _sentences_on_best(comparison: Comparison, best: str, metric: MetricInfo) -> list[str]:
    beaten, open_ = [], []
    for difference in comparison.differences_of(best):
        if difference.verdict == "better":
            gain = difference if metric.higher_is_better else difference.turned()
            evidence = _evidence(gain, metric)
            beaten.append(
                f"{difference.b} by {score_words(gain.difference, metric.unit)}{evidence and f' ({evidence})'}"
            )
        else:
            open_.append(_signed_evidence(difference.b, difference, metric))
    sentences = []
    if beaten:
        sentences.append(f"It is better than {_listed(beaten)}.")
    if open_:
        sentences.append(f"Whether it is better than {_listed(open_, 'or')} this test set cannot tell.")
    return sentences


def _sentences_on_baseline(comparison: Comparison, baseline: str, metric: MetricInfo) -> list[str]:
    phrases: dict[str, list[str]] = {"better": [], "worse": [], "cannot tell": []}
    for difference in comparison.differences:
        phrases[difference.verdict].append(_signed_evidence(difference.a, difference, metric))
    sentences = []
    for verdict in ("better", "worse"):
        if phrases[verdict]:
            verb = "is" if len(phrases[verdict]) == 1 else "are"
            sentences.append(f"{_listed(phrases[verdict])} {verb} {verdict} than the baseline {baseline}.")
    if phrases["cannot tell"]:
        sentences.append(
            f"Whether {_listed(phrases['cannot tell'], 'or')} differs from the baseline {baseline} this test set "
            "cannot tell."
        )
    return sentences


def _signed_evidence(name: str, difference: RunDifference, metric: MetricInfo) -> str:
    evidence = _evidence(difference, metric)
    amount = signed_words(difference.difference, metric.unit)
    return f"{name} ({' '.join(part for part in (amount, evidence) if part)})"


def _evidence(difference: RunDifference, metric: MetricInfo) -> str:
    """Return ``[0.007, 0.040], p = 0.011``, or what of it there is."""
    parts = (interval_words(difference.interval, metric.unit), p_value_words(difference.adjusted_p_value))
    return ", ".join(part for part in parts if part != MISSING)


def _listed(phrases: Sequence[str], word: str = "and") -> str:
    shown = list(phrases)
    if len(shown) > _MOST_NAMED + 1:
        shown = [*shown[:_MOST_NAMED], f"{len(shown) - _MOST_NAMED} more"]
    if len(shown) == 1:
        return shown[0]
    return f"{', '.join(shown[:-1])} {word} {shown[-1]}"


def interval_words(interval: Interval | None, unit: str) -> str:
    """Return ``[0.850, 0.872]``, or ``–``."""
    if interval is None or math.isnan(interval.low):
        return MISSING
    return f"[{score_words(interval.low, unit)}, {score_words(interval.high, unit)}]"


def trainable_words(cost: Mapping[str, Any]) -> str:
    """Return ``0.31 M of 22.7 M``, or what of it is known."""
    trainable, total = cost.get("trainable_parameters"), cost.get("total_parameters")
    if trainable is None or total is None:
        return count_words(trainable)
    return f"{count_words(trainable)} of {count_words(total)}"


def cost_words(cost: Mapping[str, Any]) -> dict[str, str]:
    """Return a run's cost by column heading, each with its unit, ``–`` where it was not measured."""
    speed = cost.get("predictions_per_second")
    return {
        "trainable parameters": trainable_words(cost),
        "training time": duration_words(cost.get("train_seconds")),
        "peak memory": size_words(cost.get("peak_memory_bytes")),
        "adapter size": size_words(cost.get("adapter_bytes")),
        "predictions per second": MISSING if speed is None else f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}",
    }


def _plain_text(comparison: Comparison) -> str:
    level = percent_words(comparison.level)
    blocks = [comparison.finding, _aligned(_score_table(comparison))]
    if comparison.differences:
        blocks.append(_aligned(_difference_table(comparison)))
    for group in comparison.seed_groups:
        blocks.append(seed_group_words(group, comparison.metric(comparison.headline)))
    blocks += [f"Warning: {warning}" for warning in comparison.warnings]
    blocks += [f"Note: {note}" for note in comparison.notes]
    blocks.append(f"[low, high] are {level} intervals over the examples of the test set.")
    return "\n\n".join(blocks)


def seed_group_words(group: SeedGroup, metric: MetricInfo) -> str:
    """Return a sentence on runs that differ in the seed alone."""
    lowest, highest = score_words(group.lowest, metric.unit), score_words(group.highest, metric.unit)
    return (
        f"{', '.join(group.runs)} differ in the seed alone: {_seed_group_phrase(group, metric)}, {lowest} to {highest}."
    )


def _seed_group_phrase(group: SeedGroup, metric: MetricInfo) -> str:
    mean, deviation = score_words(group.mean, metric.unit), score_words(group.deviation, metric.unit)
    return f"{group.name} {mean} ± {deviation} ({len(group.runs)} seeds)"


def _score_table(comparison: Comparison) -> list[list[str]]:
    table = [["run", *(metric.name for metric in comparison.metrics), *cost_words({})]]
    for row in comparison.ranked():
        cells = [printable(row.name)]
        for metric in comparison.metrics:
            cell = score_words(row.scores[metric.name].value, metric.unit)
            if metric.name == comparison.headline:
                cell += f" {interval_words(row.scores[metric.name].interval, metric.unit)}"
            cells.append(cell)
        table.append([*cells, *cost_words(row.cost).values()])
    return table


def _difference_table(comparison: Comparison) -> list[list[str]]:
    unit = comparison.metric(comparison.headline).unit
    table = [["difference", comparison.headline, "interval", "p (adjusted)", "verdict"]]
    for difference in comparison.differences:
        table.append(
            [
                printable(f"{difference.a} against {difference.b}"),
                signed_words(difference.difference, unit),
                interval_words(difference.interval, unit),
                p_value_words(difference.adjusted_p_value),
                difference.verdict,
            ]
        )
    return table


def _aligned(table: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]
    return "\n".join([lines[0], "-" * sum(widths, 2 * (len(widths) - 1)), *lines[1:]])


def _json_value(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _json_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(entry) for entry in value]
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, Path):
        return str(value)
    raise DataError(f"A comparison holds {value!r} of type {type(value).__name__}, which JSON cannot hold.")
