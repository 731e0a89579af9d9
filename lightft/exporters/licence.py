"""The licence of a base model, as the base itself states it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, errors, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.repocard import metadata_load

from lightft.errors import ModelLoadError
from lightft.models import find_model
from lightft.packaged import PREFIX

__all__ = ["UNKNOWN", "licence_of_base"]

UNKNOWN = "unknown"
"""What the Hub calls a licence that nobody has stated."""

_KEYS = ("license", "license_name", "license_link")
_PATIENCE = 10
_NETWORK_ERROR: type[Exception] = vars(errors)["HTTPError"]


def licence_of_base(name: str, revision: str | None) -> dict[str, Any]:
    """Return ``license`` and, where given, ``license_name`` and ``license_link``, under the names of a card's front matter.

    They are read from the front matter of the base's ``README.md``, beside a local base or on the Hub, or from a GGUF
    file. Nothing is guessed: ``license`` is ``"unknown"`` where none of them states one, or the Hub cannot be asked.

    Args:
        name: of the base model, as it was loaded.
        revision: the commit of a Hub model, else None.
    """
    is_local = name.startswith(PREFIX) or Path(name).expanduser().exists()
    stated = _stated_locally(name) if is_local else _stated_on_hub(name, revision)
    licence = {key: stated[key] for key in _KEYS if stated.get(key)}
    return licence if "license" in licence else {"license": UNKNOWN}


def _stated_locally(name: str) -> dict[str, Any]:
    try:
        source = find_model(name)
    except ModelLoadError:
        return {}
    card = _front_matter(Path(source.location) / "README.md")
    if "license" not in card and source.gguf_file is not None:
        return _stated_in_gguf(Path(source.location) / source.gguf_file)
    return card


def _stated_in_gguf(file: Path) -> dict[str, Any]:
    import gguf

    fields = gguf.GGUFReader(file).fields
    return {
        key: fields[f"general.{key.replace('_', '.')}"].contents()
        for key in _KEYS
        if f"general.{key.replace('_', '.')}" in fields
    }


def _stated_on_hub(name: str, revision: str | None) -> dict[str, Any]:
    try:
        cached = try_to_load_from_cache(name, "README.md", revision=revision)
        if isinstance(cached, str):
            return _front_matter(Path(cached))
        card = HfApi().model_info(name, revision=revision, timeout=_PATIENCE).card_data
    except (HfHubHTTPError, HFValidationError, _NETWORK_ERROR, OSError):
        return {}
    stated: dict[str, Any] = card.to_dict() if card is not None else {}  # type: ignore[no-untyped-call]
    return stated


def _front_matter(card: Path) -> dict[str, Any]:
    if not card.is_file():
        return {}
    try:
        return metadata_load(card) or {}
    except (ValueError, yaml.YAMLError):
        return {}
