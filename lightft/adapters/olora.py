"""OLoRA: LoRA that starts from an orthonormal basis of each weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightft.adapters.kind import AdapterHooks, AdapterSite, register
from lightft.adapters.lora import lora_config
from lightft.adapters.schema import Positive, Rank, Share, Targets

if TYPE_CHECKING:
    from peft import LoraConfig


def _hooks(params: Mapping[str, Any]) -> AdapterHooks:
    from lightft.adapters.folding import RewritesUntransposedBase

    return RewritesUntransposedBase(params)


@register(
    "olora", learning_rate=5e-4, text_learning_rate=2e-4, causal_learning_rate=1e-4, changes_base=True, hooks=_hooks
)
def olora(
    site: AdapterSite,
    *,
    r: Rank = 16,
    alpha: Positive = 16,
    dropout: Share = 0.0,
    targets: Targets = "all",
) -> LoraConfig:
    """Orthonormal low-rank adaptation (Büyükakyüz 2024, arXiv:2406.01775).

    W = Q·R; B starts as the first ``r`` columns of Q, A as the first ``r`` rows of R, and the base keeps
    W − (alpha / r) · B·A. What is saved is ordinary LoRA of rank 2r on the base as it was.

    Args:
        site: where the adapter goes.
        r: rank of what is trained.
        alpha: the update is scaled by ``alpha / r``.
        dropout: share of the update's inputs that are zeroed in training.
        targets: ``"all"``, an intent such as ``"attention"``, or names of layers.
    """
    return lora_config(site, r=r, alpha=alpha, dropout=dropout, targets=targets, init_lora_weights="olora")
