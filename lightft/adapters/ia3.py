"""(IA)³: keys, values and feed-forward activations are rescaled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightft.adapters.kind import AdapterSite, register
from lightft.adapters.schema import Targets

if TYPE_CHECKING:
    from peft import IA3Config


@register("ia3", learning_rate=1e-2, text_learning_rate=5e-3, causal_learning_rate=5e-3)
def ia3(site: AdapterSite, *, targets: Targets | None = None, feedforward: Targets | None = None) -> IA3Config:
    """Learned rescaling of activations (Liu et al. 2022, arXiv:2205.05638).

    Args:
        site: where the adapter goes.
        targets: layers whose outputs are rescaled; None is the key and value projections, as in the paper (the whole
            projection where a model computes queries, keys and values in one).
        feedforward: layers whose inputs are rescaled; None is the last of each feed-forward block.
    """
    from peft import IA3Config

    from lightft.models.targets import feedforward_outputs, key_value_targets

    outputs = key_value_targets(site.model, site.head) if targets is None else site.targets(targets)
    inputs = feedforward_outputs(site.model, site.head) if feedforward is None else site.targets(feedforward)
    layers = list(dict.fromkeys([*outputs, *inputs]))
    return IA3Config(
        task_type=site.task_type,
        target_modules=layers,
        feedforward_modules=list(inputs),
        fan_in_fan_out=site.is_transposed(layers),
        modules_to_save=list(site.head) or None,
    )
