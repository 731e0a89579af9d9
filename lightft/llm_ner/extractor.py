"""LLMNERExtractor: ask a language model for the entities of texts of any length, and keep only what they really say."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lightft.cost import Stopwatch
from lightft.data import examples_fingerprint
from lightft.description import interval_scores
from lightft.errors import DataError, InvalidSettingError
from lightft.inference import Predictor, load
from lightft.llm_ner.confidence import Calibration, span_scores_of_answer
from lightft.llm_ner.documents import Document
from lightft.llm_ner.engines import Answer, Engine, InProcess, Question
from lightft.llm_ner.prompts import Prompt, types_of
from lightft.llm_ner.saved_settings import SavedSettings
from lightft.llm_ner.windows import merged, windows_of
from lightft.records import Example, Prediction, Run

__all__ = ["LLMNERExtractor"]


class LLMNERExtractor:
    """Extracts entities by asking a language model for them.

    Args:
        model: an adapter folder, a causal checkpoint, a Predictor that is already open, or an engine, such as
            ``OpenAIServer(url, name)``.
        labels: the types, or types with a description of each for the prompt. None takes everything about the question
            from what ``save`` left in the adapter's folder.
        format: how the model is to answer: ``"brackets"`` (the default), ``"xml"``, ``"categories"``, ``"objects"`` or a
            format that is registered. A model that was trained on instruction data is asked with the format and prompt of
            that data.
        prompt: ``"basic"`` (the default), ``"few-shot"``, or a template of your own (see ``Prompt``).
        examples: with spans as targets, for ``"few-shot"``: worked examples are chosen from them.
        shots: how many worked examples a few-shot prompt shows.
        choice: how they are chosen: ``"similar"`` to the text, or ``"fixed"``, the same for all.
        decoding: ``"constrained"`` or ``"free"``, for a model in this process (see ``InProcess``).
        max_new_tokens: of a free answer or one in a dictionary format; None for what the text needs.
        window: words that are read at once; a longer text is cut into overlapping windows.
        overlap: words that a window shares with the next.
        minimum_precision: entities too doubtful for this precision become ``document.doubtful``; the extractor must have
            been calibrated.

    Attributes:
        prompt: what is asked.
        labels: the types with a description of each.
        engine: who answers.
        calibration: turns scores into probabilities, once ``calibrate`` was called or what it found was saved.

    Raises:
        InvalidSettingError: the model is no causal language model, a part of the prompt is missing, or no threshold is
            known to reach the precision.
        UnknownNameError: there is no such format or prompt.
    """

    def __init__(
        self,
        model: str | Path | Predictor | Engine,
        labels: Mapping[str, str] | Sequence[str] | None = None,
        format: str | None = None,
        prompt: str | None = None,
        *,
        examples: Sequence[Example] = (),
        shots: int = 3,
        choice: str = "similar",
        decoding: str = "constrained",
        max_new_tokens: int | None = None,
        window: int = 200,
        overlap: int = 30,
        minimum_precision: float | None = None,
    ) -> None:
        self._folder = Path(model) if isinstance(model, str | Path) else None
        self.calibration: Calibration | None = None
        self.window, self.overlap = window, overlap
        if labels is None:
            if (format, prompt, examples) != (None, None, ()):
                raise InvalidSettingError(
                    "A format, prompt or examples are given, but no labels. Give labels as well, or none of these to ask as "
                    "was saved beside the adapter."
                )
            saved = SavedSettings.read(self._folder)
            self.prompt, self.calibration = saved.prompt, saved.calibration
        else:
            self.prompt = Prompt(
                prompt or "basic", labels, format or "brackets", examples=examples, shots=shots, choice=choice
            )
        self.labels = types_of(self.prompt.labels)
        windows_of("", window, overlap)
        self.minimum_precision = minimum_precision
        self._threshold = self._threshold_for(minimum_precision)
        if isinstance(model, str | Path):
            model = load(model)
        self.engine: Engine = (
            InProcess(model, decoding=decoding, max_new_tokens=max_new_tokens, known=self.prompt.examples)
            if isinstance(model, Predictor)
            else model
        )

    def extract(self, texts: Iterable[str]) -> Iterator[Document]:
        """Yield the entities of each text, in order; texts are read as the answers are, a bounded number ahead.

        Raises:
            EngineError: nobody answers any more; the documents before are yielded first.
        """
        for document in self._extract(texts):
            yield self._weighed(document)

    def read(self, text: str, answer: str) -> Document:
        """Return what an answer to the prompt about ``text`` says, whoever wrote it."""
        return self._read(text, Answer(answer))

    def settings(self) -> Mapping[str, Any]:
        """Return all that decides what is extracted, as plain JSON data."""
        return {
            "model": str(self._folder) if self._folder else self.engine.model_name,
            **({"adapter_digest": self._adapter_digest} if self._adapter_digest else {}),
            "labels": list(self.labels),
            **self.prompt.settings(),
            **self.engine.settings(),
            "window": self.window,
            "overlap": self.overlap,
            **({"minimum_precision": self.minimum_precision} if self.minimum_precision is not None else {}),
        }

    def calibrate(self, examples: Sequence[Example]) -> Calibration:
        """Learn from validation data how often an entity of a score is right; scores are probabilities from then on.

        Args:
            examples: with spans as targets; the model must not have been trained on them.

        Raises:
            DataError: an example has no gold spans, or the engine gives no scores.
        """
        _check_gold(examples)
        documents = self._extract(example.text for example in examples)
        self.calibration = Calibration.fit(_predictions(examples, list(documents)))
        self._threshold = self._threshold_for(self.minimum_precision)
        return self.calibration

    def save(self, folder: str | Path | None = None) -> Path:
        """Write prompt and calibration beside the adapter, so that ``LLMNERExtractor(folder)`` needs no more.

        Worked examples are written with their texts: those that are shown, or all where they are chosen by similarity.

        Args:
            folder: where; by default the folder that the model was opened from.

        Returns:
            The file.

        Raises:
            InvalidSettingError: there is no such folder.
        """
        folder = self._folder if folder is None else Path(folder)
        return SavedSettings(self.prompt, self.calibration).write(folder)

    def evaluate(self, examples: Sequence[Example], *, output_dir: str | Path, name: str | None = None) -> Run:
        """Extract from examples with gold spans and write a run, which compares with those of taggers.

        Args:
            examples: with spans as targets.
            output_dir: where the run is written; it must not exist.
            name: of the run in reports; by default the last part of ``output_dir``.

        Returns:
            The run: its metrics are strict F1, precision and recall of spans, ``data["outcomes"]`` counts what became of
            the answers, ``data["ungrounded_mentions"]`` what was set aside, and what decides the answers stands among its
            settings.

        Raises:
            InvalidSettingError: ``output_dir`` exists.
            DataError: an example has no gold spans, or there are none.
        """
        output_dir = Path(output_dir)
        if output_dir.exists():
            raise InvalidSettingError(f"{output_dir} exists already. Choose another output_dir, or delete it.")
        _check_gold(examples)
        with Stopwatch(self._device) as extracting:
            documents = list(self.extract(example.text for example in examples))
        run = Run(
            name=name or output_dir.name,
            task="llm-ner",
            metrics=("span_f1", "span_precision", "span_recall"),
            labels=tuple(self.labels),
            model={"name": self.engine.model_name},
            training={
                key: value for key, value in self.settings().items() if key not in ("model", "labels", "adapter_digest")
            },
            data={
                "test_fingerprint": examples_fingerprint(examples),
                "rows": {"test": len(examples)},
                "outcomes": dict(Counter(document.outcome for document in documents)),
                "ungrounded_mentions": sum(len(document.ungrounded) for document in documents),
                "doubtful_entities": sum(len(document.doubtful) for document in documents),
            },
            cost={
                **self._model_cost(),
                "predict_seconds": extracting.seconds,
                "predictions_per_second": len(examples) / extracting.seconds,
            },
            predictions=_predictions(examples, documents),
            path=output_dir,
        )
        run = replace(run, scores=interval_scores(run))
        run.save(output_dir)
        return run

    @cached_property
    def _adapter_digest(self) -> str:
        """SHA-256 of the adapter's weights, so that one that was trained anew is not taken for the same."""
        weights = (self._folder or Path()) / "adapter_model.safetensors"
        return hashlib.sha256(weights.read_bytes()).hexdigest() if self._folder and weights.is_file() else ""

    @property
    def _device(self) -> torch.device:
        if isinstance(self.engine, InProcess):
            return self.engine.device
        return torch.device("cpu")

    def _model_cost(self) -> dict[str, int]:
        return {"total_parameters": self.engine.total_parameters()} if isinstance(self.engine, InProcess) else {}

    def _extract(self, texts: Iterable[str]) -> Iterator[Document]:
        """Yield documents whose scores are the engine's own."""
        asked: deque[_Asked] = deque()

        def questions() -> Iterator[Question]:
            for text in texts:
                error = _unreadable(text)
                blank = bool(error) or not text.strip()
                asked.append(_Asked(text, [] if blank else windows_of(text, self.window, self.overlap), error))
                for start, end in asked[-1].bounds:
                    yield Question(text[start:end], tuple(self.prompt.messages(text[start:end])))

        for answer in self.engine.answers(questions(), labels=tuple(self.labels), format=self.prompt.format):
            yield from _finished(asked)
            text = asked[0].next_window
            asked[0].parts.append(self._read(text, answer))
            yield from _finished(asked)
        yield from _finished(asked)

    def _read(self, text: str, answer: Answer) -> Document:
        if answer.error:
            return Document(text, (), (), "failed", ("",), answer.error)
        if answer.spans is not None:
            return Document(text, answer.spans, (), "ok", (answer.text,))
        reading = self.prompt.answer_format.read(text, answer.text, tuple(self.labels))
        spans = reading.spans
        if answer.pieces:
            scores = span_scores_of_answer(answer.text, answer.pieces, spans, self.prompt.format)
            spans = tuple(replace(span, score=score) for span, score in zip(spans, scores, strict=True))
        return Document(text, spans, reading.ungrounded, reading.outcome, (answer.text,))

    def _threshold_for(self, precision: float | None) -> float:
        if precision is None:
            return 0.0
        if self.calibration is None:
            raise InvalidSettingError(
                f"minimum_precision={precision}, but it is not known how often this extractor is right. "
                "Call calibrate(data.validation) and save() without it first."
            )
        return self.calibration.threshold_for(precision).score

    def _weighed(self, document: Document) -> Document:
        """Set doubtful entities aside, and make scores probabilities, once there is a calibration."""
        if self.calibration is None:
            return document
        unscored = [span for span in document.spans if span.score is None]
        if unscored and self.minimum_precision is not None:
            raise InvalidSettingError(
                f"{self.engine.model_name} gives no score to {unscored[0].text!r}, so that no precision can be kept. "
                "Use constrained decoding or a server that gives log-probabilities, or leave minimum_precision out."
            )
        sure = [span for span in document.spans if span.score is None or span.score >= self._threshold]
        doubtful = [span for span in document.spans if span not in sure]
        probable = self.calibration.probability
        return replace(
            document,
            spans=tuple(span if span.score is None else replace(span, score=probable(span)) for span in sure),
            doubtful=tuple(replace(span, score=probable(span)) for span in doubtful),
        )


