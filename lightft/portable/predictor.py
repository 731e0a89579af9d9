"""Answer texts with an exported classifier: the same answers as ``lightft.load`` gives, without its libraries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lightft.batching import inference_batches
from lightft.errors import AdapterError
from lightft.portable.description import DESCRIPTION_NAME, OnnxDescription
from lightft.portable.session import Session
from lightft.portable.tokenizer import FileTokenizer
from lightft.reading.classifying import classified_prediction
from lightft.reading.decoding import Array
from lightft.reading.rows import Encoding
from lightft.reading.tagging import decode_tags, scores_of_words, tagged_prediction
from lightft.reading.windows import read_windows, tokenize_words
from lightft.records import Answer, Example, Prediction

__all__ = ["OnnxPredictor", "load_onnx"]

_TEXTS_PER_CHUNK = 512
# Of one forward pass, padding included: what is computed on the way takes some 60 MB in a model of base size.
_MOST_TOKENS = 512
# What it costs to run the graph once, in tokens of a small model.
_PASS_COST = 16


@dataclass(frozen=True)
class OnnxPredictor:
    """A model that answers texts: with spans (token classification) or a Classified (text classification).

    Attributes:
        description: what the folder says of the model.
        path: the folder.
    """

    description: OnnxDescription
    path: Path
    _session: Session = field(repr=False)
    _tokenizer: FileTokenizer = field(repr=False)

    @property
    def task(self) -> str:
        """``"token-classification"`` or ``"text-classification"``."""
        return self.description.task

    @property
    def labels(self) -> tuple[str, ...]:
        """The entity types or classes, in the order of the head."""
        return self.description.labels

    @property
    def max_length(self) -> int:
        """How many tokens the model reads at once."""
        return self.description.max_length

    @property
    def base(self) -> str | None:
        """The name of the base model, where it is recorded."""
        name: str | None = self.description.base.get("name")
        return name

    @property
    def precision(self) -> str:
        """Of the weights: ``"float32"`` or ``"int8"``."""
        return self.description.precision

    def __call__(self, texts: str | Iterable[str]) -> Any:
        """Answer one text, a list of texts, or a stream of any length, which is read as the answers are.

        Returns:
            One answer for a string, a list for a list, an iterator for any other iterable. An answer is a list of Span
            (token classification) or a Classified (text classification).
        """
        if isinstance(texts, str):
            return self._answer([texts])[0]
        return self._answer(texts) if isinstance(texts, Sequence) else self._stream(texts)

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """Return one prediction per example, in order, with the example's gold answer beside it."""
        return self._tag(examples) if self.task == "token-classification" else self._classify(examples)

    def logits(self, rows: Sequence[Sequence[int]]) -> list[Array]:
        """Return what the graph answers to rows of token ids: for each an array of (outputs,) or (tokens, outputs)."""
        found: list[Array] = [np.zeros(0)] * len(rows)
        for numbers, logits in self._forward(rows):
            for place, number in enumerate(numbers):
                found[number] = logits[place] if logits.ndim == 2 else logits[place, : len(rows[number])]
        return found

    def _stream(self, texts: Iterable[str]) -> Iterator[Answer]:
        remaining = iter(texts)
        while chunk := list(islice(remaining, _TEXTS_PER_CHUNK)):
            yield from self._answer(chunk)

    def _answer(self, texts: Sequence[str]) -> list[Answer]:
        predictions = self.predict([Example(str(number), text) for number, text in enumerate(texts)])
        return [prediction.answer for prediction in predictions]

    def _classify(self, examples: Sequence[Example]) -> list[Prediction]:
        described = self.description
        rows = [
            self._tokenizer.whole(example.text, described.max_length, described.cut) or [described.padding]
            for example in examples
        ]
        return [
            classified_prediction(example, logits, described.outputs)
            for example, logits in zip(examples, self.logits(rows), strict=True)
        ]

    def _tag(self, examples: Sequence[Example]) -> list[Prediction]:
        described = self.description
        before, after = self._tokenizer.special_tokens_around()
        room = described.max_length - len(before) - len(after)
        texts = tokenize_words(examples, self._tokenizer.tokens)
        rows = [
            Encoding(number, [*before, *window.input_ids, *after], [], window.answers(len(before)))
            for number, text in enumerate(texts)
            for window in read_windows(text, room)
        ]
        words = scores_of_words(texts, rows, self._forward([row.input_ids for row in rows]), described.outputs)
        tagged = decode_tags(words, described.outputs, described.decoding or "", described.chain_scores())
        return [
            tagged_prediction(example, text, scored_tags)
            for example, text, scored_tags in zip(examples, texts, tagged, strict=True)
        ]

    def _forward(self, rows: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Array]]:
        """Yield positions in ``rows`` and their logits, batch by batch, longest rows first."""
        lengths = [len(row) for row in rows]
        for numbers in inference_batches(lengths, max_tokens=_MOST_TOKENS, pass_cost=_PASS_COST):
            longest = max(lengths[number] for number in numbers)
            input_ids = np.full((len(numbers), longest), self.description.padding, dtype=np.int64)
            mask = np.zeros_like(input_ids)
            for place, number in enumerate(numbers):
                input_ids[place, : lengths[number]] = rows[number]
                mask[place, : lengths[number]] = 1
            yield numbers, self._session.logits(input_ids, mask)


def load_onnx(folder: str | Path, *, threads: int | None = None) -> OnnxPredictor:
    """Open an ONNX folder, with no deep-learning library imported.

    Args:
        folder: what ``lightft.export(..., to="onnx")`` or ``"onnx-int8"`` wrote.
        threads: how many threads compute; None takes one per core.

    Raises:
        AdapterError: a file of the folder is missing or damaged, or the folder is another kind of folder.
        MissingExtraError: onnxruntime is not installed.
    """
    folder = Path(folder)
    description = OnnxDescription.read(folder)
    tokenizer = FileTokenizer(folder)
    session = Session(folder, threads=threads)
    if session.outputs != len(description.outputs):
        raise AdapterError(
            f"{folder} is damaged: its graph has {session.outputs} outputs, and {DESCRIPTION_NAME} names "
            f"{len(description.outputs)}. Export the adapter again, or restore the files."
        )
    return OnnxPredictor(description, folder, session, tokenizer)
