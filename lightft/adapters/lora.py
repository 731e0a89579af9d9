"""LoRA: a low-rank update beside each frozen linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightft.adapters.spec import AdapterSite, register

if TYPE_CHECKING:
    from peft import LoraConfig


@register("lora", learning_rate=1e-3, text_learning_rate=5e-4, causal_learning_rate=2e-4)
def lora(
    site: AdapterSite,
    *,
    r: int = 16,
    alpha: int = 32,
    dropout: float = 0.1,
    targets: str | Sequence[str] = "all",
    bias: str = "none",
) -> LoraConfig:
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685): W + (alpha / r) · B·A, with B starting at zero.

    Args:
        site: where the adapter goes.
        r: rank of the update.
        alpha: the update is scaled by ``alpha / r``.
        dropout: share of the update's inputs that are zeroed in training.
        targets: ``"all"`` linear layers of the base, or names of layers.
        bias: ``"none"``, ``"all"`` or ``"lora_only"``: which biases are trained too.
    """
    from peft import LoraConfig

    layers = site.targets(targets)
    return LoraConfig(
        task_type=site.task_type,
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        bias=bias,
        target_modules=layers,
        fan_in_fan_out=site.is_transposed(layers),
        modules_to_save=list(site.head) or None,
    )
