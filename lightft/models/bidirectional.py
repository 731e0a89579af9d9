"""Decoder-only language models as encoders: every token reads the whole text instead of what stands before it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from lightft.errors import InvalidSettingError

__all__ = ["lift_causal_mask"]


def lift_causal_mask(model: PreTrainedModel) -> None:
    """Let a decoder-only model attend in both directions, in place; no weight changes, so an adapter must learn to use it.

    Label supervision on a decoder whose mask was lifted is Li et al. 2023 (arXiv 2310.01208); BehnamGhader et al. 2024
    (arXiv 2404.05961) train text encoders that way. A sliding-window layer then reads its window on either side.

    transformers asks two places: the configuration when it builds a mask, and each attention module when there is no
    padding to mask. Both live on the model, so copies made by ``share_weights`` and adapters put on top stay lifted. Of a
    saved model only the configuration remembers: lift it again after loading.

    Args:
        model: a model with a text- or token-classification head, as loaded or already lifted.

    Raises:
        InvalidSettingError: the architecture has no causal mask, or one that transformers does not let be lifted.
    """
    name = type(model).__name__
    if model.config.is_encoder_decoder:
        raise InvalidSettingError(
            f"{name} reads both ways in its encoder: there is no causal mask to lift. Leave bidirectional out."
        )
    attentions = [module for module in model.modules() if vars(module).get("is_causal") is True]
    if not attentions and _reads_ahead(model):
        if model.config.to_dict().get("is_causal") is False:
            return
        raise InvalidSettingError(
            f"{name} already reads both ways: there is no causal mask to lift. Leave bidirectional out."
        )
    configs = _configs(model)
    used_cache = [config.use_cache for config in configs]
    _set_causal(attentions, configs, causal=False)
    for config in configs:
        # What a later token may change cannot be kept for it.
        config.use_cache = False
    if not _reads_ahead(model):
        _set_causal(attentions, configs, causal=True)
        for config, used in zip(configs, used_cache, strict=True):
            config.use_cache = used
        raise InvalidSettingError(
            f"{name} reads only backwards by its design, not by a mask that can be lifted. Leave bidirectional out, or use "
            "a LLaMA, Mistral, Qwen, Gemma, Phi, GPT-2 or OPT type model."
        )


def _configs(model: PreTrainedModel) -> list[PreTrainedConfig]:
    """Return each configuration that a part of the model reads, once."""
    parts = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    return list({id(part.config): part.config for part in parts}.values())


def _set_causal(attentions: Sequence[nn.Module], configs: Sequence[PreTrainedConfig], *, causal: bool) -> None:
    for holder in (*attentions, *configs):
        holder.is_causal = causal


def _reads_ahead(model: PreTrainedModel) -> bool:
    """Whether a text's first position changes with a later token, with padding and without.

    Architectures build their masks in many ways; what the model does is the only answer that holds for all of them.
    """
    was_training = model.training
    model.eval()
    try:
        return all(_first_state_changes(model, padded) for padded in (False, True))
    finally:
        model.train(was_training)


@torch.inference_mode()
def _first_state_changes(model: PreTrainedModel, padded: bool) -> bool:
    embeddings = model.get_input_embeddings()
    ids = torch.arange(4) * (embeddings.weight.shape[0] // 5) + 3
    rows = torch.stack([ids[[0, 1, 2]], ids[[0, 1, 3]]])
    read = torch.ones_like(rows)
    if padded:
        rows, read = (nn.functional.pad(tensor, (0, 1)) for tensor in (rows, read))
    device = embeddings.weight.device
    # One row at a time: rows of a batch may differ in their last bits for other reasons.
    states: list[Tensor] = [
        model.base_model(input_ids=row[None].to(device), attention_mask=mask[None].to(device))[0][0].float()
        for row, mask in zip(rows, read, strict=True)
    ]
    change = (states[0] - states[1]).norm(dim=-1)
    # Kernels that quantise on the way carry a trace of every token to every other.
    return bool(change[0] > 1e-3 * change[2])
