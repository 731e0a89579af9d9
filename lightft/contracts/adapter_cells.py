"""One cell of the support matrix: an adapter kind trained on a small model with one head, held in one precision."""

from __future__ import annotations

import gc
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoHaConfig
from torch import nn
from transformers import PreTrainedModel

from lightft import experiment
from lightft.adapters import AdapterHooks, AdapterSpec, TrainingPlan
from lightft.adapters.explaining import Explanation
from lightft.contracts.tiny_models import LABELS, Pair, examples, save_base, save_language_model
from lightft.errors import AdapterError
from lightft.experiment import LoRATrainer, QLoRATrainer
from lightft.exporters import export
from lightft.models import ModelLoader
from lightft.models.quantization import int8_tensors

__all__ = ["HEADS", "PRECISIONS", "Bench", "Cell", "Seen", "cells_of"]

HEADS = ("text-classification", "token-classification", "causal-lm")
PRECISIONS = ("float32", "bfloat16", "nf4", "int8")
_AUTO_CLASSES = dict(
    zip(
        HEADS,
        (
            transformers.AutoModelForSequenceClassification,
            transformers.AutoModelForTokenClassification,
            transformers.AutoModelForCausalLM,
        ),
        strict=True,
    )
)
_STEPS = 3
"""The fewest in which AdaLoRA can warm up, take ranks away and settle."""


@dataclass(frozen=True)
class Cell:
    """One way to train, with the kind's own defaults.

    Attributes:
        row: the kind, and what of it is not the default.
        kind: its registered name.
        head: one of HEADS.
        precision: one of PRECISIONS: of the base.
        params: those that are not the defaults, by name and value.
    """

    row: str
    kind: str
    head: str
    precision: str
    params: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", f"{self.row} {self.head.partition('-')[0]} {self.precision}".lower())

    @property
    def trainer(self) -> type[LoRATrainer]:
        """The trainer of that precision."""
        return LoRATrainer if self.precision in ("float32", "bfloat16") else QLoRATrainer


# Kinds that are nothing without parameters, and parameters that change what is trained; all else is tried as it comes.
_ROWS: Mapping[str, Sequence[tuple[str, tuple[tuple[str, Any], ...]]]] = {
    "lora": (("lora", ()), ("lora, all biases", (("bias", "all"),)), ("lora, biases of its layers", (("bias", "lora_only"),))),
    "peft": (("peft (LoHa)", ()),),
}


def cells_of(kinds: Iterable[str]) -> list[Cell]:
    """Return every cell of the kinds, row by row."""
    return [
        Cell(row, kind, head, precision, params)
        for kind in kinds
        for row, params in _ROWS.get(kind, ((kind, ()),))
        for head in HEADS
        for precision in PRECISIONS
    ]


@dataclass
class Seen:
    """What was seen of one cell.

    Attributes:
        refusal: what lightft said where it refused to train.
        weights_were_read: whether the base had been loaded by then.
        error: what else went wrong.
        trained: names of the parameters that were trained.
        without_gradient: those of them whose gradient was zero, or not there, at every step.
        unmoved: those of them that ended as they began.
        not_float32: those of them that are held in less.
        changed_base: parameters and buffers of the user's model that are not what they were.
        explanation: what ``spec.explain`` says of the base.
        trained_parameters: how many parameters the training counted.
        folder: the cell's files: ``adapter`` and, to compare with, ``seen.pt``.
    """

    refusal: str | None = None
    weights_were_read: bool = False
    error: Exception | None = None
    trained: list[str] = field(default_factory=list)
    without_gradient: list[str] = field(default_factory=list)
    unmoved: list[str] = field(default_factory=list)
    not_float32: list[str] = field(default_factory=list)
    changed_base: list[str] = field(default_factory=list)
    explanation: Explanation | None = None
    trained_parameters: int = 0
    folder: Path = Path()


