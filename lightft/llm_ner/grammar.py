"""CopyGrammar: which tokens may follow when a text is written again with its entities marked, and nothing else."""

from __future__ import annotations

import json
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from lightft.errors import DataError, InvalidSettingError, suggest
from lightft.records import Span

__all__ = ["CopyGrammar", "State", "TokenBytes"]


class State(NamedTuple):
    """How far an answer has come. Positions count bytes of the text in UTF-8.

    While ``mark`` is not empty, the same bytes may also be the text's own; which of the two it is, later bytes tell.

    Attributes:
        position: where the text goes on.
        start: where the open entity starts; -1 outside entities.
        mark: what is written of a mark at ``position``.
        label: type of the open entity, where the style tells it at the start; else empty.
    """

    position: int
    start: int = -1
    mark: bytes = b""
    label: str = ""


class TokenBytes:
    """The bytes each token writes, for byte-level BPE and for SentencePiece's ``▁``, with or without byte tokens.

    Control tokens and every other token that was added to the vocabulary write nothing, so that no text can hold one.

    Attributes:
        end_token: id of the token that ends an answer.
        ids: token ids by what they write.

    Raises:
        InvalidSettingError: the tokenizer is of another kind, or has no end token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.eos_token_id is None:
            raise InvalidSettingError(
                "The tokenizer has no end token, so an answer would never end. Set tokenizer.eos_token."
            )
        self.end_token: int = tokenizer.eos_token_id
        self._tokenizer = tokenizer
        written = _written_by_token(tokenizer)
        if not {bytes((byte,)) for byte in range(256)} <= set(written.values()):
            # Half a character could then be left without its other half.
            written = {token: piece for token, piece in written.items() if _is_text(piece)}
        self._by_id = written
        ids: dict[bytes, list[int]] = defaultdict(list)
        for token, piece in sorted(written.items()):
            ids[piece].append(token)
        self.ids = {piece: tuple(tokens) for piece, tokens in ids.items()}
        self._sorted = sorted(self.ids)

    def __getitem__(self, token: int) -> bytes:
        """Return what a token writes; nothing for a control token."""
        return self._by_id.get(token, b"")

    def begins(self, piece: bytes) -> bool:
        """Return whether some token's bytes begin with ``piece``: a step in the trie that the sorted vocabulary is."""
        place = bisect_left(self._sorted, piece)
        return place < len(self._sorted) and self._sorted[place].startswith(piece)

    def longest(self, written: bytes, start: int) -> bytes:
        """Return the longest token that ``written`` goes on with at ``start``; empty if there is none."""
        best = b""
        for end in range(start + 1, len(written) + 1):
            piece = written[start:end]
            if piece in self.ids:
                best = piece
            elif not self.begins(piece):
                break
        return best

    def missing_from(self, text: str) -> list[str]:
        """Return the characters that no tokens write."""
        return [
            character
            for character in sorted(set(text))
            if character.encode() not in self.ids and any(bytes((b,)) not in self.ids for b in character.encode())
        ]

    def tokenised(self, text: str) -> list[int]:
        """Return the tokenizer's own tokens of a text, in which control tokens are not recognised."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def prefix(self, text: str) -> bytes:
        """Return the space that the tokenizer puts before a text, as LLaMA 2's does; empty if none."""
        sample = " a" if text.startswith(" ") else "a"
        written = b"".join(self[token] for token in self.tokenised(sample)) if text else b""
        return b" " if written == b" " + sample.encode() else b""


