"""What a comparison holds: runs, scores, differences, seeds and the test set, as frozen records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lightft.errors import DataError, InvalidSettingError
from lightft.metrics import ConfusionMatrix, LabelScore, ReliabilityBin, SpanErrors
from lightft.records import Target
from lightft.significance import Interval

__all__ = [
    "ComparedExample",
    "Comparison",
    "ComparisonRow",
    "Method",
    "MethodDifference",
    "MetricInfo",
    "Score",
    "TestSet",
    "Verdict",
    "best_first",
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
    """

    name: str
    unit: str
    higher_is_better: bool
    resamples: int

    @property
    def directed_name(self) -> str:
        """The name, and which direction is better where it is not upwards."""
        return self.name if self.higher_is_better else f"{self.name} (lower is better)"


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
        precision_recall: corners of the precision-recall curve, likewise.
        reliability: how often answers of each confidence are right, where there are class probabilities; else empty.
        span_errors: what became of every entity; None where answers are no spans.
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
    precision_recall: tuple[tuple[float, float], ...] = ()
    reliability: tuple[ReliabilityBin, ...] = ()
    span_errors: SpanErrors | None = None


@dataclass(frozen=True)
class Method:
    """Runs that differ in nothing but the seed, taken together; a run without such a partner is a method of one seed.

    Attributes:
        name: what the runs' names begin with; the run's own name where it is alone.
        runs: names of the runs, in the order given.
        mean: of the headline score over the runs.
        interval: of that mean. With several seeds it covers new seeds and new test examples alike; with one, new test
            examples alone. None where the metric is not resampled.
        deviation: standard deviation of the scores (n − 1); ``nan`` with one seed.
        lowest: the worst run's score.
        highest: the best run's score.
    """

    name: str
    runs: tuple[str, ...]
    mean: float
    interval: Interval | None
    deviation: float
    lowest: float
    highest: float

    @property
    def seeds(self) -> int:
        """How many runs there are."""
        return len(self.runs)


@dataclass(frozen=True)
class MethodDifference:
    """Method a against method b in the headline metric.

    Attributes:
        a: name of a method.
        b: name of another.
        difference: mean score of a minus mean score of b.
        interval: of the difference; None where the metric is not resampled.
        p_value: two-sided; ``nan`` where there is none.
        adjusted_p_value: after the correction for the number of differences in the comparison.
        test: the test behind the p-value; ``""`` where there is none.
        verdict: whether a is better or worse than b. It takes both an adjusted p below 1 − level and an interval
            without 0; otherwise the test set cannot tell.
        several_seeds: whether both have several seeds, so that the verdict is about the methods. Otherwise it is about
            these runs.
        effect_size: the difference in units of what it varies by from one example to the next (Cohen's d_z of the paired
            difference); ``nan`` where that is unknown.
        smallest_detectable: the smallest true difference that this test set and these seeds would show in 4 of 5 trials.
        rows_needed: how many examples would show the observed difference in 4 of 5 trials, seeds as they are; infinite
            where no number would, ``nan`` where it is unknown.
    """

    a: str
    b: str
    difference: float
    interval: Interval | None
    p_value: float
    adjusted_p_value: float
    test: str
    verdict: Verdict
    several_seeds: bool = False
    effect_size: float = math.nan
    smallest_detectable: float = math.nan
    rows_needed: float = math.nan

    def turned(self) -> MethodDifference:
        """Return the same difference seen from the other method."""
        interval = self.interval
        opposite: dict[Verdict, Verdict] = {"better": "worse", "worse": "better", "cannot tell": "cannot tell"}
        return replace(
            self,
            a=self.b,
            b=self.a,
            difference=-self.difference,
            interval=interval and replace(interval, low=-interval.high, high=-interval.low),
            verdict=opposite[self.verdict],
            effect_size=-self.effect_size,
        )


