"""Rank-stabilised LoRA: a scale that lets high ranks learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightft.adapters.kind import AdapterSite, register
from lightft.adapters.lora import LoraHooks, lora_config
from lightft.adapters.schema import Bias, Positive, Rank, Share, Targets

if TYPE_CHECKING:
    from peft import LoraConfig


@register("rslora", learning_rate=1e-3, text_learning_rate=5e-4, causal_learning_rate=2e-4, hooks=LoraHooks)
def rslora(
    site: AdapterSite,
    *,
    r: Rank = 64,
    alpha: Positive = 16,
    dropout: Share = 0.1,
    targets: Targets = "all",
    bias: Bias = "none",
) -> LoraConfig:
    """LoRA scaled by alpha / √r (Kalajdzievski 2023, arXiv:2312.03732): W + (alpha / √r) · B·A.

    With alpha / r the gradient fades as the rank grows, so that a rank of 64 learns hardly more than one of 8. The
    defaults give the same scale as LoRA's own, 2, at four times the rank.

    Args:
        site: where the adapter goes.
        r: rank of the update.
        alpha: the update is scaled by ``alpha / √r``.
        dropout: share of the update's inputs that are zeroed in training.
        targets: ``"all"``, an intent such as ``"attention"``, or names of layers.
        bias: ``"none"``, ``"all"`` or ``"lora_only"``.
    """
    return lora_config(site, r=r, alpha=alpha, dropout=dropout, targets=targets, bias=bias, use_rslora=True)
