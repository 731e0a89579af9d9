"""Answers that write the text again with tags in it: offsets are exact, and repeated mentions are kept apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from lightft.errors import InvalidSettingError
from lightft.llm_ner.formats.answer_format import Reading, outcome_of, usable_spans
from lightft.records import Span

__all__ = ["InlineFormat"]


@dataclass(frozen=True)
class InlineFormat:
    """A format of opening and closing tags around each mention.

    The answer is read beside the text: what stands in both at the same place is text, even if it looks like a tag, and
    anything else that looks like a tag is one. A span that this rule would read otherwise (it begins with what opens
    it, or is followed by what closes it), or that overlaps one that starts earlier, cannot be held.

    Attributes:
        name: the registered name.
        tag: a pattern of any tag, with the groups ``opens`` and ``closes``; one of them holds the type, if the tag
            tells it, or is empty.
        opening: the tag before a mention of a type.
        closing: the tag after it.
        forbidden: characters that a type cannot have.
        sentence: asks for the format; ``{mention}`` stands for an example of a mention with its tags.
        slip: a pattern of a closing tag as models write it by mistake, with the group ``closes``; None if they do not.
    """

    name: str
    tag: re.Pattern[str]
    opening: Callable[[str], str]
    closing: Callable[[str], str]
    forbidden: str
    sentence: str
    slip: re.Pattern[str] | None = None

    def instruction(self, labels: Sequence[str]) -> str:
        """Return the sentence that asks for the text with tags."""
        for label in labels:
            self._check(label)
        return self.sentence.replace("{mention}", f"{self.opening('TYPE')}mention{self.closing('TYPE')}")

    def write(self, text: str, spans: Sequence[Span]) -> tuple[str, tuple[Span, ...]]:
        """Return the text with tags, and the spans that it cannot hold."""
        ordered, left_out = usable_spans(text, spans)
        pieces: list[str] = []
        done = 0
        for span in ordered:
            self._check(span.label)
            opening, closing = self.opening(span.label), self.closing(span.label)
            if span.start < done or text.startswith(opening, span.start) or text.startswith(closing, span.end):
                left_out.append(span)
                continue
            pieces += [text[done : span.start], opening, text[span.start : span.end], closing]
            done = span.end
        return "".join([*pieces, text[done:]]), tuple(sorted(left_out))

    def read(self, text: str, answer: str, labels: Sequence[str]) -> Reading:
        """Return the entities of any answer: by walking along the text, and by looking mentions up where that fails."""
        mended = self._mended(text, answer)
        reading = self._read(text, mended, labels)
        return replace(reading, outcome="repaired") if mended != answer and reading.outcome == "ok" else reading

    def _mended(self, text: str, answer: str) -> str:
        """Return an answer whose slips are tags, but for those that the text itself holds."""
        if self.slip is None:
            return answer
        of_the_text = {match.group() for match in self.slip.finditer(text)}
        return self.slip.sub(
            lambda match: match.group() if match.group() in of_the_text else self.closing(match["closes"]), answer
        )

    def _read(self, text: str, answer: str, labels: Sequence[str]) -> Reading:
        known = set(labels)
        if not answer.strip():
            return Reading((), (), "refused" if text.strip() else "ok")
        for start, part, repaired in self._attempts(text, answer):
            walked = self._walk(text, part, start)
            if walked.whole or (walked.truncated and walked.reached > start):
                return _reading(walked.mentions, known, truncated=walked.truncated, repaired=repaired)
        mentions = self._tagged(answer)
        plain = self._without_tags(answer)
        if not mentions and not _repeats(plain, text):
            return Reading((), (), "refused")
        return _aligned(text, plain, mentions, known)

    def _attempts(self, text: str, answer: str) -> Iterator[tuple[int, str, bool]]:
        """Yield ``(where in the text it begins, part of the answer, whether that is a repair)`` of what to walk along."""
        yield 0, answer, False
        # Answers come without the white space at their ends.
        start = len(text) - len(text.lstrip())
        yield start, answer.lstrip(), False
        fence = _FENCE.search(answer)
        if fence is not None:
            yield start, fence["content"].strip(), True

    def _walk(self, text: str, answer: str, place: int) -> _Walked:
        """Walk through answer and text side by side as long as they differ by tags alone."""
        mentions: list[_Mention] = []
        opened: tuple[int, str] | None = None
        position = 0
        for tag in self.tag.finditer(answer):
            between = answer[position : tag.start()]
            if not text.startswith(between, place):
                return _Walked(mentions, place)
            place += len(between)
            position = tag.end()
            if text.startswith(tag.group(), place):
                place += len(tag.group())
            elif tag["opens"] is not None and opened is None:
                opened = place, tag["opens"]
            elif tag["closes"] is not None and opened is not None and opened[1] in ("", tag["closes"]):
                if place == opened[0]:
                    return _Walked(mentions, place)
                mentions.append(_Mention(tag["closes"], text[opened[0] : place], 0, opened[0]))
                opened = None
            else:
                return _Walked(mentions, place)
        rest = answer[position:].rstrip()
        left = text[place:].rstrip()
        if opened is None and rest == left:
            return _Walked(mentions, place, whole=True)
        begun = rest != left and (left.startswith(rest) or self._begins_a_tag(rest, left))
        return _Walked(mentions, place + len(rest), truncated=begun)

    def _begins_a_tag(self, rest: str, left: str) -> bool:
        """Say whether an answer ends in a tag that is half written."""
        same = next((n for n, (a, b) in enumerate(zip(rest, left, strict=False)) if a != b), min(len(rest), len(left)))
        return rest[same:].startswith(self.closing("")[:1]) and len(rest) - same <= _LONGEST_LABEL

    def _tagged(self, answer: str) -> list[_Mention]:
        """Return the tagged mentions of an answer, the innermost of nested ones.

        A mention's ``before`` is its place in the answer without tags.
        """
        mentions: list[_Mention] = []
        opened: tuple[int, int, str] | None = None
        tags = 0
        for tag in self.tag.finditer(answer):
            if tag["opens"] is not None:
                opened = tag.end(), tag.start() - tags, tag["opens"]
            elif opened is not None and opened[2] in ("", tag["closes"]):
                mentions.append(_Mention(tag["closes"], answer[opened[0] : tag.start()], opened[1]))
                opened = None
            tags += len(tag.group())
        return mentions

    def _without_tags(self, answer: str) -> str:
        plain = self.tag.sub("", answer)
        half_written = plain.rfind(self.closing("")[:2], -_LONGEST_LABEL)
        return plain if half_written < 0 else plain[:half_written]

    def _check(self, label: str) -> None:
        wrong = [letter for letter in label if letter in self.forbidden]
        if wrong or not label or label != label.strip() or len(label) > _LONGEST_LABEL:
            raise InvalidSettingError(
                f"The format {self.name!r} cannot write the type {label!r}: a type has 1 to {_LONGEST_LABEL} characters, "
                f"no space at its ends, and none of {' '.join(self.forbidden.strip())}. Rename the type, or use the "
                "format 'categories'."
            )


class _Mention(NamedTuple):
    label: str
    surface: str
    before: int
    start: int | None = None


class _Walked(NamedTuple):
    mentions: list[_Mention]
    reached: int
    whole: bool = False
    truncated: bool = False


_LONGEST_LABEL = 100
_FENCE = re.compile(r"```[^\n`]*\n(?P<content>.*?)(?:\n```|\Z)", re.DOTALL)


def _reading(mentions: Sequence[_Mention], known: set[str], *, truncated: bool, repaired: bool) -> Reading:
    spans = [
        Span(mention.start, mention.start + len(mention.surface), mention.label, text=mention.surface)
        for mention in mentions
        if mention.start is not None and mention.label in known
    ]
    ungrounded = tuple(
        (mention.label, mention.surface) for mention in mentions if mention.start is None or mention.label not in known
    )
    outcome = outcome_of(ungrounded=bool(ungrounded), truncated=truncated, repaired=repaired)
    return Reading(tuple(spans), ungrounded, outcome)


# --- answers that changed the text

_CONTEXTS = (24, 8)
_FARTHEST = 1000


def _aligned(text: str, plain: str, mentions: Sequence[_Mention], known: set[str]) -> Reading:
    """Look up each mention from the end of the one before onwards, with as much of what stands before it as possible.

    A mention that is found by itself alone is the one nearest to where it is expected, within 1,000 characters.
    Comparing stops after some 20 times the length of text and answer, so that the time is linear; what is then left is
    ungrounded.
    """
    budget = 20 * (len(text) + len(plain)) + 100_000
    placed: list[_Mention] = []
    cursor, aligned = 0, 0
    for mention in mentions:
        start = -1
        for width in _CONTEXTS if mention.surface and mention.label in known else ():
            context = plain[max(aligned, mention.before - width) : mention.before]
            if start < 0 <= budget and context:
                found = text.find(context + mention.surface, cursor)
                budget -= (len(text) if found < 0 else found) - cursor + len(context) + len(mention.surface)
                start = found + len(context) if found >= 0 else -1
        if start < 0 <= budget and mention.surface and mention.label in known:
            start = _nearest(text, mention.surface, cursor, cursor + mention.before - aligned)
            budget -= 2 * (_FARTHEST + len(mention.surface))
        if start < 0:
            placed.append(mention)
            continue
        placed.append(mention._replace(start=start))
        cursor, aligned = start + len(mention.surface), mention.before + len(mention.surface)
    return _reading(placed, known, truncated=_ends_early(plain, text, cursor), repaired=True)


def _nearest(text: str, surface: str, cursor: int, expected: int) -> int:
    """Return the place from ``cursor`` on that is nearest to where a mention is expected; -1 if none is near."""
    before = text.rfind(surface, max(cursor, expected - _FARTHEST), expected + len(surface))
    after = text.find(surface, expected, expected + len(surface) + _FARTHEST)
    if before < 0 or (0 <= after < 2 * expected - before):
        return after
    return before


def _ends_early(plain: str, text: str, cursor: int) -> bool:
    """Say whether an answer that is shorter than the text ends with what stands in the middle of it."""
    tail = plain.rstrip()[-12:]
    if len(plain) >= len(text) or text.rstrip().endswith(tail):
        return False
    return tail in text[max(0, cursor - len(tail)) :]


def _repeats(plain: str, text: str) -> bool:
    """Say whether at least half of an answer's words are the text's, and half of the text's words in the answer."""
    written, given = Counter(plain.split()), Counter(text.split())
    common = sum((written & given).values())
    return 2 * common >= max(1, sum(written.values()), sum(given.values()))
