"""What an adapter kind is: a builder whose signature is its schema, and hooks for what a config cannot say."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lightft.errors import AdapterError, InvalidPluginError
from lightft.registry import Registry

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor, nn
    from transformers import PreTrainedModel

__all__ = ["ADAPTERS", "AdapterHooks", "AdapterKind", "AdapterSite", "AdapterUse", "TrainingPlan", "register"]


@dataclass(frozen=True)
class AdapterSite:
    """Where an adapter goes.

    Attributes:
        model: the base model with its head, as yet unwrapped.
        task_type: a ``peft.TaskType`` value; it comes from the head, never from the user.
        head: full names of the modules that are trained and saved whole.
    """

    model: PreTrainedModel
    task_type: str
    head: tuple[str, ...]

    def targets(self, wanted: str | Sequence[str]) -> list[str]:
        """Return the full names of the layers that ``wanted`` means (see ``models.match_targets``)."""
        from lightft.models import match_targets

        return list(match_targets(self.model, wanted, self.head))

    def is_transposed(self, targets: Sequence[str]) -> bool:
        """Whether the layers called ``targets`` hold their weights as (inputs, outputs): GPT-2's ``Conv1D``."""
        from transformers.pytorch_utils import Conv1D

        return bool(targets) and all(isinstance(self.model.get_submodule(name), Conv1D) for name in targets)

    def check_rank(self, r: int, targets: Sequence[str], name: str = "r") -> None:
        """Refuse a rank above the smaller side of a layer: it could express no more than the layer itself.

        Raises:
            AdapterError: naming the layer and the largest rank.
        """
        from lightft.models.structure import layer_shape

        smallest, layer = min((min(layer_shape(self.model.get_submodule(target))), target) for target in targets)
        if r > smallest:
            raise AdapterError(
                f"{name}={r} is larger than the layer {layer!r} allows, whose smaller side is {smallest}. "
                f"Use {name}={smallest} or less, or leave that layer out of targets."
            )


@dataclass(frozen=True)
class AdapterUse:
    """What is known before any weight of the base is loaded.

    Attributes:
        model: the model with its head; its weights may lie on the meta device.
        task_type: a ``peft.TaskType`` value.
        quantization: None, ``"nf4"`` or ``"int8"``.
    """

    model: PreTrainedModel
    task_type: str
    quantization: str | None

    @property
    def architecture(self) -> str:
        """The model type as its config names it, such as ``"bert"``."""
        return str(self.model.config.get_text_config().model_type)

    @cached_property
    def has_transposed_layers(self) -> bool:
        """Whether the base is built of ``Conv1D``, which holds weights as (inputs, outputs)."""
        from transformers.pytorch_utils import Conv1D

        return any(isinstance(module, Conv1D) for module in self.model.modules())


@dataclass(frozen=True)
class TrainingPlan:
    """What is known when training is about to begin.

    Attributes:
        steps: optimiser steps there will be; None where training ends after so many seconds.
        batches: called with a number of rows; yields model inputs of so many training rows each, on the model's device, in
            an order drawn by the seed. Rows that fill no batch are left out.
    """

    steps: int | None
    batches: Callable[[int], Iterator[dict[str, Tensor]]]


