"""Records: what is written reads back equal."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightft import Example, Prediction, Run, Span
from lightft.errors import DataError

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
SPANS = st.lists(
    st.builds(Span, st.integers(0, 99), st.integers(0, 99), TEXT, score=st.none() | st.floats(0, 1)), max_size=4
).map(tuple)
TARGETS = TEXT | SPANS
PREDICTIONS = st.builds(
    Prediction,
    id=TEXT,
    gold=st.none() | TARGETS,
    predicted=TARGETS,
    probabilities=st.none() | st.dictionaries(TEXT, st.floats(0, 1)),
    words=st.none() | st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99))).map(tuple),
    tags=st.none() | st.lists(TEXT).map(tuple),
    log_likelihood=st.none() | st.floats(-1e6, 0),
    target_tokens=st.none() | st.integers(0, 999),
    pieces=st.none() | st.lists(st.integers(0, 99)).map(tuple),
    text=st.none() | TEXT,
)


@given(PREDICTIONS)
def test_a_prediction_reads_back_equal(prediction: Prediction) -> None:
    assert Prediction.from_json(json.loads(json.dumps(prediction.to_json()))) == prediction


def test_an_empty_answer_stays_an_empty_text() -> None:
    prediction = Prediction("a", gold="", predicted="")
    assert Prediction.from_json(prediction.to_json()) == prediction
    assert Prediction.from_json(prediction.to_json()).predicted == ""


def test_a_missing_gold_answer_is_not_an_empty_one() -> None:
    assert Prediction.from_json(Prediction("a", None, ()).to_json()).gold is None
    assert Prediction.from_json(Prediction("a", (), ()).to_json()).gold == ()


def test_what_was_read_is_shown_written_and_compared_nowhere(tmp_path: Path) -> None:
    prediction = Prediction("a", (), (), pieces=(1, 2), text="my secret")
    assert prediction.text == "my secret"
    assert prediction == Prediction("a", (), (), pieces=(1, 2))
    assert "secret" not in repr(prediction)
    folder = replace(made_up_run(), predictions=(prediction,)).save(tmp_path / "run")
    assert [path.name for path in sorted(folder.iterdir()) if "secret" in path.read_text(encoding="utf-8")] == []
    (read,) = Run.load(folder).predictions
    assert (read.pieces, read.text) == ((1, 2), None)


def test_numbers_of_sub_tokens_are_written_and_compared() -> None:
    prediction = Prediction("a", (), (), words=((0, 2), (3, 5)), pieces=(1, 3))
    assert prediction.to_json()["pieces"] == (1, 3)
    assert Prediction.from_json(json.loads(json.dumps(prediction.to_json()))).pieces == (1, 3)
    assert prediction != Prediction("a", (), (), words=((0, 2), (3, 5)), pieces=(1, 2))
    assert "pieces" not in Prediction("a", (), ()).to_json()


def test_spans_are_equal_by_place_and_label() -> None:
    assert Span(0, 4, "PER", text="anna", score=0.5) == Span(0, 4, "PER")
    assert len({Span(0, 4, "PER", score=0.1), Span(0, 4, "PER", score=0.2)}) == 1
    assert sorted([Span(5, 9, "LOC"), Span(0, 4, "PER"), Span(0, 3, "PER")]) == [
        Span(0, 3, "PER"),
        Span(0, 4, "PER"),
        Span(5, 9, "LOC"),
    ]
    assert Span(0, 4, "PER") != Span(0, 4, "LOC")


def test_scores_of_spans_are_kept_and_texts_are_not() -> None:
    row = Prediction(
        "a", (Span(0, 4, "PER", text="anna"),), (Span(0, 4, "PER", text="anna", score=0.123456789),)
    ).to_json()
    assert row["gold"] == [[0, 4, "PER"]]
    assert row["predicted"] == [[0, 4, "PER", 0.123457]]
    (span,) = Prediction.from_json(row).predicted
    assert isinstance(span, Span)
    assert (span.score, span.text) == (0.123457, None)


def made_up_run() -> Run:
    return Run(
        name="made up",
        task="token-classification",
        metrics=("span_f1", "token_accuracy"),
        labels=("LOC", "PÉR"),
        model={"name": "somebody/bert", "revision": None},
        adapter={"kind": "lora", "params": {"r": 8, "targets": ["query", "value"]}},
        training={"epochs": 3, "learning_rate": 1e-3},
        seed=3,
        data={"source": "made up", "test_fingerprint": "f" * 64},
        cost={"train_seconds": 1.25},
        history=[{"step": 10, "train_loss": 0.5}],
        environment={"device": "cpu"},
        predictions=(
            Prediction("a", (Span(0, 4, "PÉR"),), (), words=((0, 4),), tags=("O",)),
            Prediction("b\u2028c", (), (Span(1, 2, "LOC", score=0.5),)),
        ),
    )


def test_a_run_reads_back_as_it_was_saved(tmp_path: Path) -> None:
    run = made_up_run()
    folder = run.save(tmp_path / "new" / "folder")
    again = Run.load(folder)
    assert again.to_json() == run.to_json()
    assert again.predictions == run.predictions
    assert again.path == folder
    assert again.ids == ("a", "b\u2028c")
    assert "PÉR" in (folder / "run.json").read_text(encoding="utf-8")
    assert len((folder / "predictions.jsonl").read_text(encoding="utf-8").split("\n")) == 3


def test_a_run_that_is_not_finite_reads_back(tmp_path: Path) -> None:
    run = Run(
        "a",
        "causal-lm",
        ("perplexity",),
        predictions=(Prediction("a", "x", "", log_likelihood=-math.inf, target_tokens=1),),
    )
    assert Run.load(run.save(tmp_path)).predictions == run.predictions


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "predictions.jsonl").touch()
    with pytest.raises(DataError, match=r"holds no finished run: there is no run.json in it"):
        Run.load(tmp_path)


@pytest.mark.parametrize("damage", ["run.json", "predictions.jsonl", "gone"])
def test_a_damaged_run_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    folder = made_up_run().save(tmp_path)
    if damage == "gone":
        (folder / "predictions.jsonl").unlink()
    else:
        text = (folder / damage).read_text()
        (folder / damage).write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match="is damaged"):
        Run.load(folder)


@pytest.mark.parametrize(
    "tamper", [lambda lines: lines[:-1], lambda lines: lines[::-1], lambda lines: [*lines, lines[0]]]
)
def test_predictions_that_are_not_those_that_were_written_are_refused(tmp_path: Path, tamper: Any) -> None:
    predictions = tuple(Prediction(str(number), "yes", "no") for number in range(3))
    folder = Run("run", "text-classification", ("accuracy",), predictions=predictions).save(tmp_path / "run")
    file = folder / "predictions.jsonl"
    file.write_text("".join(tamper(file.read_text().splitlines(keepends=True))))
    with pytest.raises(DataError, match="damaged.*predictions.jsonl is not what was written: 3 rows"):
        Run.load(folder)


def test_examples_are_equal_and_hashable() -> None:
    assert Example("a", "x", (Span(0, 1, "PER"),)) == Example("a", "x", (Span(0, 1, "PER"),))
    assert len({Example("a", "x"), Example("a", "x"), Example("b", "x")}) == 2
