"""LoRA updates computed in the precision of the base, as mixed-precision training does on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import Linear, LoraLayer
from torch import Tensor, nn

__all__ = ["lora_in_base_precision"]


@contextmanager
def lora_in_base_precision(model: nn.Module) -> Iterator[None]:
    """Let the plain LoRA layers of ``model`` add their updates in one product while the block runs and the model trains.

    On a base in bfloat16 peft turns each input of a layer into float32, multiplies it there, scales the product, rounds it
    and adds it: five passes over memory per layer, and as many back, which took a fifth of a training step on a CPU. Here
    the matrices, which stay float32 and learn in float32, are rounded instead, and the processor's bfloat16 products add
    up to the layer's output. Layers whose base computes in float32, DoRA and other variants, and layers with several
    active adapters compute as before.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer) and _is_plain(layer)]
    for layer in layers:
        layer.forward = _forward_of(layer, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_plain(layer: Any) -> bool:
    # Layers over quantised weights are classes of their own beside Linear; what they lack is found below.
    is_linear = isinstance(layer, Linear) or type(layer).__name__ in ("Linear4bit", "Linear8bitLt")
    return (
        is_linear
        and len(layer.active_adapters) == 1
        and layer.active_adapters[0] in layer.lora_A
        and layer.active_adapters[0] not in layer.lora_variant
        and layer.lora_B[layer.active_adapters[0]].bias is None
    )


def _forward_of(layer: Any, own_forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(x: Tensor, *arguments: Any, **named: Any) -> Tensor:
        if not layer.training or layer.disable_adapters or layer.merged or x.dtype == torch.float32:
            return own_forward(x, *arguments, **named)
        of_base: Tensor = layer.base_layer(x, *arguments, **named)
        if of_base.dtype != x.dtype:
            return own_forward(x, *arguments, **named)
        (name,) = layer.active_adapters
        down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
        dropped = layer.lora_dropout[name](x)
        updated: Tensor = _LoRAUpdate.apply(dropped, of_base, down, up, layer.scaling[name])  # type: ignore[no-untyped-call]
        return updated

    return forward


class _LoRAUpdate(torch.autograd.Function):
    """``of_base + scaling · x Aᵀ Bᵀ`` (Hu et al. 2021, arXiv:2106.09685), in the precision of ``x``.

    Shapes: x (..., inputs), of_base (..., outputs), A (r, inputs), B (outputs, r). Of the intermediate values only
    ``x Aᵀ``, of width r, is kept for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, of_base: Tensor, down: Tensor, up: Tensor, scaling: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        rounded_down, rounded_up = down.to(x.dtype), (up * scaling).to(x.dtype)
        inner = rows @ rounded_down.T
        ctx.save_for_backward(rows, inner, rounded_down, rounded_up)
        ctx.scaling, ctx.shape = scaling, x.shape
        # Not a view of the sum: some models change a layer's output in place, which views made here do not allow.
        updated = torch.empty_like(of_base, memory_format=torch.contiguous_format)
        torch.addmm(
            of_base.reshape(-1, of_base.shape[-1]), inner, rounded_up.T, out=updated.view(-1, updated.shape[-1])
        )
        return updated

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor, None]:
        (gradient,) = gradients
        rows, inner, down, up = ctx.saved_tensors
        of_rows = gradient.reshape(-1, gradient.shape[-1])
        of_inner = of_rows @ up
        of_up = (of_rows.T @ inner).float() * ctx.scaling
        of_down = (of_inner.T @ rows).float()
        of_x = (of_inner @ down).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return of_x, gradient, of_down, of_up, None
