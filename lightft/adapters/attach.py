"""Put a fresh adapter on a base model without changing the base model."""

from __future__ import annotations

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
from collections.abc import Sequence

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel

from lightft.adapters.kind import AdapterHooks, AdapterSite, AdapterUse
from lightft.adapters.spec import AdapterSpec
from lightft.errors import AdapterError
from lightft.models import head_modules, linear_modules, provenance_of, share_weights
from lightft.models.prompts import mend_virtual_tokens
from lightft.models.quantization import quantization_of
from lightft.models.quiet import quiet_peft
from lightft.models.structure import hold_in_float32, keep_head_in_float32

__all__ = ["attach_adapter", "check_fit"]


def attach_adapter(
    base: PreTrainedModel,
    task_type: str,
    spec: AdapterSpec,
    *,
    seed: int = 0,
    hooks: AdapterHooks | None = None,
    initialise: bool = True,
) -> PeftModel | PreTrainedModel:
    """Return a model with a fresh adapter; ``base`` keeps its structure, its settings and its weights.

    Args:
        base: the model with its head.
        task_type: a ``peft.TaskType`` value.
        spec: which adapter.
        seed: seeds the adapter's first weights.
        hooks: what accompanies this adapter through its training; new ones by default.
        initialise: False leaves out a start that is costly to compute, for a look at the adapter's structure.

    Raises:
        AdapterError: the adapter does not fit the model, or would train a module other than those asked for.
    """
    hooks = hooks or spec.hooks()
    found = provenance_of(base)
    head = head_modules(base, found.new_parameters if found else ())
    _refuse(hooks, spec, AdapterUse(base, task_type, quantization_of(base)))
    config = spec.build(AdapterSite(base, task_type, head))
    if config is None and not spec.definition.changes_base:
        raise AdapterError(f"The adapter {spec.kind!r} built no peft config but does not declare changes_base.")
    if config is None and not initialise:
        return share_weights(base, copied=[]).requires_grad_(True)
    if config is None:
        whole = share_weights(base, copied=[name for name, _ in base.named_children()])
        return whole.float().requires_grad_(True)
    copied = [*head, *linear_modules(base, head)] if hooks.rewrites_base and initialise else head
    copy = share_weights(base, copied=copied)
    if hooks.needs_float32_base:
        hold_in_float32(copy)
    keep_head_in_float32(copy, head)
    if found is not None:
        config.base_model_name_or_path = found.source.location
        config.revision = found.source.revision
    if not initialise:
        vars(config)["init_lora_weights"] = False
    torch.manual_seed(seed)
    with quiet_peft():
        model = get_peft_model(copy, config)
    _check_trained_modules(model, config)
    _own_what_is_trained(model, base)
    mend_virtual_tokens(model)
    hooks.after_attach(model)
    return model


def check_fit(spec: AdapterSpec, sketch: PreTrainedModel, task_type: str, *, quantization: str | None = None) -> None:
    """Refuse an adapter that does not fit, before any weight is loaded.

    Args:
        spec: which adapter.
        sketch: the model with its head and without weights.
        task_type: a ``peft.TaskType`` value.
        quantization: what the base will be held in.

    Raises:
        AdapterError: with the reason and the next step.
    """
    _refuse(spec.hooks(), spec, AdapterUse(sketch, task_type, quantization))
    spec.build(AdapterSite(sketch, task_type, head_modules(sketch)))


def _refuse(hooks: AdapterHooks, spec: AdapterSpec, use: AdapterUse) -> None:
    reason = hooks.refusal(use)
    if reason is not None:
        raise AdapterError(f"{spec.kind!r} cannot be trained on this {type(use.model).__name__}: {reason}")


def _check_trained_modules(model: PeftModel, config: PeftConfig) -> None:
    """Make sure that peft, which finds modules by the end of their names, trains the head whole and nothing else."""
    wrapped = {
        name for name, module in model.get_base_model().named_modules() if isinstance(module, ModulesToSaveWrapper)
    }
    asked = _outermost_existing(model.get_base_model(), config.modules_to_save or ())
    if wrapped != asked:
        raise AdapterError(
            f"peft would train {sorted(wrapped)} whole, but the head is {sorted(asked)}. Names that end alike "
            "cannot be told apart by peft; please report this architecture."
        )


def _outermost_existing(model: nn.Module, names: Sequence[str]) -> set[str]:
    # peft adds its own guesses of what a head is called to the list it was given.
    present = {name for name, _ in model.named_modules()}
    return {name for name in names if name in present}


def _own_what_is_trained(model: PeftModel, base: PreTrainedModel) -> None:
    """Hold what is trained in float32, in memory of its own: biases of the base are shared with it until now."""
    shared = {parameter.data_ptr() for parameter in base.parameters()}
    for name, parameter in model.named_parameters():
        if ".original_module." in name:
            parameter.requires_grad_(False)
        if parameter.requires_grad and (parameter.dtype != torch.float32 or parameter.data_ptr() in shared):
            parameter.data = parameter.detach().clone().float()