@dataclass(frozen=True)
class ComparedExample:
    """One example as all runs answered it, for the reader; its text is the user's, and shown only on request.

    Attributes:
        id: of the example.
        text: what was read.
        gold: the gold answer.
        predicted: each run's answer, by its name.
        right: how many runs gave the gold answer.
    """

    id: str
    text: str
    gold: Target
    predicted: Mapping[str, Target]
    right: int


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
        methods: the runs by method: those that differ in the seed alone are one.
        differences: each method against the baseline, or all pairs, the better one first.
        baseline: name of the method the others are held against, if any.
        test_set: what the runs were scored on.
        level: confidence of the intervals; 1 − level is what adjusted p-values are held against.
        seed: of the resampling.
        warnings: what may make the numbers wrong, such as test examples that occur in the training data.
        notes: what the numbers do not say.
        correction: of the p-values for their number: ``"holm"`` or ``"benjamini-hochberg"``.
        intervals: how those of single runs were made: ``"bca"`` or ``"percentile"``.
        other_counts: names of those metrics that no run asked for, and that are there to be held against published numbers.
        examples: the answers of all runs side by side, those they disagree on first, where the texts were given; they
            are written only with ``save(path, include_text=True)``.
    """

    task: str
    headline: str
    metrics: tuple[MetricInfo, ...]
    rows: tuple[ComparisonRow, ...]
    methods: tuple[Method, ...]
    differences: tuple[MethodDifference, ...]
    baseline: str | None
    test_set: TestSet
    level: float
    seed: int
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    correction: str = "holm"
    intervals: str = "bca"
    other_counts: tuple[str, ...] = ()
    examples: tuple[ComparedExample, ...] = ()

    def metric(self, name: str) -> MetricInfo:
        """Return the metric called ``name``."""
        return next(metric for metric in self.metrics if metric.name == name)

    def row(self, name: str) -> ComparisonRow:
        """Return the run called ``name``."""
        return next(row for row in self.rows if row.name == name)

    def ranked(self) -> list[ComparisonRow]:
        """Return the runs, the best headline score first; runs without one last."""
        return best_first(self.rows, self.metric(self.headline))

    def method(self, name: str) -> Method:
        """Return the method called ``name``."""
        return next(method for method in self.methods if method.name == name)

    def ranked_methods(self) -> list[Method]:
        """Return the methods, the best mean headline score first; those without one last."""
        direction = -1 if self.metric(self.headline).higher_is_better else 1
        return sorted(self.methods, key=lambda method: (math.isnan(method.mean), direction * method.mean))

    def differences_of(self, name: str) -> list[MethodDifference]:
        """Return the differences that a method is part of, turned so that it comes first, the nearest method first."""
        turned = [
            difference if difference.a == name else difference.turned()
            for difference in self.differences
            if name in (difference.a, difference.b)
        ]
        return sorted(turned, key=lambda difference: abs(difference.difference))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; what is undefined or infinite is null. Examples, if there are any, are part of it."""
        plain = {**asdict(self), "finding": self.finding}
        return {key: _json_value(value) for key, value in plain.items()}

    # Words, tables and reports are made from comparisons, so that they import this module; these doors ask for them
    # by name only when one is opened.

    @property
    def finding(self) -> str:
        """What the comparison shows, in a few sentences."""
        from lightft.comparison.finding import finding_of

        return finding_of(self)

    def __str__(self) -> str:
        """Return the comparison as plain text: the finding, a table of runs and one of differences."""
        from lightft.comparison.plain_text import plain_text_of

        return plain_text_of(self)

    def save(self, path: str | Path, *, include_text: bool = False) -> Path:
        """Write the comparison into a file whose suffix says how: a registered report, or ``.json`` for the data.

        Args:
            path: such as ``"report.html"``.
            include_text: also write the examples, with their texts; by default no text of the data leaves.

        Raises:
            InvalidSettingError: no report has the name of the suffix, or texts are wanted and were not given to
                ``compare``.
        """
        from lightft.reports import save_report

        if include_text and not self.examples:
            raise InvalidSettingError(
                "There are no texts to include: runs hold none. Compare with examples=data.test, or on the command line "
                "with --texts DATA."
            )
        return save_report(self if include_text else replace(self, examples=()), path)


def best_first(rows: Sequence[ComparisonRow], metric: MetricInfo) -> list[ComparisonRow]:
    """Return the runs by their score in a metric, the best first; runs without one last."""
    direction = -1 if metric.higher_is_better else 1

    def place(row: ComparisonRow) -> tuple[bool, float]:
        value = row.scores[metric.name].value
        return math.isnan(value), direction * value

    return sorted(rows, key=place)


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
