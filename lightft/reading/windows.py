"""Words, tokens and windows: which tokens are a word's, and which window of a long text answers it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from lightft.errors import InvalidSettingError
from lightft.records import Example
from lightft.spans import split_words

__all__ = [
    "Offsets",
    "TokenizedText",
    "Tokenizing",
    "Window",
    "best_windows",
    "read_windows",
    "special_tokens_around",
    "tokenize_words",
    "windows_of",
    "words_of",
    "words_of_tokens",
]

Offsets = Sequence[tuple[int, int]]
"""``(start, end)`` of each token in its text, in characters."""

Tokenizing = Callable[[list[str]], Iterable[tuple[list[int], Offsets]]]
"""From texts to each text's token ids, without special tokens, and where the tokens stand."""

# Windows of a long text share this share of their tokens, so that every word is read with context on both sides.
_WINDOW_OVERLAP = 0.25


@dataclass(frozen=True)
class TokenizedText:
    """The words and tokens of a text, without special tokens.

    Attributes:
        words: ``(start, end)`` of each word.
        input_ids: of each token.
        word_of: the number of the word each token belongs to, −1 for none.
    """

    words: tuple[tuple[int, int], ...]
    input_ids: list[int]
    word_of: list[int]

    @cached_property
    def pieces(self) -> tuple[int, ...]:
        """How many tokens each word has; 0 where the tokenizer drops it."""
        tokens = Counter(self.word_of)
        return tuple(tokens[word] for word in range(len(self.words)))


@dataclass(frozen=True)
class Window:
    """A stretch of a text's tokens that the model reads at once.

    Attributes:
        input_ids: of each token, without special tokens.
        word_of: the number of the word that the window answers at each token; −1 where it answers none.
    """

    input_ids: list[int]
    word_of: list[int]

    def answers(self, before: int) -> tuple[tuple[int, int], ...]:
        """Return ``(word, token)`` of each word's first token, in a row that has ``before`` special tokens in front."""
        first_token: dict[int, int] = {}
        for token, word in enumerate(self.word_of):
            if word >= 0:
                first_token.setdefault(word, before + token)
        return tuple(first_token.items())


def tokenize_words(examples: Sequence[Example], tokenize: Tokenizing) -> list[TokenizedText]:
    """Return the words and tokens of each example."""
    texts = []
    tokenized = tokenize([example.text for example in examples]) if examples else ()
    for example, (ids, offsets) in zip(examples, tokenized, strict=True):
        words = words_of(example)
        texts.append(TokenizedText(words, ids, words_of_tokens(example.text, offsets, words)))
    return texts


def read_windows(text: TokenizedText, room: int) -> list[Window]:
    """Return the windows of at most ``room`` tokens in which a text is read; each word is answered by one of them."""
    windows = windows_of(len(text.input_ids), room)
    answered_in = best_windows(text.word_of, windows)
    return [
        Window(
            text.input_ids[start:end],
            [word if answered_in.get(word) == window else -1 for word in text.word_of[start:end]],
        )
        for window, (start, end) in enumerate(windows)
    ]


def special_tokens_around(bare: list[int], whole: list[int]) -> tuple[list[int], list[int]] | None:
    """Return the ids that stand before and after a text.

    Args:
        bare: the text's tokens alone.
        whole: the same text's with special tokens.

    Returns:
        None where the text's own tokens are not among ``whole`` as they are.
    """
    for before in range(len(whole) - len(bare) + 1):
        if whole[before : before + len(bare)] == bare:
            return whole[:before], whole[before + len(bare) :]
    return None


def words_of(example: Example) -> tuple[tuple[int, int], ...]:
    """Return ``(start, end)`` of each word: the corpus's own where it has them, else those of running text."""
    return example.words if example.words is not None else split_words(example.text)


def words_of_tokens(text: str, offsets: Offsets, words: Sequence[tuple[int, int]]) -> list[int]:
    """Return the number of the word each token belongs to, −1 for none.

    A token belongs to the first word it covers a character of. Offsets of some tokenizers include the space before a
    word, so white space at a token's edges is left out before looking.
    """
    belongs = []
    word = 0
    for start, end in offsets:
        while start < end and text[start].isspace():
            start += 1
        while word < len(words) and words[word][1] <= start:
            word += 1
        inside = word < len(words) and start < end and words[word][0] < end
        belongs.append(word if inside else -1)
    return belongs


def windows_of(tokens: int, room: int) -> list[tuple[int, int]]:
    """Return ``[start, end)`` of overlapping windows of at most ``room`` tokens that cover all of them."""
    if room < 1:
        raise InvalidSettingError(f"max_length leaves {room} tokens for the text. Use at least 8.")
    if tokens <= room:
        return [(0, tokens)]
    step = max(1, round(room * (1 - _WINDOW_OVERLAP)))
    starts = [*range(0, tokens - room, step), tokens - room]
    return [(start, start + room) for start in starts]


def best_windows(word_of: Sequence[int], windows: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Return, for each word, the window in which its first token stands farthest from an edge of the window.

    The text's own ends are no edges: nothing is cut off there.
    """
    first_token: dict[int, int] = {}
    for token, word in enumerate(word_of):
        if word >= 0:
            first_token.setdefault(word, token)
    if len(windows) == 1:
        return dict.fromkeys(first_token, 0)
    last = windows[-1][1]

    def context(token: int, window: tuple[int, int]) -> float:
        start, end = window
        if not start <= token < end:
            return -1.0
        left = token - start if start > 0 else float("inf")
        right = end - 1 - token if end < last else float("inf")
        return min(left, right)

    return {
        word: max(range(len(windows)), key=lambda number: context(token, windows[number]))
        for word, token in first_token.items()
    }
