"""Token classification: a BIO tag for every word, read out as spans of characters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightft.errors import DataError, InvalidSettingError, suggest
from lightft.models import ModelLoader
from lightft.records import Example, Prediction, Span
from lightft.spans import (
    allowed_starts,
    allowed_transitions,
    bio_labels,
    spans_to_tags,
    split_words,
    tags_to_word_spans,
)
from lightft.tasks.head import (
    IGNORED,
    TASKS,
    Encoding,
    forward_in_batches,
    pad_batch,
    pad_labels,
    special_tokens_around,
    summed_cross_entropy,
)

__all__ = ["TokenClassification", "best_paths"]

_DECODINGS = ("constrained", "argmax")
# Windows of a long text share this share of their tokens, so that every word is read with context on both sides.
_WINDOW_OVERLAP = 0.25


@TASKS.register("token-classification")
@dataclass(frozen=True)
class TokenClassification:
    """BIO tags over the words of a text, for entity types ``labels``.

    Words are the corpus's own where it has them, else runs of letters and digits and single punctuation marks. A text
    longer than the model's window is read in overlapping windows; each word is answered by the window in which it
    stands farthest from an edge.

    Attributes:
        labels: entity types, without BIO prefixes.
        label_all_subtokens: train on every sub-token of a word instead of its first; never changes what is counted.
        decoding: ``"constrained"`` takes the most probable tag sequence in which each I- follows its own type
            (Viterbi), ``"argmax"`` the most probable tag of each word, of which strict scoring drops stray I- tags.
        tags: the BIO tags in the order of the model's outputs; a checkpoint from elsewhere may have its own order.
    """

    labels: tuple[str, ...]
    label_all_subtokens: bool = False
    decoding: str = "constrained"
    tags: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("span_f1", "span_precision", "span_recall", "span_f1_lenient", "token_accuracy")

    name: ClassVar[str] = "token-classification"
    task_type: ClassVar[str] = "TOKEN_CLS"

    def __post_init__(self) -> None:
        if self.decoding not in _DECODINGS:
            raise InvalidSettingError(f"No decoding named {self.decoding!r}. {suggest(self.decoding, _DECODINGS)}")
        expected = bio_labels(self.labels)
        if self.tags and set(self.tags) != set(expected):
            odd = sorted(set(self.tags) ^ set(expected))
            raise InvalidSettingError(f"The tags are not the BIO tags of {', '.join(self.labels)}: {', '.join(odd)}.")
        object.__setattr__(self, "tags", self.tags or expected)

    def load_model(self, loader: ModelLoader) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load the base model with one output per tag."""
        return loader.replace(task=self.name, labels=self.labels).load_model()

    def encode(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> tuple[list[Encoding], Mapping[str, int]]:
        """Return the windows of each example.

        Counts: ``extra_windows`` beyond one per text, ``unalignable_spans`` whose ends are not word boundaries (they
        cannot be learned, and count as missed), ``words_without_tokens`` that the tokenizer drops.
        """
        counts: Counter[str] = Counter()
        encodings: list[Encoding] = []
        if not examples:
            return encodings, counts
        tokenized = tokenizer(
            [example.text for example in examples], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        before, after = special_tokens_around(tokenizer)
        room = max_length - len(before) - len(after)
        for row, example in enumerate(examples):
            words = _words(example)
            ids, offsets = tokenized["input_ids"][row], tokenized["offset_mapping"][row]
            word_of = _words_of_tokens(example.text, offsets, words)
            gold = self._gold_tags(example, words, counts)
            counts["words_without_tokens"] += len(words) - len(set(word_of) - {-1})
            windows = _windows(len(ids), room)
            counts["extra_windows"] += len(windows) - 1
            answered_in = _best_windows(word_of, windows)
            for window, (start, end) in enumerate(windows):
                answered = [word if answered_in.get(word) == window else -1 for word in word_of[start:end]]
                labels, answers = self._label_tokens(answered, gold, len(before))
                input_ids = [*before, *ids[start:end], *after]
                labels += [IGNORED] * (len(input_ids) - len(labels))
                encodings.append(Encoding(row, input_ids, labels, answers))
        return encodings, +counts

    def collate(self, encodings: Sequence[Encoding], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
        """Return the padded batch; ``labels`` has shape (rows, longest)."""
        batch = pad_batch(encodings, tokenizer)
        return {**batch, "labels": pad_labels(encodings, batch["input_ids"].shape[1])}

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Summed cross-entropy of logits (rows, tokens, tags)."""
        return summed_cross_entropy(logits, labels)

    def predict(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        *,
        max_length: int,
        validating: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> list[Prediction]:
        """Return the spans of each text. A span's score is the mean probability of the tags of its words."""
        del validating
        unlabelled = [replace(example, target=None) for example in examples]
        encodings, _ = self.encode(unlabelled, tokenizer, max_length)
        words = [_words(example) for example in examples]
        # A word without a token of its own reads as outside, or as part of the entity that goes on after it.
        log_probabilities = [self._unread(len(its_words)) for its_words in words]
        for rows, _, logits in forward_in_batches(
            model, encodings, lambda batch: self.collate(batch, tokenizer), progress=progress
        ):
            batch = logits.log_softmax(-1).numpy()
            for place, row in enumerate(rows):
                for word, token in encodings[row].words:
                    log_probabilities[encodings[row].example][word] = batch[place, token]
        return [
            self._prediction(example, its_words, scores)
            for example, its_words, scores in zip(examples, words, self._decode(log_probabilities), strict=True)
        ]

    def _gold_tags(self, example: Example, words: Sequence[tuple[int, int]], counts: Counter[str]) -> list[int] | None:
        if example.target is None:
            return None
        if isinstance(example.target, str):
            raise DataError(
                f"Example {example.id!r} has the target {example.target!r}; token classification needs spans."
            )
        unknown = sorted({span.label for span in example.target} - set(self.labels))
        if unknown:
            raise DataError(
                f"Example {example.id!r} has entities of type {', '.join(unknown)}, which the model does not know. "
                f"It knows: {', '.join(self.labels)}. Load the model with labels=data.labels."
            )
        tags, unalignable = spans_to_tags(example.target, words)
        counts["unalignable_spans"] += len(unalignable)
        return [self.tags.index(tag) for tag in tags]

    def _label_tokens(
        self, word_of: Sequence[int], gold: Sequence[int] | None, before: int
    ) -> tuple[list[int], tuple[tuple[int, int], ...]]:
        """Return the labels of ``before`` special tokens and the tokens of ``word_of``, and the (word, token) answers."""
        labels = [IGNORED] * before
        answers: dict[int, int] = {}
        for token, word in enumerate(word_of):
            is_first = word >= 0 and word not in answers
            if is_first:
                answers[word] = before + token
            if gold is None or word < 0 or not (is_first or self.label_all_subtokens):
                labels.append(IGNORED)
            else:
                labels.append(gold[word] if is_first else self._continued(gold[word]))
        return labels, tuple(answers.items())

    def _continued(self, tag: int) -> int:
        """Return the tag of a further sub-token: B- is kept for the first only."""
        name = self.tags[tag]
        return self.tags.index(f"I-{name[2:]}") if name.startswith("B-") else tag

    def _unread(self, words: int) -> np.ndarray:
        """Return scores of words of which nothing is known: slightly for O, then for I-."""
        preference = {"O": 0.0, "I": -0.01, "B": -0.02}
        row = np.array([preference[tag[0]] for tag in self.tags], dtype=np.float32)
        return np.tile(row, (words, 1))

    def _decode(self, log_probabilities: Sequence[np.ndarray]) -> list[list[tuple[str, float]]]:
        if self.decoding == "argmax":
            paths = [rows.argmax(-1) for rows in log_probabilities]
        else:
            paths = best_paths(
                log_probabilities, np.array(allowed_transitions(self.tags)), np.array(allowed_starts(self.tags))
            )
        return [
            [(self.tags[tag], float(np.exp(row[tag]))) for tag, row in zip(path, rows, strict=True)]
            for path, rows in zip(paths, log_probabilities, strict=True)
        ]

    def _prediction(
        self, example: Example, words: Sequence[tuple[int, int]], scored_tags: Sequence[tuple[str, float]]
    ) -> Prediction:
        tags = tuple(tag for tag, _ in scored_tags)
        spans = tuple(
            Span(
                words[first][0],
                words[end - 1][1],
                label,
                text=example.text[words[first][0] : words[end - 1][1]],
                score=float(np.mean([score for _, score in scored_tags[first:end]])),
            )
            for first, end, label in tags_to_word_spans(tags)
        )
        return Prediction(example.id, example.target, spans, words=tuple(words), tags=tags)


def best_paths(rows: Sequence[np.ndarray], transitions: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
    """Return the most probable allowed tag sequence of each text (Viterbi 1967).

    Args:
        rows: per text, log-probabilities of shape (words, tags).
        transitions: boolean (tags, tags): may the second tag follow the first.
        starts: boolean (tags,): may a text start with the tag.
    """
    paths: list[np.ndarray] = [np.zeros(0, dtype=np.int64)] * len(rows)
    step_cost = np.where(transitions, 0.0, -np.inf).astype(np.float32)
    start_cost = np.where(starts, 0.0, -np.inf).astype(np.float32)
    by_length = sorted((text for text in range(len(rows)) if len(rows[text])), key=lambda text: len(rows[text]))
    for start in range(0, len(by_length), 256):
        texts = by_length[start : start + 256]
        for text, path in zip(texts, _viterbi([rows[text] for text in texts], step_cost, start_cost), strict=True):
            paths[text] = path
    return paths


def _viterbi(rows: Sequence[np.ndarray], step_cost: np.ndarray, start_cost: np.ndarray) -> list[np.ndarray]:
    lengths = np.array([len(text) for text in rows])
    longest, tags = int(lengths.max()), len(start_cost)
    scores = np.zeros((len(rows), longest, tags), dtype=np.float32)
    for text, its_rows in enumerate(rows):
        scores[text, : len(its_rows)] = its_rows
    best = scores[:, 0] + start_cost
    came_from = np.zeros((len(rows), longest, tags), dtype=np.int64)
    for position in range(1, longest):
        reached = best[:, :, None] + step_cost
        came_from[:, position] = reached.argmax(1)
        alive = (position < lengths)[:, None]
        best = np.where(alive, reached.max(1) + scores[:, position], best)
    last = best.argmax(-1)
    paths = []
    for text, length in enumerate(lengths):
        path = [int(last[text])]
        for position in range(length - 1, 0, -1):
            path.append(int(came_from[text, position, path[-1]]))
        paths.append(np.array(path[::-1]))
    return paths


def _words(example: Example) -> tuple[tuple[int, int], ...]:
    return example.words if example.words is not None else split_words(example.text)


def _words_of_tokens(text: str, offsets: Sequence[tuple[int, int]], words: Sequence[tuple[int, int]]) -> list[int]:
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


def _windows(tokens: int, room: int) -> list[tuple[int, int]]:
    """Return ``[start, end)`` of overlapping windows of at most ``room`` tokens that cover all of them."""
    if room < 1:
        raise InvalidSettingError(f"max_length leaves {room} tokens for the text. Use at least 8.")
    if tokens <= room:
        return [(0, tokens)]
    step = max(1, round(room * (1 - _WINDOW_OVERLAP)))
    starts = [*range(0, tokens - room, step), tokens - room]
    return [(start, start + room) for start in starts]


def _best_windows(word_of: Sequence[int], windows: Sequence[tuple[int, int]]) -> dict[int, int]:
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
