"""Train an adapter and note what happens to its parameters and to the base: what a trainer returns does not tell."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from lightft.adapters import AdapterHooks, TrainingPlan
from lightft.adapters.attach import attach_adapter
from lightft.adapters.explaining import Explanation
from lightft.errors import AdapterError
from lightft.experiment import LoRATrainer
from lightft.models import ModelLoader, count_parameters, provenance_of
from lightft.models.quantization import int8_tensors
from lightft.records import Example

__all__ = ["Seen", "train_and_watch"]


@dataclass
class Seen:
    """What was seen of one training.

    Attributes:
        folder: where ``adapter`` was written, and ``seen.pt``: a batch and the logits for it.
        refusal: what lightft said where it refused to train.
        weights_were_read: whether the base had been loaded by then.
        error: what else went wrong.
        trained: names of the parameters that were trained.
        without_gradient: those of them whose gradient was zero, or not there, at every step.
        unmoved: those of them that ended as they began.
        not_float32: those of them that are held in less.
        changed_base: parameters and buffers of the user's model that are not what they were.
        base_dtype: what the base is held in, as the adapter folder records it.
        attached_parameters: how many parameters the fresh adapter and the head had.
        explanation: what ``spec.explain`` says of the base.
    """

    folder: Path
    refusal: str | None = None
    weights_were_read: bool = False
    error: Exception | None = None
    trained: list[str] = field(default_factory=list)
    without_gradient: list[str] = field(default_factory=list)
    unmoved: list[str] = field(default_factory=list)
    not_float32: list[str] = field(default_factory=list)
    changed_base: list[str] = field(default_factory=list)
    base_dtype: str = ""
    attached_parameters: int = 0
    explanation: Explanation | None = None


def train_and_watch(trainer: LoRATrainer, rows: Sequence[Example], folder: Path) -> Seen:
    """Train on ``rows``, save into ``folder``, and return what was seen; what goes wrong is part of it."""
    seen = Seen(folder)
    try:
        with _Watch(seen) as watch:
            model = trainer.train(rows)
        watch.look_at_base()
        seen.explanation = trainer.adapter.explain(watch.base, task_type=trainer.predictor(model).head.task_type)
        trainer.save(model, folder / "adapter")
        _save_logits(trainer, model, rows, folder)
    except AdapterError as refusal:
        seen.refusal = str(refusal)
    except Exception as error:  # another package's code runs here, and may raise anything
        seen.error = error
    return seen


class _Watch:
    """Stands between a trainer, the hooks of its adapter and the loop."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._patch = pytest.MonkeyPatch()
        self._before: dict[str, str] = {}
        self._start: dict[str, torch.Tensor] = {}
        self._with_gradient: set[str] = set()
        self.base: PreTrainedModel

    def __enter__(self) -> _Watch:
        self._patch.setattr(ModelLoader, "load_model", self._load(ModelLoader.load_model))
        self._patch.setattr("lightft.experiment.attach_adapter", partial(self._attach, attach_adapter))
        return self

    def __exit__(self, *raised: object) -> None:
        self._patch.undo()

    def look_at_base(self) -> None:
        """Note what of the base is not what it was before."""
        now = _fingerprints(self.base)
        self._seen.changed_base = sorted(
            name for name in {*now, *self._before} if now.get(name) != self._before.get(name)
        )
        found = provenance_of(self.base)
        assert found is not None
        self._seen.base_dtype = found.dtype

    def _load(self, own: Any) -> Any:
        def load_model(loader: ModelLoader, *arguments: Any) -> Any:
            self._seen.weights_were_read = True
            return own(loader, *arguments)

        return load_model

    def _attach(
        self, own: Any, base: PreTrainedModel, *arguments: Any, hooks: AdapterHooks, **keywords: Any
    ) -> nn.Module:
        self.base, self._before = base, _fingerprints(base)
        model: nn.Module = own(base, *arguments, hooks=hooks, **keywords)
        self._seen.attached_parameters = count_parameters(model)[0]
        self._patch.setattr(hooks, "before_training", partial(self._begin, hooks.before_training))
        self._patch.setattr(hooks, "after_step", partial(self._step, hooks.after_step))
        self._patch.setattr(hooks, "after_training", partial(self._end, hooks.after_training))
        return model

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


def _save_logits(trainer: LoRATrainer, model: nn.Module, rows: Sequence[Example], folder: Path) -> None:
    predictor = trainer.predictor(model)
    encodings, _ = predictor.head.encode(rows, predictor.tokenizer, predictor.max_length)
    batch = predictor.head.collate(encodings, predictor.tokenizer)
    del batch["labels"]
    with torch.inference_mode():
        logits = model(**batch).logits
    torch.save({"batch": batch, "logits": logits}, folder / "seen.pt")
