"""Entity-level precision, recall and F1 on character spans."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lightft.errors import DataError
from lightft.metrics.metric import METRICS, Array, divide, gold_and_predicted_spans
from lightft.records import Prediction, Span
from lightft.spans import tags_to_word_spans


@dataclass(frozen=True)
class SpanCounts:
    """Base of metrics on three counts: true positives, predicted spans, gold spans.

    A span is found when start, end and label all match.
    """

    name: str
    unit: str = "fraction"
    higher_is_better: bool = True

    def counts(self, prediction: Prediction) -> tuple[float, ...]:
        """Return (true positives, predicted spans, gold spans)."""
        gold, predicted = gold_and_predicted_spans(prediction, self.name)
        return len(gold & predicted), len(predicted), len(gold)


@METRICS.register("span_f1")
@dataclass(frozen=True)
class SpanF1(SpanCounts):
    """Micro F1 over entities: 2 tp / (predicted + gold).

    Predicted spans were read from tags by strict BIO, so that this equals seqeval's *strict* mode; see
    ``span_f1_lenient`` for its default mode. Undefined where there was nothing to find and nothing was found. Compare it
    with numbers of taggers on words and their gold tags, such as those on CoNLL-2003; where predicted tags are valid BIO,
    as constrained decoding makes them, conlleval gives the same. Not for numbers over strings or sub-tokens.
    """

    name: str = "span_f1"

    def score(self, totals: Array) -> Array:
        """F1 of summed counts."""
        return divide(2 * totals[..., 0], totals[..., 1] + totals[..., 2])


@METRICS.register("span_precision")
@dataclass(frozen=True)
class SpanPrecision(SpanCounts):
    """Share of the predicted spans that are gold: tp / predicted. Undefined where nothing was predicted."""

    name: str = "span_precision"

    def score(self, totals: Array) -> Array:
        """Precision of summed counts."""
        return divide(totals[..., 0], totals[..., 1])


@METRICS.register("span_recall")
@dataclass(frozen=True)
class SpanRecall(SpanCounts):
    """Share of the gold spans that were predicted: tp / gold. Undefined where there was nothing to find."""

    name: str = "span_recall"

    def score(self, totals: Array) -> Array:
        """Recall of summed counts."""
        return divide(totals[..., 0], totals[..., 2])


@METRICS.register("span_f1_lenient")
@dataclass(frozen=True)
class SpanF1Lenient(SpanF1):
    """Micro F1 with tags read leniently: an I- that continues nothing starts an entity (seqeval's default mode).

    It gives the prediction ``I-PER I-PER`` full marks for gold ``B-PER I-PER``. Compare it with numbers of scripts that
    call seqeval without a mode, as transformers' token classification examples and *evaluate* do, and with conlleval's,
    which reads tags the same way. Never for choosing between taggers: it forgives tags that no strict reader accepts. A
    prediction without tags is scored by its spans.
    """

    name: str = "span_f1_lenient"

    def counts(self, prediction: Prediction) -> tuple[float, ...]:
        """Return (true positives, predicted spans, gold spans)."""
        gold, predicted = gold_and_predicted_spans(prediction, self.name)
        if prediction.tags is not None:
            predicted = _spans_of_lenient_tags(prediction)
        return len(gold & predicted), len(predicted), len(gold)


@METRICS.register("span_f1_macro")
@dataclass(frozen=True)
class SpanF1Macro:
    """Unweighted mean of the F1 of each entity type, over the types that are gold or predicted somewhere.

    Equals seqeval's macro average in strict mode. A predicted span whose type is none of the labels raises, since
    it would go uncounted.
    """

    labels: tuple[str, ...]
    name: str = "span_f1_macro"
    unit: str = "fraction"
    higher_is_better: bool = True

    @cached_property
    def _position(self) -> dict[str, int]:
        return {label: position for position, label in enumerate(self.labels)}

    def counts(self, prediction: Prediction) -> tuple[float, ...]:
        """Return 3 × types counts: all true positives, then all predicted, then all gold.

        Raises:
            DataError: a span's type is none of the labels.
        """
        gold, predicted = gold_and_predicted_spans(prediction, self.name)
        row = np.zeros((3, len(self.labels)))
        for kind, spans in enumerate((gold & predicted, predicted, gold)):
            for span in spans:
                if span.label not in self._position:
                    raise DataError(
                        f"{self.name!r} cannot score prediction {prediction.id!r}: it holds a span of type "
                        f"{span.label!r}, and the labels are {', '.join(self.labels)}. Pass every type that occurs."
                    )
                row[kind, self._position[span.label]] += 1
        return tuple(row.ravel())

    def score(self, totals: Array) -> Array:
        """Mean F1 of the types that occur."""
        hits, predicted, gold = np.moveaxis(totals.reshape(*totals.shape[:-1], 3, len(self.labels)), -2, 0)
        f1 = divide(2 * hits, predicted + gold)
        occurs = ~np.isnan(f1)
        return divide(np.where(occurs, f1, 0).sum(axis=-1), occurs.sum(axis=-1))


def _spans_of_lenient_tags(prediction: Prediction) -> set[Span]:
    tags, words = prediction.tags or (), prediction.words
    if words is None or len(words) != len(tags):
        raise DataError(
            f"Prediction {prediction.id!r} has {len(tags)} tags for {0 if words is None else len(words)} words. "
            "Predict again: there is one tag for each word."
        )
    return {
        Span(words[first][0], words[beyond - 1][1], label)
        for first, beyond, label in tags_to_word_spans(tags, "BIO", lenient=True)
    }
