"""F1 of a classification, averaged over the classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lightft.errors import DataError, suggest
from lightft.metrics.metric import METRICS, Array, divide, gold_and_predicted_text
from lightft.records import Prediction


@dataclass(frozen=True)
class ClassCounts:
    """Base of metrics on three counts per class: true positives, times predicted, times gold.

    An answer that is none of the labels (a language model may give any) is a miss of its gold class.
    """

    labels: tuple[str, ...]
    name: str
    unit: str = "fraction"
    higher_is_better: bool = True

    @cached_property
    def _position(self) -> dict[str, int]:
        return {label: position for position, label in enumerate(self.labels)}

    def counts(self, prediction: Prediction) -> tuple[float, ...]:
        """Return 3 × classes counts: all true positives, then all predicted, then all gold.

        Raises:
            DataError: the gold class is none of the labels.
        """
        gold, predicted = gold_and_predicted_text(prediction, self.name)
        if gold not in self._position:
            raise DataError(
                f"{self.name!r} cannot score prediction {prediction.id!r}: its gold class {gold!r} is none of the "
                f"labels. {suggest(gold, self.labels)} Pass the labels of the data set."
            )
        row = np.zeros((3, len(self.labels)))
        row[0, self._position[gold]] = gold == predicted
        row[2, self._position[gold]] = 1
        if predicted in self._position:
            row[1, self._position[predicted]] = 1
        return tuple(row.ravel())

    def f1_and_support(self, totals: Array) -> tuple[Array, Array]:
        """Return the F1 of each class (``nan`` where it is neither gold nor predicted) and its gold count."""
        hits, predicted, gold = np.moveaxis(totals.reshape(*totals.shape[:-1], 3, len(self.labels)), -2, 0)
        return divide(2 * hits, predicted + gold), gold


@METRICS.register("macro_f1")
@dataclass(frozen=True)
class MacroF1(ClassCounts):
    """Unweighted mean of the classes' F1, over the classes that are gold or predicted somewhere.

    Equals ``sklearn.metrics.f1_score(gold, predicted, average="macro")``. A class that occurs in neither has no F1
    and is left out of the mean.
    """

    name: str = "macro_f1"

    def score(self, totals: Array) -> Array:
        """Mean F1 of the classes that occur."""
        f1, _ = self.f1_and_support(totals)
        occurs = ~np.isnan(f1)
        return divide(np.where(occurs, f1, 0).sum(axis=-1), occurs.sum(axis=-1))


@METRICS.register("weighted_f1")
@dataclass(frozen=True)
class WeightedF1(ClassCounts):
    """Mean of the classes' F1 weighted by how often each is gold.

    Equals ``sklearn.metrics.f1_score(gold, predicted, average="weighted")``.
    """

    name: str = "weighted_f1"

    def score(self, totals: Array) -> Array:
        """Sum of gold count × F1, over the sum of gold counts."""
        f1, gold = self.f1_and_support(totals)
        return divide((np.nan_to_num(f1) * gold).sum(axis=-1), gold.sum(axis=-1))