@dataclass(frozen=True)
class Merged:
    """What came of merging a cell.

    Attributes:
        refusal: what lightft said where it refused.
        largest_gap: largest absolute difference of two logits, where it did not.
        largest_logit: the adapter's, in absolute value.
    """

    refusal: str | None = None
    largest_gap: float = 0.0
    largest_logit: float = 0.0


class Bench:
    """Trains cells, each once.

    Args:
        folder: where the models and the adapters are written.
        kinds: all that will be asked for, so that what was trained can be opened again in one new process.
    """

    def __init__(self, folder: Path, kinds: Sequence[str]) -> None:
        self.folder = folder
        self.cells = cells_of(kinds)
        self._seen: dict[Cell, Seen] = {}
        self._merged: dict[Cell, Merged] = {}
        self._to_fuse: dict[str, tuple[str, ...]] = {}
        # Each training ends with a search for garbage; without what was imported by now that takes no time.
        gc.freeze()

    def seen(self, cell: Cell) -> Seen:
        """Train a cell, save it, and return what was seen."""
        if cell not in self._seen:
            self._seen[cell] = self._train(cell)
        return self._seen[cell]

    def merged(self, cell: Cell) -> Merged:
        """Merge a trained cell into one checkpoint, and compare its logits with those of the adapter."""
        if cell not in self._merged:
            self._merged[cell] = self._merge(cell)
        return self._merged[cell]

    def spec(self, cell: Cell) -> AdapterSpec:
        """Return the spec of a cell; fusion gets two adapters that are trained for it."""
        if cell.kind == "fusion":
            return AdapterSpec("fusion", adapters=self._adapters_to_fuse(cell.head))
        if cell.kind == "peft":
            return AdapterSpec.of(LoHaConfig(r=4, target_modules="all-linear"))
        return AdapterSpec(cell.kind, dict(cell.params))

    def loader(self, head: str, precision: str) -> ModelLoader:
        """Return the loader of a base with a head; quantised bases compute in float32."""
        base = self.folder / ("language-model" if head == "causal-lm" else "encoder")
        if not base.exists():
            save_language_model(base) if head == "causal-lm" else save_base(Pair("bert", head), base, with_head=False)
        dtype = precision if precision == "bfloat16" else "float32"
        quantization = precision if precision in ("nf4", "int8") else None
        return ModelLoader(str(base), task=head, labels=LABELS.get(head), dtype=dtype, quantization=quantization, device="cpu")

    def _train(self, cell: Cell) -> Seen:
        seen = Seen(folder=self.folder / str(cell))
        rows = examples(cell.head)
        trainer = cell.trainer(
            self.loader(cell.head, cell.precision),
            adapter=self.spec(cell),
            epochs=_STEPS,
            batch_size=len(rows),
            warmup=0.0,
            progress=False,
        )
        with _Watch(seen) as watch:
            try:
                model = trainer.train(rows)
            except AdapterError as refusal:
                seen.refusal = str(refusal)
                return seen
            except Exception as error:  # whatever another package's code raises belongs to its cell
                seen.error = error
                return seen
            watch.look_at_base()
        try:
            seen.trained_parameters = trainer.result.trainable_parameters
            seen.explanation = self.spec(cell).explain(watch.base, task_type=trainer.head.task_type)
            trainer.save(model, seen.folder / "adapter")
            _save_logits(trainer, model, rows, seen.folder)
        except Exception as error:
            seen.error = error
        return seen

    def _merge(self, cell: Cell) -> Merged:
        folder = self.seen(cell).folder
        try:
            export(folder / "adapter", to="merged", out=folder / "merged")
        except AdapterError as refusal:
            return Merged(str(refusal))
        seen = torch.load(folder / "seen.pt", weights_only=True)
        model = _AUTO_CLASSES[cell.head].from_pretrained(folder / "merged")
        with torch.inference_mode():
            logits = model(**seen["batch"]).logits
        return Merged(None, float((logits - seen["logits"]).abs().max()), float(seen["logits"].abs().max()))

    def _adapters_to_fuse(self, head: str) -> tuple[str, ...]:
        base = "causal-lm" if head == "causal-lm" else "text-classification"
        if base not in self._to_fuse:
            self._to_fuse[base] = tuple(str(self._train_lora(base, seed)) for seed in (0, 1))
        return self._to_fuse[base]

    def _train_lora(self, head: str, seed: int) -> Path:
        trainer = LoRATrainer(self.loader(head, "float32"), epochs=1, seed=seed, progress=False)
        return trainer.save(trainer.train(examples(head), lora_r=4), self.folder / f"to-fuse-{head}-{seed}")


