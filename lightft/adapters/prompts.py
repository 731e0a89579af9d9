"""Which models prompt tuning, P-tuning and prefix tuning fit, and what they must know of them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lightft.adapters.kind import AdapterUse

__all__ = ["embedding_shape", "refusal"]

# Falcon calls its shared heads num_kv_heads, which peft does not read; RoFormer returns its cache where peft expects the
# pooled text. Both end in errors of shape, and nothing in their classes tells.
_KEYS_OF_ANOTHER_SHAPE = ("falcon", "roformer")


def refusal(kind: str, use: AdapterUse) -> str | None:
    """Return why ``"prompt-tuning"``, ``"p-tuning"`` or ``"prefix-tuning"`` cannot be used; None if it can.

    The model's weights are not looked at.
    """
    if kind == "prefix-tuning":
        return _refusal_of_keys(use.model)
    config = use.model.config
    if "inputs_embeds" not in _arguments(use.model):
        return "it takes token ids only, and virtual tokens have none. Use lora."
    if use.task_type == "SEQ_CLS" and config.is_encoder_decoder:
        return (
            "an encoder-decoder classifies a text at its end-of-text token, which it looks up among the token ids, and "
            "virtual tokens have none. Use lora."
        )
    if use.task_type == "SEQ_CLS" and config.to_dict().get("summary_type") == "last":
        return "its classifier reads the last place of a row, where shorter texts have padding. Use lora."
    return None


def embedding_shape(model: PreTrainedModel) -> dict[str, int]:
    """Return what a ``PromptTuningConfig`` or ``PromptEncoderConfig`` must know of the model.

    peft guesses it by names that DistilBERT does not use, and takes the hidden width where ALBERT, ELECTRA and OPT-350m
    have narrower embeddings.
    """
    config = model.config.get_text_config()
    embeddings: Any = model.get_input_embeddings()
    return {
        "token_dim": int(embeddings.weight.shape[1]),
        "num_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
    }


def _refusal_of_keys(model: PreTrainedModel) -> str | None:
    if model.config.is_encoder_decoder:
        return (
            "peft hands the learned keys to the decoder of an encoder-decoder, while its encoder reads the text. "
            "Use lora."
        )
    if model.config.model_type in _KEYS_OF_ANOTHER_SHAPE:
        return f"peft does not know the shape of its keys ({model.config.model_type}). Use prompt-tuning or lora."
    if "past_key_values" not in {*_arguments(model), *_arguments(model.base_model)}:
        return (
            f"its attention takes no keys and values from outside ({type(model.base_model).__name__} has no "
            "past_key_values). Use prompt-tuning or lora."
        )
    return None


def _arguments(model: PreTrainedModel) -> set[str]:
    return set(inspect.signature(type(model).forward).parameters)
