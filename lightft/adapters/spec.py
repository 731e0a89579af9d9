"""AdapterSpec: which adapter to train, as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lightft.adapters.kind import ADAPTERS, AdapterHooks, AdapterKind, AdapterSite
from lightft.adapters.schema import check_value, schema_of
from lightft.errors import InvalidSettingError, suggest

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

    from lightft.adapters.explaining import Explanation

__all__ = ["AdapterSpec"]


@dataclass(frozen=True, init=False)
class AdapterSpec:
    """Which adapter to train: ``AdapterSpec("lora", r=16)`` or, from JSON, ``AdapterSpec("lora", {"r": 16})``.

    Defaults are filled in, so equal specs are equal.

    Raises:
        UnknownNameError: no adapter of that kind.
        InvalidSettingError: the kind has no such parameter, or the parameter cannot have that value.
    """

    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __init__(self, kind: str, params: Mapping[str, Any] | None = None, **keywords: Any) -> None:
        definition = ADAPTERS[kind]
        known = definition.parameters()
        given = {**(params or {}), **keywords}
        schema = schema_of(definition.build)
        for name, value in given.items():
            if name not in known:
                raise InvalidSettingError(f"{kind!r} has no parameter {name!r}. {suggest(name, known)}")
            if name in schema:
                check_value(kind, name, value, schema[name])
        complete = {name: given.get(name, parameter.default) for name, parameter in known.items()}
        # Lists become tuples so that a spec read from JSON equals the one it was written from.
        object.__setattr__(self, "kind", kind)
        object.__setattr__(
            self,
            "params",
            {name: tuple(value) if isinstance(value, list) else value for name, value in complete.items()},
        )

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_json(), sort_keys=True))

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(f'{name}={value!r}' for name, value in self.params.items())})"

    @property
    def definition(self) -> AdapterKind:
        """The registered kind."""
        return ADAPTERS[self.kind]

    def build(self, site: AdapterSite) -> PeftConfig | None:
        """Return a fresh peft config for ``site`` (peft edits the one it is given); None for full fine-tuning."""
        return self.definition.build(site, **self.params)

    def hooks(self) -> AdapterHooks:
        """Return what accompanies one adapter of this spec through one training."""
        return self.definition.hooks(self.params)

    def explain(self, model: PreTrainedModel, *, task_type: str | None = None) -> Explanation:
        """Return which modules of ``model`` would be trained, their shapes and parameters; printing it gives a table.

        Args:
            model: a base model with its head, as ``ModelLoader.load_model`` returns it. It is not changed.
            task_type: a ``peft.TaskType`` value, where the model does not tell.

        Raises:
            AdapterError: the adapter does not fit the model.
        """
        from lightft.adapters.explaining import explain_adapter

        return explain_adapter(self, model, task_type=task_type)

    def to_json(self) -> dict[str, Any]:
        """Return ``{"kind": ..., "params": ...}``."""
        return {"kind": self.kind, "params": dict(self.params)}

    @classmethod
    def of(cls, value: AdapterSpec | str | Mapping[str, Any] | PeftConfig) -> AdapterSpec:
        """Return a spec as it is, by its kind's name, from ``to_json``'s data, or of a ready peft config."""
        if isinstance(value, AdapterSpec):
            return value
        if isinstance(value, str):
            return cls(value)
        if isinstance(value, Mapping):
            return cls(value["kind"], value.get("params"))
        from lightft.adapters.ready_config import spec_of_config

        return spec_of_config(value)
