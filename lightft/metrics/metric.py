"""What a metric is: per-example counts that add up, and a score of their sum."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lightft.errors import DataError, InvalidPluginError
from lightft.records import Prediction, Span
from lightft.registry import Registry

__all__ = [
    "METRICS",
    "Array",
    "Metric",
    "MetricFactory",
    "RankMetric",
    "ShareRight",
    "count_rows",
    "divide",
    "gold_and_predicted_spans",
    "gold_and_predicted_text",
    "make_metric",
    "register",
]

Array = NDArray[np.float64]


@runtime_checkable
class Metric(Protocol):
    """A score of counts that add up over examples, so that thousands of resampled test sets are scored at once."""

    @property
    def name(self) -> str:
        """The registered name."""
        ...

    @property
    def unit(self) -> str:
        """``"fraction"`` or the unit's name."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """The direction."""
        ...

    def counts(self, prediction: Prediction) -> tuple[float, ...]:
        """Return the counts of one example, always equally many; ``nan`` where the prediction lacks what is counted.

        Raises:
            DataError: the prediction has no gold answer, or one of another kind.
        """
        ...

    def score(self, totals: Array) -> Array:
        """Return the score of summed counts, ``nan`` where undefined.

        Args:
            totals: shape ``(..., k)``, the sums of the k counts.

        Returns:
            Shape ``(...)``.
        """
        ...


@runtime_checkable
class RankMetric(Protocol):
    """A score that is no function of summed counts, such as the area under the ROC curve; resampled by rows."""

    @property
    def name(self) -> str:
        """The registered name."""
        ...

    @property
    def unit(self) -> str:
        """``"fraction"`` or the unit's name."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """The direction."""
        ...

    def score(self, predictions: Sequence[Prediction]) -> float:
        """Return the score of all predictions together, ``nan`` where undefined."""
        ...


MetricFactory = Callable[..., Metric | RankMetric]
"""Makes a metric: a class or function without parameters, or with the one parameter ``labels``."""


def _validated(name: str, factory: MetricFactory) -> MetricFactory:
    if not callable(factory):
        raise InvalidPluginError(
            f"Metric {name!r} is registered as {factory!r}. Register the class (or a function) that makes the metric, "
            "not the metric itself."
        )
    wanted = [parameter for parameter in inspect.signature(factory).parameters.values() if parameter.name != "labels"]
    required = [parameter.name for parameter in wanted if parameter.default is parameter.empty]
    if required:
        raise InvalidPluginError(
            f"Metric {name!r} needs {', '.join(required)}. A metric is made without arguments or with 'labels' alone; "
            "give the others defaults."
        )
    metric: Any = make_metric(factory, ("A", "B"))
    if not isinstance(metric, Metric | RankMetric):
        missing = [part for part in ("name", "unit", "higher_is_better", "score") if part not in dir(metric)]
        raise InvalidPluginError(
            f"Metric {name!r} has no {', '.join(missing)}. A metric has name, unit, higher_is_better and score, and "
            "counts unless it is a RankMetric."
        )
    if metric.name != name:
        raise InvalidPluginError(f"The metric registered as {name!r} calls itself {metric.name!r}. Use one name.")
    return factory


METRICS: Registry[MetricFactory] = Registry("metrics", "metric", _validated)
"""Every metric by name. ``build_metric(name, labels)`` makes one."""

register = METRICS.register
"""Decorator that registers a metric: ``@lightft.metrics.register("brier")`` above its class."""


def make_metric(factory: MetricFactory, labels: Sequence[str]) -> Metric | RankMetric:
    """Call a registered factory, with the labels where it takes them."""
    if "labels" in inspect.signature(factory).parameters:
        return factory(labels=tuple(labels))
    return factory()


@dataclass(frozen=True)
class ShareRight(ABC):
    """Base of metrics under which an answer is right or wrong: (right, 1) of each example, right / examples.

    Two such runs are compared by McNemar's exact test.
    """

    name: str
    unit: str = "fraction"
    higher_is_better: bool = True

    @abstractmethod
    def is_right(self, gold: str, predicted: str) -> bool:
        """Say whether the answer is right."""

    def counts(self, prediction: Prediction) -> tuple[float, float]:
        """Return (1 if right else 0, 1)."""
        gold, predicted = gold_and_predicted_text(prediction, self.name)
        return float(self.is_right(gold, predicted)), 1.0

    def score(self, totals: Array) -> Array:
        """Right answers / answers."""
        return divide(totals[..., 0], totals[..., 1])


def count_rows(predictions: Iterable[Prediction], metric: Metric) -> Array:
    """Return the counts of every example, shape ``(examples, k)``."""
    return np.array([metric.counts(prediction) for prediction in predictions], dtype=np.float64)


def divide(numerator: Array, denominator: Array) -> Array:
    """Divide, with ``nan`` where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    undefined = np.full(denominator.shape, np.nan)
    quotient: Array = np.divide(numerator, denominator, out=undefined, where=denominator != 0)
    return quotient


def gold_and_predicted_text(prediction: Prediction, metric: str) -> tuple[str, str]:
    """Return the gold and the predicted class or text.

    Raises:
        DataError: there is no gold answer, or an answer is a list of spans.
    """
    gold, predicted = prediction.gold, prediction.predicted
    if not isinstance(gold, str) or not isinstance(predicted, str):
        raise _unfit(prediction, metric, "a class or a text")
    return gold, predicted


def gold_and_predicted_spans(prediction: Prediction, metric: str) -> tuple[set[Span], set[Span]]:
    """Return the gold and the predicted spans; one that occurs twice counts once.

    Raises:
        DataError: there is no gold answer, or an answer is a class or text.
    """
    gold, predicted = prediction.gold, prediction.predicted
    if gold is None or isinstance(gold, str) or isinstance(predicted, str):
        raise _unfit(prediction, metric, "spans")
    return set(gold), set(predicted)


def _unfit(prediction: Prediction, metric: str, wanted: str) -> DataError:
    # The answers themselves may be private, so that the message names their kind only.
    if prediction.gold is None:
        return DataError(
            f"{metric!r} cannot score prediction {prediction.id!r}: it has no gold answer. Score a split that has one."
        )
    kinds = {True: "text", False: "spans"}
    gold, predicted = kinds[isinstance(prediction.gold, str)], kinds[isinstance(prediction.predicted, str)]
    return DataError(
        f"{metric!r} cannot score prediction {prediction.id!r}: it compares {wanted}, but the gold answer is "
        f"{gold} and the predicted one {predicted}. Choose a metric of the task."
    )
