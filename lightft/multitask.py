"""One shared adapter, several heads: tasks that learn together, each scored by its own metrics."""

from __future__ import annotations

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peft import PeftConfig
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightft.adapters import AdapterHooks, AdapterSpec
from lightft.adapters.attach import attach_adapter, check_fit
from lightft.cost import Stopwatch
from lightft.data import TaskData
from lightft.description import describe_data, describe_model, finished_run, is_same_run
from lightft.errors import AdapterError, DataError, InvalidSettingError
from lightft.experiment import training_cost, write_run
from lightft.inference import Predictor
from lightft.models import ModelLoader, count_parameters, provenance_of
from lightft.models.structure import head_modules, is_inside
from lightft.records import Run
from lightft.tasks import TASKS, TaskHead
from lightft.tasks.head import LearnsFromTraining, max_input_length
from lightft.train_config import TrainConfig
from lightft.training import Callback, Course, train_together

__all__ = ["MultiTaskTrainer"]


@dataclass(frozen=True)
class _Part:
    """One task: its data, its head, its model and what accompanies the adapter in it."""

    name: str
    data: TaskData
    head: TaskHead
    base: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    hooks: AdapterHooks
    model: Any
    max_length: int


class MultiTaskTrainer:
    """Trains one adapter for several tasks at once, with a head for each (Caruana 1997).

    Each optimiser step belongs to one task. What comes out is one run a task, each with an ordinary adapter folder: the
    shared adapter and that task's head.

    Args:
        loader: the base model; its task and labels are those of the data.
        adapter: an AdapterSpec, a kind's name or a peft config.
        heads: task heads by name, where the defaults do not do.
        shares: of the steps by task, such as ``{"sentiment": 1, "ner": 3}``; None is in proportion to the data.
        output_dir: where ``fit`` writes a run for each task, in a folder of its name.
        callbacks: called with each row of the training history.
        settings: fields of TrainConfig.

    Raises:
        InvalidSettingError: a setting that does not exist or is out of range.
    """

    def __init__(
        self,
        loader: ModelLoader,
        *,
        adapter: AdapterSpec | PeftConfig | str = "lora",
        heads: Mapping[str, TaskHead] | None = None,
        shares: Mapping[str, float] | None = None,
        output_dir: str | Path,
        callbacks: Sequence[Callback] = (),
        **settings: Any,
    ) -> None:
        self.loader = loader
        self.adapter = AdapterSpec.of(adapter)
        self.heads = dict(heads or {})
        self.shares = dict(shares or {})
        self.output_dir = Path(output_dir)
        self.callbacks = tuple(callbacks)
        self.config = TrainConfig.from_settings(settings)

    def fit(self, data: Mapping[str, TaskData], *, resume: bool = False) -> dict[str, Run]:
        """Train on every task's train split, keep the best epoch, predict every test split, and write the runs.

        The best epoch is the one with the highest mean of the tasks' headline validation scores.

        Args:
            data: the splits of each task, by the name its run gets.
            resume: return the finished runs in ``output_dir`` if they were made with the same settings and data.

        Returns:
            The runs, by name.

        Raises:
            InvalidSettingError: fewer than two tasks, shares of other tasks, or ``output_dir`` holds other runs.
            DataError: a task has nothing to score on.
            AdapterError: the adapter cannot be shared.
        """
        self._check(data)
        parts = self._parts(data)
        config = replace(self.config, learning_rate=self._learning_rate(parts))
        described = {part.name: self._describe(part, parts, config) for part in parts}
        finished = self._finished(described, resume=resume)
        if finished is not None:
            return finished
        courses = [
            Course(
                part.model,
                part.head.fitted(part.data.train) if isinstance(part.head, LearnsFromTraining) else part.head,
                part.data.train,
                part.data.validation,
                part.max_length,
                part.hooks,
                part.name,
                self.shares.get(part.name),
            )
            for part in parts
        ]
        device = next(parts[0].model.parameters()).device
        with Stopwatch(device) as training:
            result = train_together(courses, parts[0].tokenizer, config, callbacks=self.callbacks)
        runs = {}
        for part in parts:
            result.trainable_parameters, result.total_parameters = count_parameters(part.model)
            model = part.hooks.after_training(part.model, part.base)
            predictor = Predictor(model, part.tokenizer, part.head, part.max_length)
            cost = training_cost(result, training)
            runs[part.name] = write_run(
                predictor, part.data, described[part.name], result, cost, self.output_dir / part.name
            )
        return runs

    def _check(self, data: Mapping[str, TaskData]) -> None:
        if len(data) < 2:
            raise InvalidSettingError(
                f"{len(data)} task was given: {', '.join(data) or 'none'}. Give two or more by name, or use LoRATrainer."
            )
        for name, its_data in data.items():
            if not its_data.test and not its_data.validation:
                raise DataError(
                    f"The data of {name!r} has neither a test nor a validation split, so that its run could not be "
                    "scored. Load it with validation=0.1."
                )
        for given, what in ((self.shares, "shares"), (self.heads, "heads")):
            unknown = sorted(set(given) - set(data))
            if unknown:
                raise InvalidSettingError(f"{what} names {', '.join(unknown)}; the tasks are {', '.join(data)}.")
        if self.shares and (set(self.shares) != set(data) or min(self.shares.values()) <= 0):
            raise InvalidSettingError(
                f"shares is {self.shares}; give every task a number above 0 ({', '.join(data)}), or leave shares out."
            )

    def _parts(self, data: Mapping[str, TaskData]) -> list[_Part]:
        parts: list[_Part] = []
        for name, its_data in data.items():
            head = self.heads.get(name) or _default_head(its_data)
            hooks = self.adapter.hooks()
            if hooks.reads_data:
                raise AdapterError(
                    f"{self.adapter.kind!r} starts from the data of one task, so that several cannot share it. Use 'lora'."
                )
            loader = self.loader.replace(dtype="float32") if hooks.needs_float32_base else self.loader
            loader = loader.replace(task=its_data.task, labels=its_data.labels or None)
            check_fit(self.adapter, loader.sketch(head.task_type), head.task_type, quantization=loader.quantization)
            base, tokenizer = head.load_model(loader)
            if parts:
                _share_base(parts[0].base, base)
            model = attach_adapter(base, head.task_type, self.adapter, seed=self.config.seed, hooks=hooks)
            if parts:
                _share_adapter(parts[0].model, model)
            length = max_input_length(model, tokenizer, self.config.max_length)
            parts.append(_Part(name, its_data, head, base, tokenizer, hooks, model, length))
        return parts

    def _learning_rate(self, parts: Sequence[_Part]) -> float:
        """Return the one asked for, else the lowest default of the tasks: no head may leap ahead of the shared adapter."""
        if self.config.learning_rate is not None:
            return self.config.learning_rate
        return min(self.adapter.definition.learning_rate_for(part.head.task_type) for part in parts)

    def _describe(self, part: _Part, parts: Sequence[_Part], config: TrainConfig) -> dict[str, Any]:
        described = describe_model(part.base, part.head, self.adapter, config)
        together = {other.name: other.data.fingerprint for other in parts}
        training = {**described["training"], "together_with": together, "shares": self.shares}
        return {**described, "training": training, "data": describe_data(part.data)}

    def _finished(self, described: Mapping[str, dict[str, Any]], *, resume: bool) -> dict[str, Run] | None:
        found = {name: finished_run(self.output_dir / name) for name in described}
        runs = {name: run for name, run in found.items() if run is not None}
        if not runs:
            return None
        same = all(name in runs and is_same_run(runs[name], asked) for name, asked in described.items())
        if resume and same:
            return runs
        raise InvalidSettingError(
            f"{self.output_dir} already holds the runs {', '.join(runs)}"
            f"{', made with other settings or data' if resume else ''}. Choose another output_dir, or delete them."
        )


