"""PiSSA: LoRA that starts from the principal part of each weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightft.adapters.kind import AdapterHooks, AdapterSite, register
from lightft.adapters.lora import lora_config
from lightft.adapters.schema import Positive, Rank, Share, Targets

if TYPE_CHECKING:
    from peft import LoraConfig


def _hooks(params: Mapping[str, Any]) -> AdapterHooks:
    from lightft.adapters.folding import RewritesBase

    return RewritesBase(params)


@register(
    "pissa", learning_rate=5e-4, text_learning_rate=2e-4, causal_learning_rate=1e-4, changes_base=True, hooks=_hooks
)
def pissa(
    site: AdapterSite,
    *,
    r: Rank = 16,
    alpha: Positive = 16,
    dropout: Share = 0.0,
    targets: Targets = "all",
) -> LoraConfig:
    """Principal singular values and vectors adaptation (Meng et al. 2024, arXiv:2404.02948).

    A and B start as the top ``r`` singular directions of W, and the base keeps the rest: W − (alpha / r) · B·A. What is
    saved is ordinary LoRA of rank 2r on the base as it was.

    Args:
        site: where the adapter goes.
        r: rank of what is trained.
        alpha: the update is scaled by ``alpha / r``; the paper's scale is 1.
        dropout: share of the update's inputs that are zeroed in training; the paper uses none, since what is zeroed here
            is a part of the weights themselves.
        targets: ``"all"``, an intent such as ``"attention"``, or names of layers.
    """
    return lora_config(site, r=r, alpha=alpha, dropout=dropout, targets=targets, init_lora_weights="pissa")