class AdapterHooks:
    """What a kind does beside being built. One object accompanies one adapter through one training.

    Every method does nothing unless a kind overrides it.

    Args:
        params: of the spec, complete.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = params

    def refusal(self, use: AdapterUse) -> str | None:
        """Return why this kind cannot be trained in this use and what to do instead; None if it can."""

    @property
    def needs_float32_base(self) -> bool:
        """Whether parameters of the base itself are trained, which float32 alone can do well."""
        return False

    @property
    def rewrites_base(self) -> bool:
        """Whether weights of the base are changed when the adapter is attached; they are then copied first."""
        return False

    @property
    def reads_data(self) -> bool:
        """Whether the adapter's start depends on the training data of one task."""
        return False

    def after_attach(self, model: Any) -> None:
        """Finish the ``PeftModel`` that has just got a fresh adapter."""

    def before_training(self, model: Any, plan: TrainingPlan) -> None:
        """Look at the data, or at how long training will be."""

    def learning_rate_factor(self, parameter: str) -> float:
        """Return what the learning rate of the parameter of that full name is multiplied by."""
        del parameter
        return 1.0

    def penalty(self, model: Any) -> Tensor | None:
        """Return a scalar that is added to the loss of each step."""

    def after_step(self, model: Any, step: int) -> None:
        """Act after optimiser step ``step``, counted from 1, while its gradients are still there."""

    def after_training(self, model: Any, base: PreTrainedModel) -> nn.Module:
        """Return the model to keep, once the best epoch's weights are in ``model``; ``base`` is as it was before."""
        del base
        trained: nn.Module = model
        return trained


@dataclass(frozen=True)
class AdapterKind:
    """A way to train a model.

    Attributes:
        build: called as ``build(site, **params)``; returns a fresh peft config, or None when the model itself is trained.
            Its keyword-only parameters are what users may set, and their annotations are checked.
        learning_rate: the default peak learning rate.
        text_learning_rate: the same for text classification, where a step has one label a row instead of one a word and
            its gradient is noisier.
        causal_learning_rate: the same for causal language models.
        changes_base: whether the base's own weights are changed while training.
        hooks: called with the params of a spec, once per training; what else the kind does.
    """

    build: Callable[..., PeftConfig | None]
    learning_rate: float
    text_learning_rate: float
    causal_learning_rate: float
    changes_base: bool = False
    hooks: Callable[[Mapping[str, Any]], AdapterHooks] = AdapterHooks

    def learning_rate_for(self, task_type: str) -> float:
        """Return the default peak learning rate for a task of a ``peft.TaskType``."""
        by_type = {"SEQ_CLS": self.text_learning_rate, "CAUSAL_LM": self.causal_learning_rate}
        return by_type.get(task_type, self.learning_rate)

    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """Return the keyword-only parameters of the builder, by name."""
        signature = inspect.signature(self.build)
        return {
            name: parameter
            for name, parameter in signature.parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }


def _validate(name: str, kind: AdapterKind) -> AdapterKind:
    if not isinstance(kind, AdapterKind):
        raise InvalidPluginError(
            f"The adapter {name!r} is a {type(kind).__name__}. Register a builder with @lightft.adapters.register({name!r})."
        )
    positional = [
        parameter.name
        for parameter in inspect.signature(kind.build).parameters.values()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    without_default = [
        parameter.name for parameter in kind.parameters().values() if parameter.default is inspect.Parameter.empty
    ]
    if len(positional) != 1 or without_default:
        raise InvalidPluginError(
            f"The builder of adapter {name!r} must take the site and then keyword-only parameters with defaults; "
            f"it takes {inspect.signature(kind.build)}."
        )
    if not callable(kind.hooks):
        raise InvalidPluginError(
            f"The hooks of adapter {name!r} are {kind.hooks!r}. Give a class that inherits lightft.adapters.AdapterHooks."
        )
    return kind


ADAPTERS: Registry[AdapterKind] = Registry("adapters", "adapter", _validate)


def register(
    name: str,
    *,
    learning_rate: float = 1e-3,
    text_learning_rate: float | None = None,
    causal_learning_rate: float = 2e-4,
    changes_base: bool = False,
    hooks: Callable[[Mapping[str, Any]], AdapterHooks] = AdapterHooks,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that registers ``build(site, *, ...)`` as the adapter kind ``name``."""

    def decorate(build: Callable[..., Any]) -> Callable[..., Any]:
        kind = AdapterKind(
            build, learning_rate, text_learning_rate or learning_rate, causal_learning_rate, changes_base, hooks
        )
        ADAPTERS.add(name, kind)
        return build

    return decorate
