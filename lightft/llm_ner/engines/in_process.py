"""InProcess: a model in this process answers; by default it can write nothing but a proper answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import torch

from lightft.errors import InvalidSettingError, suggest
from lightft.inference import Predictor
from lightft.llm_ner.decoding import ConstrainedDecoder, GuidedDecoder, TokenBytes
from lightft.llm_ner.engines.engine import Answer, Question
from lightft.models import count_parameters
from lightft.records import Example
from lightft.tasks import CausalLM
from lightft.tasks.conversations import prompt_tokens
from lightft.tasks.head import max_input_length

__all__ = ["DECODINGS", "InProcess"]

DECODINGS = ("constrained", "free")
"""How an answer is written: only what the format and the text allow, or whatever the model writes."""

_INLINE = ("brackets", "xml")
_GUIDED = ("categories", "objects")
_QUESTIONS_PER_CHUNK = 16


class InProcess:
    """Answers with a causal language model that is open in this process.

    Args:
        predictor: what ``lightft.load`` returned.
        decoding: ``"constrained"``: of all tokens only those that lead to a proper answer compete, so that every answer
            can be read and says nothing that is not in the text. ``"free"``: the model writes what it likes, which is
            then read.
        max_new_tokens: of a free answer or one in a dictionary format; None for what the text needs: a power of two that
            is at least 32 more than twice the tokens of the text.
        rows: texts that go through the model together, where answers are constrained.
        known: examples with spans, such as those the model was trained on: with them in mind, fewer passes lead to the same
            answers in the inline formats.

    Raises:
        InvalidSettingError: the model is no causal language model, or there is no such decoding.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        decoding: str = "constrained",
        max_new_tokens: int | None = None,
        rows: int = 8,
        known: Sequence[Example] = (),
    ) -> None:
        if decoding not in DECODINGS:
            raise InvalidSettingError(f"No decoding named {decoding!r}. {suggest(decoding, DECODINGS)}")
        if not isinstance(predictor.head, CausalLM):
            raise InvalidSettingError(
                f"LLMNERExtractor needs a causal language model; this one is for {predictor.head.name}. "
                "Call lightft.load(path)(text) instead."
            )
        self.predictor = predictor
        self.decoding = decoding
        self.max_new_tokens = max_new_tokens
        self.rows = rows
        self.known = known
        self._head = predictor.head
        self._decoders: dict[tuple[tuple[str, ...], str], ConstrainedDecoder] = {}

    @property
    def model_name(self) -> str:
        """The name or path of the base model."""
        return str(self.predictor.model.name_or_path)

    def settings(self) -> Mapping[str, Any]:
        """Return how answers are written."""
        return {"decoding": self.decoding, "max_new_tokens": self.max_new_tokens}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device(self.predictor.model.device)

    def total_parameters(self) -> int:
        """Return how many parameters the model has, its adapter included."""
        return count_parameters(self.predictor.model)[1]

    def answers(self, questions: Iterable[Question], *, labels: Sequence[str], format: str) -> Iterator[Answer]:
        """Yield one answer per question, in order; a bounded number of questions is read ahead.

        Raises:
            InvalidSettingError: answers of this format, or of this model, cannot be constrained.
            MissingExtraError: the format is constrained by a package that is not installed.
        """
        if self.decoding == "free":
            for chunk in _chunks(questions):
                yield from self._free(chunk)
        elif format in _INLINE:
            yield from self._inline(questions, labels, format)
        elif format in _GUIDED:
            yield from self._guided(questions, labels, format)
        else:
            raise InvalidSettingError(
                f"There is no grammar for the format {format!r}, only for {', '.join([*_INLINE, *_GUIDED])}. "
                "Use decoding='free', or one of these formats."
            )

    def _inline(self, questions: Iterable[Question], labels: Sequence[str], style: str) -> Iterator[Answer]:
        decoder = self._decoder(tuple(labels), style)
        asked = ((self._prompt(question), question.text) for question in questions)
        for answer in decoder.answers(asked):
            yield Answer(answer.text, None if answer.error else answer.spans, error=answer.error)

    def _guided(self, questions: Iterable[Question], labels: Sequence[str], format: str) -> Iterator[Answer]:
        decoder = GuidedDecoder(self.predictor.model, self._vocabulary, labels, format=format, rows=self.rows)
        for chunk in _chunks(questions):
            written = decoder.answers(
                [self._prompt(question) for question in chunk],
                [question.text for question in chunk],
                max_new_tokens=[self._longest_answer(question.text) for question in chunk],
            )
            yield from (Answer(answer.text, pieces=answer.pieces) for answer in written)

    def _free(self, questions: Sequence[Question]) -> list[Answer]:
        # Texts with the same limit are asked together, so that an answer does not depend on its neighbours.
        by_limit: dict[int, list[int]] = defaultdict(list)
        for place, question in enumerate(questions):
            by_limit[self._longest_answer(question.text)].append(place)
        answers = [Answer("")] * len(questions)
        for limit, places in by_limit.items():
            written = self._head.generate(
                self.predictor.model,
                self.predictor.tokenizer,
                [questions[place].messages for place in places],
                max_new_tokens=limit,
            )
            for place, text in zip(places, written, strict=True):
                answers[place] = Answer(text)
        return answers

    def _decoder(self, labels: tuple[str, ...], style: str) -> ConstrainedDecoder:
        """Return the decoder for these types, which goes on learning what to expect from one call to the next."""
        if (labels, style) not in self._decoders:
            self._decoders[labels, style] = ConstrainedDecoder(
                self.predictor.model,
                self._vocabulary,
                labels,
                style=style,
                rows=self.rows,
                # What the model can read, however short the rows it was trained on.
                max_length=max_input_length(self.predictor.model, self.predictor.tokenizer),
                known=((one.text, one.target) for one in self.known if isinstance(one.target, tuple)),
            )
        return self._decoders[labels, style]

    @cached_property
    def _vocabulary(self) -> TokenBytes:
        return TokenBytes(self.predictor.tokenizer)

    def _prompt(self, question: Question) -> list[int]:
        return prompt_tokens(question.messages, self.predictor.tokenizer)

    def _longest_answer(self, text: str) -> int:
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        tokens = len(self.predictor.tokenizer(text, add_special_tokens=False)["input_ids"])
        return 1 << (2 * tokens + 31).bit_length()


def _chunks(questions: Iterable[Question]) -> Iterator[list[Question]]:
    remaining = iter(questions)
    while chunk := list(islice(remaining, _QUESTIONS_PER_CHUNK)):
        yield chunk
