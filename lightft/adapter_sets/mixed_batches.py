"""Rows of several adapters in one forward pass."""

from __future__ import annotations

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
import copy
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lightft.inference import Predictor
from lightft.models import share_weights
from lightft.models.quiet import quiet_peft
from lightft.tasks import TaskHead, TextClassification, TokenClassification
from lightft.tasks.head import Encoding

__all__ = ["MixedBatches", "mixed_batches"]


def mixed_batches(predictors: Mapping[str, Predictor]) -> list[MixedBatches]:
    """Return one for every two or more adapters that are alike and that peft can mix."""
    alike: dict[str, dict[str, Predictor]] = {}
    for name, predictor in predictors.items():
        if _is_plain_lora(predictor):
            alike.setdefault(repr((predictor.head, predictor.max_length)), {})[name] = predictor
    batches = [MixedBatches(group) for group in alike.values() if len(group) > 1]
    return [mixed for mixed in batches if mixed.reads_row_by_row()]


class MixedBatches:
    """One model with several adapters that are alike, which reads rows of all of them in one pass.

    peft chooses an adapter for each row, after its layers have read all rows.
    """

    def __init__(self, predictors: Mapping[str, Predictor]) -> None:
        self.names = tuple(predictors)
        first, *others = predictors.values()
        self._like = first
        self._model: Any = share_weights(first.model, copied=())
        self._labels = ["default", *(f"adapter{number}" for number in range(1, len(predictors)))]
        # What peft draws for layers whose values are then replaced must not move the caller's random numbers.
        with torch.random.fork_rng(devices=[]), quiet_peft():
            for label, predictor in zip(self._labels[1:], others, strict=True):
                self._model.add_adapter(label, replace(_config_of(predictor), init_lora_weights=True, eva_config=None))
                own = dict(predictor.model.named_parameters())
                for name, parameter in self._model.named_parameters():
                    if f".{label}." in name:
                        parameter.data = own[name.replace(f".{label}.", ".default.")].data
        self._model.eval()
        self._reading = threading.Lock()

    def predictor(self, names: Sequence[str]) -> Predictor:
        """Return what answers as many rows as there are names, each with the adapter of that name."""
        numbers = [self.names.index(name) for name in names]
        head = _head_that_names_adapters(self._like.head, numbers)
        model: Any = _ModelOfManyAdapters(self._model, self._labels, self._reading)
        return Predictor(model.eval(), self._like.tokenizer, head, self._like.max_length)

    def reads_row_by_row(self) -> bool:
        """Whether every layer with an adapter is given one input per text.

        DeBERTa's layers also read relative positions, which belong to no row, and peft cannot tell whose they are.
        """
        rows = 7
        seen: list[int] = []
        hooks = [
            module.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
            for module in self._model.modules()
            if isinstance(module, (LoraLayer, ModulesToSaveWrapper))
        ]
        Predictor(self._model, self._like.tokenizer, self._like.head, self._like.max_length)(["a"] * rows)
        for hook in hooks:
            hook.remove()
        return set(seen) == {rows}


class _ModelOfManyAdapters(nn.Module):
    """A model whose batches say, in one more tensor, which adapter each row is for."""

    def __init__(self, model: Any, labels: Sequence[str], reading: threading.Lock) -> None:
        super().__init__()
        self.model = model
        self._labels = labels
        self._reading = reading

    def get_output_embeddings(self) -> Any:
        return self.model.get_output_embeddings()

    def forward(self, adapter: Tensor, **inputs: Tensor) -> Any:
        # peft hands the names to its layers for the time of a pass; another pass at that time would get them too.
        with self._reading:
            return self.model(**inputs, adapter_names=[self._labels[number] for number in adapter.tolist()])


def _head_that_names_adapters(head: TaskHead, numbers: Sequence[int]) -> TaskHead:
    """Return ``head`` with batches that also hold, as ``adapter``, the number of each example's adapter."""

    def collate(encodings: Sequence[Encoding], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
        adapter = torch.tensor([numbers[encoding.example] for encoding in encodings])
        return {**head.collate(encodings, tokenizer), "adapter": adapter}

    naming = copy.copy(head)
    # Found before the method of the class; the dataclass is frozen to assignment.
    vars(naming)["collate"] = collate
    return naming


def _is_plain_lora(predictor: Predictor) -> bool:
    """Whether peft can choose this adapter row by row: no DoRA or other variant, no biases, a head of linear layers."""
    config = _config_of(predictor)
    modules = list(predictor.model.modules())
    layers = [module for module in modules if isinstance(module, LoraLayer)]
    wholes = [module.original_module for module in modules if isinstance(module, ModulesToSaveWrapper)]
    return (
        type(predictor.head) in (TextClassification, TokenClassification)
        and type(config) is LoraConfig
        and config.bias == "none"
        and not any(layer.lora_variant for layer in layers)
        and all(type(module) is nn.Linear for module in wholes)
        and bool(layers)
    )


def _config_of(predictor: Predictor) -> Any:
    model: Any = predictor.model
    return model.peft_config["default"]
