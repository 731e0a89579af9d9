"""Attention by plain products, which on a CPU are several times as fast backwards as torch's fused kernel in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

__all__ = ["grouped_attention"]

_NAME = "lightft_grouped"
_MOST_WEIGHTS = 1 << 22
"""Attention weights of one layer at most: they are kept for the backward pass, 6 bytes each, where a fused kernel keeps
none."""


@contextmanager
def grouped_attention(model: nn.Module) -> Iterator[None]:
    """Let a bfloat16 ``model`` that uses torch's attention compute it by plain products while the block runs.

    Heads that share keys and values are multiplied with them together, so that these are not repeated in memory. Calls
    with more than four million weights, those of long texts, go to torch's kernel, whose memory does not grow with the
    square of the length.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(base, PreTrainedModel) or not _uses_fused_kernel_in_bfloat16(base):
        yield
        return
    base.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        base.set_attn_implementation("sdpa")


def _uses_fused_kernel_in_bfloat16(base: PreTrainedModel) -> bool:
    return bool(base.config._attn_implementation == "sdpa" and base.dtype == torch.bfloat16)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **named: Any,
) -> tuple[Tensor, None]:
    """Return (rows, tokens, heads, width) from query (rows, heads, tokens, width), key and value (rows, groups, …)."""
    rows, heads, tokens, width = query.shape
    groups, length = key.shape[1], key.shape[2]
    is_small = rows * heads * tokens * length <= _MOST_WEIGHTS
    has_bias = named.get("position_bias") is not None
    if attention_mask is None or has_bias or not is_small or not torch.is_grad_enabled():
        by_kernel: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **named
        )
        return by_kernel
    scale = width**-0.5 if scaling is None else scaling
    together = query.reshape(rows, groups, heads // groups * tokens, width)
    scores = (together * scale) @ key.transpose(2, 3)
    scores = scores.view(rows, groups, heads // groups, tokens, length)
    masked = scores + attention_mask[:, :, None, :, :length]
    weights = torch.softmax(masked, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, dropout, module.training)
    mixed = weights.view(rows, groups, heads // groups * tokens, length) @ value
    return mixed.view(rows, heads, tokens, width).transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, eager_mask)