class _Watch:
    """Notes what a training does to its base and to what is trained, between the trainer and the loop."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._patch = pytest.MonkeyPatch()
        self._before: dict[str, str] = {}
        self._start: dict[str, torch.Tensor] = {}
        self._with_gradient: set[str] = set()
        self.base: PreTrainedModel

    def __enter__(self) -> _Watch:
        attach, load = experiment.attach_adapter, ModelLoader.load_model

        def load_and_note(loader: ModelLoader, *arguments: Any) -> Any:
            self._seen.weights_were_read = True
            return load(loader, *arguments)

        def attach_and_note(base: PreTrainedModel, *arguments: Any, hooks: AdapterHooks, **keywords: Any) -> nn.Module:
            self.base, self._before = base, _fingerprints(base)
            self._follow(hooks)
            return attach(base, *arguments, hooks=hooks, **keywords)

        self._patch.setattr(ModelLoader, "load_model", load_and_note)
        self._patch.setattr(experiment, "attach_adapter", attach_and_note)
        return self

    def __exit__(self, *raised: object) -> None:
        self._patch.undo()

    def look_at_base(self) -> None:
        """Note what of the base is not what it was before."""
        now = _fingerprints(self.base)
        self._seen.changed_base = sorted(
            name for name in {*now, *self._before} if now.get(name) != self._before.get(name)
        )

    def _follow(self, hooks: AdapterHooks) -> None:
        """Let the hooks do what they do, and look at the parameters before, in between and after."""
        self._patch.setattr(hooks, "before_training", partial(self._begin, hooks.before_training))
        self._patch.setattr(hooks, "after_step", partial(self._step, hooks.after_step))
        self._patch.setattr(hooks, "after_training", partial(self._end, hooks.after_training))

    def _begin(self, own: Any, model: nn.Module, plan: TrainingPlan) -> None:
        own(model, plan)
        self._start = {name: value.detach().clone() for name, value in _trained(model).items()}

    def _step(self, own: Any, model: nn.Module, step: int) -> None:
        for name, value in _trained(model).items():
            if value.grad is not None and bool(value.grad.any()):
                self._with_gradient.add(name)
        own(model, step)

    def _end(self, own: Any, model: nn.Module, base: PreTrainedModel) -> Any:
        now = _trained(model)
        self._seen.trained = sorted(now)
        self._seen.without_gradient = sorted(set(now) - self._with_gradient)
        self._seen.unmoved = sorted(name for name, value in now.items() if torch.equal(value, self._start[name]))
        self._seen.not_float32 = sorted(name for name, value in now.items() if value.dtype != torch.float32)
        return own(model, base)


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def _fingerprints(model: PreTrainedModel) -> dict[str, str]:
    """Return a digest of every parameter and buffer, and of what 8-bit layers keep beside them."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    tensors |= {f"8-bit {number}": tensor for number, tensor in enumerate(int8_tensors(model))}
    return {
        name: hashlib.sha256(value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, value in tensors.items()
    }


def _save_logits(trainer: LoRATrainer, model: nn.Module, rows: Sequence[Any], folder: Path) -> None:
    """Write a batch and what the trained model answers to it."""
    predictor = trainer.predictor(model)
    encodings, _ = predictor.head.encode(rows, predictor.tokenizer, predictor.max_length)
    batch = predictor.head.collate(encodings, predictor.tokenizer)
    del batch["labels"]
    with torch.inference_mode():
        logits = model(**batch).logits
    torch.save({"batch": batch, "logits": logits}, folder / "seen.pt")
