"""What a comparison holds: runs, scores, differences, seeds and the test set, as frozen records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lightft.errors import DataError
from lightft.metrics import ConfusionMatrix, LabelScore
from lightft.significance import Interval

__all__ = [
    "Comparison",
    "ComparisonRow",
    "MetricInfo",
    "RunDifference",
    "Score",
    "SeedGroup",
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
        test: the test behind its p-values; ``""`` where it has none.
    """

    name: str
    unit: str
    higher_is_better: bool
    resamples: int
    test: str

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

    def metric(self, name: str) -> MetricInfo:
        """Return the metric called ``name``."""
        return next(metric for metric in self.metrics if metric.name == name)

    def row(self, name: str) -> ComparisonRow:
        """Return the run called ``name``."""
        return next(row for row in self.rows if row.name == name)

    def ranked(self) -> list[ComparisonRow]:
        """Return the runs, the best headline score first; runs without one last."""
        return best_first(self.rows, self.metric(self.headline))

    def differences_of(self, name: str) -> list[RunDifference]:
        """Return the differences that a run is part of, turned so that it comes first, the nearest run first."""
        turned = [
            difference if difference.a == name else difference.turned()
            for difference in self.differences
            if name in (difference.a, difference.b)
        ]
        return sorted(turned, key=lambda difference: abs(difference.difference))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; what is undefined or infinite is null."""
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

    def save(self, path: str | Path) -> Path:
        """Write the comparison into a file whose suffix says how: a registered report, or ``.json`` for the data.

        Raises:
            InvalidSettingError: no report has the name of the suffix.
        """
        from lightft.reports import save_report

        return save_report(self, path)


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
