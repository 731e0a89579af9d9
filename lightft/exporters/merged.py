"""Export to one ordinary checkpoint: the adapter's update added into the base's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import PeftModel

from lightft.exporters.exporter import register
from lightft.inference import load
from lightft.models.quiet import quiet_transformers

__all__ = ["merged"]


@register("merged")
def merged(adapter: Path, out: Path) -> Path:
    """Write a checkpoint in float32 that ``from_pretrained`` and ``pipeline`` open alone, with the labels in its config.

    A 4-bit base is dequantised first: the update was learned against exactly those weights. Adding it to 4-bit weights
    would round it away, and adding it to the original ones would put it on a base it has not seen.

    Raises:
        AdapterError: the base is held in 8 bits, whose products no weights give.
    """
    predictor = load(adapter, device="cpu", dequantize=True)
    model: Any = predictor.model
    if isinstance(model, PeftModel):
        model = model.float().merge_and_unload(safe_merge=True)
    with quiet_transformers():
        model.float().save_pretrained(out)
    predictor.tokenizer.save_pretrained(out)
    return out
