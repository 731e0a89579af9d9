"""CopyGrammar: which tokens may follow when a text is written again with its entities marked, and nothing else."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from lightft.errors import DataError, InvalidSettingError, suggest
from lightft.llm_ner.decoding.token_bytes import TokenBytes
from lightft.llm_ner.decoding.words import are_in_one_word
from lightft.records import Span

__all__ = ["CopyGrammar", "Guess", "State"]


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


@dataclass(frozen=True)
class Guess:
    """What will probably become of a stretch of text.

    Attributes:
        span: the entity it would be.
        is_marked: whether it will be marked; None where that is anybody's guess.
        label_is_sure: whether the type of ``span`` is.
    """

    span: Span
    is_marked: bool | None
    label_is_sure: bool


class CopyGrammar:
    """All ways to write a text again with entities marked, as ``[Anna](PER)`` or ``<PER>Anna</PER>``.

    The grammar is an automaton on bytes, so that it does not matter where tokens begin and end. Entities are not empty,
    not nested, are whole words without white space at their ends, and no mark parts a letter from its combining marks. A
    mark is not written where the text itself goes on with that very mark; therefore every answer has exactly one reading,
    whatever the text holds, and from every state the end can be reached.

    Args:
        text: what is written again.
        labels: the types.
        vocabulary: of the model's tokenizer.
        style: ``"brackets"`` or ``"xml"``.

    Attributes:
        start: the state before the first token.
        prefix: the space that every answer begins with where the tokenizer puts one before a text; else empty.

    Raises:
        InvalidSettingError: there is no such style, or a label holds characters of the marks.
        DataError: the text holds a character that the tokenizer's tokens cannot write.
    """

    def __init__(self, text: str, labels: Sequence[str], vocabulary: TokenBytes, style: str = "brackets") -> None:
        self._style = _style(style)
        _check_labels(labels, self._style, style)
        _check_characters(text, labels, vocabulary, self._style)
        self.vocabulary = vocabulary
        self.start = State(0)
        self._text = text
        self.prefix = vocabulary.prefix(text)
        written = self.prefix.decode() + text
        self._bytes = written.encode()
        self._offset_of = dict(_byte_offsets(text, len(self.prefix)))
        self._position_of = {offset: position for position, offset in self._offset_of.items()}
        self._opens, self._closes = _entity_bounds(written)
        self._opening, self._closing = self._style.marks(labels)
        self._last_close = {label: self._last_position_to_close(label) for label in self._closing}
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
                raise DataError(
                    f"The answer does not follow the text at byte {place} ({answer[place : place + 20]!r})."
                )
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
        yield self.prefix, None
        for number, span in enumerate(spans):
            yield self._text[done : span.start].encode(), None
            yield self._style.opening.encode(), (number, "opening")
            yield self._style.opening_type.format(span.label).encode(), (number, "type")
            yield self._text[span.start : span.end].encode(), (number, "extent")
            yield self._style.closing.format(span.label).encode(), (number, "extent")
            yield self._style.closing_type.format(span.label).encode(), (number, "type")
            done = span.end
        yield self._text[done:].encode(), None

    def likely_rest(self, state: State, guesses: Sequence[Guess], label_of: Callable[[str], str]) -> tuple[bytes, int]:
        """Return how an answer probably goes on from a state to its end, and how many bytes of that are more than a guess.

        Args:
            state: the answer so far.
            guesses: what will probably become of the names in the text, in order.
            label_of: the probable type of a mention, for one that is open.
        """
        written: list[bytes] = []
        copied = self._as_text(state)
        if copied is not None:
            state = copied
        elif state.mark:
            mark = self._likely_mark(state, self._text_between(state.start, state.position), label_of)
            written.append(mark[len(state.mark) :])
            state = self._after_mark(state, mark)
        sure = -1
        if state.start >= 0:
            end = self._likely_end(state, guesses)
            written.append(self._bytes[state.position : end])
            mention = self._text_between(state.start, end)
            state = state._replace(position=end)
            if self._marks(state):
                if not any(self._text_of(guess) == mention and guess.label_is_sure for guess in guesses):
                    sure = sum(map(len, written)) + len(self._style.closing.encode())
                written.append(self._likely_mark(state, mention, label_of))
        done = state.position
        for guess in guesses:
            start, end = self._position_of[guess.span.start], self._position_of[guess.span.end]
            if start < done or guess.is_marked is False:
                continue
            before, after = self._style.around(guess.span.label)
            written.append(self._bytes[done:start])
            type_is_told_first = bool(self._style.opening_type)
            if sure < 0 and (guess.is_marked is None or (type_is_told_first and not guess.label_is_sure)):
                sure = sum(map(len, written))
            written += [before, self._bytes[start:end]]
            if sure < 0 and not guess.label_is_sure:
                sure = sum(map(len, written)) + len(self._style.closing.encode())
            written.append(after)
            done = end
        rest = b"".join([*written, self._bytes[done:]])
        return rest, len(rest) if sure < 0 else sure

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

    def _marks(self, state: State) -> list[bytes]:
        """Return the marks that may stand at the state's position, those already begun among them."""
        position, start, _, open_label = state
        if start < 0:
            if not self._opens[position]:
                return []
            marks = [mark for mark, label in self._opening.items() if self._last_close[label] > position]
        elif position > start and self._closes[position]:
            marks = list(self._closing[open_label])
        else:
            return []
        return [mark for mark in marks if not self._bytes.startswith(mark, position)]

    def _after_mark(self, state: State, mark: bytes) -> State:
        if state.start < 0:
            return State(state.position, start=state.position, label=self._opening[mark])
        return State(state.position)

    def _as_text(self, state: State) -> State | None:
        """Return the state in which what looks like the beginning of a mark is the text's own; None if it is not."""
        if not self._bytes.startswith(state.mark, state.position):
            return None
        position = state.position + len(state.mark)
        if state.start >= 0 and position > self._last_close[state.label]:
            return None
        return state._replace(position=position, mark=b"")

    def _next_of_text(self, state: State) -> int | None:
        """Return the byte of the text that may be copied next; None at its end, and where the entity has to close."""
        end = len(self._bytes) if state.start < 0 else self._last_close[state.label]
        return self._bytes[state.position] if state.position < end else None

    def _last_position_to_close(self, label: str) -> int:
        """Return the last position where an entity may end; -1 if there is none."""
        end = len(self._bytes)
        places = (
            position
            for position in range(end, 0, -1)
            if self._closes[position]
            and not all(self._bytes.startswith(mark, position) for mark in self._closing[label])
        )
        return next(places, -1)

    def _likely_mark(self, state: State, mention: str, label_of: Callable[[str], str]) -> bytes:
        marks = [mark for mark in self._marks(state) if mark.startswith(state.mark)]
        labels = self._opening if state.start < 0 else self._closing[state.label]
        likely = label_of(mention)
        return next((mark for mark in marks if labels[mark] == likely), marks[0])

    def _likely_end(self, state: State, guesses: Sequence[Guess]) -> int:
        """Return where an open entity probably ends: where one was expected to, or with the run of capitalised words."""
        for guess in guesses:
            start, end = self._position_of[guess.span.start], self._position_of[guess.span.end]
            if start == state.start and end > state.position:
                return end
        for begin in (state.start, state.position):
            name = _NAME.match(self._bytes, begin)
            if name and name.end() > state.position:
                return name.end()
        return self._last_close[state.label]

    def _text_of(self, guess: Guess) -> str:
        return self._text[guess.span.start : guess.span.end]

    def _text_between(self, start: int, end: int) -> str:
        return self._bytes[start:end].decode(errors="ignore") if start >= 0 else ""


