"""LLMNERExtractor: ask a causal language model for the entities of a text, and keep only what the text really says."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from lightft.cost import Stopwatch
from lightft.data import examples_fingerprint
from lightft.description import interval_scores
from lightft.errors import DataError, InvalidSettingError
from lightft.inference import Predictor, load
from lightft.models import count_parameters
from lightft.records import Example, Message, Prediction, Run, Span
from lightft.tasks import CausalLM

__all__ = ["Document", "LLMNERExtractor"]

_TEXTS_PER_CHUNK = 16


@dataclass(frozen=True)
class Document:
    """The entities of one text.

    Attributes:
        text: as it was given.
        spans: entities that stand in the text: ``text[start:end]`` is what the model wrote.
        ungrounded: ``(type, mention)`` pairs that the model wrote but the text does not hold, or of an unknown type.
        outcome: ``"ok"``; ``"ungrounded"`` when some mentions were set aside; ``"unreadable"`` when the answer was no
            dictionary.
        answer: what the model wrote.
    """

    text: str
    spans: tuple[Span, ...]
    ungrounded: tuple[tuple[str, str], ...]
    outcome: str
    answer: str


class LLMNERExtractor:
    """Extracts entities by asking for a dictionary from types to mentions.

    Args:
        model: an adapter folder, a causal checkpoint, or a Predictor that is already open.
        labels: the types, or types with a description of each for the prompt.
        max_new_tokens: of the answer.
    """

    def __init__(
        self, model: str | Path | Predictor, labels: Mapping[str, str] | Sequence[str], *, max_new_tokens: int = 128
    ) -> None:
        self.predictor = model if isinstance(model, Predictor) else load(model)
        head = self.predictor.head
        if not isinstance(head, CausalLM):
            raise InvalidSettingError(
                f"LLMNERExtractor needs a causal language model; this one is for {head.name}. "
                "Call lightft.load(path)(text) instead."
            )
        self._head = head
        self.labels = dict(labels) if isinstance(labels, Mapping) else dict.fromkeys(labels, "")
        self.max_new_tokens = max_new_tokens

    def prompt(self, text: str) -> str:
        """Return the instruction for one text."""
        types = "\n".join(
            f"- {label}: {meaning}" if meaning else f"- {label}" for label, meaning in self.labels.items()
        )
        return (
            f"Find the named entities in the text. The types are:\n{types}\n"
            "Answer with one JSON object from types to lists of mentions, copied letter by letter, and nothing else.\n\n"
            f"Text: {text}"
        )

    def extract(self, texts: Iterable[str]) -> Iterator[Document]:
        """Yield the entities of each text, in order; texts are read as the answers are."""
        remaining = iter(texts)
        while chunk := list(islice(remaining, _TEXTS_PER_CHUNK)):
            answers = self._head.generate(
                self.predictor.model,
                self.predictor.tokenizer,
                [[Message("user", self.prompt(text))] for text in chunk],
                max_new_tokens=self.max_new_tokens,
            )
            for text, answer in zip(chunk, answers, strict=True):
                yield read_answer(text, answer, tuple(self.labels))

    def evaluate(self, examples: Sequence[Example], *, output_dir: str | Path, name: str | None = None) -> Run:
        """Extract from examples with gold spans and write a run, which compares with those of taggers.

        Args:
            examples: with spans as targets.
            output_dir: where the run is written; it must not exist.
            name: of the run in reports; by default the last part of ``output_dir``.

        Returns:
            The run: its metrics are strict F1, precision and recall of spans, and ``data["outcomes"]`` counts what became of
            the answers.

        Raises:
            InvalidSettingError: ``output_dir`` exists.
            DataError: an example has no gold spans, or there are none.
        """
        output_dir = Path(output_dir)
        if output_dir.exists():
            raise InvalidSettingError(f"{output_dir} exists already. Choose another output_dir, or delete it.")
        for example in examples:
            if not isinstance(example.target, tuple):
                raise DataError(f"Example {example.id!r} has no gold spans. Evaluate on data for token-classification.")
        with Stopwatch(next(self.predictor.model.parameters()).device) as extracting:
            documents = list(self.extract(example.text for example in examples))
        run = Run(
            name=name or output_dir.name,
            task="llm-ner",
            metrics=("span_f1", "span_precision", "span_recall"),
            labels=tuple(self.labels),
            model={"name": self.predictor.model.name_or_path},
            data={
                "test_fingerprint": examples_fingerprint(examples),
                "rows": {"test": len(examples)},
                "outcomes": dict(Counter(document.outcome for document in documents)),
            },
            cost={
                "total_parameters": count_parameters(self.predictor.model)[1],
                "predict_seconds": extracting.seconds,
                "predictions_per_second": len(examples) / extracting.seconds,
            },
            predictions=tuple(
                Prediction(example.id, example.target, document.spans, words=example.words)
                for example, document in zip(examples, documents, strict=True)
            ),
            path=output_dir,
        )
        run = replace(run, scores=interval_scores(run))
        run.save(output_dir)
        return run


def read_answer(text: str, answer: str, labels: Sequence[str]) -> Document:
    """Turn any answer into entities: total, and never a span the text does not hold.

    A mention that is written n times takes the first n places where it stands in the text.
    """
    mentions = _dictionary(answer)
    if mentions is None:
        return Document(text, (), (), "unreadable", answer)
    spans: list[Span] = []
    ungrounded: list[tuple[str, str]] = []
    searched_to: dict[tuple[str, str], int] = {}
    for label, mention in mentions:
        start = text.find(mention, searched_to.get((label, mention), 0)) if mention and label in labels else -1
        if start < 0:
            ungrounded.append((label, mention))
            continue
        searched_to[label, mention] = start + len(mention)
        spans.append(Span(start, start + len(mention), label, text=mention))
    return Document(text, tuple(sorted(spans)), tuple(ungrounded), "ungrounded" if ungrounded else "ok", answer)


def _dictionary(answer: str) -> list[tuple[str, str]] | None:
    """Return the (type, mention) pairs of the first JSON or Python dictionary in ``answer``; None if there is none."""
    match = re.search(r"\{[^{}]*\}", answer)
    if match is None:
        return None
    try:
        found = json.loads(match.group())
    except (ValueError, RecursionError):
        try:
            with warnings.catch_warnings():
                # The answer is a model's, and its odd escapes are no one's to mend.
                warnings.simplefilter("ignore")
                found = ast.literal_eval(match.group())
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None
    if not isinstance(found, dict):
        return None
    pairs = []
    for label, mentions in found.items():
        listed = mentions if isinstance(mentions, list | tuple) else [mentions]
        # A year comes as a number, and nothing as null.
        pairs += [(str(label), str(mention)) for mention in listed if mention is not None]
    return pairs
