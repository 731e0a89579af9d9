"""Prompts: what a language model is told before the text, by name or from a template of your own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from lightft.errors import DataError, InvalidSettingError, UnknownNameError, suggest
from lightft.llm_ner.digests import digest_of
from lightft.llm_ner.formats import FORMATS, AnswerFormat
from lightft.records import Example, Message, Span

__all__ = ["CHOICES", "PROMPTS", "Prompt", "spans_of_types", "types_of"]

_BASIC = """Identify the named entities in the text below, and classify each as one of these types:
{types}

{format}

Text:

{text}"""

_FEW_SHOT = """Identify the named entities in the last text below, and classify each as one of these types:
{types}

{format}

{examples}

Text:

{text}"""

PROMPTS: Mapping[str, str] = {"basic": _BASIC, "few-shot": _FEW_SHOT}
"""The templates that have a name."""

CHOICES = ("similar", "fixed")
"""The ways to choose worked examples."""

_PLACE = re.compile(r"\{(types|format|examples|text)\}")


@dataclass(frozen=True)
class Prompt:
    """Makes the question about a text.

    The text stands last, so that all before it is the same for every text of a prompt without examples.

    Attributes:
        style: ``"basic"``, ``"few-shot"``, or a template: a string with ``{text}`` and perhaps ``{types}``, ``{format}``
            (the sentence that asks for the answer format) and ``{examples}``. Other braces stay as they are.
        labels: the types, or types with a description of each.
        format: a name of ``FORMATS``.
        examples: with spans as targets; worked examples are chosen from them.
        shots: how many worked examples a prompt with ``{examples}`` shows, never the text itself.
        choice: how they are chosen. ``"similar"``: those whose character n-grams are most like the text's (TF-IDF,
            cosine), with entities rather than without, the most similar last. ``"fixed"``: the same for every text, few
            words that show all types, so that a model reads them once for all texts.
    """

    style: str
    labels: Mapping[str, str] | Sequence[str]
    format: str = "brackets"
    examples: Sequence[Example] = field(default=(), repr=False)
    shots: int = 3
    choice: str = "similar"

    def __post_init__(self) -> None:
        if self.style not in PROMPTS and "{" not in self.style:
            raise UnknownNameError(
                f"No prompt named {self.style!r}. {suggest(self.style, PROMPTS)} A template of your own holds {{text}}."
            )
        if "{text}" not in self.template:
            raise InvalidSettingError(
                "The template has no {text}, so that no text would be read. Write {text} where the text is to stand."
            )
        if not self.labels:
            raise InvalidSettingError("There are no types to look for. Give labels, such as ['PER', 'LOC'].")
        if self.choice not in CHOICES:
            raise UnknownNameError(f"No choice of examples named {self.choice!r}. {suggest(self.choice, CHOICES)}")
        self.answer_format.instruction(tuple(types_of(self.labels)))
        if self.shows_examples:
            self._check_examples()

    @property
    def template(self) -> str:
        """The template of a named style, or the style itself."""
        return PROMPTS.get(self.style, self.style)

    @property
    def answer_format(self) -> AnswerFormat:
        """The format called ``format``."""
        return FORMATS[self.format]

    @property
    def shows_examples(self) -> bool:
        """Whether the template has a place for worked examples."""
        return "{examples}" in self.template

    def messages(self, text: str) -> list[Message]:
        """Return the conversation that asks about one text: a single turn of the user."""
        return [Message("user", self.ask(text))]

    def ask(self, text: str) -> str:
        """Return the question about one text."""
        instruction, given = self.instruction_and_input(text)
        return f"{instruction}\n\n{given}" if given else instruction

    def instruction_and_input(self, text: str) -> tuple[str, str]:
        """Return the question in two parts, as rows of instruction data have them; a blank line joins them.

        The second part is the text where it stands last after a blank line, else empty.
        """
        ending = "\n\n{text}"
        apart = self.template.endswith(ending) and bool(text.strip())
        template = self.template.removesuffix(ending) if apart else self.template
        values = {
            "types": self._types,
            "format": self.answer_format.instruction(tuple(types_of(self.labels))),
            "examples": self._worked(text) if self.shows_examples else "",
            "text": text,
        }
        return _PLACE.sub(lambda place: values[place[1]], template), text if apart else ""

    def settings(self) -> dict[str, object]:
        """Return what makes this prompt what it is, as plain JSON data."""
        described = {label: meaning for label, meaning in types_of(self.labels).items() if meaning}
        settings: dict[str, object] = {"format": self.format, "prompt": self.style}
        return {
            **settings,
            **({"definitions": described} if described else {}),
            **(
                {"shots": self.shots, "choice": self.choice, "examples_digest": self._examples_digest}
                if self.shows_examples
                else {}
            ),
        }

    def to_json(self) -> dict[str, Any]:
        """Return all that decides what is asked as plain JSON data, with the examples that may be shown."""
        return {
            "prompt": self.style,
            "labels": types_of(self.labels),
            "format": self.format,
            "shots": self.shots,
            "choice": self.choice,
            "examples": [{"id": example.id, **content} for example, content in self._may_be_shown()],
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Prompt:
        """Return the prompt that ``to_json`` described.

        Raises:
            DataError: something is missing or of another kind.
        """
        try:
            examples = tuple(
                Example(one["id"], one["text"], tuple(Span(*span) for span in one["spans"])) for one in row["examples"]
            )
            return cls(row["prompt"], row["labels"], row["format"], examples, row["shots"], row["choice"])
        except (KeyError, TypeError) as cause:
            raise DataError(
                f"A prompt cannot be read: {cause!r} is missing or wrong. Write it with to_json()."
            ) from cause

    def _may_be_shown(self) -> Iterator[tuple[Example, dict[str, Any]]]:
        """Yield each example that may be shown, and what is shown of it."""
        if not self.shows_examples:
            return
        types = types_of(self.labels)
        for example in self._fixed if self.choice == "fixed" else self.examples:
            spans = [[span.start, span.end, span.label] for span in spans_of_types(example, types)]
            yield example, {"text": example.text, "spans": spans}

    @cached_property
    def _examples_digest(self) -> str:
        return digest_of([content for _, content in self._may_be_shown()])

    def worked_examples(self, text: str) -> list[Example]:
        """Return the worked examples for a text; fewer than ``shots`` where there are no more."""
        if self.choice == "fixed":
            return [example for example in self._fixed if example.text.strip() != text.strip()][: self.shots]
        return self._nearest(text)

    def _nearest(self, text: str) -> list[Example]:
        pool, without_entities, vectorizer, by_ngram = self._index
        similar = (vectorizer.transform([text]) @ by_ngram).toarray()[0]
        # Rounded, so that equally similar ones keep their order whatever the order of summation.
        order = np.lexsort(np.stack([-np.round(similar, 6), without_entities]))
        chosen = [pool[place] for place in order[: self.shots + 1] if pool[place].text.strip() != text.strip()]
        return chosen[: self.shots][::-1]

    @property
    def _types(self) -> str:
        return "\n".join(
            f"- {label}: {meaning}" if meaning else f"- {label}" for label, meaning in types_of(self.labels).items()
        )

    def _worked(self, text: str) -> str:
        blocks = []
        for example in self.worked_examples(text):
            answer, _ = self.answer_format.write(example.text, spans_of_types(example, types_of(self.labels)))
            blocks.append(f"Text:\n\n{example.text}\n\nAnswer:\n\n{answer}")
        return "\n\n".join(blocks)

    def _check_examples(self) -> None:
        if self.shots < 1:
            raise InvalidSettingError(
                f"shots={self.shots}, but a prompt with examples shows at least 1. Or use 'basic'."
            )
        for example in self.examples:
            if not isinstance(example.target, tuple):
                raise DataError(f"Example {example.id!r} has no gold spans. Give examples for token-classification.")
        if not any(example.text.strip() for example in self.examples):
            raise InvalidSettingError(
                "This prompt shows worked examples, but there are none to choose from. Give examples=data.train."
            )

    @cached_property
    def _fixed(self) -> list[Example]:
        """One example more than are shown, for a text that is among them: each adds a type, or as many as it can."""
        types = types_of(self.labels)
        shortest = sorted(self.examples, key=lambda example: len(example.text))
        offered = {example.text.strip(): example for example in shortest if example.text.strip()}
        types_in = {text: {span.label for span in spans_of_types(one, types)} for text, one in offered.items()}
        chosen: list[Example] = []
        missing = set(types)
        while offered and len(chosen) <= self.shots:
            # The first of those that add most is the shortest.
            best = max(offered, key=lambda text: len(types_in[text] & missing))
            chosen.append(offered.pop(best))
            missing = (missing - types_in[best]) or set(types)
        return chosen

    @cached_property
    def _index(self) -> tuple[list[Example], Any, Any, Any]:
        """Examples with different texts, which have no entities, what weighs n-grams, and weights (n-grams, examples)."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        pool = list({example.text.strip(): example for example in self.examples if example.text.strip()}.values())
        vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4))
        weights = vectorizer.fit_transform(example.text for example in pool)
        types = types_of(self.labels)
        without_entities = np.array([not spans_of_types(example, types) for example in pool])
        return pool, without_entities, vectorizer, weights.T.tocsr()


def types_of(labels: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Return the types with the description of each; empty where there is none."""
    return dict(labels) if isinstance(labels, Mapping) else dict.fromkeys(labels, "")


def spans_of_types(example: Example, labels: Mapping[str, str]) -> tuple[Span, ...]:
    """Return the gold spans of an example that are of these types.

    Raises:
        DataError: it has no gold spans.
    """
    if not isinstance(example.target, tuple):
        raise DataError(f"Example {example.id!r} has no gold spans. Give examples for token-classification.")
    return tuple(span for span in example.target if span.label in labels)
