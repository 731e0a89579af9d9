"""span_scores_of_answer: how sure a model was of each entity, from the probabilities of the tokens it wrote."""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from lightft.errors import DataError
from lightft.llm_ner.formats import FORMATS, AnswerFormat
from lightft.llm_ner.formats.categories import CATEGORIES
from lightft.llm_ner.formats.objects import MENTION_FIELDS, OBJECTS, TYPE_FIELDS
from lightft.llm_ner.formats.quoted import Token, Tokens
from lightft.records import Span

__all__ = ["span_scores_of_answer"]


def span_scores_of_answer(
    answer_text: str, pieces: Sequence[tuple[str, float]], spans: Sequence[Span], format: str
) -> tuple[float | None, ...]:
    """Return the product of the probabilities of the tokens that wrote each span.

    In an inline format these are all tokens that reach into the mention or its tags. In the dictionary they are those of
    the quoted mention; the type is a key that several mentions share, and does not count. In the list of objects they are
    those of the quoted mention and of its type. The n-th of equal mentions is taken to be written at its n-th place.

    Args:
        answer_text: what the model wrote.
        pieces: each token of the answer as text, with its natural log-probability. There may be more before and after the
            answer. Where the two differ in the middle, only what both begin and end with is used.
        spans: read from the answer, each with its text.
        format: the name of the answer's format.

    Returns:
        One score per span, 0 to 1; None for a span that is not found in the answer or in the pieces.

    Raises:
        DataError: a span has no text.
        UnknownNameError: there is no such format.
    """
    answer_format = FORMATS[format]
    for span in spans:
        if span.text is None:
            raise DataError(f"The {span.label} span at {span.start} has no text. Take spans as they were read.")
    if answer_format is CATEGORIES:
        places = _listed(_category_mentions(answer_text), spans)
    elif answer_format is OBJECTS:
        places = _listed(_object_mentions(answer_text), spans)
    else:
        places = _verbatim(answer_text, spans, answer_format)
    written = _Pieces(answer_text, pieces)
    return tuple(None if place is None else written.probability(place) for place in places)


_Place = tuple[tuple[int, int], ...]
"""Where in an answer an entity is written: ``(start, end)`` of its parts."""


class _Mention(NamedTuple):
    label: str
    text: str
    place: _Place


def _verbatim(answer: str, spans: Sequence[Span], answer_format: AnswerFormat) -> list[_Place | None]:
    """Look for each mention as the format writes it, in the order of the text.

    In an answer that repeats the text exactly it stands where the tags before it push it; that is looked at first, for
    the text may itself hold what looks like a tagged mention. In another answer it is the next one that looks so.
    """
    places: list[_Place | None] = [None] * len(spans)
    cursor = pushed = 0
    for number in sorted(range(len(spans)), key=lambda number: spans[number]):
        span, surface = spans[number], spans[number].text or ""
        written, _ = answer_format.write(surface, [Span(0, len(surface), span.label)])
        expected = max(cursor, span.start + pushed)
        start = expected if answer.startswith(written, expected) else answer.find(written, cursor)
        pushed += len(written) - len(surface)
        if start >= 0:
            cursor = start + len(written)
            places[number] = ((start, cursor),)
    return places


def _listed(mentions: Iterable[_Mention], spans: Sequence[Span]) -> list[_Place | None]:
    """Give the n-th of the spans with the same type and text the n-th place where these are written."""
    written: dict[tuple[str, str | None], deque[_Place]] = defaultdict(deque)
    for mention in mentions:
        written[mention.label, mention.text].append(mention.place)
    places: list[_Place | None] = [None] * len(spans)
    for number in sorted(range(len(spans)), key=lambda number: spans[number]):
        left = written[spans[number].label, spans[number].text]
        places[number] = left.popleft() if left else None
    return places


