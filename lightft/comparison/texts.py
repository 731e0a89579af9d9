"""The texts behind predictions: runs hold none, so that they are given anew where something needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lightft.errors import DataError
from lightft.records import Example, Run, Span

__all__ = ["entity_strings", "with_texts"]


def with_texts(runs: Sequence[Run], examples: Sequence[Example]) -> list[Run]:
    """Return the runs with the text of every prediction, as they are where there are no examples.

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
    return [
        replace(run, predictions=tuple(replace(one, text=by_id[one.id].text) for one in run.predictions))
        for run in runs
    ]


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
