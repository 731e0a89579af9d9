"""How to train, and what happened: the settings of a training and its account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lightft.errors import InvalidSettingError, suggest

__all__ = ["SCHEDULES", "TrainConfig", "TrainingResult"]

SCHEDULES = ("linear", "cosine", "constant")
_PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        epochs: passes over the training split.
        max_steps: end after so many optimiser steps, even inside an epoch; None trains all epochs.
        max_seconds: end at the first optimiser step after so many seconds of steps, validation not counted, even inside an
            epoch; None sets no limit. The schedule then runs over the share of the seconds that has passed.
        learning_rate: the peak; None takes the adapter kind's default.
        batch_size: rows per optimiser step and accumulation step; of rows with many labels (words, tokens) the
            average number, so that every step learns from about as many labels.
        accumulation: an optimiser step covers ``batch_size × accumulation`` rows. The loss is the mean over all their
            labels, however they are split.
        max_tokens: padded tokens of one forward pass at most; less needs less memory and changes nothing else. None is
            8192, or for a language model so many that the scores of its vocabulary fit into 256 MiB.
        max_length: tokens per row at most; None is what the model can read.
        schedule: ``"linear"`` or ``"cosine"`` decay to zero, or ``"constant"``, each after the warm-up.
        warmup: share of the steps over which the learning rate rises from zero.
        weight_decay: AdamW's (Loshchilov and Hutter 2019, arXiv:1711.05101); biases and norms are spared.
        max_grad_norm: the gradient is scaled down to this norm; 0 leaves it.
        seed: seeds the order of the data and dropout.
        precision: of the computation when the model is held in float32: ``"auto"`` is bfloat16 where it is native.
        gradient_checkpointing: recompute activations in the backward pass: less memory, more time.
        by_length: batch rows of like length together.
        validation_metric: by which the best epoch is chosen, always on the validation split; None is the head's first.
        patience: stop after so many epochs without a better validation score; None never stops early.
        progress: show a progress bar.
    """

    epochs: int = 3
    max_steps: int | None = None
    max_seconds: float | None = None
    learning_rate: float | None = None
    batch_size: int = 16
    accumulation: int = 1
    max_tokens: int | None = None
    max_length: int | None = None
    schedule: str = "linear"
    warmup: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    precision: str = "auto"
    gradient_checkpointing: bool = False
    by_length: bool = True
    validation_metric: str | None = None
    patience: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulation"):
            if getattr(self, name) is None or getattr(self, name) < 1:
                raise InvalidSettingError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        for name in ("max_tokens", "max_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InvalidSettingError(
                    f"{name} is {getattr(self, name)}; it must be 1 or more, or None for the default."
                )
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise InvalidSettingError(f"max_seconds is {self.max_seconds}; it must be above 0, or None for no limit.")
        if self.max_seconds is not None and self.max_steps is not None:
            raise InvalidSettingError(
                "Give max_steps or max_seconds, not both: training ends by the one or by the other."
            )
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise InvalidSettingError(f"learning_rate is {self.learning_rate}; it must lie between 0 and 1.")
        if not 0 <= self.warmup < 1:
            raise InvalidSettingError(f"warmup is {self.warmup}; it is the share of steps, from 0 to below 1.")
        if self.schedule not in SCHEDULES:
            raise InvalidSettingError(f"No schedule named {self.schedule!r}. {suggest(self.schedule, SCHEDULES)}")
        if self.precision not in _PRECISIONS:
            raise InvalidSettingError(f"No precision named {self.precision!r}. {suggest(self.precision, _PRECISIONS)}")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> TrainConfig:
        """Build from keywords; an unknown one is refused with the nearest known name."""
        for name in settings:
            if name not in cls.__dataclass_fields__:
                raise InvalidSettingError(f"There is no setting {name!r}. {suggest(name, cls.__dataclass_fields__)}")
        return cls(**settings)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain data."""
        return asdict(self)


@dataclass
class TrainingResult:
    """What happened in training.

    Attributes:
        history: rows ``step, epoch, train_loss, learning_rate, gradient_norm`` and ``step, epoch, validation_<metric>``.
        steps: optimiser steps taken.
        rows: rows seen, repeats included.
        tokens: tokens seen, padding left out.
        padded_tokens: tokens computed, padding included.
        best_epoch: the epoch (from 1) whose weights were kept; the last one when there was no validation split.
        best_score: its validation score; None without a validation split.
        seconds_to_best: from the first step to the end of the best epoch's validation; without a validation split of the
            last epoch.
        step_seconds: of each optimiser step.
        planned_steps: optimiser steps if nothing ends training early; 0 where a number of seconds ends it.
        steps_per_epoch: of the last epoch that was begun, were it not cut off.
        memory: ``weight_bytes``, ``gradient_bytes``, ``optimizer_bytes`` and ``activation_bytes``, as in ``Run.cost``.
        counts: what did not fit in encoding, by kind.
        trainable_parameters: trained, each counted once.
        total_parameters: of the model with its adapter.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    rows: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    best_epoch: int = 0
    best_score: float | None = None
    seconds_to_best: float = 0.0
    step_seconds: list[float] = field(default_factory=list)
    planned_steps: int = 0
    steps_per_epoch: int = 0
    memory: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    trainable_parameters: int = 0
    total_parameters: int = 0
