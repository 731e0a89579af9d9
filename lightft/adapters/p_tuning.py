"""P-tuning: virtual tokens that a small network writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lightft.adapters.kind import AdapterSite, register
from lightft.adapters.prompts import embedding_shape
from lightft.adapters.schema import Rank, Share
from lightft.adapters.virtual_tokens import VirtualTokenHooks

if TYPE_CHECKING:
    from peft import PromptEncoderConfig


@register("p-tuning", learning_rate=5e-3, text_learning_rate=2e-3, causal_learning_rate=2e-3, hooks=VirtualTokenHooks)
def p_tuning(
    site: AdapterSite,
    *,
    tokens: Rank = 20,
    network: Literal["mlp", "lstm"] = "mlp",
    hidden_size: Rank = 128,
    dropout: Share = 0.0,
) -> PromptEncoderConfig:
    """Virtual tokens from a prompt encoder (Liu et al. 2021, arXiv:2103.10385).

    The encoder is needed in training only: what is saved are the embeddings it ends with.

    Args:
        site: where the adapter goes.
        tokens: how many virtual tokens; they take as many places from the model's window.
        network: ``"mlp"`` or ``"lstm"``, through which the embeddings pass.
        hidden_size: of that network.
        dropout: inside the LSTM.
    """
    from peft import PromptEncoderConfig

    return PromptEncoderConfig(
        task_type=site.task_type,
        num_virtual_tokens=tokens,
        encoder_reparameterization_type=network.upper(),
        encoder_hidden_size=hidden_size,
        encoder_dropout=dropout,
        modules_to_save=list(site.head) or None,
        **embedding_shape(site.model),
    )
