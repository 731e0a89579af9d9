"""A list with one object for each entity: ``[{"entity": "Antonio Kandir", "type": "PER"}]``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightft.llm_ner.formats.answer_format import FORMATS, Reading, usable_spans
from lightft.llm_ner.formats.quoted import Tokens
from lightft.llm_ner.formats.structured import Found, read_structure
from lightft.records import Span

__all__ = ["OBJECTS", "Objects"]

MENTION_FIELDS = ("entity", "text", "mention", "name")
TYPE_FIELDS = ("type", "label", "category", "entity_type")


@dataclass(frozen=True)
class Objects:
    """Mentions in the order of the text. The n-th mention is taken to stand at its n-th place in the text."""

    name: str = "objects"

    def instruction(self, labels: Sequence[str]) -> str:
        """Return the sentence that asks for the list."""
        del labels
        return (
            'Answer with one JSON list of objects {"entity": mention, "type": type} in the order of the text, mentions '
            "copied letter by letter, and nothing else."
        )

    def write(self, text: str, spans: Sequence[Span]) -> tuple[str, tuple[Span, ...]]:
        """Return the list, and the spans outside the text."""
        ordered, left_out = usable_spans(text, spans)
        rows = [{"entity": text[span.start : span.end], "type": span.label} for span in ordered]
        return json.dumps(rows, ensure_ascii=False), tuple(left_out)

    def read(self, text: str, answer: str, labels: Sequence[str]) -> Reading:
        """Return the entities of the first list of objects, or lone object, in any answer."""
        return read_structure(text, answer, labels, "[{", _mentions)


def _mentions(tokens: Tokens) -> Found:
    mentions: list[tuple[str, str]] = []
    row: dict[str, str] = {}
    field: str | None = None
    value: str | None = None
    strange = anything = fields = False
    for token in tokens:
        if token.kind == "value":
            strange |= value is not None
            value, anything = token.text, True
            continue
        if token.text == ":":
            strange |= value is None
            field, value = value, None
            fields |= field in MENTION_FIELDS or field in TYPE_FIELDS
            continue
        if field is not None and value is not None:
            row[field] = value
        elif value is not None:
            strange = True
        field = value = None
        if token.text in "{}":
            pair = _pair(row)
            mentions += [pair] if pair is not None else []
            strange |= pair is None and bool(row)
            row = {}
    if field is not None and value is not None:
        pair = _pair({**row, field: value})
        mentions += [pair] if pair is not None else []
    return Found(
        mentions, is_one=bool(mentions) or (fields and not tokens.closed), is_empty=not anything, strange=strange
    )


def _pair(row: Mapping[str, str]) -> tuple[str, str] | None:
    mention = next((row[name] for name in MENTION_FIELDS if name in row), None)
    label = next((row[name] for name in TYPE_FIELDS if name in row), None)
    return (label, mention) if label is not None and mention is not None else None


OBJECTS = Objects()
"""The list of objects."""

FORMATS.add("objects", OBJECTS)
