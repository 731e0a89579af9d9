"""What an engine is: it is asked questions about texts and gives back what a language model writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lightft.records import Message, Span

__all__ = ["Answer", "Engine", "Question"]


@dataclass(frozen=True)
class Question:
    """A question about one text, which is short enough for a model to read at once.

    Attributes:
        text: what the question is about.
        messages: the conversation that asks.
    """

    text: str
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Answer:
    """What a model wrote.

    Attributes:
        text: the answer; empty where there is none.
        spans: the entities, with their scores, where the engine itself knows them, because it let the model write nothing
            else; None where the answer is to be read.
        pieces: each token of the answer as text, with its natural log-probability; empty where the engine does not tell.
        error: why there is no answer; empty where there is one.
        cut: whether the model wrote on to its limit, so that the answer may lack its end, however whole it looks.
    """

    text: str
    spans: tuple[Span, ...] | None = None
    pieces: tuple[tuple[str, float], ...] = ()
    error: str = ""
    cut: bool = False


class Engine(Protocol):
    """A way of having questions answered."""

    @property
    def model_name(self) -> str:
        """What the model is called, in runs and reports."""

    def settings(self) -> Mapping[str, Any]:
        """Return what of the engine decides the answers, as plain JSON data."""

    def answers(self, questions: Iterable[Question], *, labels: Sequence[str], format: str) -> Iterator[Answer]:
        """Yield one answer per question, in order; questions are read as the answers are, a bounded number ahead.

        Args:
            questions: any number of them.
            labels: the types that are asked for.
            format: the name of the answer format.

        Raises:
            EngineError: no further question can be answered.
        """
