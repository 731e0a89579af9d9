"""Combine trained LoRA adapters of one base into one adapter, without training."""

from __future__ import annotations

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
import hashlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer

from lightft.checkpoint import MANIFEST_NAME, Manifest, whole_or_nothing
from lightft.description import environment_of
from lightft.errors import AdapterError, InvalidSettingError, UnknownNameError, suggest
from lightft.models.quiet import quiet_peft

__all__ = ["METHODS", "combine"]

METHODS = (
    "linear",
    "cat",
    "svd",
    "ties",
    "ties-svd",
    "dare-linear",
    "dare-linear-svd",
    "dare-ties",
    "dare-ties-svd",
)
"""Ways to combine, named as in peft's ``add_weighted_adapter``."""

_PREFIX = "base_model.model."
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


def combine(
    adapters: Sequence[str | Path],
    *,
    method: str = "linear",
    weights: Sequence[float] | None = None,
    out: str | Path,
    rank: int | None = None,
    density: float | None = None,
    seed: int = 0,
) -> Path:
    """Write one adapter that combines several, and return its folder, which ``lightft.load`` opens.

    With W + sᵢ·Bᵢ·Aᵢ the i-th adapter and wᵢ its weight:

    - ``"cat"`` is the exact sum Σ wᵢ·sᵢ·Bᵢ·Aᵢ; its rank is the sum of the ranks.
    - ``"svd"`` is the best approximation of that sum of rank ``rank``; exact where ``rank`` is the sum of the ranks.
    - ``"linear"`` sums the factors, Σ √(wᵢsᵢ)·Aᵢ and Σ √(wᵢsᵢ)·Bᵢ. Their product holds cross terms Bᵢ·Aⱼ: it is no sum of
      the updates, but costs nothing and keeps the rank.
    - ``"ties"`` (Yadav et al. 2023, arXiv:2306.01708) keeps the largest share ``density`` of each adapter's values, elects
      a sign for each place, and averages the values that agree with it.
    - ``"dare-linear"`` and ``"dare-ties"`` (Yu et al. 2023, arXiv:2311.03099) keep a random share ``density``, scale it by
      1 / density, and sum it, or elect signs.

    ties and dare treat the factors A and B, as ``"linear"`` does. With ``-svd`` behind the name they treat the updates
    themselves, as the papers do, and the result is brought to rank ``rank``.

    What adapters store whole, heads and trained biases, becomes its weighted mean, Σ wᵢ·hᵢ / Σ wᵢ. A layer that an adapter
    does not touch counts as an update of zero.

    Args:
        adapters: two or more folders that trainers wrote, of LoRA and its relatives, on one base for one task.
        method: one of METHODS.
        weights: one per adapter; by default equal and adding up to 1, or all 1 where signs are elected, which averages
            already.
        out: the folder to write; it must not exist.
        rank: of the result, for the methods with ``svd``; by default the largest rank of the adapters.
        density: share of the values to keep, above 0 and up to 1; for the methods with ``ties`` or ``dare``.
        seed: of what ``dare`` drops.

    Raises:
        UnknownNameError: there is no such method.
        InvalidSettingError: ``out`` exists, or a number is missing, out of range or of no use to the method.
        AdapterError: a folder holds no LoRA adapter, or the adapters differ in base, task, labels or head.
    """
    folders = [Path(adapters)] if isinstance(adapters, (str, Path)) else [Path(folder) for folder in adapters]
    out = Path(out)
    _check_settings(folders, method, out, rank=rank, density=density)
    shares = _weights(weights, len(folders), method)
    sources = [_read(folder) for folder in folders]
    for source in sources[1:]:
        _refuse_different(sources[0], source)
    _check_weights_of_heads(sources[0], shares)
    rank = _rank(sources, method, rank)
    updates = _combined_updates(sources, method, shares, rank=rank, density=density, seed=seed)
    params = {"method": method, "weights": shares, "rank": rank, "density": density, "seed": seed}
    _write(out, sources, {**updates, **_means(sources, shares)}, params)
    return out


@dataclass(frozen=True)
class _Source:
    """An adapter to combine: its folder, what is written there, its A and B, and what it stores whole."""

    folder: Path
    manifest: Manifest
    config: LoraConfig
    factors: dict[str, Tensor]
    whole: dict[str, Tensor]

    @property
    def layers(self) -> dict[str, tuple[int, int, int]]:
        """(rank, inputs, outputs) of each layer, by its name in the base."""
        names = [name.removeprefix(_PREFIX).removesuffix(_A) for name in self.factors if name.endswith(_A)]
        return {
            name: (*self.factors[_PREFIX + name + _A].shape, len(self.factors[_PREFIX + name + _B])) for name in names
        }


