"""The trained weights of the best epoch by the validation score."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lightft.errors import InvalidSettingError, TrainingError
from lightft.metrics import build_metric, score_predictions
from lightft.records import Example
from lightft.tasks import TaskHead

__all__ = ["BestEpoch", "Validation"]


@dataclass(frozen=True)
class Validation:
    """What an epoch is judged by for one head.

    Attributes:
        name: of the task among several that are trained together; empty for one alone.
        model: with its adapter.
        head: the task.
        examples: of the validation split.
        max_length: tokens per row at most.
    """

    name: str
    model: nn.Module
    head: TaskHead
    examples: Sequence[Example]
    max_length: int


class BestEpoch:
    """Scores each epoch, and holds the weights of the best.

    Several heads that learn together are judged by the mean of their headline scores, each turned so that higher is
    better.

    Args:
        validations: one per head that has a validation split.
        metric: by which an epoch is judged; None is the head's first.
        patience: epochs without a better score after which to stop; None never stops.
    """

    def __init__(self, validations: Sequence[Validation], metric: str | None, patience: int | None) -> None:
        if metric is not None and len(validations) > 1:
            raise InvalidSettingError(
                f"validation_metric is {metric!r}, but several tasks learn together, each judged by its own first metric. "
                "Leave validation_metric out."
            )
        self._validations = validations
        self._metrics = [metric or validation.head.metrics[0] for validation in validations]
        # Looked up before training, so that a misspelt metric costs no epoch.
        self._signs = [
            1 if build_metric(name, validation.head.labels).higher_is_better else -1
            for name, validation in zip(self._metrics, validations, strict=True)
        ]
        self._patience = patience
        self._epochs_since_best = 0
        self._weights: dict[nn.Parameter, Tensor] = {}
        self.best: float | None = None

    @property
    def judges(self) -> bool:
        """Whether there is anything to judge an epoch by."""
        return bool(self._validations)

    @property
    def is_out_of_patience(self) -> bool:
        """Whether enough epochs have passed without a better one."""
        return self._patience is not None and self._epochs_since_best >= self._patience

    def score(self, tokenizer: PreTrainedTokenizerBase) -> tuple[float, dict[str, float]]:
        """Return the epoch's score, higher is better, and every metric under the name it has in the history."""
        headlines: list[float] = []
        named: dict[str, float] = {}
        for validation, metric, sign in zip(self._validations, self._metrics, self._signs, strict=True):
            scores = _scores(validation, metric, tokenizer)
            headlines.append(sign * scores[metric])
            prefix = f"validation_{validation.name}_" if validation.name else "validation_"
            named |= {f"{prefix}{name}": value for name, value in scores.items()}
        return sum(headlines) / len(headlines), named

    def keep_if_best(self, models: Iterable[nn.Module], score: float) -> bool:
        """Copy the trained weights if ``score`` is the highest so far, and return whether it is."""
        better = self.best is None or score > self.best
        self._epochs_since_best = 0 if better else self._epochs_since_best + 1
        if better:
            self.best = score
            self._weights = {
                parameter: parameter.detach().clone()
                for model in models
                for parameter in model.parameters()
                if parameter.requires_grad
            }
        return better

    def restore(self) -> None:
        """Put the weights of the best epoch back in their places."""
        with torch.no_grad():
            for parameter, weight in self._weights.items():
                parameter.copy_(weight)

    def headline(self, score: float) -> float:
        """Return a score as its metric gives it, where one head alone is judged."""
        return score * self._signs[0] if len(self._signs) == 1 else score


def _scores(validation: Validation, metric: str, tokenizer: PreTrainedTokenizerBase) -> Mapping[str, float]:
    head: Any = validation.head
    names = head.metrics if metric in head.metrics else (*head.metrics, metric)
    predictions = head.predict(
        validation.model, tokenizer, validation.examples, max_length=validation.max_length, validating=True
    )
    scores = score_predictions(predictions, names, head.labels)
    if math.isnan(scores[metric]):
        raise TrainingError(
            f"The validation metric {metric!r} is undefined on the validation split. Choose another with "
            "validation_metric=, or give a validation split that it can be computed on."
        )
    return {name: score for name, score in scores.items() if not math.isnan(score)}
