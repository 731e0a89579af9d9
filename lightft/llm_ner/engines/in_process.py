"""InProcess: a model in this process answers; by default it can write nothing but a proper answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch

from lightft.errors import InvalidSettingError, suggest
from lightft.inference import Predictor
from lightft.llm_ner.decoding import ConstrainedDecoder, GuidedDecoder, TokenBytes
from lightft.llm_ner.decoding.model_window import too_long_for
from lightft.llm_ner.engines.engine import Answer, Question
from lightft.llm_ner.engines.longest_answer import longest_answer
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
        max_new_tokens: of a free answer or one in a dictionary format; None for what the text needs: room for an answer in
            which every word is an entity, and 32 tokens more, as a power of two. It is never more than what the model reads
            at once leaves behind the prompt.
        rows: texts that go through the model together, where answers are constrained.
        known: examples with spans, such as those the model was trained on: with them in mind, fewer passes lead to the same
            answers in the inline formats.

    Raises:
        InvalidSettingError: the model is no causal language model, there is no such decoding, or an answer could have no
            token.
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
        if max_new_tokens is not None and max_new_tokens < 1:
            raise InvalidSettingError(f"max_new_tokens={max_new_tokens}, but it is at least 1.")
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
            yield from self._free(questions, labels, format)
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
        decoder = GuidedDecoder(
            self.predictor.model, self._vocabulary, labels, format=format, rows=self.rows, max_length=self._max_length
        )
        asked = ((self._prompt(one), one.text, self._limit(one.text, labels, format)) for one in questions)
        for answer in decoder.answers(asked):
            cut = not answer.finished and not answer.error
            yield Answer(answer.text, pieces=answer.pieces, error=answer.error, cut=cut)

    def _free(self, questions: Iterable[Question], labels: Sequence[str], format: str) -> Iterator[Answer]:
        """Yield what is written about those questions that the model can read; the others fail alone."""
        for chunk in _chunks(questions):
            asked = [self._asked(question, labels, format) for question in chunk]
            answers = iter(self._written_freely([one for one in asked if one.limit > 0]))
            for one in asked:
                yield next(answers) if one.limit > 0 else Answer("", error=too_long_for(self._max_length))

    def _written_freely(self, asked: Sequence[_Asked]) -> list[Answer]:
        # Texts with the same limit are asked together, so that an answer does not depend on its neighbours.
        by_limit: dict[int, list[int]] = defaultdict(list)
        for place, one in enumerate(asked):
            by_limit[one.limit].append(place)
        answers = [Answer("")] * len(asked)
        for limit, places in by_limit.items():
            written = self._head.write(
                self.predictor.model,
                self.predictor.tokenizer,
                [asked[place].question.messages for place in places],
                max_new_tokens=limit,
            )
            for place, answer in zip(places, written, strict=True):
                answers[place] = Answer(answer.text, cut=answer.cut)
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
                max_length=self._max_length,
                known=((one.text, one.target) for one in self.known if isinstance(one.target, tuple)),
            )
        return self._decoders[labels, style]

    @cached_property
    def _vocabulary(self) -> TokenBytes:
        return TokenBytes(self.predictor.tokenizer)

    @cached_property
    def _max_length(self) -> int:
        """How many tokens the model can read at once, however short the rows it was trained on."""
        return max_input_length(self.predictor.model, self.predictor.tokenizer)

    def _prompt(self, question: Question) -> list[int]:
        return prompt_tokens(question.messages, self.predictor.tokenizer)

    def _asked(self, question: Question, labels: Sequence[str], format: str) -> _Asked:
        limit = self._limit(question.text, labels, format)
        return _Asked(question, min(limit, self._max_length - len(self._prompt(question))))

    def _limit(self, text: str, labels: Sequence[str], format: str) -> int:
        """Return ``max_new_tokens``, or more than the longest answer needs: a power of two, which many texts share."""
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        longest = longest_answer(text, labels, format, length=self._tokens)
        return 1 << (self._tokens(longest) + 31).bit_length()

    def _tokens(self, text: str) -> int:
        return len(self.predictor.tokenizer(text, add_special_tokens=False)["input_ids"])


@dataclass(frozen=True)
class _Asked:
    """A question, and how many tokens the answer may have: none where the model cannot read as much."""

    question: Question
    limit: int


def _chunks(questions: Iterable[Question]) -> Iterator[list[Question]]:
    remaining = iter(questions)
    while chunk := list(islice(remaining, _QUESTIONS_PER_CHUNK)):
        yield chunk
