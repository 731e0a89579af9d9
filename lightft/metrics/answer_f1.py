"""How many words of a generated answer are words of the gold answer."""

from __future__ import annotations

import re
import string
from collections import Counter
from dataclasses import dataclass

from lightft.metrics.metric import METRICS, Array, divide, gold_and_predicted_text
from lightft.records import Prediction

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@METRICS.register("answer_f1")
@dataclass(frozen=True)
class AnswerF1:
    """Mean word-overlap F1 of generated answers: 2 common / (words predicted + words gold), word by word.

    Words are compared in lower case, without ASCII punctuation and English articles, as the SQuAD evaluation does
    (Rajpurkar et al. 2016, arXiv:1606.05250). Two empty answers agree.
    """

    name: str = "answer_f1"
    unit: str = "fraction"
    higher_is_better: bool = True

    def counts(self, prediction: Prediction) -> tuple[float, float]:
        """Return (F1 of this answer, 1)."""
        gold, predicted = (Counter(_words(text)) for text in gold_and_predicted_text(prediction, self.name))
        if not gold and not predicted:
            return 1.0, 1.0
        return 2 * (gold & predicted).total() / (gold.total() + predicted.total()), 1.0

    def score(self, totals: Array) -> Array:
        """Mean over the answers."""
        return divide(totals[..., 0], totals[..., 1])


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()