def _default_head(data: TaskData) -> TaskHead:
    return TASKS[data.task](labels=data.labels) if data.labels else TASKS[data.task]()


def _share_base(first: PreTrainedModel, other: PreTrainedModel) -> None:
    """Let two models of one checkpoint hold its weights once."""
    mine = _weights_of_base(first)
    for name, parameter in _weights_of_base(other).items():
        # An 8-bit layer takes its scales off its weight at first use, so that two layers cannot hold one weight.
        if name in mine and type(parameter).__name__ != "Int8Params":
            _put(other, name, mine[name])


def _share_adapter(first: nn.Module, other: nn.Module) -> None:
    """Let two models hold the same trained parameters wherever both have them outside their heads.

    Raises:
        AdapterError: nothing that is trained could be shared.
    """
    mine = _trained_outside_head(first)
    common = [name for name in _trained_outside_head(other) if name in mine]
    if not common:
        raise AdapterError(
            "The tasks would share nothing that is trained: the adapter trains the heads alone. Use 'lora', or train each "
            "task by itself."
        )
    for name in common:
        _put(other, name, mine[name])


def _weights_of_base(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    found = provenance_of(model)
    head = head_modules(model, found.new_parameters if found else ())
    return {name: parameter for name, parameter in model.named_parameters() if not is_inside(name, head)}


def _trained_outside_head(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what is trained of an adapter, or of the base of a model that is trained whole."""
    if isinstance(model, PreTrainedModel):
        return _weights_of_base(model)
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and ".modules_to_save." not in name
    }


def _put(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    owner, _, last = name.rpartition(".")
    model.get_submodule(owner).register_parameter(last, parameter)
