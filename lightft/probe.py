"""What a training will take, known before it starts: a few of its steps are taken on a copy, timed and counted."""

from __future__ import annotations

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightft.adapters.attach import attach_adapter
from lightft.cost import Stopwatch
from lightft.data import TaskData
from lightft.errors import InvalidSettingError
from lightft.experiment import LoRATrainer
from lightft.records import Example
from lightft.tasks import TaskHead
from lightft.tasks.head import LearnsFromTraining, max_input_length
from lightft.train_config import TrainConfig, TrainingResult
from lightft.training import Course, train_together

__all__ = ["Probe", "probe"]

_PREDICTED_EXAMPLES = 32


@dataclass(frozen=True)
class Probe:
    """What a training is going to take.

    Attributes:
        seconds_per_step: mean of the timed steps, which are spread evenly over the sizes of the steps.
        steps: optimiser steps of the whole training, if nothing ends it early.
        seconds: of the whole training with its validations and the prediction of the test split; loading the model and
            writing the run are not part.
        weight_bytes: as in ``Run.cost``, like the next three, where the same training gives the same numbers.
        gradient_bytes: of what is trained.
        optimizer_bytes: AdamW's two moments and step counts.
        activation_bytes: kept for the backward pass of the largest batch.
        peak_bytes: the highest use of memory in the steps taken, which the largest batch is one of, measured as
            ``peak_memory_bytes`` is, and the copy of the best epoch's weights.
    """

    seconds_per_step: float
    steps: int
    seconds: float
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    peak_bytes: int


def probe(trainer: LoRATrainer, data: TaskData, *, steps: int = 3) -> Probe:
    """Take a few steps of the training that ``trainer.fit(data)`` would do, on a copy, and return what all will take.

    Nothing is left behind: the trainer, its model and the random numbers of torch are as they were.

    Args:
        trainer: with its settings.
        data: the splits; up to 32 texts of the validation and the test split are predicted.
        steps: how many are timed; the largest of all is taken before them and warms up.

    Raises:
        InvalidSettingError: ``steps`` is below 1.
        AdapterError: the adapter does not fit the model.
        TrainingError: nothing to train or to learn from.
    """
    if steps < 1:
        raise InvalidSettingError(f"steps is {steps}; a probe times 1 step or more.")
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        base, tokenizer, head = trainer._base_model(data.train, data)
        return _probe(trainer, data, base, tokenizer, head, steps)


def _probe(
    trainer: LoRATrainer,
    data: TaskData,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    head: TaskHead,
    steps: int,
) -> Probe:
    config = trainer.config
    with Stopwatch(next(base.parameters()).device) as rehearsing:
        model, result, max_length = _rehearse(trainer, data, base, tokenizer, head, steps)
    seconds_per_step = sum(result.step_seconds[1:]) / steps
    planned = _planned_steps(config, result, seconds_per_step)
    epochs = math.ceil(planned / result.steps_per_epoch)
    preparing = rehearsing.seconds - sum(result.step_seconds)
    predictions = _Predictions(model, tokenizer, head, max_length)
    best = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    return Probe(
        seconds_per_step=seconds_per_step,
        steps=planned,
        seconds=preparing
        + planned * seconds_per_step
        + epochs * predictions.seconds(data.validation, validating=True)
        + predictions.seconds(data.test or data.validation, validating=False),
        peak_bytes=rehearsing.peak_bytes + (best if data.validation else 0),
        **result.memory,
    )


def _rehearse(
    trainer: LoRATrainer,
    data: TaskData,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    head: TaskHead,
    steps: int,
) -> tuple[PeftModel | PreTrainedModel, TrainingResult, int]:
    """Take the steps on a fresh adapter, and return the model with what happened and how many tokens it reads at once."""
    spec = trainer.adapter
    hooks = spec.hooks()
    model = attach_adapter(base, head.task_type, spec, seed=trainer.config.seed, hooks=hooks)
    max_length = max_input_length(model, tokenizer, trainer.config.max_length)
    config = replace(
        trainer.config,
        learning_rate=trainer.config.learning_rate or spec.definition.learning_rate_for(head.task_type),
        progress=False,
    )
    if config.max_seconds is not None:
        config = replace(config, max_seconds=None, epochs=1)
    trained_head = head.fitted(data.train) if isinstance(head, LearnsFromTraining) else head
    course = Course(model, trained_head, data.train, (), max_length, hooks)
    return model, train_together([course], tokenizer, config, rehearse=steps), max_length


def _planned_steps(config: TrainConfig, result: TrainingResult, seconds_per_step: float) -> int:
    if config.max_seconds is None:
        return result.planned_steps
    return min(math.ceil(config.max_seconds / seconds_per_step), config.epochs * result.steps_per_epoch)


@dataclass(frozen=True)
class _Predictions:
    """Answers that a model gives after the rehearsal, to know how long it takes for them."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    head: TaskHead
    max_length: int

    def seconds(self, examples: Sequence[Example], *, validating: bool) -> float:
        """Return how long all ``examples`` will take, by the tokens of some of them."""
        if not examples:
            return 0.0
        some = examples[:: math.ceil(len(examples) / _PREDICTED_EXAMPLES)]
        started = time.perf_counter()
        self.head.predict(self.model, self.tokenizer, some, max_length=self.max_length, validating=validating)
        seconds = time.perf_counter() - started
        return seconds * self._tokens(examples) / self._tokens(some)

    def _tokens(self, examples: Sequence[Example]) -> int:
        encodings, _ = self.head.encode(examples, self.tokenizer, self.max_length)
        return sum(len(encoding.input_ids) for encoding in encodings)
