"""Bias only (BitFit): the base's biases learn, its matrices do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightft.adapters.kind import AdapterHooks, AdapterSite, AdapterUse, register

if TYPE_CHECKING:
    from peft import LoraConfig


class _TrainsBiases(AdapterHooks):
    @property
    def needs_float32_base(self) -> bool:
        """Biases are parameters of the base."""
        return True

    def refusal(self, use: AdapterUse) -> str | None:
        """Refuse a base without biases."""
        biases = [name for name, _ in use.model.base_model.named_parameters() if name.endswith("bias")]
        if not biases:
            return f"{use.architecture} has no biases to train. Use 'ia3' or 'lora'."
        return None


@register("bias-only", learning_rate=2e-3, text_learning_rate=1e-3, causal_learning_rate=5e-4, hooks=_TrainsBiases)
def bias_only(site: AdapterSite) -> LoraConfig:
    """BitFit (Ben Zaken et al. 2021, arXiv:2106.10199): every bias of the base, and the head.

    Args:
        site: where the adapter goes.
    """
    from peft import LoraConfig
    from peft.utils.constants import DUMMY_TARGET_MODULES

    # peft trains and saves biases beside any LoRA; with its dummy target there is no LoRA, and an ordinary folder.
    return LoraConfig(
        task_type=site.task_type,
        target_modules=DUMMY_TARGET_MODULES,
        bias="all",
        modules_to_save=list(site.head) or None,
    )
