"""How a model computes while it trains: in which precision, and what it keeps for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from peft.utils import PeftType
from torch import nn

from lightft.errors import InvalidSettingError
from lightft.models.precision import has_native_bfloat16
from lightft.train_config import TrainConfig

__all__ = ["checkpointed", "mixed_precision"]


def mixed_precision(model: nn.Module, config: TrainConfig, device: torch.device) -> str:
    """Return Accelerate's name of the precision to compute in.

    A base that is held in bfloat16 computes in it as it is; only weights held in float32 are cast on the way.
    """
    if config.precision == "float16" and device.type != "cuda":
        raise InvalidSettingError(f"precision='float16' needs a GPU; on {device.type} use 'auto' or 'bfloat16'.")
    if config.precision in ("bfloat16", "float16"):
        return {"bfloat16": "bf16", "float16": "fp16"}[config.precision]
    # Whoever trains an adapter on a float32 base has chosen float32; only a model that is trained whole has to be.
    trained_whole = all(parameter.requires_grad for parameter in model.parameters())
    return "bf16" if config.precision == "auto" and trained_whole and has_native_bfloat16(device) else "no"


@contextmanager
def checkpointed(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Recompute activations in the backward pass while the block runs, if ``wanted``: less memory, more time."""
    if not wanted:
        yield
        return
    if isinstance(model, PeftModel) and model.active_peft_config.peft_type == PeftType.PREFIX_TUNING:
        raise InvalidSettingError(
            "gradient_checkpointing=True recomputes each layer without the keys and values that prefix tuning puts before "
            "the text. Leave it out, or lower max_tokens to save memory."
        )
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    # transformers 5.23 calls it activation checkpointing and will forget the old name.
    kind = "activation" if hasattr(base, "activation_checkpointing_enable") else "gradient"
    # The reentrant kind gives no gradients to adapters above frozen embeddings.
    settings = {f"{kind}_checkpointing_kwargs": {"use_reentrant": False}}
    getattr(base, f"{kind}_checkpointing_enable")(**settings)
    try:
        yield
    finally:
        getattr(base, f"{kind}_checkpointing_disable")()
