"""What in a model is head and what is base, found by structure and never by a list of names."""

from __future__ import annotations

import copy
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
    "hold_in_float32",
    "is_inside",
    "keep_head_in_float32",
    "layer_shape",
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


def share_weights(model: PreTrainedModel, copied: Collection[str]) -> PreTrainedModel:
    """Return a model of its own structure over the same memory, so that adapters can be added to it.

    Frozen weights and buffers are shared with ``model``; only the modules named in ``copied`` get weights of their own.
    Whatever is then wrapped, trained or set on the result leaves ``model`` as it was.
    """
    memo: dict[int, Any] = {}
    for name, parameter in model.named_parameters():
        if is_inside(name, copied):
            continue
        # A quantised parameter carries its quantisation state as attributes, which a fresh Parameter would lose.
        plain = type(parameter) is nn.Parameter
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False) if plain else parameter
    for name, buffer in model.named_buffers():
        if not is_inside(name, copied):
            memo[id(buffer)] = buffer
    memo |= {id(tensor): tensor for tensor in int8_tensors(model)}
    return copy.deepcopy(model, memo)


def layer_shape(layer: nn.Module) -> tuple[int, int]:
    """Return (inputs, outputs) of a linear layer, however it is stored."""
    if isinstance(layer, Conv1D):
        return layer.nx, layer.nf
    if not isinstance(layer, nn.Linear):
        raise AdapterError(f"A {type(layer).__name__} is no linear layer.")
    return layer.in_features, layer.out_features


def hold_in_float32(model: PreTrainedModel) -> None:
    """Hold in float32 all that is not quantised: parameters of the base that are trained need it."""
    for parameter in model.parameters():
        if type(parameter) is nn.Parameter and parameter.is_floating_point():
            parameter.data = parameter.data.float()


def keep_head_in_float32(model: PreTrainedModel, head: Sequence[str]) -> None:
    """Hold the head in float32, whatever the base is held in, and let it take the base's activations."""
    for name in head:
        module = model.get_submodule(name)
        module.float()
        inside_base = model.base_model is not model and is_inside(name, [model.base_model_prefix])
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


def is_inside(name: str, modules: Collection[str]) -> bool:
    """Whether the module or parameter called ``name`` is one of ``modules`` or stands inside one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _inputs_to_float32(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    return tuple(_to_float32(value) for value in args), {key: _to_float32(value) for key, value in kwargs.items()}


def _output_like_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    floating = [value for value in (*args, *kwargs.values()) if torch.is_tensor(value) and value.is_floating_point()]
    return output.to(floating[0].dtype) if floating and torch.is_tensor(output) else output


def _to_float32(value: Any) -> Any:
    """Return what has less precision in float32; a model that computes in float64 as a whole stays with that."""
    is_less = torch.is_tensor(value) and value.is_floating_point() and value.dtype != torch.float64
    return value.float() if is_less else value


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
    return [name for name in ordered if not any(name != other and is_inside(name, [other]) for other in ordered)]
