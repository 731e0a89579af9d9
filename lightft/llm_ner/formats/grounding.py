"""Where in a text the mentions of an answer stand that gives no places: the n-th mention takes the n-th place."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lightft.records import Span

__all__ = ["ground"]


def ground(
    text: str, mentions: Sequence[tuple[str, str]], labels: Iterable[str]
) -> tuple[tuple[Span, ...], tuple[tuple[str, str], ...]]:
    """Return the spans of ``(type, mention)`` pairs, and the pairs that have no place or an unknown type.

    Longer mentions choose first, so that "York" does not take the end of "New York". Of the places of a mention, those
    that are whole words come before those inside words, and free ones before those that another entity covers; a place
    is given twice only to another type. Searching stops after some 50 times the length of the text (and at least 10
    million characters), so that the time is linear; what is then left is set aside.
    """
    known = set(labels)
    budget = 50 * len(text) + 10_000_000
    covered = bytearray(len(text))
    places: dict[str, _Places] = {}
    spans: list[Span] = []
    grounded: set[int] = set()
    # Sorting keeps the order of mentions of the same length, and so of the same mention.
    for number in sorted(range(len(mentions)), key=lambda number: -len(mentions[number][1])):
        label, mention = mentions[number]
        if not mention or label not in known or len(mention) > len(text):
            continue
        if mention not in places:
            budget -= len(text) + len(mention)
            places[mention] = _Places.of(text, mention if budget > 0 else None)
        start = places[mention].take(label, covered, len(mention))
        if start is not None:
            grounded.add(number)
            covered[start : start + len(mention)] = b"\1" * len(mention)
            spans.append(Span(start, start + len(mention), label, text=mention))
    left = tuple(pair for number, pair in enumerate(mentions) if number not in grounded)
    return tuple(sorted(spans)), left


@dataclass
class _Places:
    """The places of one mention: those not looked at yet, those another entity covers, and those given away."""

    fresh: deque[int]
    covered: deque[int] = field(default_factory=deque)
    given: list[int] = field(default_factory=list)
    # By type, which places it has, and how many of those given away were looked at for it.
    of_type: dict[str, set[int]] = field(default_factory=dict)
    looked_at: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str, mention: str | None) -> _Places:
        """Find the places that do not overlap, whole words first; none for None."""
        words: list[int] = []
        others: list[int] = []
        start = text.find(mention) if mention is not None else -1
        while mention is not None and start >= 0:
            (words if _stands_alone(text, start, start + len(mention)) else others).append(start)
            start = text.find(mention, start + len(mention))
        return cls(deque(words + others))

    def take(self, label: str, covered: bytearray, length: int) -> int | None:
        """Return the best place left for a mention of this type; None if there is none."""
        taken = self.of_type.setdefault(label, set())
        while self.fresh:
            start = self.fresh.popleft()
            # Longer mentions were there before, so that a covered place is covered at one end or the other.
            if covered[start] or covered[start + length - 1]:
                self.covered.append(start)
                continue
            return self._give(start, taken)
        if self.covered:
            return self._give(self.covered.popleft(), taken)
        for position in range(self.looked_at.get(label, 0), len(self.given)):
            self.looked_at[label] = position + 1
            if self.given[position] not in taken:
                taken.add(self.given[position])
                return self.given[position]
        return None

    def _give(self, start: int, taken: set[int]) -> int:
        self.given.append(start)
        taken.add(start)
        return start


def _stands_alone(text: str, start: int, end: int) -> bool:
    before = start > 0 and text[start - 1].isalnum() and text[start].isalnum()
    after = end < len(text) and text[end - 1].isalnum() and text[end].isalnum()
    return not before and not after