def _check_settings(
    folders: Sequence[Path], method: str, out: Path, *, rank: int | None, density: float | None
) -> None:
    if method not in METHODS:
        raise UnknownNameError(f"No method named {method!r}. {suggest(method, METHODS)}")
    if len(folders) < 2:
        raise InvalidSettingError(
            f"adapters={[str(folder) for folder in folders]} names {len(folders)}; two or more can be combined. "
            "Give combine([first, second], ...)."
        )
    if out.exists():
        raise InvalidSettingError(f"{out} exists already. Choose another folder, or delete it.")
    if _drops(method) and density is None:
        raise InvalidSettingError(
            f"method={method!r} needs the share of values to keep. Give density above 0 and up to 1, such as density=0.5."
        )
    if not _drops(method) and density is not None:
        raise InvalidSettingError(
            f"density={density} means nothing to method={method!r}, which keeps all. Leave it out."
        )
    if density is not None and not 0 < density <= 1:
        raise InvalidSettingError(f"density={density} is out of range: a share above 0 and up to 1, such as 0.5.")
    if rank is not None and not method.endswith("svd"):
        raise InvalidSettingError(f"rank={rank} means nothing to method={method!r}. Leave it out, or use method='svd'.")
    if rank is not None and rank < 1:
        raise InvalidSettingError(f"rank={rank} is out of range: use 1 or more.")


def _weights(given: Sequence[float] | None, adapters: int, method: str) -> list[float]:
    if given is None:
        return [1.0 if "ties" in method else 1 / adapters] * adapters
    weights = [float(weight) for weight in given]
    if len(weights) != adapters:
        raise InvalidSettingError(f"There are {len(weights)} weights for {adapters} adapters. Give one for each.")
    if not all(math.isfinite(weight) for weight in weights) or not any(weights):
        raise InvalidSettingError(f"weights={weights} cannot be used: give finite numbers that are not all 0.")
    return weights


def _drops(method: str) -> bool:
    return "ties" in method or "dare" in method


