"""Any metric of Hugging Face *evaluate*, by the name ``evaluate:NAME`` or ``evaluate:NAME:KEY``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lightft.errors import DataError, InvalidSettingError
from lightft.metrics.metric import gold_and_predicted_spans, gold_and_predicted_text
from lightft.records import Prediction
from lightft.spans import spans_to_tags

PREFIX = "evaluate:"

_LOWER_IS_BETTER = frozenset(
    {
        "brier_score",
        "cer",
        "character",
        "mae",
        "mape",
        "mase",
        "mse",
        "perplexity",
        "rl_reliability",
        "smape",
        "ter",
        "wer",
    }
)


@dataclass(frozen=True)
class EvaluateMetric:
    """A metric of the *evaluate* library, which fetches its program from the Hub at the first use.

    Classes are passed as their positions among the labels, spans as BIO tags of the words, other texts as they are.
    Its scores come without intervals: each one costs a call of somebody else's program.

    Args:
        path: what ``evaluate.load`` takes (a name on the Hub or a local folder), and after another colon which
            number of the result to read, e.g. ``rouge:rougeL``. Without it, the one called like the metric, or the
            only one.
        labels: the classes in order.
    """

    path: str
    labels: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name it was asked for by."""
        return PREFIX + self.path

    @property
    def unit(self) -> str:
        """Not known: the library does not say."""
        return "score"

    @property
    def higher_is_better(self) -> bool:
        """Known for error rates by name; anything else is taken to be better when higher."""
        return self._module_name not in _LOWER_IS_BETTER

    def score(self, predictions: Sequence[Prediction]) -> float:
        """Return the number that the metric gives for all predictions together.

        Raises:
            DataError: the metric cannot be loaded, or a prediction does not fit it.
            InvalidSettingError: its result holds several numbers and none was named.
        """
        golds, answers = zip(*(self._pair(prediction) for prediction in predictions), strict=True)
        result = self._module.compute(references=list(golds), predictions=list(answers))
        return _number_of(result, self._key or self._module_name.rsplit("/", 1)[-1], self.name, named=bool(self._key))

    @property
    def _module_name(self) -> str:
        return self.path.partition(":")[0]

    @property
    def _key(self) -> str:
        return self.path.partition(":")[2]

    @cached_property
    def _module(self) -> Any:
        # Imported here because it brings the whole of datasets with it, which no other metric needs.
        import evaluate

        try:
            return evaluate.load(self._module_name)
        except (OSError, ValueError) as cause:
            raise DataError(
                f"The metric {self.name!r} cannot be loaded: {cause}. evaluate.load fetches it from the Hub unless it "
                "is in the cache; without network, name a folder that holds it, or use one of lightft's own metrics."
            ) from cause

    def _pair(self, prediction: Prediction) -> tuple[Any, Any]:
        if not isinstance(prediction.gold, str):
            gold, predicted = gold_and_predicted_spans(prediction, self.name)
            if prediction.words is None:
                raise DataError(
                    f"{self.name!r} takes tags, but prediction {prediction.id!r} has no words to tag. Use 'span_f1'."
                )
            tags = prediction.tags or spans_to_tags(sorted(predicted), prediction.words)[0]
            return list(spans_to_tags(sorted(gold), prediction.words)[0]), list(tags)
        texts = gold_and_predicted_text(prediction, self.name)
        if not self.labels:
            return texts
        if not set(texts) <= set(self.labels):
            raise DataError(
                f"{self.name!r} cannot score prediction {prediction.id!r}: its gold or predicted class is none of the "
                f"labels ({', '.join(self.labels)}). Pass every label that occurs."
            )
        return self.labels.index(texts[0]), self.labels.index(texts[1])


def _number_of(result: Mapping[str, Any], key: str, name: str, *, named: bool) -> float:
    numbers = {entry: value for entry, value in result.items() if isinstance(value, int | float)}
    if key in numbers:
        return float(numbers[key])
    if len(numbers) == 1 and not named:
        return float(next(iter(numbers.values())))
    raise InvalidSettingError(
        f"{name!r} gives no single number {key!r}, but: {', '.join(sorted(numbers)) or 'none'}. "
        f"Name one of them, as in 'evaluate:{name.split(':')[1]}:{min(numbers, default='KEY')}'."
    )
