"""The texts behind predictions: runs hold none, so that they are given anew where something needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lightft.errors import DataError
from lightft.records import Example, Prediction, Run, Span

__all__ = ["entity_strings", "with_texts"]


def with_texts(runs: Sequence[Run], examples: Sequence[Example]) -> list[Run]:
    """Return the runs with the text, words and sub-tokens of every prediction, as they are where there are no examples.

    Sub-tokens are those of the first run whose tokenizer counted them, so that all are scored alike.

    Raises:
        DataError: an example that was predicted is missing, or its gold answer is another.
    """
    if not examples:
        return list(runs)
    by_id = {example.id: example for example in examples}
    for prediction in runs[0].predictions:
        if prediction.id not in by_id:
            raise DataError(
                f"The examples given lack {prediction.id!r}, which the runs answer. Give the split that was predicted, such "
                "as examples=data.test."
            )
        if not _same_gold(by_id[prediction.id], prediction.gold):
            raise DataError(
                f"The gold answer of {prediction.id!r} differs between the examples given and the runs. Give the data "
                "that the runs were scored on."
            )
    pieces = {one.id: one.pieces for run in reversed(runs) for one in run.predictions if one.pieces is not None}
    return [
        replace(run, predictions=tuple(_completed(one, by_id[one.id], pieces) for one in run.predictions))
        for run in runs
    ]


def _completed(prediction: Prediction, example: Example, pieces: Mapping[str, tuple[int, ...]]) -> Prediction:
    words = prediction.words if prediction.words is not None else example.words
    return replace(prediction, text=example.text, words=words, pieces=pieces.get(prediction.id))


def entity_strings(examples: Sequence[Example]) -> frozenset[str]:
    """Return the strings of all gold entities, case folded."""
    return frozenset(
        example.text[span.start : span.end].casefold()
        for example in examples
        if isinstance(example.target, tuple)
        for span in example.target
    )


def _same_gold(example: Example, gold: str | tuple[Span, ...] | None) -> bool:
    if isinstance(example.target, tuple) and isinstance(gold, tuple):
        return set(example.target) == set(gold)
    return example.target == gold
