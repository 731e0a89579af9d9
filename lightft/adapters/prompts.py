"""Virtual tokens on every architecture: what peft leaves undone is mended, and what cannot be mended is refused.

Prompt tuning and P-tuning put learned embeddings before the text's own and call the model with those, so that

- outputs have a place for each virtual token, which no label stands for: they are cut off again;
- a decoder's text classifier, which finds the last token among the token ids, reads the padding: its answer is picked
  anew where the text ends;
- a generating model counts positions across the padding on the left: they are counted along what is read.

Prefix tuning hands each attention layer learned keys and values from outside and needs none of this.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftConfig, PeftModel, PeftModelForCausalLM, PeftModelForSequenceClassification
from peft.utils import ModulesToSaveWrapper, PeftType
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightft.errors import AdapterError

if TYPE_CHECKING:
    from lightft.adapters.kind import AdapterUse

__all__ = ["embedding_shape", "mend_virtual_tokens", "refusal", "virtual_tokens"]

_KINDS_OF_EMBEDDINGS = (PeftType.PROMPT_TUNING, PeftType.P_TUNING)
# Falcon calls its shared heads num_kv_heads, which peft does not read; RoFormer returns its cache where peft expects the
# pooled text. Both end in errors of shape, and nothing in the classes tells.
_KEYS_OF_ANOTHER_SHAPE = ("falcon", "roformer")


def refusal(kind: str, use: AdapterUse) -> str | None:
    """Return why ``"prompt-tuning"``, ``"p-tuning"`` or ``"prefix-tuning"`` cannot be used; None if it can.

    The model's weights are not looked at.
    """
    model = use.model
    if kind == "prefix-tuning":
        return _refusal_of_keys(model)
    config = model.config
    if "inputs_embeds" not in _arguments(model):
        return "it takes token ids only, and virtual tokens have none. Use lora."
    if use.task_type == "SEQ_CLS" and config.is_encoder_decoder:
        return (
            "an encoder-decoder classifies a text at its end-of-text token, which it looks up among the token ids, and "
            "virtual tokens have none. Use lora."
        )
    if use.task_type == "SEQ_CLS" and config.to_dict().get("summary_type") == "last":
        return "its classifier reads the last place of a row, where shorter texts have padding. Use lora."
    return None


def _refusal_of_keys(model: PreTrainedModel) -> str | None:
    if model.config.is_encoder_decoder or "encoder" in type(model.base_model).__name__.lower():
        return (
            "peft hands the learned keys to the decoder of an encoder-decoder, while its encoder reads the text. "
            "Use lora, or prompt-tuning for token classification."
        )
    if model.config.model_type in _KEYS_OF_ANOTHER_SHAPE:
        return f"peft does not know the shape of its keys ({model.config.model_type}). Use prompt-tuning or lora."
    if "past_key_values" not in {*_arguments(model), *_arguments(model.base_model)}:
        return (
            f"its attention takes no keys and values from outside ({type(model.base_model).__name__} has no "
            "past_key_values). Use prompt-tuning or lora."
        )
    return None


def virtual_tokens(config: PeftConfig) -> int:
    """Return how many of the model's positions an adapter takes, which texts then cannot: 0 for one without virtual tokens.

    Keys and values count too: the text's own positions begin after them, and a learned position beyond the last one does
    not exist.
    """
    return config.num_virtual_tokens if config.is_prompt_learning else 0


def embedding_shape(model: PreTrainedModel) -> dict[str, int]:
    """Return what a ``PromptTuningConfig`` or ``PromptEncoderConfig`` must know of the model.

    peft guesses it by names that DistilBERT does not use, and takes the hidden width where ALBERT, ELECTRA and OPT-350m
    have narrower embeddings.
    """
    config = model.config.get_text_config()
    return {
        "token_dim": int(model.get_input_embeddings().weight.shape[1]),
        "num_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
    }


def mend_virtual_tokens(model: PeftModel) -> None:
    """Make the model's logits those of the text alone, the same in a batch as by itself, trained or loaded.

    Any adapter may be given; one without virtual tokens is left alone. A second call changes nothing. With labels given,
    the loss is peft's own affair: lightft computes it from the logits.
    """
    if model.active_peft_config.peft_type not in _KINDS_OF_EMBEDDINGS:
        return
    if isinstance(model, PeftModelForSequenceClassification):
        pooling = _PoolingWhereTextEnds()
        for module in model.get_base_model().modules():
            if isinstance(module, ModulesToSaveWrapper):
                module.register_forward_hook(pooling.keep_scores)
        model.register_forward_hook(pooling.pool, with_kwargs=True)
        return
    model.register_forward_hook(_cut_to_text, with_kwargs=True)
    if isinstance(model, PeftModelForCausalLM):
        _count_positions_along_text(model)


def _cut_to_text(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
    output.logits = output.logits[:, -_text_length(model, args, kwargs) :]
    return output


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
                "The loss this model computes from labels is that of the padding. Leave labels out, and compute the loss "
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
    if "position_ids" in _arguments(base):
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


def _arguments(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(type(model).forward).parameters
