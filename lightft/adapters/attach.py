"""Put a fresh adapter on a base model without changing the base model."""

from __future__ import annotations

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
from collections.abc import Sequence

import torch
from peft import PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper
from transformers import PreTrainedModel

from lightft.adapters.spec import AdapterSite, AdapterSpec
from lightft.errors import AdapterError
from lightft.models import head_modules, provenance_of, share_weights
from lightft.models.quiet import quiet_peft
from lightft.models.structure import keep_head_in_float32

__all__ = ["attach_adapter"]


def attach_adapter(
    base: PreTrainedModel, task_type: str, spec: AdapterSpec, *, seed: int = 0
) -> PeftModel | PreTrainedModel:
    """Return a model with a fresh adapter; ``base`` keeps its structure, its settings and its weights.

    Args:
        base: the model with its head.
        task_type: a ``peft.TaskType`` value.
        spec: which adapter.
        seed: seeds the adapter's first weights.

    Raises:
        AdapterError: the adapter would train a module other than those asked for.
    """
    found = provenance_of(base)
    head = head_modules(base, found.new_parameters if found else ())
    if spec.definition.changes_base:
        whole = share_weights(base, copied=[name for name, _ in base.named_children()])
        return whole.float().requires_grad_(True)
    copy = share_weights(base, copied=head)
    keep_head_in_float32(copy, head)
    torch.manual_seed(seed)
    config = spec.build(AdapterSite(copy, task_type, head))
    if config is None:
        raise AdapterError(f"The adapter {spec.kind!r} built no peft config but does not declare changes_base.")
    if found is not None:
        config.base_model_name_or_path = found.source.location
        config.revision = found.source.revision
    with quiet_peft():
        model = get_peft_model(copy, config)
    _check_trained_modules(model, head)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()
    return model


def _check_trained_modules(model: PeftModel, head: Sequence[str]) -> None:
    """Make sure that peft, which finds modules by the end of their names, trains the head whole and nothing else."""
    wrapped = {
        name for name, module in model.get_base_model().named_modules() if isinstance(module, ModulesToSaveWrapper)
    }
    if wrapped != set(head):
        raise AdapterError(
            f"peft would train {sorted(wrapped)} whole, but the head is {sorted(head)}. Names that end alike "
            "cannot be told apart by peft; please report this architecture."
        )
