"""The adapters that are combined: what is read of a folder, and what does not go together."""

from __future__ import annotations

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftConfig
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from torch import Tensor

from lightft.checkpoint import MANIFEST_NAME, Manifest
from lightft.errors import AdapterError

__all__ = ["PREFIX", "Source", "read_source", "refuse_different"]

PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
_KINDS = "lora, rslora, lora-plus, pissa, olora, eva and fusion"
# Starts of A and B that leave the base as it was; after training only the values count.
_STARTS = (True, False, "gaussian", "orthogonal", "eva")
# Fields of a LoraConfig that are read here, or that say nothing about what B·A means. Any other one that is set makes an
# adapter more than a low-rank update.
_UNDERSTOOD = {
    *{field.name for field in fields(PeftConfig)},
    *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "lora_dropout", "fan_in_fan_out"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "bias"),
    *("init_lora_weights", "eva_config"),
}


_MUST_AGREE: tuple[tuple[str, Callable[[Manifest], Any]], ...] = (
    ("the base's weights", lambda manifest: manifest.base["digest"] or manifest.base["name"]),
    ("the base's quantization", lambda manifest: manifest.base["quantization"]),
    ("the base's dtype", lambda manifest: manifest.base["dtype"]),
    ("the tokenizer", lambda manifest: manifest.tokenizer_digest),
    ("the task", lambda manifest: manifest.task),
    ("the labels", lambda manifest: manifest.labels),
    ("the tagging scheme", lambda manifest: manifest.tagging_scheme),
    ("the head settings", lambda manifest: manifest.head),
)


@dataclass(frozen=True)
class Source:
    """One of the adapters to combine.

    Attributes:
        folder: where it is.
        manifest: its ``lightft.json``.
        config: its LoRA settings, with the layers it touches as targets.
        factors: A and B of each layer in float32, by the names they are stored under.
        whole: heads and biases, likewise.
    """

    folder: Path
    manifest: Manifest
    config: LoraConfig
    factors: Mapping[str, Tensor]
    whole: Mapping[str, Tensor]

    @property
    def layers(self) -> dict[str, tuple[int, int, int]]:
        """(rank, inputs, outputs) of each layer it touches, by the layer's name in the base."""
        return _layers(self.factors)

    def described(self) -> dict[str, Any]:
        """Return which adapter it is, so that the combination can be traced."""
        digest = hashlib.sha256((self.folder / SAFETENSORS_WEIGHTS_NAME).read_bytes()).hexdigest()
        return {
            "folder": str(self.folder),
            "digest": f"sha256:{digest}",
            "adapter": self.manifest.adapter,
            "training": self.manifest.training,
        }


def read_source(folder: Path) -> Source:
    """Read an adapter folder.

    Raises:
        AdapterError: it holds no adapter of ours, or one that is not W + s·B·A.
    """
    for name in (MANIFEST_NAME, "adapter_config.json", SAFETENSORS_WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise AdapterError(f"{folder} holds no adapter of ours: there is no {name} in it. Name a trainer's folder.")
    config = PeftConfig.from_pretrained(str(folder))
    tensors = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
    factors = {name: tensor.float() for name, tensor in tensors.items() if name.endswith((_A, _B))}
    reason = _reason_against(config, factors)
    if reason is not None:
        raise AdapterError(f"The adapter in {folder} {reason}, so that it cannot be combined. Use the kinds {_KINDS}.")
    layers = _layers(factors)
    # How the layers were chosen and how A and B began says nothing about what they are now.
    settled = replace(
        config,
        # Where every layer has a rank of its own, the general one may be larger than any.
        r=min(config.r, max(rank for rank, _, _ in layers.values())),
        target_modules=list(layers),
        exclude_modules=None,
        layers_to_transform=None,
        layers_pattern=None,
        init_lora_weights=True,
        eva_config=None,
    )
    whole = {name: tensor for name, tensor in tensors.items() if name not in factors}
    return Source(folder, Manifest.read(folder), settled, factors, whole)


def refuse_different(first: Source, other: Source) -> None:
    """Refuse two adapters that are not of one base, one task and one head.

    Raises:
        AdapterError: naming what differs.
    """
    for what, value_of in _MUST_AGREE:
        here, there = value_of(first.manifest), value_of(other.manifest)
        if here != there:
            raise AdapterError(
                f"Adapters that are combined must have {what} in common: {first.folder} has {_shown(here)}, "
                f"{other.folder} has {_shown(there)}. Leave one out, or train it again like the other."
            )
    differing = sorted(set(first.whole) ^ set(other.whole))
    if differing:
        has, lacks = (first, other) if differing[0] in first.whole else (other, first)
        raise AdapterError(
            f"{has.folder} trained {differing[0].removeprefix(PREFIX)} whole, {lacks.folder} did not: there is nothing to "
            "average it with. Train both with the same bias= and head."
        )


def _layers(factors: Mapping[str, Tensor]) -> dict[str, tuple[int, int, int]]:
    return {
        name.removeprefix(PREFIX).removesuffix(_A): (*a.shape, len(factors[name.removesuffix(_A) + _B]))
        for name, a in factors.items()
        if name.endswith(_A)
    }


def _reason_against(config: PeftConfig, factors: Mapping[str, Tensor]) -> str | None:
    """Return why what the config describes is not W + s·B·A, None if it is."""
    if type(config) is not LoraConfig:
        return f"is {config.peft_type.value}, not LoRA"
    plain = LoraConfig()
    odd = [
        f"{field.name}={getattr(config, field.name)!r}"
        for field in fields(LoraConfig)
        if field.name not in _UNDERSTOOD and getattr(config, field.name) != getattr(plain, field.name)
    ]
    if odd:
        return f"has {odd[0]} and is more than an update B·A"
    if config.init_lora_weights not in _STARTS:
        return f"has init_lora_weights={config.init_lora_weights!r} and belongs to a base that was changed"
    return None if factors else "has no LoRA update"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
