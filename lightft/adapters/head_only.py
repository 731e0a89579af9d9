"""Head only: the base stays as it is and only the new output layers learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightft.adapters.kind import AdapterSite, register
from lightft.errors import AdapterError

if TYPE_CHECKING:
    from peft import LoraConfig


@register("head-only", learning_rate=5e-3)
def head_only(site: AdapterSite) -> LoraConfig:
    """Train the head and nothing else: the baseline every adapter must beat.

    Raises:
        AdapterError: the model has no head, as a complete language model has none.
    """
    from peft import LoraConfig
    from peft.utils.constants import DUMMY_TARGET_MODULES

    if not site.head:
        raise AdapterError(
            f"{type(site.model).__name__} has no head to train: everything in it came from the checkpoint. "
            "Use AdapterSpec('lora')."
        )
    # peft has no kind without an update; its dummy target gives an ordinary adapter folder that holds the head alone.
    return LoraConfig(task_type=site.task_type, target_modules=DUMMY_TARGET_MODULES, modules_to_save=list(site.head))
