"""Draft: what an answer will probably be, so that a model has only to agree."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from lightft.llm_ner.decoding.copy_grammar import CopyGrammar, Guess, State
from lightft.records import Span

__all__ = ["Drafter", "EntityGuesses"]


class EntityGuesses:
    """Learns from finished answers what the model marks, to guess what it will mark next.

    A name that was seen before is guessed by what became of it; other runs of capitalised words by what became of their
    kind. A wrong guess costs time and changes no answer.

    Args:
        labels: the types.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        # Every type once, so that there is a first guess.
        self._labels = Counter(labels)
        self._by_name: dict[str, Counter[str]] = defaultdict(Counter)
        self._by_kind: dict[str, Counter[str]] = defaultdict(Counter)

    def guesses(self, text: str) -> list[Guess]:
        """Return what looks like a name in a text, in order."""
        return [self._guess(start, end, text[start:end], kind) for start, end, kind in _names(text)]

    def label(self, name: str) -> str:
        """Return the type that a name will probably be given."""
        known = _marked(self._by_name.get(name, Counter()))
        return (known or self._labels).most_common(1)[0][0]

    def learn(self, text: str, spans: Sequence[Span]) -> None:
        """Take in what became of a text."""
        marked = {(span.start, span.end): span.label for span in spans}
        self._labels.update(marked.values())
        names = {(start, end): kind for start, end, kind in _names(text)}
        for (start, end), kind in names.items():
            self._by_kind[kind]["marked" if (start, end) in marked else "not"] += 1
        for start, end in names.keys() | marked.keys():
            self._remember(text[start:end], marked.get((start, end), _NOT_MARKED))

    def _guess(self, start: int, end: int, name: str, kind: str) -> Guess:
        seen = self._by_name.get(name, Counter())
        label = self.label(name)
        in_all = seen.total()
        if in_all >= _ENOUGH_OF_NAME:
            is_marked = _sure(in_all - seen[_NOT_MARKED], in_all)
        else:
            in_all_of_kind = self._by_kind[kind].total()
            # With nothing to go by, the plain text is the best guess.
            is_marked = (
                _sure(self._by_kind[kind]["marked"], in_all_of_kind) if in_all_of_kind >= _ENOUGH_OF_KIND else False
            )
        label_is_sure = _sure(seen[label], _marked(seen).total()) is True
        return Guess(Span(start, end, label), is_marked, label_is_sure)

    def _remember(self, name: str, label: str) -> None:
        # A bounded memory: the newest names are those of the text at hand.
        if name not in self._by_name and len(self._by_name) >= _MOST_NAMES:
            del self._by_name[next(iter(self._by_name))]
        self._by_name[name][label] += 1


_NOT_MARKED = ""
_MOST_NAMES = 100_000
_ENOUGH_OF_NAME = 2
_ENOUGH_OF_KIND = 5
# A wrong draft wastes the tokens behind it, some ten; stopping for a decision costs about one more.
_SURE = 0.9


def _marked(seen: Counter[str]) -> Counter[str]:
    return Counter({label: count for label, count in seen.items() if label != _NOT_MARKED})


def _sure(count: int, in_all: int) -> bool | None:
    """Say yes or no where that was nearly always so, else nothing."""
    if in_all and count >= _SURE * in_all:
        return True
    return False if count <= (1 - _SURE) * in_all else None


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

    def draft(self, state: State, written: bytes, limit: int) -> list[int]:
        """Return up to ``limit`` tokens that will probably follow, at most to the next place where that is unsure.

        The grammar allows them all. They are those the tokenizer makes of the whole answer, because it is on such tokens
        that a model was trained.

        Args:
            state: the grammar's, now.
            written: the bytes of the answer so far.
            limit: of the draft.
        """
        rest, sure = self._grammar.likely_rest(state, self._guesses.guesses(self._text), self._guesses.label)
        answer, end = written + rest, len(written) + sure
        own_tokens = self._tokens_by_position(answer)
        vocabulary = self._grammar.vocabulary
        tokens: list[int] = []
        place = len(written)
        while len(tokens) < limit and place < end:
            token = own_tokens.get(place)
            if token is None:
                token = vocabulary.ids.get(vocabulary.longest(answer, place), (None,))[0]
            reached = None if token is None else self._grammar.allowed_tokens(state).get(token)
            if token is None or reached is None or place + len(vocabulary[token]) > end:
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
