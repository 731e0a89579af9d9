"""answer_scores: run a language model over questions and answers, computing no more than the answers' scores need."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from peft import PeftModel
from torch import Tensor
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from lightft.tasks.head import IGNORED

__all__ = ["answer_scores"]


def answer_scores(model: Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the logits before every label, and the labels they are to foretell.

    The same numbers as those of one plain forward pass, up to the order of summation, and the same gradients, but:

    - The vocabulary is scored only where a row has a label. With instruction data most positions are the question's.
    - What all rows begin with (a system message, an instruction, worked examples) goes through the model once; each row
      attends to its keys and values, and their gradients add up there.

    Dropout is drawn once for what is shared. A model that keeps something else than plain keys and values, and one that
    is wrapped to train in several processes, computes every row by itself.

    Args:
        model: a causal language model, with its adapter.
        batch: ``input_ids``, ``attention_mask`` and ``labels``, each (rows, tokens), padded on the right.

    Returns:
        Logits (labels, vocabulary) and labels (labels,), row by row.
    """
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
    positions = (labels[:, 1:] != IGNORED).any(dim=0).nonzero().squeeze(-1)
    targets = labels[:, positions + 1]
    is_label = targets != IGNORED
    shared = _shared_length(model, ids, mask, int(positions[0]))
    inputs: dict[str, Any] = {"input_ids": ids[:, shared:], "attention_mask": mask}
    if shared:
        inputs["past_key_values"] = _cache_of(model, ids[:1, :shared], rows=len(ids))
        inputs["use_cache"] = True
    if not _scores_chosen_positions(model):
        return model(**inputs).logits[:, positions - shared][is_label], targets[is_label]
    with _scored_only_where(is_label, model):
        logits = model(**inputs, logits_to_keep=positions - shared).logits
    return logits.squeeze(0), targets[is_label]


@contextmanager
def _scored_only_where(is_label: Tensor, model: Module) -> Iterator[None]:
    """Give the output layer of ``model`` only the positions (rows, positions) that are labels, as those of one row."""
    output = _base(model).get_output_embeddings()
    hook = output.register_forward_pre_hook(lambda _, inputs: (inputs[0][is_label].unsqueeze(0), *inputs[1:]))
    try:
        yield
    finally:
        hook.remove()


def _shared_length(model: Module, ids: Tensor, mask: Tensor, longest: int) -> int:
    """Return how many tokens at the rows' beginning go through the model once; 0 where that is not worth it."""
    if len(ids) < 2:
        return 0
    differs = (ids != ids[:1]).any(dim=0) | (mask == 0).any(dim=0)
    different = differs.nonzero()
    length = min(longest, int(different[0]) if len(different) else ids.shape[1])
    return length if length >= _FEWEST_SHARED and _keeps_plain_keys(model) else 0


# Below this a second forward pass costs more than it saves.
_FEWEST_SHARED = 16


def _cache_of(model: Module, prefix: Tensor, rows: int) -> DynamicCache:
    cache = model(input_ids=prefix, use_cache=True, **_no_scores(model)).past_key_values
    for layer in cache.layers:
        layer.keys = layer.keys.expand(rows, -1, -1, -1)
        layer.values = layer.values.expand(rows, -1, -1, -1)
    return cache


def _no_scores(model: Module) -> dict[str, int]:
    # 0 would score every position.
    return {"logits_to_keep": 1} if _scores_chosen_positions(model) else {}


def _keeps_plain_keys(model: Any) -> bool:
    """Say whether keys and values of a model can be computed once for all rows."""
    if isinstance(model, DistributedDataParallel):
        # It expects one forward pass for each backward pass.
        return False
    if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        return False
    base = _base(model)
    if not isinstance(base, PreTrainedModel):
        return False
    # Layers that are recomputed in the backward pass have forgotten what they kept.
    if any(getattr(module, "gradient_checkpointing", False) for module in base.modules()):
        return False
    return {type(layer) for layer in DynamicCache(config=base.config).layers} == {DynamicLayer}


def _scores_chosen_positions(model: Any) -> bool:
    """Say whether a model can be asked for the scores of some positions; virtual tokens would shift them."""
    bare = _unwrapped(model)
    if isinstance(bare, PeftModel) and bare.active_peft_config.is_prompt_learning:
        return False
    return "logits_to_keep" in inspect.signature(_base(model).forward).parameters


def _unwrapped(model: Any) -> Any:
    return model.module if isinstance(model, DistributedDataParallel) else model


def _base(model: Any) -> Any:
    bare = _unwrapped(model)
    return bare.get_base_model() if isinstance(bare, PeftModel) else bare
