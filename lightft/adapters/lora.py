"""LoRA: a low-rank update beside each frozen linear layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightft.adapters.kind import AdapterHooks, AdapterSite, register
from lightft.adapters.schema import Bias, Positive, Rank, Share, Targets

if TYPE_CHECKING:
    from peft import LoraConfig


class LoraHooks(AdapterHooks):
    """Biases that are trained belong to the base, and are held in float32 as everything that is trained."""

    @property
    def needs_float32_base(self) -> bool:
        """Whether biases are trained too."""
        return bool(self.params.get("bias", "none") != "none")


@register("lora", learning_rate=1e-3, text_learning_rate=5e-4, causal_learning_rate=2e-4, hooks=LoraHooks)
def lora(
    site: AdapterSite,
    *,
    r: Rank = 16,
    alpha: Positive = 32,
    dropout: Share = 0.1,
    targets: Targets = "all",
    bias: Bias = "none",
) -> LoraConfig:
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685): W + (alpha / r) · B·A, with B starting at zero.

    Args:
        site: where the adapter goes.
        r: rank of the update.
        alpha: the update is scaled by ``alpha / r``.
        dropout: share of the update's inputs that are zeroed in training.
        targets: ``"all"`` linear layers of the base, an intent such as ``"attention"``, or names of layers.
        bias: ``"none"``, ``"all"`` or ``"lora_only"``: which biases are trained too.
    """
    return lora_config(site, r=r, alpha=alpha, dropout=dropout, targets=targets, bias=bias)


def lora_config(
    site: AdapterSite, *, r: int, alpha: float, dropout: float, targets: Targets, bias: str = "none", **further: Any
) -> LoraConfig:
    """Return peft's config of a kind of the LoRA family; ``further`` are peft's own fields.

    Raises:
        AdapterError: a target matches nothing or is no part of the base, or ``r`` is larger than a layer.
    """
    from peft import LoraConfig

    layers = site.targets(targets)
    site.check_rank(r, layers)
    return LoraConfig(
        task_type=site.task_type,
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        bias=bias,
        target_modules=layers,
        fan_in_fan_out=site.is_transposed(layers),
        modules_to_save=list(site.head) or None,
        **further,
    )
