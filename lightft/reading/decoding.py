"""From scores of each word's tags to the best sequence of tags."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightft.spans import allowed_starts, allowed_transitions

__all__ = ["Array", "PathScores", "best_paths", "padded_batches", "scores_of_valid_bio", "tag_probabilities"]

_TEXTS_PER_BATCH = 256

Array = NDArray[Any]


class PathScores(NamedTuple):
    """What a sequence of tags scores beyond the scores of its words; −inf forbids.

    Attributes:
        transitions: (tags, tags), of the second tag directly after the first.
        starts: (tags,), of a text that starts with the tag.
        ends: (tags,), of a text that ends with it.
    """

    transitions: Array
    starts: Array
    ends: Array


def scores_of_valid_bio(tags: Sequence[str]) -> PathScores:
    """Return 0 for what BIO allows and −inf for an I- that follows no tag of its own type."""
    transitions = np.where(np.array(allowed_transitions(tags)), 0.0, -np.inf)
    starts = np.where(np.array(allowed_starts(tags)), 0.0, -np.inf)
    return PathScores(transitions, starts, np.zeros(len(tags)))


def best_paths(rows: Sequence[Array], scores: PathScores) -> list[Array]:
    """Return the tag sequence of the highest score for each text (Viterbi 1967).

    Args:
        rows: per text, the words' scores of shape (words, tags).
        scores: of the sequence itself.
    """
    paths: list[Array] = [np.zeros(0, dtype=np.int64)] * len(rows)
    for texts, lengths, padded in padded_batches(rows):
        for text, length, path in zip(texts, lengths, _viterbi(padded, lengths, scores), strict=True):
            paths[text] = path[:length]
    return paths


def tag_probabilities(rows: Sequence[Array], scores: PathScores) -> list[Array]:
    """Return the marginal probability of each word's tags, over all sequences (forward-backward, Rabiner 1989).

    Args:
        rows: per text, the words' scores of shape (words, tags).
        scores: of the sequence itself.
    """
    probabilities: list[Array] = [np.zeros_like(text) for text in rows]
    for texts, lengths, padded in padded_batches(rows):
        sums = _sums_until(padded, scores) + _sums_after(padded, lengths, scores)
        marginals = np.exp(sums - _log_sum_exp(sums, axis=-1)[..., None])
        for text, length, its_marginals in zip(texts, lengths, marginals, strict=True):
            probabilities[text] = its_marginals[:length]
    return probabilities


def padded_batches(rows: Sequence[Array]) -> Iterator[tuple[list[int], Array, Array]]:
    """Yield ``(texts, lengths, scores)`` of texts of like length, those without words left out.

    ``texts`` are positions in ``rows``; scores have shape (texts, longest, tags), 0 on the padding.
    """
    by_length = sorted((text for text in range(len(rows)) if len(rows[text])), key=lambda text: len(rows[text]))
    for start in range(0, len(by_length), _TEXTS_PER_BATCH):
        texts = by_length[start : start + _TEXTS_PER_BATCH]
        lengths = np.array([len(rows[text]) for text in texts])
        padded = np.zeros((len(texts), lengths.max(), rows[texts[0]].shape[1]))
        for place, text in enumerate(texts):
            padded[place, : lengths[place]] = rows[text]
        yield texts, lengths, padded


def _viterbi(words: Array, lengths: Array, scores: PathScores) -> Array:
    """Return the best paths (texts, longest); what lies beyond a text's end repeats its last tag."""
    texts, longest, tags = words.shape
    best = words[:, 0] + scores.starts
    came_from = np.tile(np.arange(tags), (texts, longest, 1))
    for position in range(1, longest):
        reached = best[:, :, None] + scores.transitions
        alive = (position < lengths)[:, None]
        came_from[:, position] = np.where(alive, reached.argmax(1), came_from[:, position])
        best = np.where(alive, reached.max(1) + words[:, position], best)
    paths = np.empty((texts, longest), dtype=np.int64)
    paths[:, -1] = (best + scores.ends).argmax(-1)
    every_text = np.arange(texts)
    for position in range(longest - 1, 0, -1):
        paths[:, position - 1] = came_from[every_text, position, paths[:, position]]
    return paths


def _sums_until(words: Array, scores: PathScores) -> Array:
    """Return, for each tag of each word, the log-sum of the scores of all sequences that end with it."""
    reached = [scores.starts + words[:, 0]]
    for position in range(1, words.shape[1]):
        arriving = _log_sum_exp(reached[-1][:, :, None] + scores.transitions, axis=1)
        reached.append(arriving + words[:, position])
    return np.stack(reached, axis=1)


def _sums_after(words: Array, lengths: Array, scores: PathScores) -> Array:
    """Return, for each tag of each word, the log-sum of the scores of all ways to go on after it."""
    after = np.tile(scores.ends, (len(words), 1))
    found = [after]
    for position in range(words.shape[1] - 1, 0, -1):
        onward = scores.transitions + (words[:, position] + after)[:, None, :]
        alive = (position < lengths)[:, None]
        after = np.where(alive, _log_sum_exp(onward, axis=-1), scores.ends)
        found.append(after)
    return np.stack(found[::-1], axis=1)


def _log_sum_exp(scores: Array, axis: int) -> Array:
    """Return the logarithm of the sum of exponentials; −inf where all are."""
    highest = scores.max(axis, keepdims=True)
    highest = np.where(np.isneginf(highest), 0.0, highest)
    with np.errstate(divide="ignore"):
        summed: Array = np.log(np.exp(scores - highest).sum(axis)) + highest.squeeze(axis)
    return summed
