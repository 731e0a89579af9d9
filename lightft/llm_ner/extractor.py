"""LLMNERExtractor: ask a language model for the entities of texts of any length, and keep only what they really say."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from lightft.cost import Stopwatch
from lightft.data import examples_fingerprint
from lightft.description import interval_scores
from lightft.errors import DataError, InvalidSettingError
from lightft.inference import Predictor, load
from lightft.llm_ner.confidence import Calibration, span_scores_of_answer
from lightft.llm_ner.digests import digest_of
from lightft.llm_ner.documents import Document
from lightft.llm_ner.engines import Answer, Engine, InProcess, Question
from lightft.llm_ner.files.extraction import FileResult, extract_file
from lightft.llm_ner.files.output_rows import append_row, rows_of, size_of, spans_of_rows
from lightft.llm_ner.formats import OUTCOMES
from lightft.llm_ner.prompts import Prompt, types_of
from lightft.llm_ner.saved_settings import SavedSettings
from lightft.llm_ner.windows import merged, windows_of
from lightft.records import Example, Prediction, Run, Span

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
        shots: how many worked examples a few-shot prompt shows; None for 3.
        choice: how they are chosen: ``"similar"`` to the text (None, too), or ``"fixed"``, the same for all.
        decoding: ``"constrained"`` (None, too) or ``"free"``, for a model in this process (see ``InProcess``).
        max_new_tokens: of a free answer or one in a dictionary format, by a model in this process; None for what the text
            needs. An engine that is ready has its own.
        window: words that are read at once; a longer text is cut into overlapping windows.
        overlap: words that a window shares with the next.
        minimum_precision: entities too doubtful for this precision, and those without a score, become
            ``document.doubtful``; the extractor must have been calibrated.

    Attributes:
        prompt: what is asked.
        labels: the types with a description of each.
        engine: who answers.
        calibration: turns scores into probabilities, once ``calibrate`` was called or what it found was saved.

    Raises:
        InvalidSettingError: the model is no causal language model, a part of the prompt is missing, something is given
            that would be ignored, or no threshold is known to reach the precision.
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
        shots: int | None = None,
        choice: str | None = None,
        decoding: str | None = None,
        max_new_tokens: int | None = None,
        window: int = 200,
        overlap: int = 30,
        minimum_precision: float | None = None,
    ) -> None:
        self._folder = Path(model) if isinstance(model, str | Path) else None
        self.calibration: Calibration | None = None
        self.window, self.overlap = window, overlap
        shown = _given(shots=shots, choice=choice)
        if labels is None:
            _refuse_without_labels(_given(format=format, prompt=prompt, examples=examples or None, **shown))
            saved = SavedSettings.read(self._folder)
            self.prompt, self.calibration = saved.prompt, saved.calibration
        else:
            self.prompt = Prompt(prompt or "basic", labels, format or "brackets", examples=examples, **shown)
        self.labels = types_of(self.prompt.labels)
        windows_of("", window, overlap)
        self.minimum_precision = minimum_precision
        self._threshold = self._threshold_for(minimum_precision)
        written = _given(decoding=decoding, max_new_tokens=max_new_tokens)
        if isinstance(model, str | Path):
            model = load(model)
        if isinstance(model, Predictor):
            self.engine: Engine = InProcess(model, known=self.prompt.examples, **written)
        else:
            _refuse_for_a_ready_engine(model, written)
            self.engine = model

    def extract(self, texts: Iterable[str]) -> Iterator[Document]:
        """Yield the entities of each text, in order; texts are read as the answers are, a bounded number ahead.

        Raises:
            EngineError: nobody answers any more; the documents before are yielded first.
            InvalidSettingError: a precision is to be kept, but the engine gives no scores.
        """
        documents = self._extract(texts)
        if self.minimum_precision is not None:
            documents = _with_scores(documents, self.engine.model_name)
        for document in documents:
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
            **({"calibration_digest": digest_of(self.calibration.to_json())} if self.calibration is not None else {}),
            **({"minimum_precision": self.minimum_precision} if self.minimum_precision is not None else {}),
        }

    def calibrate(self, examples: Sequence[Example], *, output_dir: str | Path | None = None) -> Calibration:
        """Learn from validation data how often an entity of a score is right; scores are probabilities from then on.

        Args:
            examples: with spans as targets; the model must not have been trained on them.
            output_dir: where a run of these examples with their raw scores is written, as ``evaluate`` does, so that a
                call that was stopped is gone on with. By default nothing is kept of such a call.

        Raises:
            DataError: an example has no gold spans, or the engine gives no scores.
            EngineError: nobody answers any more.
            InvalidSettingError: ``output_dir`` exists.
        """
        _check_gold(examples)
        uncalibrated = copy(self)
        uncalibrated.calibration = uncalibrated.minimum_precision = None
        if output_dir is None:
            documents = uncalibrated.extract(example.text for example in examples)
            predictions = _predictions(examples, (document.spans for document in documents))
        else:
            predictions = uncalibrated.evaluate(examples, output_dir=output_dir).predictions
        self.calibration = Calibration.fit(predictions)
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

        What is answered stands in the folder ``OUTPUT_DIR.unfinished`` until the run is written: when stopped, the same call
        goes on, and the run then has no times.

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
            DataError: an example has no gold spans, there are none, or what is unfinished is of other settings or examples.
            EngineError: nobody answers any more; what is finished stays.
        """
        output_dir = Path(output_dir)
        if output_dir.exists():
            raise InvalidSettingError(f"{output_dir} exists already. Choose another output_dir, or delete it.")
        _check_gold(examples)
        if not examples:
            raise DataError("There are no examples to evaluate on. Give some with gold spans, such as data.test.")
        unfinished = output_dir.with_name(f"{output_dir.name}.unfinished")
        with Stopwatch(self._device) as extracting:
            found, predictions = self._found(examples, unfinished)
        settings = self.settings()
        run = Run(
            name=name or output_dir.name,
            task="llm-ner",
            metrics=("span_f1", "span_precision", "span_recall"),
            labels=tuple(self.labels),
            model={"name": self.engine.model_name},
            training={key: value for key, value in settings.items() if key not in _NOT_OF_THE_METHOD},
            data={
                **{key: settings[key] for key in _LEARNED if key in settings},
                "test_fingerprint": examples_fingerprint(examples),
                "rows": {"test": len(examples)},
                "outcomes": dict(found.outcomes),
                "ungrounded_mentions": found.ungrounded,
                "doubtful_entities": found.doubtful,
            },
            cost={**self._model_cost(), **({} if found.kept else _times(len(examples), extracting.seconds))},
            predictions=predictions,
            path=output_dir,
        )
        run = replace(run, scores=interval_scores(run))
        run.save(output_dir)
        shutil.rmtree(unfinished)
        return run

    def _found(self, examples: Sequence[Example], folder: Path) -> tuple[FileResult, tuple[Prediction, ...]]:
        """Extract from examples into a file of the folder, going on where it ends."""
        folder.mkdir(parents=True, exist_ok=True)
        source, out = folder / "examples.jsonl", folder / "documents.jsonl"
        with source.open("wb") as file:
            for example in examples:
                append_row(file, {"id": example.id, "text": example.text})
        result = extract_file(self, source, out, progress=False)
        spans = (spans_of_rows(row["spans"]) for row in rows_of(out, size_of(out)))
        return result, _predictions(examples, spans)

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
        coming = (self._asked(text) for text in texts)
        for one in coming:
            if one.bounds:
                yield from self._answered(chain([one], coming))
            else:
                yield one.document()

    def _asked(self, text: str) -> _Asked:
        error = _unreadable(text)
        windows = [] if error else windows_of(text, self.window, self.overlap)
        # About a window of white space a model can only say something wrong.
        return _Asked(text, [(start, end) for start, end in windows if text[start:end].strip()], error)

    def _answered(self, coming: Iterator[_Asked]) -> Iterator[Document]:
        """Yield the documents of texts up to the end, or up to many in a row that nobody needs to be asked about."""
        asked: deque[_Asked] = deque()

        def questions() -> Iterator[Question]:
            unasked = 0
            for one in coming:
                asked.append(one)
                for start, end in one.bounds:
                    part = one.text[start:end]
                    yield Question(part, tuple(self.prompt.messages(part)))
                # While an engine reads on to the next question, no document can be given out.
                unasked = 0 if one.bounds else unasked + 1
                if unasked == _MOST_UNASKED:
                    return

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
            return Document(text, answer.spans, (), _outcome("ok", answer), (answer.text,))
        reading = self.prompt.answer_format.read(text, answer.text, tuple(self.labels))
        spans = reading.spans
        if answer.pieces:
            scores = span_scores_of_answer(answer.text, answer.pieces, spans, self.prompt.format)
            spans = tuple(replace(span, score=score) for span, score in zip(spans, scores, strict=True))
        return Document(text, spans, reading.ungrounded, _outcome(reading.outcome, answer), (answer.text,))

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
        sure: list[Span] = []
        doubtful: list[Span] = []
        for span in document.spans:
            (sure if self._is_sure(span) else doubtful).append(span)
        return replace(
            document,
            spans=_with_probabilities(sure, self.calibration),
            doubtful=_with_probabilities(doubtful, self.calibration),
        )

    def _is_sure(self, span: Span) -> bool:
        return self.minimum_precision is None if span.score is None else span.score >= self._threshold


