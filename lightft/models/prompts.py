"""Virtual tokens on every architecture: what peft leaves undone is mended.

Prompt tuning and P-tuning put learned embeddings before the text's own and call the model with those, so that

- outputs have a place for each virtual token, which no label stands for: they are cut off again;
- a decoder's text classifier, which finds the last token among the token ids, reads the padding: its answer is picked
  anew where the text ends;
- a generating model counts positions across the padding on the left: they are counted along what is read.

Prefix tuning hands each attention layer learned keys and values; they are given the precision of the layer's own.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from peft import PeftConfig, PeftModel, PeftModelForCausalLM, PeftModelForSequenceClassification
from peft.utils import ModulesToSaveWrapper, PeftType
from torch import Tensor, nn

from lightft.errors import AdapterError
from lightft.models.quiet import leave_out_padding_notice

__all__ = ["mend_virtual_tokens", "virtual_tokens"]


def virtual_tokens(config: PeftConfig) -> int:
    """Return how many of the model's positions an adapter takes, which texts then cannot: 0 for one without virtual tokens.

    Keys and values count too: the text's own positions begin after them, and a learned position beyond the last one does
    not exist.
    """
    return int(config.num_virtual_tokens) if config.is_prompt_learning else 0


def mend_virtual_tokens(model: PeftModel) -> None:
    """Make the model's logits those of the text alone, the same in a batch as by itself, trained or loaded.

    Any adapter may be given; one without virtual tokens is left alone. A second call changes nothing.
    """
    kind = model.active_peft_config.peft_type
    if kind == PeftType.PREFIX_TUNING:
        backbone = model.get_base_model().base_model
        backbone.register_forward_pre_hook(_keys_like_embeddings, with_kwargs=True)
    elif kind in (PeftType.PROMPT_TUNING, PeftType.P_TUNING):
        _unwrap_prompt_encoders(model)
        if isinstance(model, PeftModelForSequenceClassification):
            _pool_where_text_ends(model)
        else:
            model.register_forward_hook(_cut_to_text, with_kwargs=True)
        if isinstance(model, PeftModelForCausalLM):
            _count_positions_along_text(model)


def _unwrap_prompt_encoders(model: PeftModel) -> None:
    """Take a prompt encoder's ``mlp_head`` out of what is saved whole, where peft mistook it for a head called ``head``."""
    for encoder in model.prompt_encoder.values():
        for name, part in list(encoder.named_children()):
            if isinstance(part, ModulesToSaveWrapper):
                setattr(encoder, name, part.original_module.requires_grad_(True))


def _keys_like_embeddings(backbone: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Cast the learned keys and values: peft takes the precision of the first parameter, which may be the head's."""
    cache = kwargs.get("past_key_values")
    if cache is not None:
        precision = backbone.get_input_embeddings().weight.dtype
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys.to(precision), layer.values.to(precision)


def _cut_to_text(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
    output.logits = output.logits[:, -_text_length(model, args, kwargs) :]
    return output


def _pool_where_text_ends(model: PeftModel) -> None:
    leave_out_padding_notice()
    pooling = _PoolingWhereTextEnds()
    for module in model.get_base_model().modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.register_forward_hook(pooling.keep_scores)
    model.register_forward_hook(pooling.pool, with_kwargs=True)


class _PoolingWhereTextEnds:
    """Picks a text's class scores at its last token, from the scores that a decoder's head gives every position."""

    def __init__(self) -> None:
        self._scores: Tensor | None = None

    def keep_scores(self, part: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what a part of the head computed; the last part to run is the one that gives scores."""
        self._scores = output

    def pool(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        """Put the scores at each text's end in the place of those at the row's end, if it is those the model took."""
        scores, self._scores = self._scores, None
        if scores is None or scores.ndim != 3 or not torch.equal(output.logits, scores[:, -1]):
            return output
        if output.loss is not None:
            raise AdapterError(
                "With virtual tokens this model computes the loss at the padding. Leave labels out, and compute the loss "
                "from the logits."
            )
        mask = _bound(model, args, kwargs).get("attention_mask")
        end = torch.full(scores.shape[:1], scores.shape[1] - 1, device=scores.device)
        if mask is not None:
            end -= mask.to(scores.device).bool().flip(-1).int().argmax(-1)
        output.logits = scores[torch.arange(len(scores), device=scores.device), end]
        return output


def _count_positions_along_text(model: PeftModelForCausalLM) -> None:
    """Number positions by what is read, as without virtual tokens: peft drops the numbers that ``generate`` gives."""
    base = model.get_base_model()
    if "position_ids" in inspect.signature(type(base).forward).parameters:
        model.base_model_prepare_inputs_for_generation = functools.partial(
            _without_positions, model.base_model_prepare_inputs_for_generation
        )
        base.register_forward_pre_hook(_number_positions, with_kwargs=True)


def _without_positions(prepare: Callable[..., dict[str, Any]], *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {**prepare(*args, **kwargs), "position_ids": None}


def _number_positions(
    base: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    mask = kwargs.get("attention_mask")
    if mask is None or mask.ndim != 2:
        return args, kwargs
    positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
    return args, {**kwargs, "position_ids": positions[:, -_text_length(base, args, kwargs) :]}


def _text_length(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    given = _bound(model, args, kwargs)
    text = given["input_ids"] if given.get("input_ids") is not None else given["inputs_embeds"]
    return int(text.shape[1])


def _bound(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    return inspect.signature(type(model).forward).bind(model, *args, **kwargs).arguments
