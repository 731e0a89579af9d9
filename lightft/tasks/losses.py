"""What a classification head minimises: cross-entropy or focal loss, and how much a mistake on each class weighs."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from lightft.errors import InvalidSettingError, suggest
from lightft.tasks.head import IGNORED

__all__ = [
    "CLASS_WEIGHTINGS",
    "LOSS_FUNCTIONS",
    "LossSettings",
    "balanced_weights",
    "summed_cross_entropy",
    "summed_focal_loss",
]

LOSS_FUNCTIONS = ("cross-entropy", "focal")
CLASS_WEIGHTINGS = ("balanced", "sqrt-balanced")

_Head = TypeVar("_Head", bound="LossSettings")


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Settings that every classification head shares, for classes of which some are much rarer than others.

    The loss is a sum over labels, each times its weight. Weights from the training data average 1 over its labels, so
    that the learning rate means what it means without them. A class that no training row shows weighs 1.

    Attributes:
        loss_function: ``"cross-entropy"``, or ``"focal"``: cross-entropy times (1 − p)^focal_gamma, where p is the
            probability of the right class, so that labels the model is sure of count less (Lin et al. 2017,
            arXiv:1708.02002).
        focal_gamma: 0 or more; 0 is cross-entropy. Only ``"focal"`` reads it.
        label_smoothing: the share of the target, from 0 to below 1, that is spread evenly over all classes (Szegedy et
            al. 2016, arXiv:1512.00567). Cross-entropy only.
        class_weights: None; ``"balanced"``, n / (k × n of the class) for n training labels of k classes that occur;
            ``"sqrt-balanced"``, its square root, rescaled to average 1; or a weight by class, 1 for those not named.
    """

    loss_function: str = "cross-entropy"
    focal_gamma: float = 2.0
    label_smoothing: float = 0.0
    class_weights: str | Mapping[str, float] | None = None

    # No field: it is computed from the training data and is no setting, so that it is neither recorded nor compared.
    _computed_weights: ClassVar[Mapping[str, float] | None] = None

    def check_loss(self, classes: Collection[str]) -> None:
        """Refuse what is not accepted, for a head whose weights are of ``classes``.

        Raises:
            InvalidSettingError: an unknown name, or a number out of range.
        """
        if self.loss_function not in LOSS_FUNCTIONS:
            raise InvalidSettingError(
                f"No loss function named {self.loss_function!r}. {suggest(self.loss_function, LOSS_FUNCTIONS)}"
            )
        if not 0 <= self.focal_gamma < math.inf:
            raise InvalidSettingError(
                f"focal_gamma is {self.focal_gamma}; it must be 0 or more. 2 is the paper's, 0 gives cross-entropy."
            )
        if not 0 <= self.label_smoothing < 1:
            raise InvalidSettingError(
                f"label_smoothing is {self.label_smoothing}; it is a share, from 0 to below 1, such as 0.1."
            )
        if self.label_smoothing and self.loss_function != "cross-entropy":
            raise InvalidSettingError(
                f"label_smoothing is {self.label_smoothing} with the loss function {self.loss_function!r}; only "
                "'cross-entropy' has it. Leave one of the two out."
            )
        if isinstance(self.class_weights, str) and self.class_weights not in CLASS_WEIGHTINGS:
            raise InvalidSettingError(
                f"No class weights named {self.class_weights!r}. {suggest(self.class_weights, CLASS_WEIGHTINGS)} "
                "Or give a weight by class, such as {'rare': 5.0}."
            )
        if isinstance(self.class_weights, Mapping):
            # A plain dictionary of numbers is what JSON can hold.
            object.__setattr__(self, "class_weights", _checked_weights(self.class_weights, classes))

    def with_weights_of(self: _Head, counts: Mapping[str, int]) -> _Head:
        """Return a copy whose weights are computed from how often each class occurs in the training data."""
        if not isinstance(self.class_weights, str):
            return self
        fitted = copy.copy(self)
        weights = balanced_weights(counts, square_root=self.class_weights == "sqrt-balanced")
        object.__setattr__(fitted, "_computed_weights", weights)
        return fitted

    def class_loss(self, logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Tensor:
        """Return the loss summed over the labels that are not IGNORED, in float32.

        Args:
            logits: (..., outputs).
            labels: (...), numbers of outputs.
            classes: the class of each output, whose weight it has.

        Raises:
            InvalidSettingError: the weights come from the training data, which this head was not shown.
        """
        weights = self._weights_of(classes)
        weight = None if weights is None else torch.tensor(weights, device=logits.device)
        if self.loss_function == "focal":
            return summed_focal_loss(logits, labels, gamma=self.focal_gamma, weight=weight)
        return summed_cross_entropy(logits, labels, weight=weight, label_smoothing=self.label_smoothing)

    def _weights_of(self, classes: Sequence[str]) -> list[float] | None:
        known = self._computed_weights if isinstance(self.class_weights, str) else self.class_weights
        if known is None and self.class_weights is not None:
            raise InvalidSettingError(
                f"class_weights={self.class_weights!r} are computed from the training data, which this head has not seen. "
                "Train with LoRATrainer, or take head.fitted(train)."
            )
        return None if known is None else [known.get(name, 1.0) for name in classes]


def balanced_weights(counts: Mapping[str, int], *, square_root: bool = False) -> dict[str, float]:
    """Return the weight of every class that occurs: n / (k n_c), as scikit-learn computes ``"balanced"``.

    Args:
        counts: n_c, how often each class occurs.
        square_root: take the square root and rescale it, so that the n labels weigh 1 on average again.
    """
    occurring = {name: count for name, count in counts.items() if count}
    labels = sum(occurring.values())
    weights = {name: labels / (len(occurring) * count) for name, count in occurring.items()}
    if not square_root:
        return weights
    roots = {name: math.sqrt(weight) for name, weight in weights.items()}
    mean = sum(occurring[name] * root for name, root in roots.items()) / max(labels, 1)
    return {name: root / mean for name, root in roots.items()}


def summed_cross_entropy(
    logits: Tensor, labels: Tensor, *, weight: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return cross-entropy in nats, summed over the labels that are not IGNORED, in float32.

    Args:
        logits: (..., classes).
        labels: (...).
        weight: (classes,), of each class.
        label_smoothing: share of the target that is spread over all classes.
    """
    return functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float(),
        labels.reshape(-1),
        weight=weight,
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=label_smoothing,
    )


def summed_focal_loss(logits: Tensor, labels: Tensor, *, gamma: float, weight: Tensor | None = None) -> Tensor:
    """Return −w (1 − p)^gamma log p of the right class, summed over the labels that are not IGNORED, in float32.

    Lin et al. 2017 (arXiv:1708.02002), with a softmax in the place of their sigmoids.

    Args:
        logits: (..., classes).
        labels: (...).
        gamma: 0 or more.
        weight: w of each class, (classes,).
    """
    labelled = labels != IGNORED
    gold = labels[labelled]
    log_probability = logits[labelled].float().log_softmax(-1).gather(-1, gold[:, None]).squeeze(-1)
    # Between 0 and 1, gamma has an infinite slope at p = 1.
    doubt = (-torch.expm1(log_probability)).clamp(min=torch.finfo(torch.float32).eps)
    losses = -log_probability * doubt**gamma
    return (losses if weight is None else losses * weight[gold]).sum()


def _checked_weights(weights: Mapping[str, float], classes: Collection[str]) -> dict[str, float]:
    for name, weight in weights.items():
        if name not in classes:
            raise InvalidSettingError(f"class_weights names {name!r}, which is no class. {suggest(name, classes)}")
        if not 0 <= weight < math.inf:
            raise InvalidSettingError(
                f"class_weights gives {name!r} the weight {weight}; it must be 0 or more, and 1 changes nothing."
            )
    return {name: float(weight) for name, weight in weights.items()}
