"""LLMNERExtractor: ask a causal language model for the entities of a text, and keep only what the text really says."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from lightft.cost import Stopwatch
from lightft.data import examples_fingerprint
from lightft.description import interval_scores
from lightft.errors import DataError, InvalidSettingError
from lightft.inference import Predictor, load
from lightft.llm_ner.prompts import Prompt, types_of
from lightft.models import count_parameters
from lightft.records import Example, Prediction, Run, Span
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
        outcome: ``"ok"``, ``"repaired"``, ``"ungrounded"``, ``"truncated"`` or ``"refused"``; see
            ``lightft.llm_ner.OUTCOMES``.
        answer: what the model wrote.
    """

    text: str
    spans: tuple[Span, ...]
    ungrounded: tuple[tuple[str, str], ...]
    outcome: str
    answer: str


class LLMNERExtractor:
    """Extracts entities by asking a language model for them, in a format that is read whatever it answers.

    Args:
        model: an adapter folder, a causal checkpoint, or a Predictor that is already open.
        labels: the types, or types with a description of each for the prompt.
        format: how the model is to answer: ``"brackets"``, ``"xml"``, ``"categories"``, ``"objects"`` or a format that is
            registered. A model that was trained on instruction data is asked with the format and prompt of that data.
        prompt: ``"basic"``, ``"few-shot"``, or a template of your own (see ``Prompt``).
        examples: with spans as targets, for ``"few-shot"``: worked examples are chosen from them by similarity.
        shots: how many worked examples a few-shot prompt shows.
        max_new_tokens: of an answer; None for what the text needs: a power of two that is at least 32 more than twice
            the tokens of the text.

    Raises:
        InvalidSettingError: the model is no causal language model, or a part of the prompt is missing.
        UnknownNameError: there is no such format or prompt.
    """

    def __init__(
        self,
        model: str | Path | Predictor,
        labels: Mapping[str, str] | Sequence[str],
        format: str = "brackets",
        prompt: str = "basic",
        *,
        examples: Sequence[Example] = (),
        shots: int = 3,
        max_new_tokens: int | None = None,
    ) -> None:
        self.labels = types_of(labels)
        self.prompt = Prompt(prompt, self.labels, format, examples=examples, shots=shots)
        self.predictor = model if isinstance(model, Predictor) else load(model)
        head = self.predictor.head
        if not isinstance(head, CausalLM):
            raise InvalidSettingError(
                f"LLMNERExtractor needs a causal language model; this one is for {head.name}. "
                "Call lightft.load(path)(text) instead."
            )
        self._head = head
        self.max_new_tokens = max_new_tokens

    def extract(self, texts: Iterable[str]) -> Iterator[Document]:
        """Yield the entities of each text, in order; texts are read as the answers are."""
        remaining = iter(texts)
        while chunk := list(islice(remaining, _TEXTS_PER_CHUNK)):
            for text, answer in zip(chunk, self._answers(chunk), strict=True):
                yield self.read(text, answer)

    def read(self, text: str, answer: str) -> Document:
        """Return what an answer to the prompt about ``text`` says, whoever wrote it."""
        reading = self.prompt.answer_format.read(text, answer, tuple(self.labels))
        return Document(text, reading.spans, reading.ungrounded, reading.outcome, answer)

    def _answers(self, texts: Sequence[str]) -> list[str]:
        # Texts with the same limit are asked together, so that an answer does not depend on its neighbours.
        by_limit: dict[int, list[int]] = defaultdict(list)
        for place, text in enumerate(texts):
            by_limit[self._longest_answer(text)].append(place)
        answers = [""] * len(texts)
        for limit, places in by_limit.items():
            written = self._head.generate(
                self.predictor.model,
                self.predictor.tokenizer,
                [self.prompt.messages(texts[place]) for place in places],
                max_new_tokens=limit,
            )
            for place, answer in zip(places, written, strict=True):
                answers[place] = answer
        return answers

    def _longest_answer(self, text: str) -> int:
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        tokens = len(self.predictor.tokenizer(text, add_special_tokens=False)["input_ids"])
        return 1 << (2 * tokens + 31).bit_length()

    def evaluate(self, examples: Sequence[Example], *, output_dir: str | Path, name: str | None = None) -> Run:
        """Extract from examples with gold spans and write a run, which compares with those of taggers.

        Args:
            examples: with spans as targets.
            output_dir: where the run is written; it must not exist.
            name: of the run in reports; by default the last part of ``output_dir``.

        Returns:
            The run: its metrics are strict F1, precision and recall of spans, ``data["outcomes"]`` counts what became of
            the answers, ``data["ungrounded_mentions"]`` what was set aside, and format, prompt and shots stand among its
            settings.

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
            training={**self.prompt.settings(), "max_new_tokens": self.max_new_tokens},
            data={
                "test_fingerprint": examples_fingerprint(examples),
                "rows": {"test": len(examples)},
                "outcomes": dict(Counter(document.outcome for document in documents)),
                "ungrounded_mentions": sum(len(document.ungrounded) for document in documents),
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
