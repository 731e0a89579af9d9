"""Prompt tuning: virtual tokens before each text learn, the model does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lightft.adapters.kind import AdapterSite, register
from lightft.adapters.prompts import embedding_shape
from lightft.adapters.schema import Rank
from lightft.adapters.virtual_tokens import VirtualTokenHooks

if TYPE_CHECKING:
    from peft import PromptTuningConfig


@register(
    "prompt-tuning", learning_rate=3e-2, text_learning_rate=1e-2, causal_learning_rate=1e-2, hooks=VirtualTokenHooks
)
def prompt_tuning(
    site: AdapterSite, *, tokens: Rank = 20, initial: Literal["vocabulary", "random"] = "vocabulary"
) -> PromptTuningConfig:
    """Learned embeddings in front of the text's own (Lester et al. 2021, arXiv:2104.08691).

    Args:
        site: where the adapter goes.
        tokens: how many virtual tokens; they take as many places from the model's window.
        initial: they start as embeddings of random words of the ``"vocabulary"``, or as ``"random"`` numbers.
    """
    from peft import PromptTuningConfig, PromptTuningInit

    starts = {"vocabulary": PromptTuningInit.SAMPLE_VOCAB, "random": PromptTuningInit.RANDOM}
    return PromptTuningConfig(
        task_type=site.task_type,
        num_virtual_tokens=tokens,
        prompt_tuning_init=starts[initial],
        modules_to_save=list(site.head) or None,
        **embedding_shape(site.model),
    )