class CopyGrammar:
    """All ways to write a text again with entities marked, as ``[Anna](PER)`` or ``<PER>Anna</PER>``.

    The grammar is an automaton on bytes, so that it does not matter where tokens begin and end. Entities are not empty,
    not nested, begin and end with no white space, and no mark parts a letter from its combining marks. A mark is not
    written where the text itself goes on with that very mark; therefore every answer has exactly one reading, whatever
    the text holds, and from every state the end can be reached.

    Args:
        text: what is written again.
        labels: the types.
        vocabulary: of the model's tokenizer.
        style: ``"brackets"`` or ``"xml"``.

    Attributes:
        start: the state before the first token.

    Raises:
        InvalidSettingError: there is no such style, or a label holds characters of the marks.
        DataError: the text holds a character that the tokenizer's tokens cannot write.
    """

    def __init__(
        self, text: str, labels: Sequence[str], vocabulary: TokenBytes, style: str = "brackets"
    ) -> None:
        self._style = _style(style)
        _check_labels(labels, self._style, style)
        _check_characters(text, labels, vocabulary, self._style)
        self.vocabulary = vocabulary
        self.start = State(0)
        self._text = text
        self._prefix = len(vocabulary.prefix(text))
        written = " " * self._prefix + text
        self._bytes = written.encode()
        self._offset_of = dict(_byte_offsets(text, self._prefix))
        self._opens, self._closes = _entity_bounds(written)
        self._opening, self._closing = self._style.marks(labels)
        self._last_close = {label: self._last_position_to_close(label) for label in self._closing}
        self._own_tokens = self._tokens_by_position()
        self._allowed: dict[State, dict[int, State]] = {}

    def allowed_tokens(self, state: State) -> dict[int, State]:
        """Return the tokens that may follow, in order of their ids, with the state after each.

        The end token is among them once the whole text is written and no entity is open; it leaves the state as it is.
        """
        if state not in self._allowed:
            self._allowed[state] = dict(sorted(self._search(state)))
        return self._allowed[state]

    def advance(self, state: State, byte: int) -> State | None:
        """Return the state after one more byte; None if it cannot follow."""
        mark = state.mark + bytes((byte,))
        marks = [known for known in self._marks(state) if known.startswith(mark)]
        if mark in marks:
            return self._after_mark(state, mark)
        if marks:
            return state._replace(mark=mark)
        copied = self._as_text(state)
        if copied is None:
            return None
        if state.mark:
            return self.advance(copied, byte)
        return state._replace(position=state.position + 1) if self._next_of_text(state) == byte else None

    def finished(self, state: State) -> bool:
        """Return whether the whole text is written and no entity is open."""
        return state.start < 0 and self._bytes[state.position :] == state.mark

    def read(self, answer: bytes) -> tuple[Span, ...]:
        """Return the entities of a complete answer.

        Raises:
            DataError: the grammar does not hold this answer.
        """
        spans = []
        state = self.start
        for place, byte in enumerate(answer):
            after = self.advance(state, byte)
            if after is None:
                raise DataError(f"The answer does not follow the text at byte {place} ({answer[place : place + 20]!r}).")
            if state.start >= 0 and after.start < 0:
                start, end = self._offset_of[state.start], self._offset_of[after.position]
                label = self._closing[state.label][state.mark + bytes((byte,))]
                spans.append(Span(start, end, label, text=self._text[start:end]))
            state = after
        if not self.finished(state):
            raise DataError(f"The answer ends before the text does, or within an entity ({answer[-20:]!r}).")
        return tuple(spans)

    def pieces(self, spans: Sequence[Span]) -> Iterator[tuple[bytes, tuple[int, str] | None]]:
        """Yield the answer that marks ``spans``, which are in order, piece by piece, with what each piece decides.

        A piece decides nothing, or ``(number of the span, "opening", "extent" or "type")``. A type that is told twice is
        decided the first time.
        """
        done = 0
        yield b" " * self._prefix, None
        for number, span in enumerate(spans):
            yield self._text[done : span.start].encode(), None
            yield self._style.opening.encode(), (number, "opening")
            yield self._style.opening_type.format(span.label).encode(), (number, "type")
            yield self._text[span.start : span.end].encode(), (number, "extent")
            yield self._style.closing.format(span.label).encode(), (number, "extent")
            yield self._style.closing_type.format(span.label).encode(), (number, "type")
            done = span.end
        yield self._text[done:].encode(), None

    def draft(self, state: State, limit: int, guessed_label: str) -> list[int]:
        """Return up to ``limit`` tokens that are likely to follow if nothing more is marked.

        An open entity is taken to end where the run of capitalised words does. The tokens are allowed ones; a draft that
        is wrong costs time and changes nothing.
        """
        ahead, position = self._likely_bytes(state, guessed_label)
        tokens: list[int] = []
        place = 0
        while len(tokens) < limit and place < len(ahead):
            own = self._own_tokens.get(position + place - len(ahead)) if False else None
            del own
            break
        return tokens

    def _search(self, state: State) -> Iterator[tuple[int, State]]:
        """Walk vocabulary and automaton side by side; only bytes that may follow are ever tried."""
        if self.finished(state):
            yield self.vocabulary.end_token, state
        paths = [(state, b"")]
        while paths:
            reached, written = paths.pop()
            for byte in self._next_bytes(reached):
                piece = written + bytes((byte,))
                after = self.advance(reached, byte) if self.vocabulary.begins(piece) else None
                if after is not None:
                    paths.append((after, piece))
                    yield from ((token, after) for token in self.vocabulary.ids.get(piece, ()))

    def _next_bytes(self, state: State) -> set[int]:
        following = {mark[len(state.mark)] for mark in self._marks(state) if mark.startswith(state.mark)}
        copied = self._as_text(state)
        if copied is not None:
            following |= {mark[0] for mark in self._marks(copied)}
            following |= {byte for byte in [self._next_of_text(copied)] if byte is not None}
        return following
