"""JSON that names entities: what may follow at each place of an answer, as grammars for llguidance."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lightft.errors import InvalidSettingError
from lightft.llm_ner.decoding.prefixes import common_prefix
from lightft.llm_ner.decoding.token_bytes import TokenBytes
from lightft.llm_ner.decoding.words import are_in_one_word

__all__ = ["WRITERS", "Mentions", "Segment", "Writer", "check_labels", "words_of"]


@dataclass(frozen=True)
class Segment:
    """A part of an answer: a mention or none, and one of several endings, none of which begins another.

    Attributes:
        endings: how it may end.
        mention: a terminal for the mention that it begins with, whose opening quote stands in the segment before; empty
            if there is none.
        text: that the mention is taken from, in JSON escapes.
    """

    endings: Sequence[str]
    mention: str = ""
    text: str = ""

    def grammar(self) -> str:
        """Return the grammar of the segment, in llguidance's form of Lark."""
        endings = " | ".join(json.dumps(ending) for ending in self.endings)
        if not self.mention:
            return f"{_NOTHING_FORCED}start: {endings}\n"
        return f"{_NOTHING_FORCED}start: MENTION ending\nending: {endings}\n{self.mention}"

    def read(self, written: str) -> tuple[str, str]:
        """Return mention and ending of a whole segment."""
        if not self.mention:
            return "", written
        mention, end = json.JSONDecoder().raw_decode(f'"{written}')
        return mention, written[end - 2 :]

    def likely(self, written: bytes) -> bytes:
        """Return what is likely to follow the beginning of a segment, up to where there is a choice; perhaps nothing."""
        if self.mention:
            begun, written = _split(written)
            if not written:
                return self._rest_of_word(begun)
        rests = [ending.encode()[len(written) :] for ending in self.endings if ending.encode().startswith(written)]
        common = bytes(common_prefix(rests))
        # Signs before a choice are often written by one token with those after it.
        return common if len(rests) == 1 else common.rstrip(b'"}], {[')

    def _rest_of_word(self, begun: bytes) -> bytes:
        """Return the rest of the word in which a mention stands, by the first place of the text that goes on so."""
        place = re.search(rf"(?<!\w){re.escape(begun.decode(errors='ignore'))}", self.text) if begun else None
        if place is None:
            return b""
        end = place.end()
        while end < len(self.text) and are_in_one_word(self.text[end - 1], self.text[end]):
            end += 1
        return self.text[place.end() : end].encode()


class Mentions:
    """The mentions that a text has: runs of its words, and of what stands between them.

    Attributes:
        words: how many words and signs there are. Each alone is a mention, so that of ``words`` mentions, of any length,
            at least one is left while fewer are given.
        escaped_text: the text as it stands between the quotes of JSON.
    """

    def __init__(self, text: str, vocabulary: TokenBytes) -> None:
        self._text = text
        self.escaped_text = _escaped(text)
        missing = set(vocabulary.missing_from(_escaped("".join(c for c in text if not _is_half(c)))))
        self._runs: list[list[str]] = [[]]
        for word in words_of(text):
            if any(_is_half(c) for c in word) or missing & set(_escaped(word)):
                self._runs.append([])
            else:
                self._runs[-1].append(word)
        self.words = sum(not word.isspace() for run in self._runs for word in run)
        self._spaces = sorted({word for run in self._runs for word in run if word.isspace()})

    def count(self, mention: str) -> int:
        """Return at how many places a mention stands, as the formats' readers count them."""
        return self._text.count(mention)

    def terminal(self, exhausted: Iterable[str]) -> str:
        """Return the grammar of the mentions but for those given as often as they stand in the text."""
        runs = [json.dumps({"substring_chunks": [_escaped(word) for word in run]}) for run in self._runs if run]
        left_out = ['""', *(json.dumps(_escaped(mention)) for mention in sorted(exhausted))]
        if self._spaces:
            left_out += ["SPACE CHARACTERS", "CHARACTERS SPACE"]
        lines = [
            "MENTION: RUN & ~LEFT_OUT",
            f"RUN: {' | '.join(f'%regex {run}' for run in runs)}",
            f"LEFT_OUT: {' | '.join(left_out)}",
            # Escape by escape, so that the text's own backslash and n are no line break.
            r"CHARACTERS: /([^\\]|\\[^u]|\\u[0-9a-f]{4})*/",
            f"SPACE: {' | '.join(json.dumps(_escaped(space)) for space in self._spaces)}" if self._spaces else "",
        ]
        return "\n".join(lines) + "\n"


class Writer(Protocol):
    """Knows what of an answer is written, and so what may follow."""

    def segment(self, prefix: str) -> Segment:
        """Return the next part of the answer, the first of which begins with ``prefix``."""

    def take(self, mention: str, ending: str) -> bool:
        """Note what was written; return whether the answer goes on."""


