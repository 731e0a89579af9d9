"""Text classification: one of several classes for a whole text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import Module
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightft.errors import DataError
from lightft.models import ModelLoader
from lightft.models.bidirectional import lift_causal_mask
from lightft.reading.classifying import classified_prediction
from lightft.records import Example, Prediction
from lightft.tasks.head import IGNORED, TASKS, Encoding, forward_in_batches, pad_batch
from lightft.tasks.losses import LossSettings

__all__ = ["TextClassification"]


@TASKS.register("text-classification")
@dataclass(frozen=True)
class TextClassification(LossSettings):
    """A softmax over ``labels``. A text longer than the model's window is cut at its end, and counted.

    Attributes:
        labels: the classes, which are also what ``class_weights`` may name.
        bidirectional: let every token of a decoder-only base read the whole text, not only what stands before it.
    """

    labels: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy", "macro_f1", "weighted_f1", "roc_auc")
    bidirectional: bool = False

    name: ClassVar[str] = "text-classification"
    task_type: ClassVar[str] = "SEQ_CLS"

    def __post_init__(self) -> None:
        self.check_loss(self.labels)

    def load_model(self, loader: ModelLoader) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load the base model with one output per class."""
        model, tokenizer = loader.replace(task=self.name, labels=self.labels).load_model()
        if self.bidirectional:
            lift_causal_mask(model)
        return model, tokenizer

    def fitted(self, train: Sequence[Example]) -> TextClassification:
        """Return a copy whose class weights are those of ``train``, where they are to come from it."""
        return self.with_weights_of(Counter(example.target for example in train if isinstance(example.target, str)))

    def encode(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> tuple[list[Encoding], Mapping[str, int]]:
        """Return one row per example and how many texts were cut (``truncated_texts``)."""
        if not examples:
            return [], {}
        whole = tokenizer([example.text for example in examples], add_special_tokens=True, verbose=False)["input_ids"]
        cut = tokenizer(
            [example.text for example in examples], add_special_tokens=True, truncation=True, max_length=max_length
        )["input_ids"]
        index = {label: position for position, label in enumerate(self.labels)}
        encodings = [
            Encoding(row, ids or [tokenizer.pad_token_id], [self._label(example, index)])
            for row, (example, ids) in enumerate(zip(examples, cut, strict=True))
        ]
        shortened = sum(len(before) > len(after) for before, after in zip(whole, cut, strict=True))
        return encodings, Counter({"truncated_texts": shortened}) if shortened else {}

    def collate(self, encodings: Sequence[Encoding], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
        """Return the padded batch; ``labels`` has shape (rows,)."""
        labels = torch.tensor([encoding.labels[0] for encoding in encodings], dtype=torch.long)
        return {**pad_batch(encodings, tokenizer), "labels": labels}

    def loss(self, logits: Tensor, labels: Tensor, model: Module) -> Tensor:
        """Summed loss of logits (rows, classes)."""
        del model
        return self.class_loss(logits, labels, self.labels)

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
        """Return the most probable class of each text with the probabilities of all."""
        del validating
        # Gold is copied from the example; an unknown class there must not stop a prediction.
        unlabelled = [Example(example.id, example.text) for example in examples]
        encodings, _ = self.encode(unlabelled, tokenizer, max_length)
        logits = torch.zeros(len(examples), len(self.labels))
        for rows, _, found in forward_in_batches(
            model, encodings, lambda batch: self.collate(batch, tokenizer), progress=progress
        ):
            logits[rows] = found
        return [
            classified_prediction(example, row, self.labels)
            for example, row in zip(examples, logits.numpy(), strict=True)
        ]

    def _label(self, example: Example, index: Mapping[str, int]) -> int:
        if example.target is None:
            return IGNORED
        if example.target not in index:
            raise DataError(
                f"Example {example.id!r} has the class {example.target!r}, which the model does not know. "
                f"It knows: {', '.join(self.labels)}. Load the model with labels=data.labels."
            )
        return index[example.target]  # type: ignore[index]
