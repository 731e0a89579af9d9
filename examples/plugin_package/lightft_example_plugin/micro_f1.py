"""Micro F1 of texts with several labels. Nothing here imports torch: saved runs are scored without it."""

from dataclasses import dataclass

from lightft.metrics.metric import divide, gold_and_predicted_text

SEPARATOR = "|"


def labels_in(answer):
    """Return the labels of an answer such as ``"economy|politics"``; ``""`` has none."""
    return {label.strip() for label in answer.split(SEPARATOR) if label.strip()}


@dataclass(frozen=True)
class MicroF1:
    """2 · right / (predicted + gold), over all labels of all texts together; equals scikit-learn's ``average="micro"``."""

    name: str = "micro_f1"
    unit: str = "fraction"
    higher_is_better: bool = True

    def counts(self, prediction):
        """Return how many labels of one text are right, predicted and gold."""
        gold, predicted = map(labels_in, gold_and_predicted_text(prediction, self.name))
        return float(len(gold & predicted)), float(len(predicted)), float(len(gold))

    def score(self, totals):
        """Score sums of counts, shape (..., 3); nan where there are no labels at all."""
        return divide(2 * totals[..., 0], totals[..., 1] + totals[..., 2])