def _category_mentions(answer: str) -> list[_Mention]:
    """Return the mentions of the first dictionary that has any, as the format reads them."""
    for tokens in _structures(answer, "{"):
        mentions: list[_Mention] = []
        key = value = None
        depth = 0
        for token, start, end in tokens:
            if token.kind == "value":
                value = token.text, start, end
            elif token.text == ":":
                key, value = value, None
            else:
                if key is not None and value is not None:
                    mentions.append(_Mention(key[0], value[0], (value[1:],)))
                value = None
                depth += (token.text in "[(") - (token.text in "])")
                key = None if token.text == "," and depth == 0 else key
        if mentions:
            return mentions
    return []


def _object_mentions(answer: str) -> list[_Mention]:
    """Return the mentions of the first list of objects that has any, as the format reads them."""
    for tokens in _structures(answer, "[{"):
        mentions: list[_Mention] = []
        row: dict[str, tuple[str, int, int]] = {}
        field = value = None
        for token, start, end in tokens:
            if token.kind == "value":
                value = token.text, start, end
            elif token.text == ":":
                field, value = value, None
            else:
                if field is not None and value is not None:
                    row[field[0]] = value
                field = value = None
                if token.text in "{}":
                    mentions += _mentions_of_row(row)
                    row = {}
        if mentions:
            return mentions
    return []


def _mentions_of_row(row: Mapping[str, tuple[str, int, int]]) -> Iterator[_Mention]:
    mention = next((row[name] for name in MENTION_FIELDS if name in row), None)
    label = next((row[name] for name in TYPE_FIELDS if name in row), None)
    if mention is not None and label is not None:
        yield _Mention(label[0], mention[0], (mention[1:], label[1:]))


def _structures(answer: str, openers: str) -> Iterator[list[tuple[Token, int, int]]]:
    """Yield the tokens of each dictionary or list with their places; one that is cut off is closed."""
    opening = re.compile(f"[{re.escape(openers)}]")
    position = 0
    while (begin := opening.search(answer, position)) is not None:
        tokens = Tokens(answer, begin.start())
        placed: list[tuple[Token, int, int]] = []
        for token in tokens:
            done = placed[-1][2] if placed else tokens.start
            written = answer[done : tokens.end]
            placed.append((token, tokens.end - len(written.lstrip()), tokens.end))
        position = tokens.end
        yield [*placed, (Token("mark", "}"), position, position)]


class _Pieces:
    """The tokens of an answer, by their places in it."""

    def __init__(self, answer: str, pieces: Sequence[tuple[str, float]]) -> None:
        self._log_probabilities = [log_probability for _, log_probability in pieces]
        self._ends = list(accumulate(len(piece) for piece, _ in pieces))
        self._starts = [0, *self._ends[:-1]]
        joined = "".join(piece for piece, _ in pieces)
        found = joined.find(answer)
        self._shift_of_head = max(found, 0)
        self._head = len(answer) if found >= 0 else _same_beginning(answer, joined)
        tail = _same_beginning(answer[::-1], joined[::-1])
        self._tail = len(answer) - min(tail, min(len(answer), len(joined)) - self._head)
        self._shift_of_tail = len(joined) - len(answer)

    def probability(self, place: _Place) -> float | None:
        """Return the product over all tokens that reach into a place, each once; None where they are not known."""
        numbers: set[int] = set()
        for start, end in place:
            if end <= self._head:
                shift = self._shift_of_head
            elif start >= self._tail:
                shift = self._shift_of_tail
            else:
                return None
            numbers.update(self._reaching_into(start + shift, end + shift))
        # Log-probabilities of 32 bits may add up to a hair above 0.
        return min(1.0, math.exp(math.fsum(self._log_probabilities[number] for number in numbers)))

    def _reaching_into(self, start: int, end: int) -> range:
        # The bytes of a letter may be several tokens, all but one without text: they stand where the letter begins.
        first = min(bisect_right(self._ends, start), bisect_left(self._starts, start))
        return range(first, bisect_left(self._starts, end))


def _same_beginning(one: str, other: str) -> int:
    differing = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))
