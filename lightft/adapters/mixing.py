"""The trained part of a fusion: one weight per layer and adapter, folded into plain LoRA afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from lightft.adapters.folding import lora_layers
from lightft.adapters.kind import AdapterHooks
from lightft.errors import AdapterError

__all__ = ["MixesFrozenAdapters", "stored_updates"]

_NAME = "default"
_PREFIX = "base_model.model."
Update = Mapping[str, tuple[Tensor, Tensor]]
"""By layer: A of shape (rank, inputs) and the scaled B of shape (outputs, rank)."""


class MixesFrozenAdapters(AdapterHooks):
    """Puts the adapters side by side into one LoRA, trains how they are mixed, and leaves the mix in B."""

    def after_attach(self, model: PeftModel) -> None:
        """Fill in the adapters, freeze them, and give each layer its mixing weights, equal at first."""
        updates = [stored_updates(Path(folder)) for folder in self.params["adapters"]]
        for name, layer in lora_layers(model).items():
            here = [update.get(name.removeprefix(_PREFIX)) for update in updates]
            down, up = layer.lora_A[_NAME], layer.lora_B[_NAME]
            present = [update for update in here if update is not None]
            device = down.weight.device
            down.weight = nn.Parameter(torch.cat([a for a, _ in present]).to(device), requires_grad=False)
            up.weight = nn.Parameter(torch.cat([b for _, b in present], dim=1).to(device), requires_grad=False)
            ranks = [0 if update is None else len(update[0]) for update in here]
            parametrize.register_parametrization(up, "weight", _Mix(ranks).to(device))

    def after_training(self, model: PeftModel, base: PreTrainedModel) -> PeftModel:
        """Leave B as it is mixed."""
        del base
        for layer in lora_layers(model).values():
            parametrize.remove_parametrizations(layer.lora_B[_NAME], "weight", leave_parametrized=True)
        return model.eval()


class _Mix(nn.Module):
    """Scales the columns of B that belong to one adapter by that adapter's share."""

    adapter_of_column: Tensor

    def __init__(self, ranks: Sequence[int]) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(len(ranks)))
        columns = torch.repeat_interleave(torch.arange(len(ranks)), torch.tensor(ranks))
        self.register_buffer("adapter_of_column", columns, persistent=False)

    def forward(self, b: Tensor) -> Tensor:
        return b * self.weights.softmax(0)[self.adapter_of_column]


def stored_updates(folder: Path) -> Update:
    """Return what a LoRA adapter folder adds to each layer.

    Raises:
        AdapterError: the folder holds no LoRA adapter, or one whose update is not B·A alone.
    """
    if not (folder / "adapter_config.json").is_file():
        raise AdapterError(
            f"{folder} holds no adapter: there is no adapter_config.json in it. Name a trainer's folder."
        )
    config = PeftConfig.from_pretrained(str(folder))
    if type(config) is not LoraConfig or config.use_dora or config.bias != "none":
        raise AdapterError(
            f"The adapter in {folder} is {_words(config)}, whose update cannot be mixed layer by layer. Fuse adapters of "
            "the kinds lora, rslora, lora-plus, pissa, olora and eva, trained with bias='none'."
        )
    tensors = load_file(folder / "adapter_model.safetensors")
    update = {}
    for name, a in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        layer = name.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
        b = tensors[name.replace(".lora_A.", ".lora_B.")]
        update[layer] = (a.float(), b.float() * _scale(config, layer, len(a)))
    return update


def _scale(config: LoraConfig, layer: str, rank: int) -> float:
    alpha = config.alpha_pattern.get(layer, config.lora_alpha)
    return float(alpha / rank**0.5 if config.use_rslora else alpha / rank)


def _words(config: PeftConfig) -> str:
    if type(config) is not LoraConfig:
        return f"a {config.peft_type.value} adapter"
    return "DoRA" if config.use_dora else f"LoRA with bias={config.bias!r}"
