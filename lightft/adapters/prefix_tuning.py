"""Prefix tuning: learned keys and values before each text, in every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightft.adapters.kind import AdapterSite, register
from lightft.adapters.schema import Rank
from lightft.adapters.virtual_tokens import PrefixHooks

if TYPE_CHECKING:
    from peft import PrefixTuningConfig


@register("prefix-tuning", learning_rate=1e-2, text_learning_rate=5e-3, causal_learning_rate=5e-3, hooks=PrefixHooks)
def prefix_tuning(site: AdapterSite, *, tokens: Rank = 20) -> PrefixTuningConfig:
    """Learned keys and values for every attention layer (Li and Liang 2021, arXiv:2101.00190).

    Args:
        site: where the adapter goes.
        tokens: how many positions each layer can look at beside the text's own.
    """
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(
        task_type=site.task_type, num_virtual_tokens=tokens, modules_to_save=list(site.head) or None
    )
