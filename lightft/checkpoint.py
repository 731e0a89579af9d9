"""Adapter folders: ordinary PEFT folders that also say everything needed to use them."""

from __future__ import annotations

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightft.errors import AdapterError
from lightft.models.prompts import mend_virtual_tokens
from lightft.models.quiet import quiet_peft, quiet_transformers

__all__ = [
    "MANIFEST_NAME",
    "Manifest",
    "load_adapter",
    "save_adapter",
    "stored_shapes",
    "tokenizer_digest",
    "whole_or_nothing",
]

MANIFEST_NAME = "lightft.json"
_FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What ``lightft.json`` says of the adapter beside it.

    Attributes:
        task: registered name of the head.
        labels: classes or entity types in the model's order.
        head: further settings of the head, such as ``decoding``.
        tagging_scheme: ``"BIO"`` for token classification.
        base: ``name``, ``revision``, ``digest``, ``dtype``, ``quantization``, ``seed`` of the base model.
        tokenizer_digest: SHA-256 of the tokenizer's whole definition.
        chat_template_digest: SHA-256 of the chat template; None without one.
        max_length: tokens per row in training.
        adapter: ``kind`` and ``params``.
        training: the training settings.
        versions: of the packages.
        format: of this file.
    """

    task: str
    labels: tuple[str, ...]
    head: Mapping[str, Any]
    tagging_scheme: str | None
    base: Mapping[str, Any]
    tokenizer_digest: str
    chat_template_digest: str | None
    max_length: int
    adapter: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    format: int = _FORMAT

    def write(self, folder: Path) -> None:
        """Write ``lightft.json`` into ``folder``."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read ``lightft.json``.

        Raises:
            AdapterError: it was written by a later version, or is not whole.
        """
        path = folder / MANIFEST_NAME
        try:
            described = json.loads(path.read_text(encoding="utf-8"))
            if described["format"] > _FORMAT:
                raise AdapterError(
                    f"{path} has format {described['format']}; this lightft reads up to {_FORMAT}. "
                    "Run: pip install --upgrade lightft"
                )
            return cls(**{**described, "labels": tuple(described["labels"])})
        except (json.JSONDecodeError, KeyError, TypeError) as cause:
            raise AdapterError(f"{path} is damaged ({cause}). Save the adapter again, or restore the file.") from cause


def save_adapter(model: nn.Module, tokenizer: PreTrainedTokenizerBase, manifest: Manifest, folder: str | Path) -> Path:
    """Write the adapter, its tokenizer and its manifest as one folder, which appears only when it is whole.

    A model that was trained whole is written as an ordinary transformers checkpoint, an adapter as a PEFT folder.
    """
    folder = Path(folder)
    with whole_or_nothing(folder) as unfinished:
        if isinstance(model, PeftModel):
            # "auto" would ask the Hub whether the vocabulary grew; lightft never changes it.
            with quiet_peft():
                model.save_pretrained(str(unfinished), save_embedding_layers=False)
        elif isinstance(model, PreTrainedModel):
            with quiet_transformers():
                model.save_pretrained(unfinished)
        else:
            raise AdapterError(
                f"A {type(model).__name__} cannot be saved: it is neither a peft nor a transformers model."
            )
        tokenizer.save_pretrained(unfinished)
        manifest.write(unfinished)
    return folder


@contextmanager
def whole_or_nothing(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder to write into, which becomes ``folder`` when the block ends; after an error it is gone."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.unfinished-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir()
        yield unfinished
        _sync_to_disk(unfinished)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if folder.exists():
        shutil.rmtree(folder)
    unfinished.rename(folder)


def load_adapter(base: PreTrainedModel, folder: str | Path) -> PeftModel:
    """Put the adapter in ``folder`` on ``base`` and return it in eval mode.

    Raises:
        AdapterError: the folder's tensors are not exactly those the adapter on this base has.
    """
    folder = Path(folder)
    stored = stored_shapes(folder)
    try:
        with quiet_peft():
            # What peft only warns of is refused below.
            warnings.filterwarnings("ignore", "Found missing adapter keys")
            model = PeftModel.from_pretrained(base, str(folder), is_trainable=False)
    except (ValueError, RuntimeError, KeyError) as cause:
        reason = f"the tensor {cause} is missing." if isinstance(cause, KeyError) else str(cause).splitlines()[0]
        raise AdapterError(
            f"The adapter in {folder} does not fit {type(base).__name__}: {reason} "
            "It was probably trained on another base model."
        ) from cause
    mend_virtual_tokens(model)
    with quiet_peft():
        held = get_peft_model_state_dict(model, save_embedding_layers=False)
    expected = {name: tuple(tensor.shape) for name, tensor in held.items()}
    missing, unexpected = sorted(set(expected) - set(stored)), sorted(set(stored) - set(expected))
    if missing or unexpected:
        raise AdapterError(
            f"The adapter in {folder} does not fit {type(base).__name__}: {len(missing)} tensors are missing"
            f"{_first(missing)}, {len(unexpected)} are unexpected{_first(unexpected)}. Name the base it was trained on, or "
            "save the adapter again."
        )
    return model.eval()


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of all a fast tokenizer is: vocabulary, merges, normalisation, special tokens."""
    definition = json.loads(tokenizer.backend_tokenizer.to_str())
    # Padding and truncation are how it was last called, not what it is.
    for state in ("padding", "truncation"):
        definition.pop(state, None)
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in an adapter folder, by the name it is stored under.

    Raises:
        AdapterError: the file is missing or damaged.
    """
    weights = folder / SAFETENSORS_WEIGHTS_NAME
    if not weights.is_file():
        raise AdapterError(f"{folder} has no {SAFETENSORS_WEIGHTS_NAME}: the adapter's weights are missing.")
    try:
        with safe_open(weights, "pt") as opened:
            # An opened file is no dictionary: it has keys but cannot be iterated over itself.
            names = list(opened.keys())
            return {name: tuple(opened.get_slice(name).get_shape()) for name in names}
    except SafetensorError as cause:
        raise AdapterError(f"{weights} is damaged ({cause}). Save the adapter again, or restore the file.") from cause


def _first(names: list[str]) -> str:
    return f" (first: {names[0]!r})" if names else ""


def _sync_to_disk(folder: Path) -> None:
    """Make sure the files outlive a power cut before the folder gets its final name."""
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