@dataclass(frozen=True)
class _Style:
    """How an entity is marked: before and after it, each mark with the part that tells its type last."""

    opening: str
    opening_type: str
    closing: str
    closing_type: str
    reserved: str

    def around(self, label: str) -> tuple[bytes, bytes]:
        """Return the marks before and after an entity."""
        before, after = self.opening + self.opening_type, self.closing + self.closing_type
        return before.format(label).encode(), after.format(label).encode()

    def marks(self, labels: Sequence[str]) -> tuple[dict[bytes, str], dict[str, dict[bytes, str]]]:
        """Return what each opening mark tells of the type (empty if nothing), and by that the types of closing marks."""
        opening: dict[bytes, str] = {}
        closing: dict[str, dict[bytes, str]] = defaultdict(dict)
        for label in labels:
            told = label if self.opening_type else ""
            opening[(self.opening + self.opening_type.format(label)).encode()] = told
            closing[told][(self.closing + self.closing_type).format(label).encode()] = label
        return opening, dict(closing)


_STYLES = {
    "brackets": _Style("[", "", "](", "{})", reserved="[]()"),
    "xml": _Style("<", "{}>", "</{}>", "", reserved="<>/"),
}

# A word and the capitalised words after it, in bytes: every byte beyond ASCII counts as a letter.
_NAME = re.compile(rb"[^\w\x80-\xff]*[\w\x80-\xff]+(?:[ .'&-]{1,2}[A-Z\x80-\xff][\w\x80-\xff]*)*")