# A run says these elsewhere; two runs that differ in nothing else have one method.
_NOT_OF_THE_METHOD = ("model", "labels", "adapter_digest")


class _Asked:
    """A text whose windows are being answered."""

    def __init__(self, text: str, bounds: list[tuple[int, int]], error: str) -> None:
        self.text = text
        self.bounds = bounds
        self.error = error
        self.parts: list[Document] = []

    @property
    def is_answered(self) -> bool:
        return len(self.parts) == len(self.bounds)

    @property
    def next_window(self) -> str:
        start, end = self.bounds[len(self.parts)]
        return self.text[start:end]

    def document(self) -> Document:
        if not self.bounds:
            return Document(self.text, (), (), "failed" if self.error else "ok", (), self.error)
        return merged(self.text, self.bounds, self.parts)


def _finished(asked: deque[_Asked]) -> Iterator[Document]:
    """Take what is answered from the front."""
    while asked and asked[0].is_answered:
        yield asked.popleft().document()


def _unreadable(text: str) -> str:
    """Return why nobody can be asked about a text; empty if it can be."""
    halves = [character for character in text if "\ud800" <= character <= "\udfff"]
    if not halves:
        return ""
    return f"The text holds {halves[0]!r}, half a character. Decode it with errors='replace'."


def _check_gold(examples: Sequence[Example]) -> None:
    for example in examples:
        if not isinstance(example.target, tuple):
            raise DataError(f"Example {example.id!r} has no gold spans. Give examples for token-classification.")


def _predictions(examples: Sequence[Example], documents: Sequence[Document]) -> tuple[Prediction, ...]:
    return tuple(
        Prediction(example.id, example.target, document.spans, words=example.words)
        for example, document in zip(examples, documents, strict=True)
    )
