"""F1 of entities as others count it, so that published numbers can be held against the right one."""

from __future__ import annotations

from collections.abc import Sequence

from lightft.records import Run

__all__ = ["COMPARABLE_WITH", "other_counts_of"]

COMPARABLE_WITH = {
    "span_f1_lenient": "seqeval in its default mode, as most training scripts print it, and conlleval",
    "span_f1_subtoken": "scripts that score sub-tokens with label_all_tokens=True",
    "entity_strings_f1": "language models that list strings, repeated ones counted",
    "entity_string_set_f1": "language models that list each string once, such as UniversalNER",
    "entity_occurrences_f1": "pipelines that mark every listed string wherever it stands",
}
"""Which published numbers each metric may be held against, beside the strict F1 of the taggers' papers (``span_f1``)."""

_NEED_SUB_TOKENS = ("span_f1_subtoken",)


def other_counts_of(runs: Sequence[Run]) -> list[str]:
    """Return the names of the metrics that the runs, with texts, can also be counted by; none where answers are no spans."""
    predictions = [prediction for run in runs for prediction in run.predictions]
    if any(isinstance(one.gold, str) or one.text is None for one in predictions):
        return []
    without = _NEED_SUB_TOKENS if any(one.pieces is None for one in predictions) else ()
    return [name for name in COMPARABLE_WITH if name not in without]
