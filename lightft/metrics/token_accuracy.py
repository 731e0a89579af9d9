"""Share of words with the right tag."""

from __future__ import annotations

from dataclasses import dataclass

from lightft.errors import DataError
from lightft.metrics.metric import METRICS, Array, divide, gold_and_predicted_spans
from lightft.records import Prediction
from lightft.spans import spans_to_tags


@METRICS.register("token_accuracy")
@dataclass(frozen=True)
class TokenAccuracy:
    """Words whose BIO tag is right / words. Words outside entities count too, so that it is high for any tagger.

    Equals ``seqeval.metrics.accuracy_score``. Predicted spans are turned into tags where the prediction has no tags
    of its own; without words there is no token accuracy.
    """

    name: str = "token_accuracy"
    unit: str = "fraction"
    higher_is_better: bool = True

    def counts(self, prediction: Prediction) -> tuple[float, float]:
        """Return (words tagged right, words)."""
        gold, predicted = gold_and_predicted_spans(prediction, self.name)
        if prediction.words is None:
            return float("nan"), float("nan")
        gold_tags, _ = spans_to_tags(sorted(gold), prediction.words)
        tags = prediction.tags
        if tags is None:
            tags, _ = spans_to_tags(sorted(predicted), prediction.words)
        if len(tags) != len(gold_tags):
            raise DataError(
                f"Prediction {prediction.id!r} has {len(tags)} tags for {len(gold_tags)} words. Predict again: there "
                "is one tag for each word."
            )
        return float(sum(map(str.__eq__, gold_tags, tags))), float(len(tags))

    def score(self, totals: Array) -> Array:
        """Right tags / words."""
        return divide(totals[..., 0], totals[..., 1])
