"""The cells of the support matrix: every adapter kind, on every head, in every precision of the base."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoHaConfig

from lightft.adapters import AdapterSpec
from lightft.contracts.tiny_models import LABELS, Pair, examples, save_base, save_language_model
from lightft.contracts.watching import Seen, train_and_watch
from lightft.errors import AdapterError
from lightft.experiment import LoRATrainer, QLoRATrainer
from lightft.exporters import export
from lightft.models import ModelLoader

__all__ = ["BATCH", "HEADS", "PRECISIONS", "STEPS", "Bench", "Cell", "Merged", "cells_of", "rows_of"]

HEADS = ("text-classification", "token-classification", "causal-lm")
PRECISIONS = ("float32", "bfloat16", "nf4", "int8")
_QUANTIZED = ("nf4", "int8")
STEPS = 3
"""Of each training: the fewest in which AdaLoRA can warm up, take ranks away and settle."""
BATCH = 32
"""Of each step: as many as EVA, at its defaults, looks for directions."""
# Weights spread widely enough that a mistake in one shows in the logits.
_SPREAD = {"initializer_range": 0.1}
_AUTO_CLASSES = {
    "text-classification": transformers.AutoModelForSequenceClassification,
    "token-classification": transformers.AutoModelForTokenClassification,
    "causal-lm": transformers.AutoModelForCausalLM,
}

Params = tuple[tuple[str, Any], ...]
# Parameters that change what is trained. All else is tried as it comes; two kinds get what they cannot do without.
_VARIANTS: Mapping[str, Sequence[tuple[str, Params]]] = {
    "lora": (("lora", ()), ("lora, bias all", (("bias", "all"),)), ("lora, bias lora_only", (("bias", "lora_only"),))),
    "peft": (("peft (LoHa)", ()),),
}


@dataclass(frozen=True)
class Cell:
    """One way to train, with the kind's own defaults.

    Attributes:
        row: the kind, and what of it is not the default.
        kind: its registered name.
        params: those that are not the defaults, by name and value.
        head: one of HEADS.
        precision: one of PRECISIONS: what the base is held in.
    """

    row: str
    kind: str
    params: Params
    head: str
    precision: str

    def __str__(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", f"{self.row} {self.head.partition('-')[0]} {self.precision}".lower())


def rows_of(kinds: Iterable[str]) -> list[tuple[str, str, Params]]:
    """Return row, kind and parameters of every row that the kinds have."""
    return [(row, kind, params) for kind in kinds for row, params in _VARIANTS.get(kind, ((kind, ()),))]


def cells_of(kinds: Iterable[str]) -> list[Cell]:
    """Return every cell of the kinds, row by row."""
    return [Cell(*row, head, precision) for row in rows_of(kinds) for head in HEADS for precision in PRECISIONS]


@dataclass(frozen=True)
class Merged:
    """What came of merging a cell into one checkpoint.

    Attributes:
        refusal: what lightft said where it refused.
        largest_gap: largest absolute difference to the adapter's logits, where it did not.
        largest_logit: the adapter's largest, without its sign.
    """

    refusal: str | None = None
    largest_gap: float = 0.0
    largest_logit: float = 0.0


class Bench:
    """Trains and merges cells, each once.

    Args:
        folder: where the models and the adapters are written.
        base: loads the base for every head; by default a small random LLaMA for language modelling and a small random BERT
            for classification are made.
    """

    def __init__(self, folder: Path, base: ModelLoader | None = None) -> None:
        self.folder = folder
        self._base = base
        self._seen: dict[Cell, Seen] = {}
        self._merged: dict[Cell, Merged] = {}
        self._to_fuse: dict[str, tuple[str, ...]] = {}
        # Each training ends with a search for garbage; without what was imported by now that takes no time.
        gc.freeze()

    def seen(self, cell: Cell) -> Seen:
        """Train and save a cell, and return what was seen."""
        if cell not in self._seen:
            folder, rows = self.folder / str(cell), examples(cell.head, BATCH)
            # What is cut off, by a time limit say, is not tried again by the next contract.
            self._seen[cell] = Seen(folder, error=RuntimeError("The training did not end."))
            trainer = (QLoRATrainer if cell.precision in _QUANTIZED else LoRATrainer)(
                self.loader(cell.head, cell.precision),
                adapter=self.spec(cell.kind, cell.params, cell.head),
                epochs=STEPS,
                batch_size=BATCH,
                warmup=0.0,
                progress=False,
            )
            self._seen[cell] = train_and_watch(trainer, rows, folder)
        return self._seen[cell]

    def merged(self, cell: Cell) -> Merged:
        """Merge a trained cell, and compare the logits of what transformers alone makes of it with the adapter's."""
        if cell not in self._merged:
            self._merged[cell] = _merge(self.seen(cell).folder, cell.head)
        return self._merged[cell]

    def merged_so_far(self, cell: Cell) -> Merged | None:
        """Return what came of merging a cell; None if nobody asked for it."""
        return self._merged.get(cell)

    def spec(self, kind: str, params: Params, head: str) -> AdapterSpec:
        """Return the spec of a row for a head."""
        if kind == "fusion":
            return AdapterSpec(kind, adapters=self._adapters_to_fuse(head))
        if kind == "peft":
            return AdapterSpec.of(LoHaConfig(r=4, target_modules="all-linear"))
        return AdapterSpec(kind, dict(params))

    def loader(self, head: str, precision: str = "float32") -> ModelLoader:
        """Return the loader of the base with a head; a quantised base computes in float32."""
        base = self._base or ModelLoader(str(self._small_base(head)), device="cpu")
        quantization = precision if precision in _QUANTIZED else None
        dtype = "float32" if quantization else precision
        return base.replace(task=head, labels=LABELS.get(head), dtype=dtype, quantization=quantization)

    def _small_base(self, head: str) -> Path:
        folder = self.folder / ("language-model" if head == "causal-lm" else "encoder")
        if not folder.exists() and head == "causal-lm":
            save_language_model(folder, **_SPREAD)
        elif not folder.exists():
            save_base(Pair("bert", head), folder, with_head=False, **_SPREAD)
        return folder

    def _adapters_to_fuse(self, head: str) -> tuple[str, ...]:
        """Train, once, two adapters on the same base."""
        if head not in self._to_fuse:
            self._to_fuse[head] = tuple(str(self._adapter_to_fuse(head, seed)) for seed in (0, 1))
        return self._to_fuse[head]

    def _adapter_to_fuse(self, head: str, seed: int) -> Path:
        trainer = LoRATrainer(self.loader(head), epochs=1, seed=seed, progress=False)
        return trainer.save(trainer.train(examples(head), lora_r=4), self.folder / f"to-fuse-{head}-{seed}")


def _merge(folder: Path, head: str) -> Merged:
    try:
        export(folder / "adapter", to="merged", out=folder / "merged")
    except AdapterError as refusal:
        return Merged(str(refusal))
    seen = torch.load(folder / "seen.pt", weights_only=True)
    model = _AUTO_CLASSES[head].from_pretrained(folder / "merged")
    with torch.inference_mode():
        logits = model(**seen["batch"]).logits
    return Merged(None, float((logits - seen["logits"]).abs().max()), float(seen["logits"].abs().max()))
