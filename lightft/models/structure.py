"""What in a model is head and what is base, found by structure and never by a list of names."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lightft.errors import AdapterError
from lightft.models.quantization import int8_tensors

__all__ = [
    "cast_head_inputs",
    "count_parameters",
    "head_modules",
    "keep_head_in_float32",
    "linear_modules",
    "match_targets",
    "share_weights",
]


def head_modules(model: PreTrainedModel, new_parameters: Collection[str] = ()) -> tuple[str, ...]:
    """Return the full names of the modules that are trained whole.

    These are every child outside the base (``base_model_prefix``) and every module the checkpoint did not contain,
    wherever it stands (BERT's pooler, for instance). A language model's output layer is no head: it stays frozen
    unless the checkpoint lacked it.

    Args:
        model: a transformers model before any adapter was added.
        new_parameters: names of the parameters that were newly initialised (``missing_keys`` of ``from_pretrained``).
    """
    outside: list[str] = []
    base_is_a_child = model.base_model is not model
    if base_is_a_child and model.get_output_embeddings() is None:
        outside = [
            name
            for name, child in model.named_children()
            if name != model.base_model_prefix and next(child.parameters(), None) is not None
        ]
    return tuple(_outermost([*outside, *_owners(model, new_parameters)]))


def linear_modules(model: PreTrainedModel, head: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the full names of every linear layer inside the base: ``nn.Linear``, its quantised kinds and ``Conv1D``."""
    base = model.base_model
    prefix = "" if base is model else f"{model.base_model_prefix}."
    output = model.get_output_embeddings()
    return tuple(
        prefix + name
        for name, module in base.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and module is not output and not _is_inside(prefix + name, head)
    )


def match_targets(model: PreTrainedModel, targets: str | Sequence[str], head: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the full names of the layers that ``targets`` means.

    Args:
        model: the base model with its head.
        targets: ``"all"`` for every linear layer of the base, or names: each is a whole module path or the last parts
            of one (``"query"``, ``"attention.self.query"``).
        head: the head's module names; a target inside it is an error.

    Raises:
        AdapterError: a name matches nothing, or matches inside the head.
    """
    available = linear_modules(model, head)
    if targets == "all":
        return available
    wanted = [targets] if isinstance(targets, str) else list(targets)
    found: list[str] = []
    for target in wanted:
        matches = [name for name in available if name == target or name.endswith(f".{target}")]
        if not matches and any(_is_inside(target, [part]) or part.endswith(f".{target}") for part in head):
            raise AdapterError(
                f"The target {target!r} is part of the head, which is trained whole anyway. Leave it out."
            )
        if not matches:
            raise AdapterError(
                f"The target {target!r} matches no linear layer of {type(model).__name__}. "
                f"It has: {', '.join(_short_names(available))}. Or use targets='all'."
            )
        found.extend(name for name in matches if name not in found)
    return tuple(found)


def share_weights(model: PreTrainedModel, copied: Collection[str]) -> PreTrainedModel:
    """Return a model of its own structure over the same memory, so that adapters can be added to it.

    Frozen weights and buffers are shared with ``model``; only the modules named in ``copied`` get weights of their own.
    Whatever is then wrapped, trained or set on the result leaves ``model`` as it was.
    """
    memo: dict[int, Any] = {}
    for name, parameter in model.named_parameters():
        if _is_inside(name, copied):
            continue
        # A quantised parameter carries its quantisation state as attributes, which a fresh Parameter would lose.
        plain = type(parameter) is nn.Parameter
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False) if plain else parameter
    for name, buffer in model.named_buffers():
        if not _is_inside(name, copied):
            memo[id(buffer)] = buffer
    memo |= {id(tensor): tensor for tensor in int8_tensors(model)}
    return copy.deepcopy(model, memo)


def keep_head_in_float32(model: PreTrainedModel, head: Sequence[str]) -> None:
    """Hold the head in float32, whatever the base is held in, and let it take the base's activations."""
    for name in head:
        module = model.get_submodule(name)
        module.float()
        inside_base = model.base_model is not model and _is_inside(name, [model.base_model_prefix])
        cast_head_inputs(module, restore=inside_base)


def cast_head_inputs(module: nn.Module, *, restore: bool) -> None:
    """Make ``module`` cast floating-point inputs to float32 and, with ``restore``, its output back again."""
    if _inputs_to_float32 in module._forward_pre_hooks.values():
        return
    module.register_forward_pre_hook(_inputs_to_float32, with_kwargs=True)
    if restore:
        module.register_forward_hook(_output_like_input, with_kwargs=True)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return (trainable, total) parameters, each counted once.

    A 4-bit weight counts with its logical shape, not its packed bytes. peft keeps the frozen original beside each
    module it trains whole; that copy is not part of the model and is left out (``print_trainable_parameters`` counts it).
    """
    trainable = total = 0
    for name, parameter in model.named_parameters():
        if ".original_module." in name:
            continue
        state = getattr(parameter, "quant_state", None)
        size = state.shape.numel() if state is not None else parameter.numel()
        total += size
        trainable += size if parameter.requires_grad else 0
    return trainable, total


def _inputs_to_float32(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    return tuple(_to_float32(value) for value in args), {key: _to_float32(value) for key, value in kwargs.items()}


def _output_like_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    floating = [value for value in (*args, *kwargs.values()) if torch.is_tensor(value) and value.is_floating_point()]
    return output.to(floating[0].dtype) if floating and torch.is_tensor(output) else output


def _to_float32(value: Any) -> Any:
    return value.float() if torch.is_tensor(value) and value.is_floating_point() else value


def _owners(model: nn.Module, parameters: Iterable[str]) -> list[str]:
    """Return the largest modules all of whose parameters are among ``parameters``."""
    new = set(parameters)
    owners = []
    for name in new:
        owner = name.rpartition(".")[0]
        while owner:
            above = owner.rpartition(".")[0]
            if not above or not all(
                f"{above}.{inner}" in new for inner, _ in model.get_submodule(above).named_parameters()
            ):
                break
            owner = above
        owners.append(owner)
    return sorted(set(owners) - {""})


def _outermost(names: Iterable[str]) -> list[str]:
    ordered = list(dict.fromkeys(names))
    return [name for name in ordered if not any(name != other and _is_inside(name, [other]) for other in ordered)]


def _is_inside(name: str, modules: Collection[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _short_names(names: Iterable[str]) -> list[str]:
    """Return the distinct last parts of module paths, e.g. ``layer.*.attention.self.query`` as ``query``."""
    return list(dict.fromkeys(re.split(r"\.\d+\.", name)[-1] for name in names))
