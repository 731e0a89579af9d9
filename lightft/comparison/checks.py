"""What makes runs comparable: one test set that chose nothing, the same labels, examples and gold answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightft.errors import IncomparableRunsError, InvalidSettingError
from lightft.metrics import labels_of
from lightft.records import Prediction, Run, Span

__all__ = ["check_names", "check_selection", "on_the_same_examples"]


def check_names(runs: Sequence[Run]) -> None:
    """Refuse two runs of one name: nobody could tell them apart in a report.

    Raises:
        InvalidSettingError: a name occurs twice.
    """
    first: dict[str, Run] = {}
    for run in runs:
        if run.name in first:
            places = [f" in {one.path}" if one.path else "" for one in (first[run.name], run)]
            raise InvalidSettingError(
                f"Two runs are named {run.name!r}: one{places[0]}, one{places[1]}. Give each a name of its own: "
                "compare({'first': run, 'second': other}), or NAME=FOLDER on the command line."
            )
        first[run.name] = run


def check_selection(runs: Sequence[Run]) -> None:
    """Refuse scores on the very examples that chose the best of several epochs: they are too high by an unknown amount.

    Raises:
        IncomparableRunsError: a run was selected on what it is scored on.
    """
    for run in runs:
        validated = [row for row in run.history if any(key.startswith("validation_") for key in row)]
        if run.data.get("tested_on") == "validation" and len(validated) > 1:
            raise IncomparableRunsError(
                f"{run.name!r} is scored on the split that chose the best of its {len(validated)} epochs (first id: "
                f"{run.ids[0]!r}), so that its score is too high by an unknown amount. Give the data a test split "
                "(load_data(..., test=0.1)) and run it again, or compare all the same with selected_on_test='warn'."
            )


def on_the_same_examples(runs: Sequence[Run], on: str) -> list[Run]:
    """Return the runs with their predictions of the examples that all have, in the order of the first run.

    Args:
        runs: with unique names.
        on: ``"all"`` refuses runs that lack an example of another; ``"common"`` leaves such examples out.

    Raises:
        IncomparableRunsError: the runs differ in test set, labels, ids, words or gold answers, or one has no predictions.
    """
    first, *others = runs
    answers = {run.name: _predictions_by_id(run) for run in runs}
    if on == "all":
        for other in others:
            _check_same_test_set(first, other)
            _check_no_id_is_missing(first, other, answers)
            _check_same_labels(first, other)
    common = [id for id in first.ids if all(id in of_run for of_run in answers.values())]
    if not common:
        raise IncomparableRunsError(
            f"{', '.join(map(repr, answers))} have no example in common. Run them on the same test split."
        )
    aligned = [replace(run, predictions=tuple(answers[run.name][id] for id in common)) for run in runs]
    for other in aligned[1:]:
        _check_same(_unordered_gold, "scored against different gold answers", aligned[0], other)
        _check_same(_words, "given other words, as if predictions had been shuffled", aligned[0], other)
    return aligned


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
    by_id: dict[str, Prediction] = {}
    for prediction in run.predictions:
        if prediction.id in by_id:
            raise IncomparableRunsError(
                f"{run.name!r} answers {len(run.predictions) - len(set(run.ids))} examples more than once: their ids "
                f"repeat (first: {prediction.id!r}). Give the examples of the test split unique ids and predict again."
            )
        by_id[prediction.id] = prediction
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


def _check_same_labels(first: Run, other: Run) -> None:
    """Refuse models that were told to look for different things; a run without labels writes what it likes."""
    if not first.labels or not other.labels:
        return
    sought, sought_by_other = set(labels_of((), first.labels)), set(labels_of((), other.labels))
    for having, lacking, extra in (
        (first, other, sought - sought_by_other),
        (other, first, sought_by_other - sought),
    ):
        if extra:
            raise IncomparableRunsError(
                f"{first.name!r} and {other.name!r} look for different labels: {lacking.name!r} does not know "
                f"{sorted(extra)[0]!r} of {having.name!r}. Run both with the same labels, or compare with on='common'."
            )


def _check_same(of_prediction: Callable[[Prediction], Any], what: str, first: Run, other: Run) -> None:
    pairs = zip(first.predictions, other.predictions, strict=True)
    both = [(a.id, of_prediction(a), of_prediction(b)) for a, b in pairs]
    differing = [id for id, of_first, of_other in both if of_first != of_other and None not in (of_first, of_other)]
    if differing:
        raise IncomparableRunsError(
            f"{first.name!r} and {other.name!r} were {what}: {len(differing)} of {len(both)} examples differ (first: "
            f"{differing[0]!r}). Re-run {other.name!r} on the same data."
        )


def _unordered_gold(prediction: Prediction) -> str | frozenset[Span] | bool:
    # Two lists of the same spans are the same answer in whatever order they come. An absent answer equals only another.
    if prediction.gold is None:
        return False
    return frozenset(prediction.gold) if isinstance(prediction.gold, tuple) else prediction.gold


def _words(prediction: Prediction) -> tuple[tuple[int, int], ...] | None:
    return prediction.words
