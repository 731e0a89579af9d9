"""Export of the adapter folder itself, with a model card: what to share when others have the base."""

from __future__ import annotations

import shutil
from pathlib import Path

from lightft.checkpoint import whole_or_nothing
from lightft.exporters.exporter import register
from lightft.exporters.model_card import write_model_card

__all__ = ["adapter_folder"]


@register("adapter")
def adapter_folder(adapter: Path, out: Path) -> Path:
    """Write a copy of the adapter folder that ``PeftModel.from_pretrained`` and ``lightft.load`` open, and its model card.

    Args:
        adapter: the adapter folder.
        out: the folder to write.
    """
    is_peft = (adapter / "adapter_config.json").is_file()
    with whole_or_nothing(out) as unfinished:
        # The card comes first, so that a run that cannot be read is refused before anything is copied.
        write_model_card(adapter, unfinished, "adapter" if is_peft else "checkpoint")
        for file in sorted(path for path in adapter.iterdir() if path.is_file() and path.name != "README.md"):
            shutil.copyfile(file, unfinished / file.name)
    return out
