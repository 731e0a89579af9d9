"""The contract of a task head, and the forward pass all heads share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import Module
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightft.batching import inference_batches
from lightft.errors import InvalidPluginError, ModelLoadError
from lightft.models import ModelLoader
from lightft.models.prompts import virtual_tokens
from lightft.reading import windows
from lightft.reading.rows import IGNORED, Encoding
from lightft.records import Example, Prediction
from lightft.registry import Registry

__all__ = [
    "IGNORED",
    "TASKS",
    "Encoding",
    "LearnsFromTraining",
    "RunsModelItself",
    "TaskHead",
    "forward_in_batches",
    "forward_tokens",
    "inference_tokens",
    "max_input_length",
    "pad_batch",
    "pad_labels",
    "register",
    "special_tokens_around",
]

_MOST_TOKENS = 8192
# A processor is busy with far fewer, and what is computed on the way then takes tens of megabytes, not hundreds.
_MOST_TOKENS_ON_CPU = 1024
# What it costs a processor to call the hundreds of layers of a model once, in tokens of a small model.
_PASS_COST_ON_CPU = 16
_MOST_SCORES = 2**28 // 4


class TaskHead(Protocol):
    """What a task must answer so that any adapter on any base model can learn it."""

    name: ClassVar[str]
    task_type: ClassVar[str]
    """A ``peft.TaskType`` value."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Registered metric names; the first is the headline, by which the best epoch is chosen."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes or entity types; empty for language modelling."""

    def load_model(self, loader: ModelLoader) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load the base model with this head."""

    def encode(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> tuple[list[Encoding], Mapping[str, int]]:
        """Return the rows of ``examples`` in order, at least one each, and counts of what did not fit."""

    def collate(self, encodings: Sequence[Encoding], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
        """Return ``input_ids`` and ``attention_mask`` of shape (rows, longest), and ``labels``."""

    def loss(self, logits: Tensor, labels: Tensor, model: Module) -> Tensor:
        """Return the loss summed, not averaged, over the labelled positions: a scalar.

        ``model`` is the one that gave the logits, for heads with parameters beyond them.
        """

    def predict(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        *,
        max_length: int,
        validating: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> list[Prediction]:
        """Return one prediction per example, in order; ``validating`` leaves out what only a final test needs."""


@runtime_checkable
class LearnsFromTraining(Protocol):
    """A head with numbers that come from the training data, such as the weights of its classes."""

    def fitted(self, train: Sequence[Example]) -> TaskHead:
        """Return a copy that has them; what is recorded of it stays as it was set."""


@runtime_checkable
class RunsModelItself(Protocol):
    """A head that needs less of the model than its scores at every position."""

    def training_loss(self, model: Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the summed loss of what ``collate`` gave, the same as ``loss`` of the model's logits."""


def _validate(name: str, head: Any) -> Any:
    missing = [
        part for part in ("task_type", "load_model", "encode", "collate", "loss", "predict") if not hasattr(head, part)
    ]
    if missing:
        raise InvalidPluginError(
            f"The task {name!r} lacks {', '.join(missing)}. A task head has all parts of TaskHead."
        )
    return head


TASKS: Registry[Callable[..., TaskHead]] = Registry("tasks", "task", _validate)

register = TASKS.register
"""Decorator that registers a head under a name: ``@lightft.tasks.register("my-task")``."""


def max_input_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: int | None = None) -> int:
    """Return how many tokens the model reads at once: the smallest of what its tokenizer, its positions and the user say."""
    limits = [tokenizer.model_max_length]
    config = model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and positions > 0:
        # RoBERTa counts positions from padding_idx + 1, so the last of them cannot be used.
        padding = _position_padding(model)
        limits.append(positions - (padding + 1 if padding is not None else 0) - _virtual_tokens(model))
    if asked is not None:
        limits.append(asked)
    shortest = min(limits)
    return shortest if shortest < 10**9 else 512


def forward_tokens(model: Any, *, scored: float = 1.0) -> int:
    """Return how many padded tokens one forward pass takes at most by default.

    A language model scores its whole vocabulary at a position; those scores, in float32, may take about 256 MiB.

    Args:
        model: any.
        scored: share of the positions that are scored.
    """
    output = model.get_output_embeddings()
    if output is None:
        return _MOST_TOKENS
    return max(64, min(_MOST_TOKENS, int(_MOST_SCORES / (output.weight.shape[0] * scored))))


def inference_tokens(model: Any) -> int:
    """Return how many padded tokens one forward pass without gradients takes at most."""
    first = next(model.parameters(), None)
    on_cpu = first is None or first.device.type == "cpu"
    return min(forward_tokens(model), _MOST_TOKENS_ON_CPU if on_cpu else _MOST_TOKENS)


def special_tokens_around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the ids a tokenizer puts before and after a text, such as ``[CLS]`` and ``[SEP]``."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a", add_special_tokens=True)["input_ids"]
    around = windows.special_tokens_around(bare, whole)
    if around is None:
        raise ModelLoadError(
            f"The tokenizer {tokenizer.name_or_path!r} changes the tokens of a text when it adds its special tokens, so a "
            "long text cannot be cut into windows. Use its model for text classification only."
        )
    return around


def pad_batch(
    encodings: Sequence[Encoding], tokenizer: PreTrainedTokenizerBase, *, left: bool = False
) -> dict[str, Tensor]:
    """Return ``input_ids`` and ``attention_mask``, each (rows, longest), padded on the right unless ``left``."""
    longest = max(len(encoding.input_ids) for encoding in encodings)
    input_ids = torch.full((len(encodings), longest), tokenizer.pad_token_id or 0, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for row, encoding in enumerate(encodings):
        length = len(encoding.input_ids)
        place = slice(longest - length, longest) if left else slice(0, length)
        input_ids[row, place] = torch.tensor(encoding.input_ids, dtype=torch.long)
        attention_mask[row, place] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def pad_labels(encodings: Sequence[Encoding], longest: int) -> Tensor:
    """Return labels of shape (rows, longest), IGNORED on the padding."""
    return torch.tensor(
        [encoding.labels + [IGNORED] * (longest - len(encoding.labels)) for encoding in encodings], dtype=torch.long
    )


def forward_in_batches(
    model: PreTrainedModel,
    encodings: Sequence[Encoding],
    collate: Callable[[Sequence[Encoding]], dict[str, Tensor]],
    *,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[list[int], dict[str, Tensor], Tensor]]:
    """Yield ``(rows, batch, logits)`` without gradients, batch by batch, longest rows first.

    ``rows`` are positions in ``encodings``; logits are float32 on the CPU. The model is put in eval mode and left in
    the mode it was in.
    """
    was_training = model.training
    if was_training:
        # Not otherwise: it walks through all modules, which a service would notice at every request.
        model.eval()
    device = next(model.parameters()).device
    batches = inference_batches(
        [len(encoding.input_ids) for encoding in encodings],
        max_tokens=inference_tokens(model),
        pass_cost=_PASS_COST_ON_CPU if device.type == "cpu" else None,
    )
    try:
        with torch.inference_mode():
            for rows in batches:
                batch = collate([encodings[row] for row in rows])
                inputs = {key: value.to(device) for key, value in batch.items() if key != "labels"}
                yield rows, batch, model(**inputs).logits.float().cpu()
                if progress is not None:
                    progress(len(rows))
    finally:
        if was_training:
            model.train()


def _virtual_tokens(model: Any) -> int:
    return virtual_tokens(model.active_peft_config) if isinstance(model, PeftModel) else 0


def _position_padding(model: PreTrainedModel) -> int | None:
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return module.padding_idx
    return None
