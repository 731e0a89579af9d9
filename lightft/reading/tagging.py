"""From a model's scores at the tokens of windows to the entities of whole texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from lightft.reading.classifying import log_softmax
from lightft.reading.decoding import Array, PathScores, best_paths, scores_of_valid_bio, tag_probabilities
from lightft.reading.rows import Encoding
from lightft.reading.windows import TokenizedText
from lightft.records import Example, Prediction, Span
from lightft.spans import tags_to_word_spans

__all__ = ["DECODINGS", "decode_tags", "scores_of_words", "spans_of", "tagged_prediction"]

DECODINGS = ("constrained", "argmax", "crf")
"""How the tags of a text are chosen; what each means stands with the head, TokenClassification."""


def scores_of_words(
    texts: Sequence[TokenizedText],
    rows: Sequence[Encoding],
    batches: Iterable[tuple[Sequence[int], Array]],
    tags: Sequence[str],
) -> list[Array]:
    """Return, per text, the log-probability of each word's tags: an array of shape (words, tags).

    Args:
        texts: what is read.
        rows: the windows of all texts, each with the words it answers.
        batches: positions in ``rows`` and the logits of these, of shape (rows, longest, tags).
        tags: the BIO tags in the order of the model's outputs.
    """
    # A word without a token of its own reads as outside, or as part of the entity that goes on after it.
    words = [_unread(len(text.words), tags) for text in texts]
    for numbers, logits in batches:
        log_probabilities = log_softmax(logits)
        for place, number in enumerate(numbers):
            for word, token in rows[number].words:
                words[rows[number].example][word] = log_probabilities[place, token]
    return words


def decode_tags(
    words: Sequence[Array], tags: Sequence[str], decoding: str, chain: PathScores | None = None
) -> list[list[tuple[str, float]]]:
    """Return the tag of each word of each text, and its probability.

    Args:
        words: what ``scores_of_words`` returned.
        tags: the BIO tags in the order of the model's outputs.
        decoding: one of DECODINGS.
        chain: the learned scores of how tags follow each other, for ``"crf"``.
    """
    probabilities = [np.exp(rows) for rows in words]
    if chain is not None:
        paths = best_paths(words, chain)
        probabilities = tag_probabilities(words, chain)
    elif decoding == "argmax":
        paths = [rows.argmax(-1) for rows in words]
    else:
        paths = best_paths(words, scores_of_valid_bio(tags))
    return [
        [(tags[tag], float(row[tag])) for tag, row in zip(path, rows, strict=True)]
        for path, rows in zip(paths, probabilities, strict=True)
    ]


def spans_of(text: str, words: Sequence[tuple[int, int]], scored_tags: Sequence[tuple[str, float]]) -> tuple[Span, ...]:
    """Return the entities of a text, each with the mean probability of the tags of its words as its score."""
    return tuple(
        Span(
            words[first][0],
            words[end - 1][1],
            label,
            text=text[words[first][0] : words[end - 1][1]],
            score=float(np.mean([score for _, score in scored_tags[first:end]])),
        )
        for first, end, label in tags_to_word_spans([tag for tag, _ in scored_tags])
    )


def tagged_prediction(example: Example, text: TokenizedText, scored_tags: Sequence[tuple[str, float]]) -> Prediction:
    """Return what was answered to an example, from the tag of each of its words and the tag's probability."""
    return Prediction(
        example.id,
        example.target,
        spans_of(example.text, text.words, scored_tags),
        words=text.words,
        tags=tuple(tag for tag, _ in scored_tags),
        pieces=text.pieces,
        text=example.text,
    )


def _unread(words: int, tags: Sequence[str]) -> Array:
    """Return scores of words of which nothing is known: slightly for O, then for I-."""
    preference = {"O": 0.0, "I": -0.01, "B": -0.02}
    row = np.array([preference[tag[0]] for tag in tags], dtype=np.float32)
    return np.tile(row, (words, 1))
