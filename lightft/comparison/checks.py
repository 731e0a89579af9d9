"""What makes runs comparable: one task, one test set, the same examples with the same gold answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lightft.errors import IncomparableRunsError, InvalidSettingError, suggest
from lightft.records import Prediction, Run, Span

__all__ = ["check_baseline", "on_the_same_examples"]


def check_baseline(baseline: str | None, runs: Sequence[Run]) -> None:
    """Refuse a baseline that is none of the runs.

    Raises:
        InvalidSettingError: no run has that name.
    """
    names = [run.name for run in runs]
    if baseline is not None and baseline not in names:
        raise InvalidSettingError(f"No run named {baseline!r} to be the baseline. {suggest(baseline, names)}")


def on_the_same_examples(runs: Sequence[Run], on: str) -> list[Run]:
    """Return the runs with their predictions of the examples that all have, in the order of the first run.

    Args:
        runs: with unique names.
        on: ``"all"`` refuses runs that lack an example of another; ``"common"`` leaves such examples out.

    Raises:
        IncomparableRunsError: the runs differ in task, test set, ids or gold answers, or one has no predictions.
    """
    first, *others = runs
    if on == "all":
        for other in others:
            _check_same_task(first, other)
            _check_same_test_set(first, other)
    answers = {run.name: _predictions_by_id(run) for run in runs}
    if on == "all":
        for other in others:
            _check_no_id_is_missing(first, other, answers)
    common = [id for id in first.ids if all(id in of_run for of_run in answers.values())]
    if not common:
        raise IncomparableRunsError(
            f"{', '.join(map(repr, answers))} have no example in common. Run them on the same test split."
        )
    aligned = [replace(run, predictions=tuple(answers[run.name][id] for id in common)) for run in runs]
    for other in aligned[1:]:
        _check_same_gold(aligned[0], other)
    return aligned


def _check_same_task(first: Run, other: Run) -> None:
    if other.task != first.task:
        raise IncomparableRunsError(
            f"{first.name!r} and {other.name!r} are of different tasks: {first.task!r} and {other.task!r}. Compare "
            "runs of one task; where both answer the same examples, compare with on='common'."
        )


def _check_same_test_set(first: Run, other: Run) -> None:
    known = [run.data["test_fingerprint"] for run in (first, other) if run.data.get("test_fingerprint")]
    if len(set(known)) > 1:
        raise IncomparableRunsError(
            f"{first.name!r} and {other.name!r} were scored on different test sets (fingerprints {known[0]} and "
            f"{known[1]}). Re-run {other.name!r} on the same split, or compare on the common ids with on='common'."
        )


def _predictions_by_id(run: Run) -> dict[str, Prediction]:
    if not run.predictions:
        raise IncomparableRunsError(f"{run.name!r} holds no predictions. Predict a test split with it first.")
    by_id = {prediction.id: prediction for prediction in run.predictions}
    if len(by_id) < len(run.predictions):
        raise IncomparableRunsError(
            f"{run.name!r} answers {len(run.predictions) - len(by_id)} examples more than once: their ids repeat. "
            "Give the examples of the test split unique ids and predict again."
        )
    return by_id


def _check_no_id_is_missing(a: Run, b: Run, answers: Mapping[str, Mapping[str, Prediction]]) -> None:
    for having, lacking in ((a, b), (b, a)):
        missing = [id for id in having.ids if id not in answers[lacking.name]]
        if missing:
            raise IncomparableRunsError(
                f"{a.name!r} and {b.name!r} were scored on different examples: {len(missing)} ids of {having.name!r} "
                f"are absent from {lacking.name!r} (first: {missing[0]!r}). Re-run {lacking.name!r} on the same split, "
                "or compare on the common ids with on='common'."
            )


def _check_same_gold(first: Run, other: Run) -> None:
    pairs = zip(first.predictions, other.predictions, strict=True)
    differing = [a.id for a, b in pairs if _unordered_gold(a) != _unordered_gold(b)]
    if differing:
        raise IncomparableRunsError(
            f"{first.name!r} and {other.name!r} were scored against different gold answers: {len(differing)} of "
            f"{len(first.predictions)} examples differ (first: {differing[0]!r}). Re-run {other.name!r} on the same "
            "data."
        )


def _unordered_gold(prediction: Prediction) -> str | frozenset[Span] | None:
    # Two lists of the same spans are the same answer in whatever order they come.
    return frozenset(prediction.gold) if isinstance(prediction.gold, tuple) else prediction.gold
