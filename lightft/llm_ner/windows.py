"""Windows: a long text is cut into overlapping parts that a model can read, and what it found in them put together."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from lightft.errors import InvalidSettingError
from lightft.llm_ner.documents import Document
from lightft.llm_ner.formats import OUTCOMES
from lightft.records import Span

__all__ = ["merged", "windows_of"]

# A text without spaces has words too, and so has one that is nothing but spaces.
_WORD = re.compile(r"\S{1,16}|\s{16}")

_CUTS = (
    # After a sentence, or an empty line; a small letter behind the full stop means that it was an abbreviation.
    # Chinese and Japanese sentences end without a space.
    re.compile(
        r"""[.!?…]["'”’»)\]]*\s+(?![a-z])|[\u3002\uff01\uff1f\uff0e\uff61]+[\u300d\u300f”’\uff09]*\s*|\n\s*\n\s*"""
    ),
    re.compile(r"\n\s*"),
    re.compile(r"\s+"),
)
"""Where a text may be cut, the best first: each match ends at such a place."""


def windows_of(text: str, words: int, overlap: int) -> list[tuple[int, int]]:
    """Cut a text into overlapping windows, in time linear in its length.

    A word is a run of non-space, or each 16 characters of a longer run. A window ends after a sentence where its last
    quarter holds such a place, else after a line, else after a word, and never inside a character with its combining
    marks (of up to 30 marks, the most that Unicode's stream-safe format has: UAX 15). The windows cover the text, and a
    mention of at most ``overlap`` words lies whole in one of them.

    Args:
        text: any text.
        words: the most words of a window; a text of no more is one window.
        overlap: the fewest words that a window has in common with the next.

    Returns:
        ``(start, end)`` of each window, in characters; one at least.

    Raises:
        InvalidSettingError: ``words`` is below 1, or ``overlap`` not from 0 to half of ``words``.
    """
    if words < 1 or not 0 <= overlap <= words // 2:
        raise InvalidSettingError(
            f"A window of {words} words with an overlap of {overlap}: a window has at least 1 word, and the overlap is "
            "from 0 to half of a window."
        )
    most_overlap = overlap + words // 8
    fewest = max(words - words // 4, most_overlap + 1)
    bounds = []
    start = 0
    while len(found := [match.span() for match in islice(_WORD.finditer(text, start), words + 1)]) > words:
        end = _best_cut(text, found[fewest - 1][1], found[words][0], found[words - 1][1])
        if end == len(text):
            # The word beyond was nothing but marks of the character before it.
            break
        bounds.append((start, end))
        inside = [first for first, _ in found if first < end]
        earliest, latest = inside[-most_overlap:], inside[-overlap:]
        start = min(end, _best_cut(text, earliest[0], latest[0], latest[0])) if overlap else end
    return [*bounds, (start, len(text))]


def _best_cut(text: str, earliest: int, latest: int, otherwise: int) -> int:
    """Return the last of the best places to cut within bounds, moved behind combining marks."""
    for pattern in _CUTS:
        # From one character before, so that a space that ends at the earliest place is seen.
        places = [match.end() for match in pattern.finditer(text, max(0, earliest - 1), latest)]
        if places and places[-1] >= earliest:
            return _behind_marks(text, places[-1])
    return _behind_marks(text, otherwise)


def _behind_marks(text: str, place: int) -> int:
    ends = range(place, min(place + 31, len(text) + 1))
    return next((end for end in ends if not _splits_a_character(text, end)), place)


_JOINER = "\N{ZERO WIDTH JOINER}"


def _splits_a_character(text: str, place: int) -> bool:
    if not 0 < place < len(text):
        return False
    before, after = text[place - 1], text[place]
    return (
        unicodedata.category(after)[0] == "M"
        or _JOINER in (before, after)
        or "\U0001f3fb" <= after <= "\U0001f3ff"  # the skin of the emoji before it
        or ("\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff")
        or before + after == "\r\n"
    )


def merged(text: str, bounds: Sequence[tuple[int, int]], documents: Sequence[Document]) -> Document:
    """Put together what was found in the windows of a text.

    Where several windows show the place of a span whole, the one that sees most around it says whether there is one; a
    window without a usable answer has no say, and one whose answer was cut off only where no other has. What then still
    crosses comes from different windows, and the one that sees more around its span wins. A span inside another of a
    different window stays where one of the two windows gave both. A mention that two windows with an overlap both set
    aside is one that both show, and is listed once.

    Args:
        text: the whole text.
        bounds: of ``windows_of``, perhaps without some that nobody was asked about.
        documents: one for each of these.

    Returns:
        The document of the whole text: its outcome is the worst of any window.
    """
    views = [_View(start, end, document) for (start, end), document in zip(bounds, documents, strict=True)]
    counted = Counter(document.error for document in documents if document.error)
    return Document(
        text=text,
        spans=tuple(_agreed(_kept(views))),
        ungrounded=tuple(_set_aside(bounds, documents)),
        outcome=max((document.outcome for document in documents), key=OUTCOMES.index),
        answers=tuple(chain.from_iterable(document.answers for document in documents)),
        error="; ".join(
            error if len(views) == 1 else f"{error} ({count} of {len(views)} windows)"
            for error, count in counted.items()
        ),
    )


def _set_aside(bounds: Sequence[tuple[int, int]], documents: Sequence[Document]) -> Iterator[tuple[str, str]]:
    """Yield the ungrounded mentions of each window, without those that the window before told of in the overlap."""
    # Counted, so that a mention that one window repeats stays as often; and only what the window before told first can
    # stand in this overlap, since what it repeated stands in the one before.
    told_before: Counter[tuple[str, str]] = Counter()
    end_before = 0
    for (start, end), document in zip(bounds, documents, strict=True):
        repeatable = told_before if start < end_before else Counter()
        told: Counter[tuple[str, str]] = Counter()
        for mention in document.ungrounded:
            if repeatable[mention]:
                repeatable[mention] -= 1
            else:
                told[mention] += 1
                yield mention
        told_before, end_before = told, end


class _View:
    """A window with what was found in it, at the places of the whole text."""

    def __init__(self, start: int, end: int, document: Document) -> None:
        self.start = start
        self.end = end
        self.spans = frozenset(
            Span(span.start + start, span.end + start, span.label, span.text, span.score) for span in document.spans
        )
        self._trust = {"failed": 0, "refused": 0, "truncated": 1}.get(document.outcome, 2)

    def authority(self, span: Span) -> tuple[int, int]:
        """How much its word counts about a place that it shows whole: how it was answered, what it sees around."""
        return self._trust, min(span.start - self.start, self.end - span.end)


@dataclass(frozen=True)
class _Found:
    span: Span
    view: _View

    @property
    def authority(self) -> tuple[int, int]:
        return self.view.authority(self.span)


def _kept(views: Sequence[_View]) -> Iterator[_Found]:
    """Yield the spans of each window about which no other knows better."""
    starts, ends = [view.start for view in views], [view.end for view in views]
    for place, view in enumerate(views):
        for span in view.spans:
            showing = range(bisect_left(ends, span.end), bisect_right(starts, span.start))
            best = max(showing, key=lambda other: (views[other].authority(span), other))
            if best == place:
                yield _Found(span, view)


def _agreed(kept: Iterator[_Found]) -> list[Span]:
    """Return the spans in order, without those that lose against a span of another window."""
    ordered = sorted(kept, key=lambda one: (one.span.start, -one.span.end, one.span.label))
    rivals: dict[int, list[int]] = defaultdict(list)
    reaching: list[int] = []
    for place, one in enumerate(ordered):
        reaching = [other for other in reaching if ordered[other].span.end > one.span.start]
        for other in reaching:
            if _are_rivals(ordered[other], one):
                rivals[place].append(other)
                rivals[other].append(place)
        reaching.append(place)
    lost: set[int] = set()
    for place in sorted(rivals, key=lambda place: ordered[place].authority, reverse=True):
        if place not in lost:
            lost.update(rivals[place])
    return [one.span for place, one in enumerate(ordered) if place not in lost]


def _are_rivals(outer: _Found, inner: _Found) -> bool:
    """Whether two spans, of which the first begins no later and covers the second's start, cannot both stay."""
    if outer.view is inner.view:
        return False
    is_nested = inner.span.end <= outer.span.end and (inner.span.start, inner.span.end) != (
        outer.span.start,
        outer.span.end,
    )
    return not (is_nested and (inner.span in outer.view.spans or outer.span in inner.view.spans))
