"""Fusion: how much each layer takes from each of several frozen adapters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightft.adapters.kind import AdapterHooks, AdapterSite, register
from lightft.errors import AdapterError, InvalidSettingError

if TYPE_CHECKING:
    from peft import LoraConfig


def _hooks(params: Mapping[str, Any]) -> AdapterHooks:
    from lightft.adapters.mixing import MixesFrozenAdapters

    return MixesFrozenAdapters(params)


@register("fusion", learning_rate=1e-2, text_learning_rate=5e-3, causal_learning_rate=5e-3, hooks=_hooks)
def fusion(site: AdapterSite, *, adapters: Sequence[str] = ()) -> LoraConfig:
    """Learned mixing of trained LoRA adapters, after AdapterFusion (Pfeiffer et al. 2020, arXiv:2005.00247).

    Each layer computes W + Σᵢ softmax(w)ᵢ · (alphaᵢ / rᵢ) · Bᵢ·Aᵢ, with the adapters frozen and one ``w`` per layer. The
    head is new and learns. A layer that this model lacks, as a tagger lacks BERT's pooler, is left
    out. What is saved is ordinary LoRA, whose rank is the sum of the ranks, with the mix in it.

    Args:
        site: where the adapter goes.
        adapters: two or more folders of LoRA adapters, trained on this base, for any task.

    Raises:
        InvalidSettingError: fewer than two folders.
        AdapterError: a folder holds no LoRA adapter, or one of another base.
    """
    from peft import LoraConfig

    from lightft.adapters.mixing import stored_updates

    if isinstance(adapters, str) or len(adapters) < 2:
        raise InvalidSettingError(
            f"'fusion' cannot have adapters={adapters!r}: it mixes two or more. Give the folders that trainers wrote, "
            "adapters=['runs/a/adapter', 'runs/b/adapter']."
        )
    updates = [stored_updates(Path(folder)) for folder in adapters]
    for folder in adapters:
        _refuse_other_base(site, Path(folder))
    held = {layer for update in updates for layer in update}
    layers = [layer for layer in site.targets("all") if layer in held]
    if not layers:
        raise AdapterError(
            f"None of the {len(held)} layers that the adapters update, such as {min(held)!r}, is a layer of this "
            f"{type(site.model).__name__}. Fuse adapters of one base."
        )
    ranks = {layer: sum(len(update[layer][0]) for update in updates if layer in update) for layer in layers}
    return LoraConfig(
        task_type=site.task_type,
        r=max(ranks.values()),
        # Each adapter's own scale goes into its B.
        lora_alpha=max(ranks.values()),
        rank_pattern=ranks,
        alpha_pattern=ranks,
        target_modules=layers,
        fan_in_fan_out=site.is_transposed(layers),
        modules_to_save=list(site.head) or None,
    )


def _refuse_other_base(site: AdapterSite, folder: Path) -> None:
    from lightft.models import provenance_of

    found = provenance_of(site.model)
    manifest = folder / "lightft.json"
    if found is None or not manifest.is_file():
        return
    recorded = json.loads(manifest.read_text(encoding="utf-8"))["base"]
    if recorded["digest"] != found.source.digest():
        raise AdapterError(
            f"The adapter in {folder} was trained on {recorded['name']!r} with the weights {recorded['digest'][:19]}…; this "
            f"base is {found.source.name!r} with {found.source.digest()[:19]}…. Fuse adapters of one base."
        )
