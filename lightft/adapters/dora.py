"""DoRA: LoRA for the direction of each weight, and a magnitude of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightft.adapters.kind import AdapterSite, register
from lightft.adapters.lora import LoraHooks, lora_config
from lightft.adapters.schema import Bias, Positive, Rank, Share, Targets

if TYPE_CHECKING:
    from peft import LoraConfig


@register("dora", learning_rate=1e-3, text_learning_rate=5e-4, causal_learning_rate=2e-4, hooks=LoraHooks)
def dora(
    site: AdapterSite,
    *,
    r: Rank = 16,
    alpha: Positive = 32,
    dropout: Share = 0.1,
    targets: Targets = "all",
    bias: Bias = "none",
) -> LoraConfig:
    """Weight-decomposed LoRA (Liu et al. 2024, arXiv:2402.09353): m · (W + (alpha / r) · B·A) / ‖W + (alpha / r) · B·A‖.

    The norm is of each output's weights; ``m`` starts as the norm of W, so that training starts from the base.

    Args:
        site: where the adapter goes.
        r: rank of the update.
        alpha: the update is scaled by ``alpha / r``.
        dropout: share of the update's inputs that are zeroed in training.
        targets: ``"all"``, an intent such as ``"attention"``, or names of layers.
        bias: ``"none"``, ``"all"`` or ``"lora_only"``.
    """
    return lora_config(site, r=r, alpha=alpha, dropout=dropout, targets=targets, bias=bias, use_dora=True)
