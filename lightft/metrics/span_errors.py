"""What became of every entity: found, wrong in its bounds or type, missed or invented."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from lightft.metrics.metric import gold_and_predicted_spans
from lightft.metrics.tables import ConfusionMatrix, LabelScore, labels_of, score_of_counts
from lightft.records import Prediction, Span
from lightft.spans import split_words

__all__ = ["OUTCOMES", "SpanErrors", "SpanRow", "span_errors", "span_table"]

OUTCOMES = ("found", "wrong bounds", "wrong type", "wrong bounds and type", "missed", "invented")
"""What can become of an entity."""


@dataclass(frozen=True, slots=True)
class SpanRow:
    """What became of one entity.

    Attributes:
        id: of the example.
        gold: the gold entity; None where the prediction is invented.
        predicted: the prediction it was matched with; None where the gold entity was missed.
        outcome: one of ``OUTCOMES``.
    """

    id: str
    gold: Span | None
    predicted: Span | None
    outcome: str


@dataclass(frozen=True)
class SpanErrors:
    """Entities of one run by what became of them.

    Attributes:
        kinds: how many of each: ``"found"``, ``"wrong bounds"``, ``"wrong type"``, ``"wrong bounds and type"``,
            ``"missed"`` (gold entities that no prediction touches, or none that has no better match) and ``"invented"``
            (likewise predictions). All but ``"invented"`` add up to the gold entities, all but ``"missed"`` to the
            predictions.
        confusion: gold type against predicted type of matched entities; ``other`` are missed gold entities.
        invented: by type, how many predictions have no gold entity.
        by_length: precision, recall and F1 by the number of words of the entity: ``"1 word"``, …, ``"4 or more words"``.
            Where a prediction has neither words nor text, by characters: ``"1 to 5 characters"``, ….
        by_position: the same by where in its text the entity starts, counted in words: ``"first third"``,
            ``"middle third"``, ``"last third"``; empty where a prediction has neither words nor text.
        by_novelty: the same for entities whose string is ``"seen in training"`` or ``"new"``; empty where the training
            entities, or the texts, are not known.
    """

    kinds: Mapping[str, int]
    confusion: ConfusionMatrix
    invented: Mapping[str, int]
    by_length: tuple[LabelScore, ...] = ()
    by_position: tuple[LabelScore, ...] = ()
    by_novelty: tuple[LabelScore, ...] = ()


def span_table(predictions: Iterable[Prediction]) -> list[SpanRow]:
    """Return one row for every entity, gold or predicted, in the order of the examples and of the text.

    Gold entities and predictions of an example are matched one to one, the best pair first: same bounds and type, same
    bounds, overlap and same type, overlap; of two overlaps the longer, then the one that stands first. So the rows of an
    example hold each of its entities once, and the same predictions always give the same rows.

    The outcomes are relatives of the correct, incorrect, partial, missing and spurious answers of MUC-5 (Chinchor and
    Sundheim 1993) and of the strict, exact, partial and type scores of SemEval-2013 task 9.1, which the program nervaluate
    counts.

    Raises:
        DataError: a prediction has no gold answer, or an answer that is no spans.
    """
    return [row for prediction in predictions for row in _rows_of(prediction)]


def span_errors(
    predictions: Sequence[Prediction], labels: Sequence[str] = (), seen: Collection[str] | None = None
) -> SpanErrors:
    """Count the rows of ``span_table`` by outcome, by type and by slices of the data.

    Recall of a slice is over the gold entities in it, precision over the predictions in it; found is as in ``span_f1``.

    Args:
        predictions: with gold spans.
        labels: entity types or BIO tags; what else occurs follows them.
        seen: strings of the entities in the training data, case folded; None where they are not known.

    Raises:
        DataError: a prediction has no gold answer, or an answer that is no spans.
    """
    in_words = all(prediction.words is not None or prediction.text is not None for prediction in predictions)
    known = seen if all(prediction.text is not None for prediction in predictions) else None
    tally = _tally(predictions, in_words, known)
    types = labels_of(predictions, labels)
    kinds: Counter[str] = Counter()
    pairs: Counter[tuple[str | None, str | None]] = Counter()
    for (outcome, gold, predicted), count in tally.items():
        kinds[outcome] += count
        pairs[gold and gold.type, predicted and predicted.type] += count
    return SpanErrors(
        kinds={outcome: kinds[outcome] for outcome in OUTCOMES},
        confusion=ConfusionMatrix(
            labels=types,
            counts=tuple(tuple(pairs[gold, predicted] for predicted in types) for gold in types),
            other=tuple(pairs[gold, None] for gold in types),
        ),
        invented={label: pairs[None, label] for label in types},
        by_length=_slice_scores(tally, "length", _WORD_LENGTHS if in_words else _CHARACTER_LENGTHS),
        by_position=_slice_scores(tally, "third", _THIRDS) if in_words else (),
        by_novelty=_slice_scores(tally, "novelty", _NOVELTIES) if known is not None else (),
    )


# Matching


def _rows_of(prediction: Prediction) -> list[SpanRow]:
    gold, predicted = gold_and_predicted_spans(prediction, "span errors")
    missing, odd = gold - predicted, predicted - gold
    # Equal spans, each from its own side: a prediction has a score, which its gold entity lacks.
    found = zip(sorted(gold - missing), sorted(predicted - odd), strict=True)
    rows = [SpanRow(prediction.id, one, other, "found") for one, other in found]
    if missing or odd:
        rows += [SpanRow(prediction.id, one, other, outcome) for one, other, outcome in _best_pairs(missing, odd)]
        rows.sort(key=_place)
    return rows


def _place(row: SpanRow) -> Span:
    return min(span for span in (row.gold, row.predicted) if span is not None)


def _best_pairs(gold: set[Span], predicted: set[Span]) -> Iterator[tuple[Span | None, Span | None, str]]:
    """Yield (gold, predicted, outcome) of spans that have no equal, then what is left of both; empties the sets."""
    for rank, _, one, other in sorted(_candidates(gold, predicted)):
        if one in gold and other in predicted:
            gold.remove(one)
            predicted.remove(other)
            yield one, other, ("wrong type", "wrong bounds", "wrong bounds and type")[rank]
    yield from ((one, None, "missed") for one in gold)
    yield from ((None, other, "invented") for other in predicted)


def _candidates(gold: set[Span], predicted: set[Span]) -> Iterator[tuple[int, int, Span, Span]]:
    """Yield (rank, − characters shared, gold, predicted) of spans that touch; the best pair is the smallest."""
    for one in gold:
        for other in predicted:
            shared = min(one.end, other.end) - max(one.start, other.start)
            if (one.start, one.end) == (other.start, other.end):
                yield 0, -shared, one, other
            elif shared > 0:
                yield (1 if one.label == other.label else 2), -shared, one, other


# Slices of the data

_WORD_LENGTHS = ("1 word", "2 words", "3 words", "4 or more words")
_CHARACTER_LENGTHS = ("1 to 5 characters", "6 to 10 characters", "11 to 20 characters", "21 or more characters")
_THIRDS = ("first third", "middle third", "last third")
_NOVELTIES = ("seen in training", "new")


class _Traits(NamedTuple):
    """What entities are counted together by; third and novelty are ``""`` where they are not known."""

    type: str
    length: str
    third: str
    novelty: str


_Tally = Counter[tuple[str, _Traits | None, _Traits | None]]


def _tally(predictions: Iterable[Prediction], in_words: bool, seen: Collection[str] | None) -> _Tally:
    """Count rows by outcome, traits of the gold entity and traits of the prediction."""
    tally: _Tally = Counter()
    for prediction in predictions:
        rows = _rows_of(prediction)
        words = _words_of(prediction) if rows and in_words else None
        for row in rows:
            gold = _traits(row.gold, words, prediction.text, seen)
            is_same = row.outcome == "found"
            predicted = gold if is_same else _traits(row.predicted, words, prediction.text, seen)
            tally[row.outcome, gold, predicted] += 1
    return tally


def _words_of(prediction: Prediction) -> tuple[tuple[int, int], ...]:
    return prediction.words if prediction.words is not None else split_words(prediction.text or "")


def _traits(
    span: Span | None, words: Sequence[tuple[int, int]] | None, text: str | None, seen: Collection[str] | None
) -> _Traits | None:
    if span is None:
        return None
    novelty = ""
    if seen is not None and text is not None:
        novelty = _NOVELTIES[text[span.start : span.end].casefold() not in seen]
    if words is None:
        return _Traits(span.label, _CHARACTER_LENGTHS[bisect_left((5, 10, 20), span.end - span.start)], "", novelty)
    # The first word that the span covers a character of, and the first one after it.
    first = bisect_right(words, span.start, key=itemgetter(1))
    beyond = bisect_left(words, span.end, lo=first, key=itemgetter(0))
    length = _WORD_LENGTHS[min(max(beyond - first, 1), 4) - 1]
    return _Traits(span.label, length, _THIRDS[min(3 * first // max(len(words), 1), 2)], novelty)


def _slice_scores(tally: _Tally, trait: str, names: Sequence[str]) -> tuple[LabelScore, ...]:
    place = _Traits._fields.index(trait)
    right: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    support: Counter[str] = Counter()
    for (outcome, gold_traits, predicted_traits), count in tally.items():
        if gold_traits is not None:
            support[gold_traits[place]] += count
            right[gold_traits[place]] += count * (outcome == "found")
        if predicted_traits is not None:
            predicted[predicted_traits[place]] += count
    return tuple(score_of_counts(name, right[name], predicted[name], support[name]) for name in names)
