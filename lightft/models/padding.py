"""Keep padding away from models that read the last place of a row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

__all__ = ["move_padding_before_text"]


def move_padding_before_text(model: PreTrainedModel) -> None:
    """Make a text classifier that pools the last place of a row, as XLNet's does, find the text's end there.

    Rows come padded at their end, so that it would read padding in all but the longest; its own tokenizer pads in
    front. Models that pool elsewhere are left alone.
    """
    reads_last_place = model.config.to_dict().get("summary_type") == "last"
    if reads_last_place and any(name == "sequence_summary" for name, _ in model.named_children()):
        model.register_forward_pre_hook(_text_to_the_end, with_kwargs=True)


def _text_to_the_end(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    mask = kwargs.get("attention_mask")
    if mask is None or bool(mask[:, -1].all()):
        return args, kwargs
    length = mask.shape[1]
    # Rows are rotated by as many places as they have padding at their end.
    padding = length - (torch.arange(1, length + 1, device=mask.device) * mask).max(dim=1).values
    places = (torch.arange(length, device=mask.device) - padding[:, None]) % length
    moved = {name: value.gather(1, places) for name, value in kwargs.items() if _is_by_place(value, mask)}
    return args, {**kwargs, **moved}


def _is_by_place(value: Any, mask: Tensor) -> bool:
    return torch.is_tensor(value) and value.shape == mask.shape
