"""What a reader of the numbers should know: warnings that they may be wrong, notes on what they do not say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lightft.comparison.memory_remarks import remarks_on_memory
from lightft.comparison.records import ComparisonRow, Method, MetricInfo
from lightft.records import Run
from lightft.wording import MISSING

__all__ = ["notes_on", "warnings_on"]


def warnings_on(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return what may make scores too high; runs that not all share a warning are named in it."""
    touched_by: dict[str, list[str]] = {}
    for run in runs:
        split = run.data.get("tested_on", "test")
        if split == "validation":
            touched_by.setdefault(_SCORED_ON_VALIDATION, []).append(run.name)
        found = (run.data.get("duplicates") or {}).get(split) or {}
        if max(found.get("exact", 0), found.get("normalised", 0)):
            touched_by.setdefault(_leak(found, len(run.predictions)), []).append(run.name)
    return tuple(
        warning if len(touched) == len(runs) else f"{', '.join(touched)}: {warning}"
        for warning, touched in touched_by.items()
    )


_SCORED_ON_VALIDATION = (
    "Scored on the validation split, for want of a test split. Where the best epoch was chosen by it, every score may "
    "be too high."
)


def _leak(found: Mapping[str, int], examples: int) -> str:
    """Say how many examples also stand in the training data, as ``lightft.data.count_duplicates`` found."""
    exact, normalised = found.get("exact", 0), found.get("normalised", 0)
    apart = f" ({normalised:,} apart from case, spaces and punctuation)" if normalised > exact else ""
    return (
        f"{exact:,} of {examples:,} test examples also stand in the training data{apart}. They can be answered from "
        "memory, so that every score may be too high."
    )


def notes_on(
    runs: Sequence[Run], rows: Sequence[ComparisonRow], methods: Sequence[Method], headline: MetricInfo, on: str
) -> tuple[str, ...]:
    """Return what the numbers do not say.

    Args:
        runs: with unique names.
        rows: the same as rows of the comparison.
        methods: the same by method.
        headline: the headline metric.
        on: ``"all"`` or ``"common"`` examples.
    """
    return (
        *_on_seeds(methods),
        *_on_headlines(runs, headline),
        *_on_the_test_set(runs, on),
        *_on_texts_that_were_cut(runs),
        *_on_written_answers(runs),
        *_on_undefined_scores(rows),
        *remarks_on_memory(rows),
    )


def _on_seeds(methods: Sequence[Method]) -> list[str]:
    alone = [method.name for method in methods if method.seeds == 1]
    if len(alone) == len(methods):
        return [
            "1 seed: these runs, on this test set. Another seed would give other runs, so that nothing is claimed "
            "about the methods behind them."
        ]
    notes = [
        "Intervals and tests of methods with several seeds cover other seeds and other examples of the same kind alike."
    ]
    if alone:
        notes.append(
            f"1 seed: {', '.join(alone)}. Another seed would give another run, so that nothing is claimed about the "
            f"{'method' if len(alone) == 1 else 'methods'} behind."
        )
    return notes


def _on_headlines(runs: Sequence[Run], headline: MetricInfo) -> list[str]:
    others = dict.fromkeys(run.metrics[0] for run in runs if run.metrics and run.metrics[0] != headline.name)
    if not others:
        return []
    return [f"Some runs name another headline metric: {', '.join(others)}. All are scored in all metrics."]


def _on_the_test_set(runs: Sequence[Run], on: str) -> list[str]:
    notes = []
    unstated = [run.name for run in runs if not run.data.get("test_fingerprint")]
    if 0 < len(unstated) < len(runs):
        notes.append(
            f"Without a fingerprint of the test set: {', '.join(unstated)}. Ids and gold answers are the same as the "
            "others'."
        )
    for remark in ("test_from", "validation_from"):
        notes += dict.fromkeys(str(run.data[remark]) for run in runs if run.data.get(remark))
    if on == "common":
        notes.append("Only examples that all runs have were scored; the choice is not a random part of the test set.")
    return notes


def _on_texts_that_were_cut(runs: Sequence[Run]) -> list[str]:
    """Say what was not read, of the texts that a model learned from and of those it was tested on."""
    notes = []
    for run in runs:
        counts = run.data.get("encoding") or {}
        cut = {"training": counts.get("truncated_texts", 0), "test": counts.get("truncated_test_texts", 0)}
        if not any(cut.values()):
            continue
        counted = " and ".join(f"{count:,} {split} texts" for split, count in cut.items() if count)
        without_loss = counts.get("texts_without_loss", 0)
        untaught = f"; {without_loss:,} in training lost their whole answer" if without_loss else ""
        notes.append(
            f"{run.name}: {counted} were cut, being longer than the model was let read at once{untaught}. "
            "Raise max_length to keep them whole, as far as the base model reads."
        )
    return notes


def _on_written_answers(runs: Sequence[Run]) -> list[str]:
    """Say what became of the answers of language models, and how much of them was set aside."""
    notes = []
    for run in runs:
        outcomes = run.data.get("outcomes")
        if not outcomes:
            continue
        words = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items())
        aside = run.data.get("ungrounded_mentions", 0)
        set_aside = f"; {aside:,} mentions that the text does not hold were set aside" if aside else ""
        notes.append(f"Answers of {run.name}: {words}{set_aside}.")
    return notes


def _on_undefined_scores(rows: Sequence[ComparisonRow]) -> list[str]:
    undefined = [
        f"{metric} of {row.name}" for row in rows for metric, score in row.scores.items() if math.isnan(score.value)
    ]
    return [f"Undefined, and shown as {MISSING}: {', '.join(undefined)}."] if undefined else []
