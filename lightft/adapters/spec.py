"""AdapterSpec: which adapter to train, as plain data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lightft.errors import InvalidPluginError, InvalidSettingError, suggest
from lightft.registry import Registry

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

__all__ = ["ADAPTERS", "AdapterKind", "AdapterSite", "AdapterSpec", "register"]


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


@dataclass(frozen=True)
class AdapterKind:
    """A way to train a model.

    Attributes:
        build: called as ``build(site, **params)``; returns a fresh peft config, or None when the model itself is trained.
            Its keyword-only parameters are what users may set.
        learning_rate: the default peak learning rate.
        text_learning_rate: the same for text classification, where a step has one label a row instead of one a word and
            its gradient is noisier.
        causal_learning_rate: the same for causal language models.
        changes_base: whether the base's own weights end up changed.
    """

    build: Callable[..., PeftConfig | None]
    learning_rate: float
    text_learning_rate: float
    causal_learning_rate: float
    changes_base: bool = False

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
    return kind


ADAPTERS: Registry[AdapterKind] = Registry("adapters", "adapter", _validate)


def register(
    name: str,
    *,
    learning_rate: float = 1e-3,
    text_learning_rate: float | None = None,
    causal_learning_rate: float = 2e-4,
    changes_base: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that registers ``build(site, *, ...)`` as the adapter kind ``name``."""

    def decorate(build: Callable[..., Any]) -> Callable[..., Any]:
        kind = AdapterKind(
            build, learning_rate, text_learning_rate or learning_rate, causal_learning_rate, changes_base
        )
        ADAPTERS.add(name, kind)
        return build

    return decorate


@dataclass(frozen=True, init=False)
class AdapterSpec:
    """Which adapter to train: ``AdapterSpec("lora", r=16)`` or, from JSON, ``AdapterSpec("lora", {"r": 16})``.

    Defaults are filled in, so equal specs are equal.

    Raises:
        UnknownNameError: no adapter of that kind.
        InvalidSettingError: the kind has no such parameter.
    """

    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __init__(self, kind: str, params: Mapping[str, Any] | None = None, **keywords: Any) -> None:
        known = ADAPTERS[kind].parameters()
        given = {**(params or {}), **keywords}
        for name in given:
            if name not in known:
                raise InvalidSettingError(f"{kind!r} has no parameter {name!r}. {suggest(name, known)}")
        complete = {name: given.get(name, parameter.default) for name, parameter in known.items()}
        # Lists become tuples so that a spec read from JSON equals the one it was written from.
        object.__setattr__(self, "kind", kind)
        object.__setattr__(
            self,
            "params",
            {name: tuple(value) if isinstance(value, list) else value for name, value in complete.items()},
        )

    def __hash__(self) -> int:
        return hash((self.kind, tuple(self.params.items())))

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(f'{name}={value!r}' for name, value in self.params.items())})"

    @property
    def definition(self) -> AdapterKind:
        """The registered kind."""
        return ADAPTERS[self.kind]

    def build(self, site: AdapterSite) -> PeftConfig | None:
        """Return a fresh peft config for ``site`` (peft edits the one it is given); None for full fine-tuning."""
        return self.definition.build(site, **self.params)

    def to_json(self) -> dict[str, Any]:
        """Return ``{"kind": ..., "params": ...}``."""
        return {"kind": self.kind, "params": dict(self.params)}

    @classmethod
    def of(cls, value: AdapterSpec | str | Mapping[str, Any]) -> AdapterSpec:
        """Return a spec as it is, by its kind's name, or from ``to_json``'s data."""
        if isinstance(value, AdapterSpec):
            return value
        return cls(value) if isinstance(value, str) else cls(value["kind"], value.get("params"))
