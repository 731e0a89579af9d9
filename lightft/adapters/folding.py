"""Turn an adapter that was trained on a rewritten base into ordinary LoRA on the base as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import PreTrainedModel

from lightft.adapters.kind import AdapterHooks, AdapterUse

__all__ = ["RewritesBase", "RewritesUntransposedBase", "lora_layers", "product_difference"]

_NAME = "default"


class RewritesBase(AdapterHooks):
    """Hooks of kinds that start from W − s·B₀·A₀ with the adapter at (A₀, B₀).

    After training the base gets W back and the adapter becomes s·(B·A − B₀·A₀): LoRA of twice the rank, an ordinary PEFT
    folder that fits the unchanged base and can be merged, combined and opened without a second decomposition.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        super().__init__(params)
        self._first: dict[str, tuple[Tensor, Tensor]] = {}

    @property
    def rewrites_base(self) -> bool:
        """Each target gives a part of itself to the adapter."""
        return True

    def refusal(self, use: AdapterUse) -> str | None:
        """Refuse a quantised base: what is left of the weights would be rounded a second time."""
        if use.quantization is not None:
            return (
                f"it moves part of each weight into the adapter, and the rest would be rounded to {use.quantization} a "
                "second time. Use 'lora', 'dora' or 'eva', or a base that is not quantised."
            )
        return None

    def after_attach(self, model: PeftModel) -> None:
        """Remember where the adapter starts."""
        for name, layer in lora_layers(model).items():
            a, b = layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight
            self._first[name] = (a.detach().clone(), b.detach().clone())

    def after_training(self, model: PeftModel, base: PreTrainedModel) -> PeftModel:
        """Put W back and write what was learned as LoRA of twice the rank."""
        layers = lora_layers(model)
        config = model.peft_config[_NAME]
        factors = {
            name: product_difference(
                layer.lora_A[_NAME].weight.detach(), layer.lora_B[_NAME].weight.detach(), *self._first[name]
            )
            for name, layer in layers.items()
        }
        config.r, config.lora_alpha, config.init_lora_weights = 2 * config.r, 2 * config.lora_alpha, True
        for name, layer in layers.items():
            original = base.get_submodule(name.removeprefix("base_model.model.")).weight
            layer.get_base_layer().weight.data = original.detach()
            layer.update_layer(_NAME, config.r, config.lora_alpha, config=config)
            a, b = factors[name]
            layer.lora_A[_NAME].weight.data, layer.lora_B[_NAME].weight.data = a, b
        return model.eval()


class RewritesUntransposedBase(RewritesBase):
    """The same for a kind whose start peft computes for weights held as (outputs, inputs) only."""

    def refusal(self, use: AdapterUse) -> str | None:
        """Refuse a base of ``Conv1D`` layers too."""
        if use.has_transposed_layers:
            return (
                f"peft decomposes weights held as (outputs, inputs), and {use.architecture} holds them the other way round. "
                "Use 'pissa' or 'lora'."
            )
        return super().refusal(use)


def lora_layers(model: PeftModel) -> dict[str, LoraLayer]:
    """Return the layers of ``model`` that hold a LoRA update, by full name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def product_difference(a: Tensor, b: Tensor, first_a: Tensor, first_b: Tensor) -> tuple[Tensor, Tensor]:
    """Return (A', B') with B'·A' = B·A − B₀·A₀: the factors side by side."""
    return torch.cat([a, first_a]), torch.cat([b, -first_b], dim=1)
