"""Texts with any number of labels: one yes or no for each."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from lightft import Example, Prediction
from lightft.errors import DataError, InvalidSettingError, suggest
from lightft.tasks import TextClassification
from lightft.tasks.head import IGNORED, forward_in_batches, pad_batch
from lightft_example_plugin.micro_f1 import SEPARATOR, labels_in


@dataclass(frozen=True)
class MultiLabel:
    """A sigmoid for each of ``labels``. A text's target is its labels with ``|`` between them, ``""`` if it has none.

    Attributes:
        labels: every label there is.
        threshold: the probability from which a label is given, above 0 and below 1.
    """

    labels: tuple[str, ...]
    threshold: float = 0.5
    metrics: tuple[str, ...] = ("micro_f1",)

    name: ClassVar[str] = "multi-label"
    task_type: ClassVar[str] = "SEQ_CLS"

    def __post_init__(self):
        if not 0 < self.threshold < 1:
            raise InvalidSettingError(f"threshold is {self.threshold}; it must lie between 0 and 1.")

    def load_model(self, loader):
        """Load the base model with one output per label."""
        model, tokenizer = loader.replace(task="text-classification", labels=self.labels).load_model()
        # What transformers' own pipeline must know to answer alike, once the model is merged.
        model.config.problem_type = "multi_label_classification"
        return model, tokenizer

    def encode(self, examples, tokenizer, max_length):
        """Return one row per text, labelled 0 or 1 for each label, and how many texts were cut."""
        texts = [Example(example.id, example.text) for example in examples]
        rows, counts = TextClassification(self.labels).encode(texts, tokenizer, max_length)
        return [replace(row, labels=self._yes_or_no(examples[row.example])) for row in rows], counts

    def collate(self, encodings, tokenizer):
        """Return the padded batch; ``labels`` has shape (rows, labels)."""
        return {**pad_batch(encodings, tokenizer), "labels": torch.tensor([row.labels for row in encodings])}

    def loss(self, logits, labels, model):
        """Summed binary cross-entropy of logits (rows, labels)."""
        known = labels != IGNORED
        return binary_cross_entropy_with_logits(logits.float()[known], labels[known].float(), reduction="sum")

    def predict(self, model, tokenizer, examples, *, max_length, validating=False, progress=None):
        """Return the labels of each text, with the probability of every label."""
        # Gold is copied from the example; an unknown label there must not stop a prediction.
        rows, _ = self.encode([Example(example.id, example.text) for example in examples], tokenizer, max_length)
        batches = forward_in_batches(model, rows, lambda batch: self.collate(batch, tokenizer), progress=progress)
        probabilities = torch.zeros(len(rows), len(self.labels))
        for places, _, logits in batches:
            probabilities[places] = logits.sigmoid()
        return [
            Prediction(
                example.id, example.target, self._answer(row), probabilities=dict(zip(self.labels, row, strict=True))
            )
            for example, row in zip(examples, probabilities.tolist(), strict=True)
        ]

    def _answer(self, probabilities):
        given = [label for label, value in zip(self.labels, probabilities, strict=True) if value >= self.threshold]
        return SEPARATOR.join(given)

    def _yes_or_no(self, example):
        if example.target is None:
            return [IGNORED] * len(self.labels)
        gold = labels_in(example.target)
        unknown = sorted(gold - set(self.labels))
        if unknown:
            raise DataError(f"Example {example.id!r} has the label {unknown[0]!r}. {suggest(unknown[0], self.labels)}")
        return [int(label in gold) for label in self.labels]
