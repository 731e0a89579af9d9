"""Models for tests of the service that need no deep-learning stack: they answer by a rule."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from lightft.records import Answer, Span
from lightft.serving import ServedModels
from lightft.serving.models import ModelFacts, ServedBase


def tag(text: str) -> list[Span]:
    """Mark every word that begins with a capital."""
    spans, start = [], 0
    for word in text.split(" "):
        if word[:1].isupper():
            spans.append(Span(start, start + len(word), "NAME", text=word, score=0.5))
        start += len(word) + 1
    return spans


def facts(name: str, task: str = "token-classification") -> ModelFacts:
    return ModelFacts(name, task, ("NAME",), "a/base", "lora", 10, 64, "torch", "float32")


def models(**bases: Callable[[str], Answer]) -> ServedModels:
    answers: dict[str, Callable[[str], Answer]] = bases or {"tagger": tag}

    def base_of(name: str, answer_one: Callable[[str], Answer]) -> ServedBase:
        def answer(names: Sequence[str], texts: Sequence[str]) -> list[Answer]:
            assert set(names) == {name}
            return [answer_one(text) for text in texts]

        return ServedBase({name: facts(name)}, answer)

    return ServedModels([base_of(name, answer_one) for name, answer_one in answers.items()])


class Held:
    """A model that answers when it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.read: list[str] = []

    def __call__(self, text: str) -> list[Span]:
        self.go.wait(10)
        self.read.append(text)
        return []