# What an extractor has learned, as adapters differ where a method is trained with several seeds; a run says it elsewhere.
_LEARNED = ("adapter_digest", "calibration_digest")
_NOT_OF_THE_METHOD = ("model", "labels", *_LEARNED)

_MOST_UNASKED = 100
_UNSCORED_THAT_MEAN_NONE = 5


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
    half = re.search("[\ud800-\udfff]", text)
    return f"The text holds {half[0]!r}, half a character. Decode it with errors='replace'." if half else ""


def _check_gold(examples: Sequence[Example]) -> None:
    for example in examples:
        if not isinstance(example.target, tuple):
            raise DataError(f"Example {example.id!r} has no gold spans. Give examples for token-classification.")


def _predictions(examples: Sequence[Example], found: Iterable[tuple[Span, ...]]) -> tuple[Prediction, ...]:
    return tuple(
        Prediction(example.id, example.target, spans, words=example.words)
        for example, spans in zip(examples, found, strict=True)
    )


def _times(examples: int, seconds: float) -> dict[str, float]:
    return {"predict_seconds": seconds, "predictions_per_second": examples / seconds}


def _outcome(of_reading: str, answer: Answer) -> str:
    """Return what became of an answer: one that was cut is no whole one, however whole it looks."""
    return max(of_reading, "truncated" if answer.cut else "ok", key=OUTCOMES.index)