def _read(folder: Path) -> _Source:
    for name in (MANIFEST_NAME, "adapter_config.json", SAFETENSORS_WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise AdapterError(f"{folder} holds no adapter of ours: there is no {name} in it. Name a trainer's folder.")
    config = PeftConfig.from_pretrained(str(folder))
    tensors = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
    factors = {name: tensor.float() for name, tensor in tensors.items() if name.endswith((_A, _B))}
    reason = _reason_against(config, factors)
    if reason is not None:
        raise AdapterError(f"The adapter in {folder} {reason}, so that it cannot be combined. Use the kinds {_KINDS}.")
    whole = {name: tensor for name, tensor in tensors.items() if name not in factors}
    return _Source(folder, Manifest.read(folder), config, factors, whole)


def _reason_against(config: PeftConfig, factors: dict[str, Tensor]) -> str | None:
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


def _refuse_different(first: _Source, other: _Source) -> None:
    for what, value_of in _MUST_AGREE:
        here, there = value_of(first.manifest), value_of(other.manifest)
        if here != there:
            raise AdapterError(
                f"Adapters that are combined must have {what} in common: {first.folder} has {_shown(here)}, {other.folder} has "
                f"{_shown(there)}. Leave one out, or train it again like the other."
            )
    differing = sorted(set(first.whole) ^ set(other.whole))
    if differing:
        has, lacks = (first, other) if differing[0] in first.whole else (other, first)
        raise AdapterError(
            f"{has.folder} trained {differing[0].removeprefix(_PREFIX)} whole, {lacks.folder} did not: there is nothing to "
            "average it with. Train both with the same bias= and head."
        )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _check_weights_of_heads(source: _Source, weights: Sequence[float]) -> None:
    if source.whole and sum(weights) <= 0:
        raise InvalidSettingError(
            f"weights={list(weights)} add up to {sum(weights):g}, but heads and biases are averaged by their weights. Give "
            "weights whose sum is above 0."
        )


def _rank(sources: Sequence[_Source], method: str, asked: int | None) -> int:
    """Return the rank of the result."""
    layers = [layer for source in sources for layer in source.layers.values()]
    ranks = sorted({rank for rank, _, _ in layers})
    smallest = min(min(inputs, outputs) for _, inputs, outputs in layers)
    if asked is not None and asked > smallest:
        raise InvalidSettingError(
            f"rank={asked} is larger than the {smallest} values of the narrowest layer. Use rank={smallest} or less, or "
            "method='cat'."
        )
    if method.endswith("svd"):
        return asked or min(ranks[-1], smallest)
    if method == "cat":
        return sum(max(rank for rank, _, _ in source.layers.values()) for source in sources)
    if len(ranks) > 1:
        raise InvalidSettingError(
            f"method={method!r} adds factors of one rank, but the adapters have the ranks {', '.join(map(str, ranks))}. Use "
            "method='svd' or method='cat'."
        )
    return ranks[0]


def _combined_updates(
    sources: Sequence[_Source], method: str, weights: list[float], *, rank: int, density: float | None, seed: int
) -> dict[str, Tensor]:
    """Return A and B of the result, whose scale is 1, under the names that a folder stores them by."""
    names = [f"adapter{number}" for number in range(len(sources))]
    configs = [
        replace(
            source.config,
            task_type=None,
            base_model_name_or_path=None,
            target_modules=list(source.layers),
            exclude_modules=None,
            layers_to_transform=None,
            layers_pattern=None,
            modules_to_save=None,
            bias="none",
            fan_in_fan_out=False,
            init_lora_weights=True,
            eva_config=None,
        )
        for source in sources
    ]
    # What peft draws for layers whose values are then replaced must not move the caller's random numbers.
    with torch.random.fork_rng(devices=[]), quiet_peft():
        warnings.filterwarnings("ignore", "The density 1")
        model = get_peft_model(_stand_in(sources), configs[0], adapter_name=names[0])
        for name, config in zip(names[1:], configs[1:], strict=True):
            model.add_adapter(name, config)
        for name, source in zip(names, sources, strict=True):
            set_peft_model_state_dict(model, source.factors, adapter_name=name)
        torch.manual_seed(seed)
        model.add_weighted_adapter(
            names,
            weights,
            "combined",
            combination_type=method.replace("-", "_"),
            svd_rank=rank,
            svd_full_matrices=False,
            density=density,
        )
    combined = get_peft_model_state_dict(model, adapter_name="combined", save_embedding_layers=False)
    return {name: tensor.contiguous() for name, tensor in combined.items()}


def _stand_in(sources: Sequence[_Source]) -> nn.Module:
    """Return a model that has the layers of the base that the adapters touch, without weights.

    A combination depends on the adapters alone, but peft puts adapters on a model. These layers cost no memory, however
    large or quantised the base is.
    """
    model = nn.Module()
    for name, (_, inputs, outputs) in {
        name: shape for source in sources for name, shape in source.layers.items()
    }.items():
        layer = nn.Linear(inputs, outputs, bias=False, device="meta")
        # One zero, seen as a matrix: on the meta device peft would leave the adapters without values.
        layer.weight = nn.Parameter(torch.zeros(1).expand(outputs, inputs), requires_grad=False)
        *above, last = name.split(".")
        parent = model
        for part in above:
            if part not in dict(parent.named_children()):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(last, layer)
    return model


def _means(sources: Sequence[_Source], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted means of what the adapters store whole."""
    return {
        name: sum(weight / sum(weights) * source.whole[name] for weight, source in zip(weights, sources, strict=True))
        for name in sources[0].whole
    }


def _write(out: Path, sources: Sequence[_Source], tensors: dict[str, Tensor], params: dict[str, Any]) -> None:
    first = sources[0]
    layers = list(dict.fromkeys(layer for source in sources for layer in source.layers))
    config = replace(
        first.config,
        r=params["rank"],
        lora_alpha=params["rank"],
        use_rslora=False,
        rank_pattern={},
        alpha_pattern={},
        target_modules=layers,
        exclude_modules=None,
        layers_to_transform=None,
        layers_pattern=None,
        init_lora_weights=True,
        eva_config=None,
        inference_mode=True,
    )
    manifest = replace(
        first.manifest,
        max_length=min(source.manifest.max_length for source in sources),
        adapter={"kind": "combined", "params": params},
        training={"combined_from": [_described(source) for source in sources]},
        versions=environment_of(torch.device("cpu"))["versions"],
    )
    with whole_or_nothing(out) as unfinished:
        config.save_pretrained(str(unfinished))
        save_file(tensors, unfinished / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
        AutoTokenizer.from_pretrained(first.folder).save_pretrained(unfinished)
        manifest.write(unfinished)


def _described(source: _Source) -> dict[str, Any]:
    """Return which adapter it was, so that the combination can be traced."""
    digest = hashlib.sha256((source.folder / SAFETENSORS_WEIGHTS_NAME).read_bytes()).hexdigest()
    return {
        "folder": str(source.folder),
        "digest": f"sha256:{digest}",
        "adapter": source.manifest.adapter,
        "training": source.manifest.training,
    }
