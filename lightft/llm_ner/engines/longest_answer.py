"""longest_answer: what an engine must give a model room for, whatever the format."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightft.llm_ner.decoding.json_grammar import words_of
from lightft.llm_ner.formats import FORMATS
from lightft.records import Span

__all__ = ["longest_answer"]


def longest_answer(text: str, labels: Sequence[str], format: str, *, length: Callable[[str], int] = len) -> str:
    """Return the answer in which each word is an entity of the longest type, and the first of every type.

    Args:
        text: what is asked about.
        labels: the types that are asked for; where there are none, nothing is marked.
        format: the name of the answer format.
        length: of a type.
    """
    words = _places_of_words(text)
    longest = max(labels, key=length, default=None)
    spans = [] if longest is None else [Span(start, end, longest) for start, end in words]
    spans += [Span(start, end, label) for start, end in words[:1] for label in labels]
    answer, _ = FORMATS[format].write(text, spans)
    return answer


def _places_of_words(text: str) -> list[tuple[int, int]]:
    """Return start and end of each word with a letter or digit."""
    places = []
    start = 0
    for word in words_of(text):
        if any(character.isalnum() for character in word):
            places.append((start, start + len(word)))
        start += len(word)
    return places
