"""The small frozen records that cross the stages of the pipeline, readable as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from lightft.errors import DataError
from lightft.wording import count_words, duration_words, score_words

__all__ = ["Answer", "Classified", "Example", "Message", "Prediction", "Run", "Span", "Target"]


@dataclass(frozen=True, order=True)
class Span:
    """A stretch of text with a label: characters ``[start, end)``.

    Two spans are equal when start, end and label are; ``text`` and ``score`` (probability, 0 to 1) are for the reader.
    """

    start: int
    end: int
    label: str
    text: str | None = field(default=None, compare=False)
    score: float | None = field(default=None, compare=False)


Target = str | tuple[Span, ...]
"""A gold or predicted answer: a class or text (``str``), or the spans of a text in order."""


@dataclass(frozen=True)
class Classified:
    """The class of a text: ``label``, its probability ``score``, and the ``probabilities`` of all classes."""

    label: str
    score: float
    probabilities: dict[str, float]


Answer = Classified | list[Span] | str
"""What a model that is used answers to a text: its class, its spans, or what it writes."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; ``role`` is ``"system"``, ``"user"`` or ``"assistant"``."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """One input with its gold answer.

    Attributes:
        id: unique within the data set; travels with the prediction.
        text: what is read. For instruction tuning the user's last message, or ``""`` when the row is a ready text.
        target: the class, the spans, or the answer to write; None where there is no gold answer.
        words: ``(start, end)`` of each word of a corpus that comes in words; None for running text.
        context: the messages before ``text`` in a conversation (system prompt, earlier turns).
    """

    id: str
    text: str
    target: Target | None = None
    words: tuple[tuple[int, int], ...] | None = None
    context: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """An answer given to one example, with its gold answer copied from the example.

    Attributes:
        id: the example's.
        gold: the example's target; None where there was none.
        predicted: the answer.
        probabilities: probability of each class, by label (text classification).
        words: the ``(start, end)`` of the words that were tagged (token classification).
        tags: the predicted BIO tag of each word, as the model gave it (token classification).
        log_likelihood: natural log-likelihood of the gold answer, summed over its tokens (causal LM).
        target_tokens: how many tokens that sum runs over (causal LM).
        pieces: how many sub-tokens the tokenizer made of each word (token classification).
        text: what was read; only in memory, for metrics that compare strings. It is never written with a run, so that
            predictions are equal with and without it.
    """

    id: str
    gold: Target | None
    predicted: Target
    probabilities: Mapping[str, float] | None = None
    words: tuple[tuple[int, int], ...] | None = None
    tags: tuple[str, ...] | None = None
    log_likelihood: float | None = None
    target_tokens: int | None = None
    pieces: tuple[int, ...] | None = None
    text: str | None = field(default=None, repr=False, compare=False)

    @property
    def answer(self) -> Answer:
        """The spans of a text, or its class with the probabilities of all."""
        if not isinstance(self.predicted, str):
            return list(self.predicted)
        probabilities = dict(self.probabilities or {})
        return Classified(self.predicted, probabilities.get(self.predicted, float("nan")), probabilities)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data without the fields that are None and without any text that was read."""
        row = {
            "id": self.id,
            "gold": _target_to_json(self.gold),
            "predicted": _target_to_json(self.predicted),
            "probabilities": dict(self.probabilities) if self.probabilities is not None else None,
            "words": self.words,
            "tags": self.tags,
            "log_likelihood": self.log_likelihood,
            "target_tokens": self.target_tokens,
            "pieces": self.pieces,
        }
        return {key: value for key, value in row.items() if value is not None}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Prediction:
        """Read what ``to_json`` wrote."""
        words, tags = row.get("words"), row.get("tags")
        return cls(
            id=row["id"],
            gold=_target_from_json(row["gold"]) if "gold" in row else None,
            predicted=_target_from_json(row["predicted"]),
            probabilities=row.get("probabilities"),
            words=None if words is None else tuple((start, end) for start, end in words),
            tags=None if tags is None else tuple(tags),
            log_likelihood=row.get("log_likelihood"),
            target_tokens=row.get("target_tokens"),
            pieces=None if row.get("pieces") is None else tuple(row["pieces"]),
        )


def _target_to_json(target: Target | None) -> Any:
    if target is None or isinstance(target, str):
        return target
    return [
        [span.start, span.end, span.label, *([] if span.score is None else [round(span.score, 6)])] for span in target
    ]


def _target_from_json(value: Any) -> Target:
    if isinstance(value, str):
        return value
    return tuple(Span(start, end, label, score=score[0] if score else None) for start, end, label, *score in value)


@dataclass(frozen=True)
class Run:
    """What was run, what it cost and what it predicted: the folder ``run.json`` + ``predictions.jsonl`` + ``adapter/``.

    Attributes:
        name: shown in reports; the folder's name unless given.
        task: registered name of the task head.
        metrics: registered names of the metrics, the headline first.
        labels: the labels in the model's order; empty for causal LM.
        model: ``name``, ``revision``, ``digest``, ``dtype``, ``quantization`` of the base model.
        adapter: ``kind`` and ``params`` of the adapter spec.
        training: the training settings as they were used.
        seed: seeds model initialisation, order of the data and dropout.
        data: ``source``, ``fingerprint``, rows per split, ``duplicates``; what was dropped or repaired.
        cost: ``load_seconds``, ``train_seconds``, ``seconds_to_best``, ``seconds_per_step``, ``train_rows_per_second``,
            ``train_tokens_per_second``, ``padding_share``; ``energy_joules`` where the machine tells;
            ``peak_memory_bytes`` (measured) and ``peak_memory_is_of_process``; ``weight_bytes``, ``gradient_bytes``,
            ``optimizer_bytes``, ``activation_bytes`` (counted tensor by tensor); ``trainable_parameters``,
            ``total_parameters``, ``saved_parameters``, ``adapter_bytes``; ``predict_seconds``,
            ``predictions_per_second``, ``predict_tokens_per_second``.
        history: one row per logged step or validation: ``step``, ``epoch``, ``train_loss``, ``learning_rate``, or
            ``validation_<metric>``.
        environment: package versions, device, number of threads, date.
        scores: ``value``, ``low`` and ``high`` (95 % interval) by metric, derived from the predictions for the reader.
        predictions: one per example of the test split, in its order.
        path: the folder, once saved.
    """

    name: str
    task: str
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ()
    model: Mapping[str, Any] = field(default_factory=dict)
    adapter: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    predictions: tuple[Prediction, ...] = field(default=(), repr=False)
    path: Path | None = None

    def __str__(self) -> str:
        facts = [f"{len(self.predictions):,} examples"]
        if self.metrics and self.metrics[0] in self.scores:
            score = self.scores[self.metrics[0]]
            interval = f" [{score_words(score['low'])}, {score_words(score['high'])}]" if "low" in score else ""
            facts.insert(0, f"{self.metrics[0]} {score_words(score['value'])}{interval}")
        if "train_seconds" in self.cost:
            facts.append(f"trained in {duration_words(self.cost['train_seconds'])}")
        if "trainable_parameters" in self.cost:
            trainable, total = self.cost["trainable_parameters"], self.cost["total_parameters"]
            facts.append(f"{count_words(trainable)} of {count_words(total)} parameters trained")
        if cut := self.data.get("encoding", {}).get("truncated_texts"):
            facts.append(f"{cut:,} training texts cut")
        return f"{self.name}: {', '.join(facts)}"

    def save(self, folder: str | Path) -> Path:
        """Write ``run.json`` and ``predictions.jsonl`` into ``folder`` and return it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / "predictions.jsonl", (prediction.to_json() for prediction in self.predictions))
        written = {"rows": len(self.predictions), "sha256": _sha256(folder / "predictions.jsonl")}
        # run.json comes last: a folder that has one is whole.
        (folder / "run.json").write_text(
            json.dumps({**self.to_json(), "predictions": written}, indent=2, ensure_ascii=False) + "\n",
            encoding="utf-8",
        )
        return folder

    def to_json(self) -> dict[str, Any]:
        """Return everything but the predictions and the path, as it reads back from ``run.json``."""
        described = {
            item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("predictions", "path")
        }
        plain: dict[str, Any] = json.loads(json.dumps(described))
        return plain

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read a folder that ``save`` wrote.

        Raises:
            DataError: the folder holds no finished run, or a damaged one.
        """
        folder = Path(folder)
        if not (folder / "run.json").is_file():
            raise DataError(
                f"{folder} holds no finished run: there is no run.json in it. Name the output_dir that a trainer's "
                "fit() wrote."
            )
        try:
            described = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            described["metrics"] = tuple(described["metrics"])
            described["labels"] = tuple(described["labels"])
            # A run that another program wrote need not say what its predictions were.
            written = described.pop("predictions", None)
            if written is not None and written["sha256"] != _sha256(folder / "predictions.jsonl"):
                raise ValueError(
                    f"predictions.jsonl is not what was written: {written['rows']} rows of another content"
                )
            predictions = tuple(Prediction.from_json(row) for row in read_jsonl(folder / "predictions.jsonl"))
            return cls(**described, predictions=predictions, path=folder)
        except (FileNotFoundError, ValueError, KeyError, TypeError) as cause:
            raise DataError(
                f"The run in {folder} is damaged ({cause}). Restore it, or delete it and run it again."
            ) from cause

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids of the predictions, in order."""
        return tuple(prediction.id for prediction in self.predictions)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_jsonl(path: Path) -> Iterable[dict[str, Any]]:
    """Yield the JSON object of each line."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