class _Categories:
    """Writes ``{"PER": ["Anna", "Bert"], "LOC": ["Rome"]}``: each type at most once, and none without mentions."""

    def __init__(self, mentions: Mentions, labels: Sequence[str]) -> None:
        self._mentions = mentions
        self._unused = list(labels)
        self._given: Counter[str] = Counter()
        self._begun = False
        # By ending, the type whose mention follows; "" for the end of the answer, None for another of the same type.
        self._next: Mapping[str, str | None] = {}

    def segment(self, prefix: str) -> Segment:
        if not self._begun:
            self._begun = True
            unused = self._unused if self._mentions.words else []
            self._next = {
                f"{prefix}{{}}": "",
                **{f'{prefix}{{"{_escaped(label)}": ["': label for label in unused},
            }
            return Segment(list(self._next))
        self._next = {'"]}': "", **{f'"], "{_escaped(label)}": ["': label for label in self._unused}}
        if self._given.total() + 1 < self._mentions.words:
            self._next['", "'] = None
        exhausted = [mention for mention, times in self._given.items() if times == self._mentions.count(mention)]
        return Segment(list(self._next), self._mentions.terminal(exhausted), self._mentions.escaped_text)

    def take(self, mention: str, ending: str) -> bool:
        if mention:
            self._given[mention] += 1
        label = self._next[ending]
        if label:
            self._unused.remove(label)
            self._given.clear()
        return label != ""


class _Objects:
    """Writes ``[{"entity": "Anna", "type": "PER"}, {"entity": "Rome", "type": "LOC"}]``."""

    def __init__(self, mentions: Mentions, labels: Sequence[str]) -> None:
        self._mentions = mentions
        self._labels = labels
        self._given: Counter[tuple[str, str]] = Counter()
        self._mention = ""
        # By ending, the type that it gives to the mention, and whether another part follows.
        self._next: Mapping[str, tuple[str, bool]] = {}

    def segment(self, prefix: str) -> Segment:
        if not self._next:
            self._next = {f"{prefix}[]": ("", False)}
            if self._mentions.words:
                self._next[f'{prefix}[{{"entity": "'] = ("", True)
            return Segment(list(self._next))
        if not self._mention:
            self._next = {'", "type": "': ("", True)}
            exhausted = [mention for mention in {m for m, _ in self._given} if not self._open_labels(mention)]
            return Segment(list(self._next), self._mentions.terminal(exhausted), self._mentions.escaped_text)
        labels = self._open_labels(self._mention)
        self._next = {f'{_escaped(label)}"}}]': (label, False) for label in labels}
        if self._given.total() + 1 < self._mentions.words * len(self._labels):
            self._next |= {f'{_escaped(label)}"}}, {{"entity": "': (label, True) for label in labels}
        return Segment(list(self._next))

    def take(self, mention: str, ending: str) -> bool:
        label, goes_on = self._next[ending]
        if label:
            self._given[self._mention, label] += 1
        self._mention = mention
        return goes_on

    def _open_labels(self, mention: str) -> list[str]:
        places = self._mentions.count(mention)
        return [label for label in self._labels if self._given[mention, label] < places]


WRITERS: Mapping[str, Callable[[Mentions, Sequence[str]], Writer]] = {"categories": _Categories, "objects": _Objects}
"""By format, what follows a text's mentions and the types."""


def check_labels(labels: Sequence[str], vocabulary: TokenBytes) -> None:
    """Check that a vocabulary can write types and JSON.

    Raises:
        InvalidSettingError: it cannot, or a type is empty or given twice.
    """
    if not labels or len(set(labels)) < len(labels) or not all(labels):
        raise InvalidSettingError(f"Labels are {list(labels)!r}. Give each type once, none empty, and at least one.")
    halves = [character for label in labels for character in label if _is_half(character)]
    missing = halves or vocabulary.missing_from(_escaped("".join(labels)) + '{}[]":, entitytype')
    if missing:
        raise InvalidSettingError(
            f"The tokenizer has no tokens for {', '.join(map(repr, missing[:5]))}, which JSON or the labels need. Rename "
            "the labels, or take a model whose tokenizer works on bytes."
        )


# Where only one text can follow, llguidance would else allow no tokens but those it thinks are the tokenizer's own.
_NOTHING_FORCED = '%llguidance {"no_forcing": true}\n'


def _split(written: bytes) -> tuple[bytes, bytes]:
    """Return the mention that a segment begins with, and what follows from its closing quote on."""
    quote = _QUOTE.search(written)
    end = len(written) if quote is None else quote.end() - 1
    return written[:end], written[end:]


# Not one that a backslash before it escapes.
_QUOTE = re.compile(rb'\A(?:[^"\\]|\\.)*"', re.DOTALL)


def words_of(text: str) -> Iterator[str]:
    """Yield words, and single characters between them, each with the combining marks behind it: together the text."""
    begin = 0
    letter = ""
    for place, character in enumerate(text):
        is_mark = unicodedata.category(character).startswith("M")
        if place > begin and not (not letter.isspace() if is_mark else are_in_one_word(letter, character)):
            yield text[begin:place]
            begin = place
        if not is_mark or place == begin:
            letter = character
    if text:
        yield text[begin:]


def _escaped(text: str) -> str:
    """Return a text as it stands between the quotes of JSON."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _is_half(character: str) -> bool:
    """Return whether this is a surrogate, which UTF-8 cannot write."""
    return "\ud800" <= character <= "\udfff"
