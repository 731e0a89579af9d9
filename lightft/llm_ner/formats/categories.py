"""A dictionary from types to mentions: ``{"PER": ["Antonio Kandir"], "LOC": []}``, in JSON or Python quoting."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from lightft.llm_ner.formats.answer_format import FORMATS, Reading, usable_spans
from lightft.llm_ner.formats.quoted import Tokens
from lightft.llm_ner.formats.structured import Found, read_structure
from lightft.records import Span

__all__ = ["CATEGORIES", "Categories"]

_NOTHING = ("null", "None")


@dataclass(frozen=True)
class Categories:
    """Mentions by type. Places are not told: the n-th mention is taken to stand at its n-th place in the text."""

    name: str = "categories"

    def instruction(self, labels: Sequence[str]) -> str:
        """Return the sentence that asks for the dictionary."""
        del labels
        return (
            "Answer with one JSON object from types to lists of mentions, copied letter by letter, and nothing else. "
            "Leave out types without mentions."
        )

    def write(self, text: str, spans: Sequence[Span]) -> tuple[str, tuple[Span, ...]]:
        """Return the dictionary, types in the order in which they first occur, and the spans outside the text."""
        ordered, left_out = usable_spans(text, spans)
        mentions: dict[str, list[str]] = {}
        for span in ordered:
            mentions.setdefault(span.label, []).append(text[span.start : span.end])
        return json.dumps(mentions, ensure_ascii=False), tuple(left_out)

    def read(self, text: str, answer: str, labels: Sequence[str]) -> Reading:
        """Return the entities of the first dictionary in any answer."""
        return read_structure(text, answer, labels, "{", _mentions)


def _mentions(tokens: Tokens) -> Found:
    mentions: list[tuple[str, str]] = []
    key: str | None = None
    value: str | None = None
    keys = strange = False
    lists = 0
    for token in tokens:
        if token.kind == "value":
            strange |= value is not None
            value = token.text if token.quoted or token.text not in _NOTHING else None
            strange |= not token.quoted and value is not None and not value.isdecimal()
            continue
        if token.text == ":":
            # What stands before a colon is a key, at any depth.
            strange |= value is None
            key, value, keys = value, None, True
            continue
        if value is not None and key is not None:
            mentions.append((key, value))
        strange |= value is not None and key is None
        value = None
        lists += (token.text in "[(") - (token.text in "])")
        if token.text == "," and lists == 0:
            key = None
    if key is not None and value is not None:
        mentions.append((key, value))
    return Found(mentions, is_one=keys, is_empty=not mentions and not strange, strange=strange)


CATEGORIES = Categories()
"""The dictionary of types."""

FORMATS.add("categories", CATEGORIES)
