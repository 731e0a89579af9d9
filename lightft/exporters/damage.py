"""Adapter folders that are not whole are refused before an exporter sees them."""

from __future__ import annotations

from pathlib import Path

from peft import PeftConfig
from safetensors import SafetensorError, safe_open

from lightft.checkpoint import MANIFEST_NAME, Manifest
from lightft.errors import AdapterError

__all__ = ["refuse_damaged"]

_OF_BASE = {"name", "revision", "digest", "dtype", "quantization", "seed"}


def refuse_damaged(adapter: Path) -> None:
    """Refuse a folder that holds no adapter, or one with a file that cannot be read.

    What its files say together, such as whether the adapter fits its base, is seen when it is loaded.

    Raises:
        AdapterError: the message names the file.
    """
    manifest, config = adapter / MANIFEST_NAME, adapter / "adapter_config.json"
    if not manifest.is_file() and not config.is_file():
        raise AdapterError(
            f"{adapter} is no adapter folder: it has neither {MANIFEST_NAME} nor adapter_config.json. Name one that a "
            "trainer wrote, such as runs/NAME/adapter."
        )
    if manifest.is_file():
        _refuse_damaged_manifest(manifest)
    if config.is_file():
        try:
            PeftConfig.from_pretrained(str(adapter))
        except (ValueError, KeyError, TypeError, AttributeError) as cause:
            raise _damaged(config, cause) from cause
    for weights in sorted(adapter.glob("*.safetensors")):
        try:
            with safe_open(weights, "pt"):
                pass
        except (SafetensorError, OSError) as cause:
            raise _damaged(weights, cause) from cause


def _refuse_damaged_manifest(path: Path) -> None:
    try:
        missing = _OF_BASE - set(Manifest.read(path.parent).base)
    except (UnicodeDecodeError, TypeError, AttributeError) as cause:
        raise _damaged(path, cause) from cause
    if missing:
        raise AdapterError(
            f"{path} is damaged (of the base it does not say: {', '.join(sorted(missing))}). Save the adapter again, or "
            "restore the file."
        )


def _damaged(path: Path, cause: Exception) -> AdapterError:
    reason = " ".join(str(cause).split()) or type(cause).__name__
    return AdapterError(f"{path} is damaged ({reason[:200]}). Save the adapter again, or restore the file.")
