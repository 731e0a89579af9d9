"""Examples as all runs answered them: first those that some runs got right and others wrong."""

from __future__ import annotations

from collections.abc import Sequence

from lightft.comparison.records import ComparedExample
from lightft.errors import DataError
from lightft.records import Example, Run, Span, Target

__all__ = ["compared_examples", "is_right"]


def compared_examples(runs: Sequence[Run], examples: Sequence[Example], most: int = 200) -> tuple[ComparedExample, ...]:
    """Return what a reader learns most from: where runs disagree, then what all got wrong, then a few all got right.

    Disagreements come first, those that divide the runs most evenly at the top. A quarter of the places is kept for
    examples that all got wrong, and at most a tenth goes to those all got right. Within each kind the order is that of
    the runs. Examples that no run answered are left out.

    Args:
        runs: with predictions of the same examples, aligned here by id.
        examples: with the texts.
        most: how many are returned at most.

    Raises:
        DataError: a text is missing, a prediction has no gold answer, or a span ends after the text does.
    """
    if not runs:
        return ()
    given = {example.id: example for example in examples}
    answers = [{prediction.id: prediction.predicted for prediction in run.predictions} for run in runs]
    compared = []
    for prediction in runs[0].predictions:
        if any(prediction.id not in of_run for of_run in answers):
            continue
        if prediction.id not in given:
            raise DataError(
                f"The examples given lack {prediction.id!r}, which the runs answer. Give the split that was predicted, "
                "such as examples=data.test."
            )
        if prediction.gold is None:
            raise DataError(f"{prediction.id!r} has no gold answer to hold the runs' answers against.")
        predicted = {run.name: of_run[prediction.id] for run, of_run in zip(runs, answers, strict=True)}
        for target in (prediction.gold, *predicted.values()):
            _check_spans(given[prediction.id], target)
        right = sum(is_right(prediction.gold, answer) for answer in predicted.values())
        compared.append(ComparedExample(prediction.id, given[prediction.id].text, prediction.gold, predicted, right))
    return _most_telling(compared, most)


def is_right(gold: Target, predicted: Target) -> bool:
    """Say whether an answer is the gold one: the same spans in any order, or the same words whatever stands between."""
    if isinstance(gold, str) or isinstance(predicted, str):
        return isinstance(gold, str) and isinstance(predicted, str) and gold.split() == predicted.split()
    return set(gold) == set(predicted)


def _check_spans(example: Example, target: Target) -> None:
    spans: tuple[Span, ...] = () if isinstance(target, str) else target
    for span in spans:
        if not 0 <= span.start < span.end <= len(example.text):
            raise DataError(
                f"{example.id!r} has an entity from character {span.start} to {span.end}, but its text has "
                f"{len(example.text)}. Give the data that the runs were scored on."
            )


def _most_telling(compared: Sequence[ComparedExample], most: int) -> tuple[ComparedExample, ...]:
    wrong = [one for one in compared if one.right == 0]
    right = [one for one in compared if one.right == len(one.predicted)]
    divided = [one for one in compared if 0 < one.right < len(one.predicted)]
    divided.sort(key=lambda one: -min(one.right, len(one.predicted) - one.right))

    right = right[: most // 10]
    kept_for_wrong = min(len(wrong), most // 4)
    divided = divided[: most - len(right) - kept_for_wrong]
    wrong = wrong[: most - len(right) - len(divided)]
    return (*divided, *wrong, *right)
