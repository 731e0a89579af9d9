"""Draft: what an answer will probably be, so that a model has only to agree."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from lightft.llm_ner.decoding.copy_grammar import CopyGrammar, State
from lightft.records import Span

__all__ = ["Drafter", "EntityGuesses"]


class EntityGuesses:
    """Learns from finished answers what the model marks, to guess what it will mark next.

    A name that was marked before is guessed by what became of it most often; other runs of capitalised words as soon as
    more than half of their kind were marked. A wrong guess costs time and changes no answer.

    Args:
        labels: the types.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        # Every type once, so that there is a first guess.
        self._labels = Counter(labels)
        self._by_name: dict[str, Counter[str]] = defaultdict(Counter)
        self._by_kind: dict[str, Counter[bool]] = defaultdict(Counter)

    def spans(self, text: str) -> list[Span]:
        """Return the entities that a text will probably be given, in order."""
        return [
            Span(start, end, self.label(text[start:end]))
            for start, end, kind in _names(text)
            if self._is_marked(text[start:end], kind)
        ]

    def label(self, name: str) -> str:
        """Return the type that a name will probably be given."""
        known = +Counter({label: count for label, count in self._by_name.get(name, Counter()).items() if label})
        return (known or self._labels).most_common(1)[0][0]

    def learn(self, text: str, spans: Sequence[Span]) -> None:
        """Take in what became of a text."""
        marked = {(span.start, span.end): span.label for span in spans}
        self._labels.update(marked.values())
        for start, end, kind in _names(text):
            label = marked.get((start, end), "")
            self._by_kind[kind][bool(label)] += 1
            self._remember(text[start:end], label)
        names = {(start, end) for start, end, _ in _names(text)}
        for (start, end), label in marked.items():
            if (start, end) not in names:
                self._remember(text[start:end], label)

    def _is_marked(self, name: str, kind: str) -> bool:
        known = self._by_name.get(name)
        if known:
            return known[""] <= known.total() // 2
        return self._by_kind[kind][True] > self._by_kind[kind][False]

    def _remember(self, name: str, label: str) -> None:
        # A bounded memory: the newest names are those of the text at hand.
        if name not in self._by_name and len(self._by_name) >= _MOST_NAMES:
            del self._by_name[next(iter(self._by_name))]
        self._by_name[name][label] += 1


class Drafter:
    """Drafts the rest of one answer.

    Args:
        text: what is written again.
        grammar: of the answer.
        guesses: of what will be marked.
    """

    def __init__(self, text: str, grammar: CopyGrammar, guesses: EntityGuesses) -> None:
        self._text = text
        self._grammar = grammar
        self._guesses = guesses
        self._answer = ""
        self._tokens: dict[int, int] = {}

    def draft(self, state: State, written: bytes, limit: int) -> list[int]:
        """Return up to ``limit`` tokens that will probably follow; the grammar allows them all.

        They are those the tokenizer makes of the whole answer, because it is on such tokens that a model was trained.

        Args:
            state: the grammar's, now.
            written: the bytes of the answer so far.
            limit: of the draft.
        """
        answer = written + self._grammar.likely_rest(state, self._guesses.spans(self._text), self._guesses.label)
        own_tokens = self._tokens_by_position(answer)
        vocabulary = self._grammar.vocabulary
        tokens: list[int] = []
        place = len(written)
        while len(tokens) < limit and place < len(answer):
            token = own_tokens.get(place)
            if token is None:
                token = vocabulary.ids.get(vocabulary.longest(answer, place), (None,))[0]
            reached = None if token is None else self._grammar.allowed_tokens(state).get(token)
            if token is None or reached is None:
                break
            tokens.append(token)
            place += len(vocabulary[token])
            state = reached
        return tokens

    def _tokens_by_position(self, answer: bytes) -> dict[int, int]:
        """Return the tokenizer's own tokens of an answer by the position where each begins, as far as they copy it."""
        vocabulary = self._grammar.vocabulary
        tokens: dict[int, int] = {}
        position = 0
        for token in vocabulary.tokenised(answer.removeprefix(self._grammar.prefix).decode()):
            piece = vocabulary[token]
            if not piece or not answer.startswith(piece, position):
                break
            tokens[position] = token
            position += len(piece)
        return tokens


# A run of capitalised words, with what may join two of them.
_CAPITALISED = re.compile(r"[^\W\d_a-z][\w.'-]*(?:[ ]?[&/-]?[ ]?[^\W\d_a-z][\w.'-]*)*")
_MOST_NAMES = 100_000


def _names(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and kind of what looks like a name."""
    for found in _CAPITALISED.finditer(text):
        start = found.start()
        if start and text[start - 1].isalnum():
            continue
        name = found[0] if _INITIALS.fullmatch(found[0]) else found[0].rstrip(".")
        kind = "capitals" if name.isupper() else "first word" if not text[:start].strip() else "inside"
        yield start, start + len(name), kind


_INITIALS = re.compile(r"(?:\w\.)+")
