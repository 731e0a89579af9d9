"""What an adapter would train in a model, module by module, before any training."""

from __future__ import annotations

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from lightft.adapters.attach import attach_adapter
from lightft.adapters.spec import AdapterSpec
from lightft.errors import AdapterError
from lightft.models import count_parameters, head_modules, provenance_of
from lightft.models.structure import is_inside
from lightft.wording import percent_words

__all__ = ["Explanation", "TrainedModule", "explain_adapter"]

_TASK_TYPES = {"text-classification": "SEQ_CLS", "token-classification": "TOKEN_CLS", "causal-lm": "CAUSAL_LM"}
_CLASS_ENDINGS = {"ForSequenceClassification": "SEQ_CLS", "ForTokenClassification": "TOKEN_CLS"}


@dataclass(frozen=True)
class TrainedModule:
    """One module that would hold trained parameters.

    Attributes:
        module: its full path in the base model.
        what: ``"adapter"``, ``"head"``, ``"bias"``, ``"prompt"``, or ``"base"`` for weights of the base itself.
        shape: of the weight it has in the base, as it is stored, a 4-bit weight as if it were not packed.
        parameters: how many parameters would be trained there.
    """

    module: str
    what: str
    shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Explanation:
    """Which modules an adapter would train; printed, it is a table in which repeated blocks are one line.

    Attributes:
        kind: of the adapter.
        rows: the modules, in the model's order.
        trainable: parameters that would be trained.
        total: parameters of the model with its adapter.
    """

    kind: str
    rows: tuple[TrainedModule, ...]
    trainable: int
    total: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        rows = [{**asdict(row), "shape": list(row.shape)} for row in self.rows]
        return {"kind": self.kind, "rows": rows, "trainable": self.trainable, "total": self.total}

    def __str__(self) -> str:
        lines = [("module", "weight", "modules", "trained", "what")]
        for pattern, count, row in _folded(self.rows):
            each = " each" if count > 1 else ""
            shape = "x".join(str(size) for size in row.shape)
            lines.append((pattern, shape, f"x{count}", f"{row.parameters:,}{each}", row.what))
        share = percent_words(self.trainable / self.total)
        return f"{_aligned(lines)}\n{self.kind} trains {self.trainable:,} of {self.total:,} parameters ({share})."


def explain_adapter(spec: AdapterSpec, model: PreTrainedModel, *, task_type: str | None = None) -> Explanation:
    """Return what ``spec`` would train in ``model``, which stays as it is: the adapter goes on a copy over its memory.

    A kind that shares out ranks on the data is shown as it starts.

    Args:
        spec: which adapter.
        model: the base model with its head.
        task_type: a ``peft.TaskType`` value, where the model does not tell.

    Raises:
        AdapterError: the adapter does not fit the model, or the model does not tell its task.
    """
    task = task_type or _task_type_of(model)
    devices = range(torch.cuda.device_count())
    # Looking at an adapter must not change what is drawn after it.
    with torch.random.fork_rng(devices):
        adapted = attach_adapter(model, task, spec, initialise=False)
    trainable, total = count_parameters(adapted)
    return Explanation(spec.kind, tuple(_trained_modules(adapted, model)), trainable, total)


def _task_type_of(model: PreTrainedModel) -> str:
    found = provenance_of(model)
    if found is not None and found.loader.task in _TASK_TYPES:
        return _TASK_TYPES[found.loader.task]
    name = type(model).__name__
    for ending, task_type in _CLASS_ENDINGS.items():
        if name.endswith(ending):
            return task_type
    if model.get_output_embeddings() is not None:
        return "CAUSAL_LM"
    raise AdapterError(f"A {name} does not tell its task. Say which, as in explain(model, task_type='SEQ_CLS').")


def _trained_modules(adapted: nn.Module, base: PreTrainedModel) -> Iterator[TrainedModule]:
    """Yield a row for every module and thing that is trained there, by the names of ``base``."""
    found = provenance_of(base)
    head = head_modules(base, found.new_parameters if found else ())
    inner = adapted.get_base_model() if isinstance(adapted, PeftModel) else adapted
    groups: dict[tuple[str, str], list[tuple[str, nn.Parameter]]] = {}
    own = {name for name, _ in base.named_parameters(remove_duplicate=False)}
    modules = {name for name, _ in base.named_modules()}
    for name, parameter in _trained(inner.named_parameters()):
        plain = re.sub(r"\.base_layer\b|\.modules_to_save\.[^.]+", "", name)
        what = "adapter" if plain not in own else "head" if is_inside(plain, head) else "base"
        groups.setdefault((_nearest(plain, modules), what), []).append((plain, parameter))
    inside = {id(parameter) for parameter in inner.parameters()}
    for name, parameter in _trained(adapted.named_parameters()):
        if id(parameter) not in inside:
            groups.setdefault((name.partition(".")[0], "prompt"), []).append((name, parameter))
    for (module, what), trained in groups.items():
        biases_alone = what == "base" and all(name.endswith("bias") for name, _ in trained)
        size = sum(parameter.numel() for _, parameter in trained)
        shape = tuple(trained[0][1].shape) if what == "prompt" else _weight_shape(base.get_submodule(module))
        yield TrainedModule(module, "bias" if biases_alone else what, shape, size)


def _trained(parameters: Iterable[tuple[str, nn.Parameter]]) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in parameters if parameter.requires_grad]


def _nearest(name: str, modules: set[str]) -> str:
    """Return the innermost module of the base that a parameter stands in."""
    while name not in modules:
        name = name.rpartition(".")[0]
    return name


def _weight_shape(module: nn.Module) -> tuple[int, ...]:
    weight = next(module.parameters())
    packed = getattr(weight, "quant_state", None)
    return tuple(packed.shape if packed is not None else weight.shape)


# --- the table


def _folded(rows: Sequence[TrainedModule]) -> list[tuple[str, int, TrainedModule]]:
    """Return (pattern, modules, one of them) for rows that differ in numbers of their paths alone."""
    groups: dict[Any, list[tuple[str, ...]]] = {}
    for row in rows:
        parts = tuple(row.module.split("."))
        shared = tuple("" if part.isdigit() else part for part in parts)
        groups.setdefault((shared, row.what, row.shape, row.parameters), []).append(parts)
    return [
        (pattern, count, TrainedModule(pattern, what, shape, parameters))
        for (_, what, shape, parameters), paths in groups.items()
        for pattern, count in _patterns(paths)
    ]


def _patterns(paths: Sequence[tuple[str, ...]]) -> list[tuple[str, int]]:
    """Return (pattern, paths) for paths of one form: one pattern if each number goes with each, else one for each path."""
    values = [list(dict.fromkeys(place)) for place in zip(*paths, strict=True)]
    if math.prod(len(found) for found in values) != len(paths):
        return [(".".join(path), 1) for path in paths]
    return [(".".join(map(_range_words, values)), len(paths))]


def _range_words(parts: Sequence[str]) -> str:
    """Return ``"query"`` for one part, ``"{0..5}"`` or ``"{0..2,5}"`` for numbers."""
    if len(parts) == 1:
        return parts[0]
    runs: list[list[int]] = []
    for number in sorted(map(int, parts)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return "{" + ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs) + "}"


def _aligned(lines: Sequence[tuple[str, str, str, str, str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)
