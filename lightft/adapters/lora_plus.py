"""LoRA+: LoRA whose two matrices learn at rates of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from lightft.adapters.kind import AdapterSite, register
from lightft.adapters.lora import LoraHooks, lora_config
from lightft.adapters.schema import AtLeast, Bias, Positive, Rank, Share, Targets

if TYPE_CHECKING:
    from peft import LoraConfig


class _FasterB(LoraHooks):
    def learning_rate_factor(self, parameter: str) -> float:
        return float(self.params["ratio"]) if ".lora_B." in parameter else 1.0


@register("lora-plus", learning_rate=2e-4, text_learning_rate=1e-4, causal_learning_rate=5e-5, hooks=_FasterB)
def lora_plus(
    site: AdapterSite,
    *,
    r: Rank = 16,
    alpha: Positive = 32,
    dropout: Share = 0.1,
    targets: Targets = "all",
    bias: Bias = "none",
    ratio: Annotated[float, AtLeast(1)] = 16.0,
) -> LoraConfig:
    """LoRA with a higher learning rate for B (Hayou et al. 2024, arXiv:2402.12354).

    A learns at the learning rate, B at ``ratio`` times it: at one common rate a wide model's features barely move.

    Args:
        site: where the adapter goes.
        r: rank of the update.
        alpha: the update is scaled by ``alpha / r``.
        dropout: share of the update's inputs that are zeroed in training.
        targets: ``"all"``, an intent such as ``"attention"``, or names of layers.
        bias: ``"none"``, ``"all"`` or ``"lora_only"``.
        ratio: B's learning rate over A's; the paper's choice is 16.
    """
    del ratio
    return lora_config(site, r=r, alpha=alpha, dropout=dropout, targets=targets, bias=bias)