def _style(name: str) -> _Style:
    if name not in _STYLES:
        raise InvalidSettingError(f"There is no style {name!r}. {suggest(name, _STYLES)}")
    return _STYLES[name]


def _check_labels(labels: Sequence[str], style: _Style, name: str) -> None:
    if not labels or len(set(labels)) < len(labels):
        raise InvalidSettingError(f"Labels are {list(labels)!r}. Give each type once, and at least one.")
    for label in labels:
        if not label or label != label.strip() or set(label) & set(style.reserved):
            raise InvalidSettingError(
                f"{label!r} cannot be a type in style {name!r}: it is empty, has white space around it, or holds one of "
                f"{style.reserved!r}. Rename it."
            )


def _check_characters(text: str, labels: Sequence[str], vocabulary: TokenBytes, style: _Style) -> None:
    surrogates = [character for character in text if "\ud800" <= character <= "\udfff"]
    if surrogates:
        raise DataError(f"The text holds {surrogates[0]!r}, half a character. Decode it with errors='replace'.")
    missing = vocabulary.missing_from("".join([text, *labels, style.reserved]))
    if missing:
        raise DataError(
            f"The tokenizer has no tokens for {', '.join(map(repr, missing[:5]))}, so the text cannot be written again. "
            "Leave these characters out, or take a model whose tokenizer works on bytes."
        )


def _byte_offsets(text: str, prefix: int) -> Iterator[tuple[int, int]]:
    """Yield ``(position in bytes, offset in characters)`` of every character's beginning, and of the end."""
    lengths = (len(character.encode()) for character in text)
    return ((position, offset) for offset, position in enumerate(accumulate(lengths, initial=prefix)))


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def _entity_bounds(text: str) -> tuple[bytearray, bytearray]:
    """Return for each position in bytes whether an entity may begin there, and whether one may end there."""
    size = len(text.encode())
    opens, closes = bytearray(size + 1), bytearray(size + 1)
    letter = ""
    for position, offset in _byte_offsets(text, 0):
        before, after = text[offset - 1 : offset], text[offset : offset + 1]
        # A letter and its combining marks count as the letter.
        letter = letter if before and _is_mark(before) else before
        inside = bool(after) and (_is_mark(after) or are_in_one_word(letter, after))
        opens[position] = bool(after) and not after.isspace() and not inside
        closes[position] = offset > 0 and not before.isspace() and not inside
    return opens, closes
