"""Combine trained LoRA adapters of one base into one adapter, without training."""

from __future__ import annotations

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoTokenizer

from lightft.checkpoint import whole_or_nothing
from lightft.combining.sources import Source, read_source, refuse_different
from lightft.description import environment_of
from lightft.errors import InvalidSettingError, UnknownNameError, suggest
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
    sources = [read_source(folder) for folder in folders]
    for source in sources[1:]:
        refuse_different(sources[0], source)
    _check_weights_of_heads(sources[0], shares)
    rank = _rank(sources, method, rank)
    updates = _combined_updates(sources, method, shares, rank=rank, density=density, seed=seed)
    params = {"method": method, "weights": shares, "rank": rank, "density": density, "seed": seed}
    _write(out, sources, {**updates, **_means(sources, shares)}, params)
    return out


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


def _check_weights_of_heads(source: Source, weights: Sequence[float]) -> None:
    if source.whole and sum(weights) <= 0:
        raise InvalidSettingError(
            f"weights={list(weights)} add up to {sum(weights):g}, but heads and biases are averaged by their weights. Give "
            "weights whose sum is above 0."
        )


def _rank(sources: Sequence[Source], method: str, asked: int | None) -> int:
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
    sources: Sequence[Source], method: str, weights: list[float], *, rank: int, density: float | None, seed: int
) -> dict[str, Tensor]:
    """Return A and B of the result, whose scale is 1, under the names that a folder stores them by."""
    names = [f"adapter{number}" for number in range(len(sources))]
    configs = [
        # peft combines no modules stored whole; the stand-in has no task, and all its layers hold (outputs, inputs).
        replace(
            source.config,
            task_type=None,
            base_model_name_or_path=None,
            modules_to_save=None,
            bias="none",
            fan_in_fan_out=False,
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
        torch.default_generator.manual_seed(seed)
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


def _stand_in(sources: Sequence[Source]) -> nn.Module:
    """Return a model that has the layers of the base that the adapters touch, without weights.

    A combination depends on the adapters alone, but peft puts adapters on a model. These layers cost no memory, however
    large or quantised the base is.
    """
    model = nn.Module()
    shapes = {name: shape for source in sources for name, shape in source.layers.items()}
    for name, (_, inputs, outputs) in shapes.items():
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


def _means(sources: Sequence[Source], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted means of what the adapters store whole."""
    shares = torch.tensor(weights) / sum(weights)
    return {
        name: torch.tensordot(shares, torch.stack([source.whole[name].float() for source in sources]), dims=1)
        for name in sources[0].whole
    }


def _write(out: Path, sources: Sequence[Source], tensors: dict[str, Tensor], params: dict[str, Any]) -> None:
    first = sources[0]
    config = replace(
        first.config,
        r=params["rank"],
        lora_alpha=params["rank"],
        use_rslora=False,
        rank_pattern={},
        alpha_pattern={},
        target_modules=list(dict.fromkeys(layer for source in sources for layer in source.layers)),
    )
    manifest = replace(
        first.manifest,
        max_length=min(source.manifest.max_length for source in sources),
        adapter={"kind": "combined", "params": params},
        training={"combined_from": [source.described() for source in sources]},
        versions=environment_of(torch.device("cpu"))["versions"],
    )
    with whole_or_nothing(out) as unfinished:
        config.save_pretrained(str(unfinished))
        save_file(tensors, unfinished / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
        AutoTokenizer.from_pretrained(first.folder).save_pretrained(unfinished)
        manifest.write(unfinished)