def _with_scores(documents: Iterator[Document], model: str) -> Iterator[Document]:
    """Pass documents on, until it is evident that the model gives no scores; that an answer has none may happen."""
    unscored = 0
    for document in documents:
        if any(span.score is not None for span in document.spans):
            yield document
            yield from documents
            return
        unscored += bool(document.spans)
        if unscored == _UNSCORED_THAT_MEAN_NONE:
            raise InvalidSettingError(
                f"{model} gives no scores: none of the entities in the first {unscored} texts with any has one, so that no "
                "precision can be kept. Use constrained decoding or a server that gives log-probabilities, or leave "
                "minimum_precision out."
            )
        yield document


def _with_probabilities(spans: Sequence[Span], calibration: Calibration) -> tuple[Span, ...]:
    probabilities = iter(calibration.probabilities([span for span in spans if span.score is not None]))
    return tuple(span if span.score is None else replace(span, score=next(probabilities)) for span in spans)


def _given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _refuse_without_labels(given: Mapping[str, Any]) -> None:
    if given:
        raise InvalidSettingError(
            f"{', '.join(given)} given, but no labels. Give labels as well, or none of these to ask as was saved beside the "
            "adapter."
        )


def _refuse_for_a_ready_engine(engine: Engine, given: Mapping[str, Any]) -> None:
    if given:
        settings = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise InvalidSettingError(
            f"{settings}: given for a model that is opened here, but {type(engine).__name__} is an engine that is ready. "
            "Give it what it takes itself, such as OpenAIServer(url, name, max_new_tokens=500)."
        )
